//! Fills a template in. The only file that names the template library.

use std::fmt::Write;

use serde_json::Value as Known;
use upon::fmt::{self, Formatter};
use upon::{Engine, Error, Value, ValueAccess, ValueAccessOp, ValueMember};

use super::facts::Facts;
use crate::blame::Blame;
use crate::failure::Failure;
use crate::secret::Secret;

/// A template's text, and what to call it.
pub(super) struct Source {
    /// The path of its file, or the name of one that the agent brings along.
    pub(super) name: String,
    pub(super) text: String,
}

/// How a value is written so that it is one value and nothing else, by the end of the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `.env`: in double quotes, as a shell and systemd's `EnvironmentFile=` read them.
    Env,
    /// `.json`, `.yaml`, `.yml`: as JSON has it, and `null` for what is not there.
    Json,
    /// `.toml`: as JSON has it, but nothing for what is not there.
    Toml,
    /// Any other: as it is, on one line.
    Plain,
}

impl Format {
    /// Of a file with this name.
    pub(super) fn of(file: &str) -> Self {
        match file.rsplit_once('.').map(|(_, end)| end) {
            Some("env") => Self::Env,
            Some("json" | "yaml" | "yml") => Self::Json,
            Some("toml") => Self::Toml,
            Some(_) | None => Self::Plain,
        }
    }
}

/// What one pair of braces may hold, in bytes: the library goes down into each bracket and filter by recursion.
const LONGEST_EXPRESSION: usize = 1000;

/// The text of a template with its values.
///
/// # Errors
/// With the template's name, the line and the cure. No secret is in them.
pub(super) fn render(source: &Source, format: &Format, facts: &Facts<'_>) -> Result<Secret<String>, Failure> {
    fathomable(source)?;
    let names = serde_json::to_value(facts.names()).unwrap_or_default();
    let filled = fill(&source.text, *format, &names).map_err(|error| {
        let line = line_of(&error, &source.text, *format, &names);
        wrong(source, line, said(&error), facts)
    })?;
    if source.name.ends_with(".json") && *format == Format::Json {
        still_json(source, filled.expose())?;
    }
    Ok(filled)
}

fn fathomable(source: &Source) -> Result<(), Failure> {
    for (at, _) in source.text.match_indices("{{").chain(source.text.match_indices("{%")) {
        let rest = &source.text.as_bytes()[at..];
        let ends = rest.windows(2).position(|two| two == b"}}" || two == b"%}").unwrap_or(rest.len());
        if ends > LONGEST_EXPRESSION {
            let line = 1 + source.text[..at].matches('\n').count();
            let said =
                format!("{}:{line}: has more than {LONGEST_EXPRESSION} bytes in one pair of braces; divide it", source.name);
            return Err(Failure::new(Blame::Configuration, said));
        }
    }
    Ok(())
}

fn fill(text: &str, format: Format, names: &Known) -> Result<Secret<String>, Error> {
    let formatter = move |out: &mut Formatter<'_>, value: &Value| write(out, format, value);
    let mut engine = Engine::new();
    engine.set_default_formatter(&formatter);
    engine.add_function("fail", |message: String| Err::<Value, _>(message));
    engine.add_function("join", join);
    engine.add_function("contains", |text: &str, part: &str| text.contains(part));
    engine.add_function("equal", |one: &Value, other: &Value| one == other);
    let template = engine.compile(text)?;
    template.render_from_fn(&engine, |path| find(names, path)).to_string().map(Secret::new)
}

/// The value of a name such as `payload.site`; a `?.` takes nothing for what is not there.
fn find(names: &Known, path: &[ValueMember<'_>]) -> Result<Value, String> {
    let mut found = names;
    for member in path {
        let inner = match member.access {
            ValueAccess::Key(key) => found.get(key),
            ValueAccess::Index(index) => found.get(index),
        };
        found = match (inner, member.op) {
            (Some(inner), _) => inner,
            (None, ValueAccessOp::Optional) => return Ok(Value::None),
            (None, ValueAccessOp::Direct) => return Err(NO_SUCH.to_owned()),
        };
    }
    upon::to_value(found).map_err(|_| "prints a number above 9223372036854775807, or one is inside; send it as a text".to_owned())
}

fn join(parts: &[Value]) -> Result<String, &'static str> {
    let texts = parts.iter().map(plain).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.iter().map(|text| text.expose().as_str()).collect())
}

/// A single value without quotes.
fn plain(value: &Value) -> Result<Secret<String>, &'static str> {
    match value {
        Value::String(text) => Ok(Secret::new(text.clone())),
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) => json(value),
        Value::None => Err(NOTHING),
        Value::List(_) | Value::Map(_) => Err(NOT_ONE),
    }
}

fn json(value: &Value) -> Result<Secret<String>, &'static str> {
    serde_json::to_string(value).map(Secret::new).map_err(|_| "prints a value that JSON does not have; print another")
}

fn write(out: &mut Formatter<'_>, format: Format, value: &Value) -> fmt::Result {
    match (format, value) {
        (Format::Toml, Value::None) => Err(NOTHING.into()),
        (Format::Toml, Value::Map(_)) => Err(NOT_ONE.into()),
        (Format::Json | Format::Toml, _) => Ok(out.write_str(json(value)?.expose())?),
        (Format::Env | Format::Plain, _) => {
            let text = plain(value)?;
            if text.expose().chars().any(char::is_control) {
                return Err(NEW_LINE.into());
            }
            match format {
                Format::Env => env(out, text.expose()),
                Format::Plain | Format::Json | Format::Toml => Ok(out.write_str(text.expose())?),
            }
        }
    }
}

const NO_SUCH: &str = "names something that does not exist; docs/handoff.md lists the names there are";
const NOTHING: &str = "prints something that this device does not have: one with a certificate has no password, one without has no \
     certificateFile, and connectionString is there for a certificate or with export_key = true; put {% if NAME %} before and {% endif %} after it";
const NOT_ONE: &str = "prints a list or an object where one value belongs; name one of its members, as in payload.site";
const NEW_LINE: &str = "prints a value with a line break or another control character, which would begin a line of its own; print another value, or make a .json file";

/// What these characters mean inside of double quotes is taken from them (POSIX shell, systemd.exec(5)).
fn env(out: &mut Formatter<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            out.write_char('\\')?;
        }
        out.write_char(c)?;
    }
    Ok(out.write_char('"')?)
}

fn still_json(source: &Source, text: &str) -> Result<(), Failure> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = format!(
                "{}: what it makes is not JSON at line {}; values bring their own quotes: write \"host\": {{{{ host }}}}",
                source.name,
                error.line()
            );
            Err(Failure::new(Blame::Configuration, message))
        }
    }
}

fn wrong(source: &Source, line: Option<usize>, (what, cure): (String, &str), facts: &Facts<'_>) -> Failure {
    let place = line.map_or_else(|| source.name.clone(), |line| format!("{}:{line}", source.name));
    // The author of a template can put everything into its words.
    let shows_secret = facts.secrets().any(|secret| what.contains(secret));
    let what = if shows_secret { "its own message shows a secret".to_owned() } else { what };
    Failure::new(Blame::Configuration, format!("{place}: {what}{cure}"))
}

/// What went wrong, and the cure if it is not in the words already.
fn said(error: &Error) -> (String, &'static str) {
    let text = error.to_string();
    let (kind, detail) = text.split_once(": ").unwrap_or(("", &text));
    let cure = match detail {
        // Our own words and the template's name the cure; the library's do not.
        _ if kind != "invalid syntax" && detail.contains(';') => "",
        _ if detail.starts_with("unknown f") => "; fail, join, contains and equal are the functions there are",
        "unexpected end expression" | "unexpected end block" | "unexpected end comment" => {
            "; where it is text, write a space into it"
        }
        _ => "; correct this line",
    };
    let what = if kind == "invalid syntax" { &text } else { detail };
    (what.to_owned(), cure)
}

/// The line of an error, which the library tells within its long form alone, and counts in characters where it means bytes:
/// the same once more, with as many letters as there were bytes.
fn line_of(error: &Error, text: &str, format: Format, names: &Known) -> Option<usize> {
    let ascii = |c: char| std::iter::repeat_n(if c.is_ascii() { c } else { 'x' }, c.len_utf8());
    let again = fill(&text.chars().flat_map(ascii).collect::<String>(), format, names).err();
    let long = format!("{:#}", again.as_ref().unwrap_or(error));
    let (_, place) = long.split_once("--> <anonymous>:")?;
    place.split(':').next()?.parse().ok()
}
