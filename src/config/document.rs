//! One TOML file as settings, each with its line: knows names and types, not yet what they mean together.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue, Error};

use super::handoff_tables::{self, Written};
use super::problem::{KeyName, Origin, Problem, Report, Reported};
use super::schema::{self, Key, Kind};
use super::source_table;

/// A value that somebody wrote for a key we know, or that it has by default.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A value of the type that its key takes.
#[derive(Debug)]
pub(super) enum Value {
    /// For a key of [`Kind::Text`] or [`Kind::Path`].
    Text(String),
    /// For `registration_id`, where it is a table: what `registration_id_from` would say.
    Source(String),
    /// For a key of [`Kind::Port`].
    Port(u16),
    /// For a key of [`Kind::Flag`].
    Flag(bool),
    /// Of no use, and that was said: the key is not missing.
    Broken(Reported),
}

/// What one file says.
#[derive(Debug)]
pub(super) struct File {
    /// Its settings in the order of its lines.
    pub(super) settings: Vec<Setting>,
    /// What it says below `[handoff]`, likewise.
    pub(super) handoff: Vec<Written>,
}

/// Understands one file. With errors in its syntax nothing else in it is looked at.
pub(super) fn read(path: &Path, text: &str, report: &mut Report) -> Result<File, Reported> {
    let document = Document { path, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if let Some(reported) = document.syntax(&errors, report) {
        return Err(reported);
    }
    let mut entries = document.entries(table.get_ref());
    // The parser sorts by name; the reader goes by line.
    entries.sort_by_key(|(at, _)| *at);
    let settings = entries.into_iter().filter_map(|(at, entry)| document.setting(at, entry, report)).collect();
    Ok(File { settings, handoff: document.handoff(table.get_ref(), report) })
}

/// Something under a table, known or not.
enum Entry<'t> {
    Known(Key, &'t DeValue<'t>),
    Unknown(KeyName, String),
}

struct Document<'d> {
    path: &'d Path,
    text: &'d str,
}

impl Document<'_> {
    fn syntax(&self, errors: &[Error], report: &mut Report) -> Option<Reported> {
        let mut errors: Vec<_> =
            errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message())).collect();
        errors.sort_unstable();
        // A second error in a line is most often an echo of the first.
        errors.dedup_by_key(|(at, _)| position(self.text, *at).0);
        let problems = errors.into_iter().map(|(at, message)| {
            let message = format!("not TOML: {message}; {}", cure(message));
            report.add(Problem { origin: self.origin(at), key: None, message })
        });
        problems.last()
    }

    fn entries<'t>(&self, root: &'t DeTable<'t>) -> Vec<(usize, Entry<'t>)> {
        let mut entries = Vec::new();
        for (name, value) in root.iter().filter(|(name, _)| name.get_ref() != handoff_tables::TABLE) {
            let at = name.span().start;
            match (schema::TABLES.contains(&&**name.get_ref()), value.get_ref()) {
                (true, DeValue::Table(table)) => {
                    entries.extend(table.iter().map(|(key, value)| entry(name.get_ref(), key, value)))
                }
                (true, other) => entries.push((at, not_a_table(name.get_ref(), other))),
                (false, other) => entries.push((at, unknown_table(name.get_ref(), other))),
            }
        }
        entries
    }

    fn handoff(&self, root: &DeTable<'_>, report: &mut Report) -> Vec<Written> {
        let found = root.iter().find(|(name, _)| name.get_ref() == handoff_tables::TABLE);
        let read = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
            handoff_tables::read(value.get_ref(), name.span().start, |at| self.origin(at), report)
        };
        found.map(read).unwrap_or_default()
    }

    fn setting(&self, at: usize, entry: Entry<'_>, report: &mut Report) -> Option<Setting> {
        let origin = self.origin(at);
        match entry {
            Entry::Known(key, DeValue::Table(table)) if key == schema::REGISTRATION_ID => {
                let value = source_table::read(table).map(Value::Source);
                let value = value.unwrap_or_else(|wrong| Value::Broken(self.wrong_table(key, origin.clone(), wrong, report)));
                Some(Setting { key, value, origin })
            }
            Entry::Known(key, value) => {
                let value = typed(key, value).unwrap_or_else(|message| {
                    Value::Broken(report.add(Problem { origin: origin.clone(), key: Some(key.to_name()), message }))
                });
                Some(Setting { key, value, origin })
            }
            Entry::Unknown(key, message) => {
                report.add(Problem { origin, key: Some(key), message });
                None
            }
        }
    }

    fn wrong_table(&self, key: Key, origin: Origin, wrong: source_table::Wrong, report: &mut Report) -> Reported {
        let source_table::Wrong { first, more } = wrong;
        let mut add = |member: source_table::Member| {
            let origin = member.at.map_or_else(|| origin.clone(), |at| self.origin(at));
            let mut name = key.to_name();
            if !member.name.is_empty() {
                name.key = format!("{}.{}", name.key, legible(&member.name));
            }
            report.add(Problem { origin, key: Some(name), message: member.message })
        };
        let reported = add(first);
        more.into_iter().map(add).last().unwrap_or(reported)
    }

    fn origin(&self, at: usize) -> Origin {
        let (line, column) = position(self.text, at);
        Origin::Line { path: self.path.to_owned(), line, column }
    }
}

/// What to do about the slips that the parser has words for.
fn cure(message: &str) -> &'static str {
    const CURES: [(&str, &str); 7] = [
        ("string values must be quoted", "put the value in quotes"),
        ("duplicate key", "the same name stands above; keep one of them"),
        ("key with no value", "write KEY = VALUE"),
        ("unexpected leading zero", "an ID made of digits goes in quotes"),
        ("invalid boolean", "write true or false in small letters"),
        ("invalid basic string", "close the quotes on the same line, with no others between them"),
        ("invalid literal string", "close the quotes on the same line, with no others between them"),
    ];
    CURES.iter().find(|(start, _)| message.starts_with(start)).map_or("correct this line", |(_, cure)| cure)
}

/// Line and column of a byte offset, both from 1.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn entry<'t>(table: &str, name: &Spanned<DeString<'t>>, value: &'t Spanned<DeValue<'t>>) -> (usize, Entry<'t>) {
    match schema::key(table, name.get_ref()) {
        Some(key) => (value.span().start, Entry::Known(key, value.get_ref())),
        None => (name.span().start, unknown_key(table, name.get_ref())),
    }
}

fn unknown_key<'t>(table: &str, name: &str) -> Entry<'t> {
    let elsewhere = schema::homes(name);
    let hint = match (schema::nearest(name, schema::names(table)), elsewhere.first()) {
        (_, Some(home)) => format!("it belongs under [{home}]"),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, None) => format!("[{table}] has {}", schema::names(table).collect::<Vec<_>>().join(", ")),
    };
    Entry::Unknown(KeyName { table: table.to_owned(), key: legible(name) }, format!("unknown key; {hint}"))
}

fn unknown_table<'t>(name: &str, value: &DeValue<'_>) -> Entry<'t> {
    let tables = schema::TABLES.map(|table| format!("[{table}]")).join(", ") + ", [handoff]";
    if matches!(value, DeValue::Table(_) | DeValue::Array(_)) {
        let all = schema::TABLES.into_iter().chain([handoff_tables::TABLE]);
        let hint = match schema::nearest(name, all) {
            Some(near) => format!("did you mean `[{near}]`?"),
            None => format!("there are {tables}"),
        };
        return Entry::Unknown(KeyName { table: legible(name), key: String::new() }, format!("unknown table; {hint}"));
    }
    let hint = match (schema::homes(name).first(), schema::nearest_anywhere(name)) {
        (Some(home), _) => format!("it belongs under [{home}]"),
        (None, Some(near)) => format!("did you mean `{}` under [{}]?", near.name, near.table),
        (None, None) => format!("write it under one of {tables}"),
    };
    Entry::Unknown(KeyName { table: String::new(), key: legible(name) }, format!("key outside of any table; {hint}"))
}

fn not_a_table<'t>(name: &str, value: &DeValue<'_>) -> Entry<'t> {
    let key = KeyName { table: name.to_owned(), key: String::new() };
    Entry::Unknown(key, format!("is {} where a table should be; write [{name}] on a line of its own", found(value)))
}

/// A name that is not ours, fit for a message: on one line and not too long.
pub(super) fn legible(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

/// The value as the key takes it, or what is wrong with it.
fn typed(key: Key, value: &DeValue<'_>) -> Result<Value, String> {
    match (key.kind, value) {
        (Kind::Text, DeValue::String(text)) => Ok(Value::Text(text.to_string())),
        (Kind::Path, DeValue::String(text)) => path(key, text),
        (Kind::Port, DeValue::Integer(number)) => port(number),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (Kind::Text | Kind::Path | Kind::Port | Kind::Flag, other) => Err(wrong_type(key, other)),
    }
}

fn path(key: Key, text: &str) -> Result<Value, String> {
    // The text is not quoted: it may be the key itself, pasted where the path of its file belongs.
    if looks_like_a_key(text) {
        return Err(format!(
            "holds a key where a path belongs; write the key into a file and that file's path into {}",
            key.name
        ));
    }
    if !text.is_empty() && !text.starts_with('/') {
        return Err("not an absolute path; begin it with '/', since a daemon has no directory of its own".to_owned());
    }
    if text.contains('\0') {
        return Err("holds a NUL character, which no path can; remove it".to_owned());
    }
    Ok(Value::Text(text.to_owned()))
}

/// Base64 with its padding and long enough for a key, well formed or not: no path anybody would choose.
fn looks_like_a_key(text: &str) -> bool {
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    text.len() >= 24 && text.ends_with('=') && text.chars().all(base64)
}

fn port(number: &DeInteger<'_>) -> Result<Value, String> {
    let value = u16::from_str_radix(number.as_str(), number.radix()).ok().filter(|port| *port != 0);
    value.map(Value::Port).ok_or_else(|| format!("{number} is no port; ports are 1 to 65535"))
}

fn wrong_type(key: Key, value: &DeValue<'_>) -> String {
    let Key { name, kind, .. } = key;
    match (kind, value) {
        (Kind::Text | Kind::Path, DeValue::Datetime(date)) => {
            format!("is a TOML date without quotes; put it in quotes: {name} = \"{date}\"")
        }
        (Kind::Text | Kind::Path, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => {
            format!("is {} where a text should be; put it in quotes", found(value))
        }
        (Kind::Text | Kind::Path, other) => format!("is {} where a text should be; write one text in quotes", found(other)),
        (Kind::Port, DeValue::String(text)) if text.parse::<u16>().is_ok() => {
            format!("is a text where a number should be; remove the quotes: {name} = {text}")
        }
        (Kind::Port, other) => format!("is {} where a port should be; write a number from 1 to 65535", found(other)),
        (Kind::Flag, DeValue::String(text)) if matches!(&**text, "true" | "false") => {
            format!("is a text where true or false should be; remove the quotes: {name} = {text}")
        }
        (Kind::Flag, other) => {
            format!("is {} where true or false should be; write {name} = true or {name} = false", found(other))
        }
    }
}

pub(super) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a TOML date",
        DeValue::Array(items) if items.iter().next().is_some_and(|item| item.get_ref().is_table()) => "an array of tables",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
