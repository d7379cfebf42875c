//! `[handoff.template.NAME]` and `[handoff.credentials]` as they were written: tables of whose names the operator chooses some.

use toml::de::{DeTable, DeValue};

use super::document::{found, legible};
use super::problem::{KeyName, Origin, Problem, Report, Reported};
use super::schema;

/// The table above them all.
pub(super) const TABLE: &str = "handoff";

/// The keys of a template.
pub(super) const SOURCE: &str = "source";
pub(super) const FILE: &str = "file";
pub(super) const GROUP: &str = "group";
pub(super) const MODE: &str = "mode";
pub(super) const EXPORT_KEY: &str = "export_key";
const TEMPLATE_KEYS: [&str; 5] = [SOURCE, FILE, GROUP, MODE, EXPORT_KEY];

/// The keys of `[handoff.credentials]`: the credentials there are, each with the units that may have it, and `export_key`.
pub(super) const HUB_JSON: &str = "hub.json";
pub(super) const HUB_ENV: &str = "hub.env";
pub(super) const CONNECTION_STRING: &str = "connection-string";
const CREDENTIAL_KEYS: [&str; 4] = [HUB_JSON, HUB_ENV, CONNECTION_STRING, EXPORT_KEY];

const PARTS: [&str; 2] = ["template", "credentials"];

/// A table below `[handoff]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Table {
    /// `[handoff.template.NAME]`
    Template(String),
    /// `[handoff.credentials]`
    Credentials,
}

/// A value of the type that its key takes.
#[derive(Debug, PartialEq)]
pub(super) enum Given {
    Text(String),
    Flag(bool),
    List(Vec<String>),
}

/// What somebody wrote for a key; broken is what is of no use, and that was said.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) table: Table,
    pub(super) key: &'static str,
    pub(super) value: Result<Given, Reported>,
    pub(super) origin: Origin,
}

/// Something below `[handoff]`, by its place in the file.
enum Piece {
    Key(Table, &'static str, Result<Given, String>),
    Strange(KeyName, String),
}

/// Everything below `[handoff]` in one file, in the order of its lines. `origin` knows the line of a place.
pub(super) fn read(value: &DeValue<'_>, at: usize, origin: impl Fn(usize) -> Origin, report: &mut Report) -> Vec<Written> {
    let mut pieces = pieces(value, at);
    // The parser sorts by name; the reader goes by line.
    pieces.sort_by_key(|(at, _)| *at);
    let written = pieces.into_iter().filter_map(|(at, piece)| match piece {
        Piece::Key(table, key, value) => {
            let origin = origin(at);
            let value =
                value.map_err(|message| report.add(Problem { origin: origin.clone(), key: Some(table.name(key)), message }));
            Some(Written { table, key, value, origin })
        }
        Piece::Strange(name, message) => {
            report.add(Problem { origin: origin(at), key: Some(name), message });
            None
        }
    });
    written.collect()
}

fn pieces(value: &DeValue<'_>, at: usize) -> Vec<(usize, Piece)> {
    let DeValue::Table(parts) = value else { return vec![(at, no_table(TABLE, "handoff.template.NAME", value))] };
    let mut pieces = Vec::new();
    for (name, value) in parts {
        match (&**name.get_ref(), value.get_ref()) {
            ("template", DeValue::Table(templates)) => pieces
                .extend(templates.iter().flat_map(|(name, value)| template(name.get_ref(), name.span().start, value.get_ref()))),
            ("template", other) => pieces.push((name.span().start, no_table("handoff.template", "handoff.template.NAME", other))),
            ("credentials", DeValue::Table(keys)) => pieces.extend(of(&Table::Credentials, keys)),
            ("credentials", other) => {
                pieces.push((name.span().start, no_table("handoff.credentials", "handoff.credentials", other)));
            }
            (other, _) => pieces.push((name.span().start, strange_part(other))),
        }
    }
    pieces
}

fn template(name: &str, at: usize, value: &DeValue<'_>) -> Vec<(usize, Piece)> {
    let table = format!("handoff.template.{}", legible(name));
    let strange =
        |message: &str| vec![(at, Piece::Strange(KeyName { table: table.clone(), key: String::new() }, message.into()))];
    match (is_name(name), value) {
        (false, _) => strange("not a name for a template; write up to 64 letters, digits, '-' or '_'"),
        (true, DeValue::Table(keys)) => of(&Table::Template(name.to_owned()), keys),
        (true, _) if TEMPLATE_KEYS.contains(&name) => {
            strange("a template needs a name; write the key under [handoff.template.NAME], with a name of your choice")
        }
        (true, other) => vec![(at, no_table(&table, &table, other))],
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn of(table: &Table, keys: &DeTable<'_>) -> Vec<(usize, Piece)> {
    let pieces = keys.iter().map(|(name, value)| match table.keys().iter().find(|key| **key == &**name.get_ref()) {
        Some(key) => (value.span().start, Piece::Key(table.clone(), key, table.typed(key, value.get_ref()))),
        None => (name.span().start, table.strange_key(name.get_ref())),
    });
    pieces.collect()
}

fn strange_part(name: &str) -> Piece {
    let near = schema::nearest(name, PARTS).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let message = format!("unknown; there are [handoff.template.NAME] and [handoff.credentials]{near}");
    Piece::Strange(KeyName { table: TABLE.to_owned(), key: legible(name) }, message)
}

fn no_table(name: &str, write: &str, value: &DeValue<'_>) -> Piece {
    let message = format!("is {} where a table should be; write [{write}] on a line of its own", found(value));
    Piece::Strange(KeyName { table: name.to_owned(), key: String::new() }, message)
}

impl Table {
    /// The name of a key of it, for messages.
    pub(super) fn name(&self, key: &str) -> KeyName {
        KeyName { table: self.to_string(), key: key.to_owned() }
    }

    fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::Template(_) => &TEMPLATE_KEYS,
            Self::Credentials => &CREDENTIAL_KEYS,
        }
    }

    fn strange_key(&self, name: &str) -> Piece {
        let hint = match schema::nearest(name, self.keys().iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("[{self}] has {}", self.keys().join(", ")),
        };
        Piece::Strange(self.name(&legible(name)), format!("unknown key; {hint}"))
    }

    fn typed(&self, key: &'static str, value: &DeValue<'_>) -> Result<Given, String> {
        match (self, key, value) {
            (_, EXPORT_KEY, DeValue::Boolean(flag)) => Ok(Given::Flag(*flag)),
            (_, EXPORT_KEY, other) => {
                Err(format!("is {} where true or false should be; write {key} = true or {key} = false", found(other)))
            }
            (Self::Template(_), _, DeValue::String(text)) => Ok(Given::Text(text.to_string())),
            (Self::Template(_), MODE, other) => Err(format!("is {} where a text should be; write mode = \"0640\"", found(other))),
            (Self::Template(_), _, other) => Err(format!("is {} where a text should be; write one text in quotes", found(other))),
            (Self::Credentials, _, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<_>>();
                texts.map(Given::List).ok_or_else(|| list_of_units(key, "holds something that is no text"))
            }
            (Self::Credentials, _, other) => Err(list_of_units(key, &format!("is {} where a list should be", found(other)))),
        }
    }
}

fn list_of_units(key: &str, what: &str) -> String {
    format!("{what}; write a list of units, such as {} = [\"my-app.service\"]", quoted(key))
}

/// A key as TOML has it.
pub(super) fn quoted(key: &str) -> String {
    if key.contains('.') { format!("\"{key}\"") } else { key.to_owned() }
}

/// `handoff.template.NAME`, as its header has it.
impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Template(name) => write!(f, "handoff.template.{name}"),
            Self::Credentials => f.write_str("handoff.credentials"),
        }
    }
}

/// The tables of all files: what is read later wins, key by key.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<Written>);

impl Tables {
    /// Lets what a main file says count. There is nothing below it that an empty text could take back.
    pub(super) fn main(&mut self, file: Vec<Written>, report: &mut Report) {
        for mut written in file {
            if written.is_empty() {
                let message = "is empty; write a value or remove the line".to_owned();
                let key = Some(written.table.name(written.key));
                written.value = Err(report.add(Problem { origin: written.origin.clone(), key, message }));
            }
            self.put(written);
        }
    }

    /// Lets what a drop-in says win. An empty text takes back what was written below it.
    pub(super) fn drop_in(&mut self, file: Vec<Written>) {
        for written in file {
            if written.is_empty() {
                self.0.retain(|other| !other.is_for(&written.table, written.key));
            } else {
                self.put(written);
            }
        }
    }

    fn put(&mut self, written: Written) {
        self.0.retain(|other| !other.is_for(&written.table, written.key));
        self.0.push(written);
    }

    /// What was written for a key.
    pub(super) fn find(&self, table: &Table, key: &str) -> Option<&Written> {
        self.0.iter().find(|written| written.is_for(table, key))
    }

    /// The tables that there are, templates by name and then the credentials, each with its keys in their own order.
    pub(super) fn all(&self) -> Vec<(&Table, Vec<&Written>)> {
        let mut tables: Vec<&Table> = self.0.iter().map(|written| &written.table).collect();
        tables.sort_by_key(|table| (**table == Table::Credentials, table.to_string()));
        tables.dedup();
        let keys = |table: &'_ Table| table.keys().iter().filter_map(|key| self.find(table, key)).collect();
        tables.into_iter().map(|table| (table, keys(table))).collect()
    }
}

impl Written {
    fn is_for(&self, table: &Table, key: &str) -> bool {
        self.table == *table && self.key == key
    }

    fn is_empty(&self) -> bool {
        matches!(&self.value, Ok(Given::Text(text)) if text.is_empty())
    }
}
