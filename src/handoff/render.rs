//! Fills a template in. The only file that names the template library.

use std::fmt::Write;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, UndefinedBehavior};

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

/// The text of a template with its values.
///
/// # Errors
/// With the template's name, the line and the cure. No secret is in them.
pub(super) fn render(source: &Source, format: &Format, facts: &Facts<'_>) -> Result<Secret<String>, Failure> {
    let environment = environment(*format);
    let filled = environment
        .template_from_named_str(&source.name, &source.text)
        .and_then(|template| template.render(Value::from(Serde(facts.names()))))
        .map(Secret::new)
        .map_err(|error| wrong(source, &error, facts))?;
    if source.name.ends_with(".json") && *format == Format::Json {
        still_json(source, filled.expose())?;
    }
    Ok(filled)
}

/// Without filters, macros and other templates: what fills in a handful of values.
fn environment(format: Format) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_formatter(move |out, _, value| write(out, format, value));
    environment.add_function("fail", |message: String| Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message)));
    environment
}

fn write(out: &mut Output<'_>, format: Format, value: &Value) -> Result<(), Error> {
    match (format, value.kind()) {
        (Format::Json, _) => json(out, value),
        (_, ValueKind::None | ValueKind::Undefined) => Err(no(NOTHING)),
        (Format::Toml, ValueKind::Map) => Err(no(NOT_ONE)),
        (Format::Toml, _) => json(out, value),
        (Format::Env | Format::Plain, ValueKind::String | ValueKind::Number | ValueKind::Bool) => {
            let text = Secret::new(value.to_string());
            if text.expose().chars().any(char::is_control) {
                return Err(no(
                    "prints a value with a line break or another control character, which would begin a line of its own; print another value, or make a .json file",
                ));
            }
            match format {
                Format::Env => env(out, text.expose())?,
                Format::Plain | Format::Json | Format::Toml => out.write_str(text.expose())?,
            }
            Ok(())
        }
        (Format::Env | Format::Plain, _) => Err(no(NOT_ONE)),
    }
}

const NOTHING: &str = "prints something that this device does not have: one with a certificate has no password, one without has no \
     certificateFile, and connectionString is there for a certificate or with export_key = true; put {% if NAME %} before and {% endif %} after it";
const NOT_ONE: &str = "prints a list or an object where one value belongs; name one of its members, as in payload.site";

fn no(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn json(out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    let text = serde_json::to_string(value).map_err(|_| no("prints a value that JSON does not have"))?;
    Ok(out.write_str(Secret::new(text).expose())?)
}

/// What these characters mean inside of double quotes is taken from them (POSIX shell, systemd.exec(5)).
fn env(out: &mut Output<'_>, text: &str) -> Result<(), Error> {
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

fn wrong(source: &Source, error: &Error, facts: &Facts<'_>) -> Failure {
    let place = error.line().map_or_else(|| source.name.clone(), |line| format!("{}:{line}", source.name));
    let (what, cure) = said(error);
    // The author of a template can put everything into its words.
    let shows_secret = facts.secrets().any(|secret| what.contains(secret));
    let what = if shows_secret { "its own message shows a secret".to_owned() } else { what };
    Failure::new(Blame::Configuration, format!("{place}: {what}{cure}"))
}

/// What went wrong, and the cure if it is not in the words already.
fn said(error: &Error) -> (String, &'static str) {
    const NO_SUCH: [ErrorKind; 4] =
        [ErrorKind::UnknownFilter, ErrorKind::UnknownFunction, ErrorKind::UnknownTest, ErrorKind::UnknownMethod];
    let kind = error.kind();
    let detail = error.detail().map(str::to_owned);
    if kind == ErrorKind::UndefinedError {
        return ("names something that does not exist".to_owned(), "; docs/handoff.md lists the names there are");
    }
    if NO_SUCH.contains(&kind) {
        let cure = "; there are no filters and tests here, and fail(\"…\") is the only function";
        return (detail.unwrap_or_else(|| kind.to_string()), cure);
    }
    match detail {
        // Our own words and the template's name the cure; the library's do not.
        Some(detail) if kind == ErrorKind::InvalidOperation && detail.contains(';') => (detail, ""),
        Some(detail) if kind == ErrorKind::InvalidOperation => (detail, "; correct this line"),
        Some(detail) => (format!("{kind}: {detail}"), "; correct this line"),
        None => (kind.to_string(), "; correct this line"),
    }
}
