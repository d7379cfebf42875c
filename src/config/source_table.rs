//! `registration_id = { from = "tpm-ek", encoding = "hex" }`: the same as a text in `registration_id_from`, for who prefers a table.

use toml::de::{DeTable, DeValue};

use super::document::found;
use super::schema;

/// What is wrong with a table; never nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) first: Member,
    pub(super) more: Vec<Member>,
}

/// A member that is wrong, or the table as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Empty for the table.
    pub(super) name: String,
    /// The byte offset in the file.
    pub(super) at: Option<usize>,
    pub(super) message: String,
}

/// The members that there are.
#[derive(Default)]
struct Members {
    from: Option<String>,
    encoding: Option<(usize, &'static str)>,
}

const ENCODINGS: [&str; 2] = ["hex", "base32"];
const MEMBERS: [&str; 2] = ["from", "encoding"];

/// The text that `registration_id_from` would have. Which sources there are is not known here.
pub(super) fn read(table: &DeTable<'_>) -> Result<String, Wrong> {
    let mut members = Members::default();
    let mut wrong = Vec::new();
    for (name, value) in table {
        if let Err((at, message)) = members.take(name.get_ref(), name.span().start, value.span().start, value.get_ref()) {
            wrong.push(Member { name: name.get_ref().to_string(), at: Some(at), message });
        }
    }
    // The parser sorts by name; the reader goes by line.
    wrong.sort_by_key(|member| member.at);
    let mut wrong = wrong.into_iter();
    match wrong.next() {
        Some(first) => Err(Wrong { first, more: wrong.collect() }),
        None => members.text().map_err(|first| Wrong { first, more: Vec::new() }),
    }
}

impl Members {
    fn take(&mut self, name: &str, name_at: usize, at: usize, value: &DeValue<'_>) -> Result<(), (usize, String)> {
        match (name, value) {
            ("from", DeValue::String(text)) => self.from = Some(text.to_string()),
            ("encoding", DeValue::String(text)) => match ENCODINGS.iter().find(|known| **known == &**text) {
                Some(encoding) => self.encoding = Some((at, encoding)),
                None => return Err((at, "unknown value; write one of \"hex\", \"base32\"".to_owned())),
            },
            ("from" | "encoding", other) => {
                return Err((at, format!("is {} where a text should be; write one text in quotes", found(other))));
            }
            (other, _) => return Err((name_at, unknown(other))),
        }
        Ok(())
    }

    fn text(self) -> Result<String, Member> {
        match (self.from.as_deref(), self.encoding) {
            (None, _) => {
                let message = "has no member from; write { from = \"tpm-ek\", encoding = \"hex\" }".to_owned();
                Err(Member { name: String::new(), at: None, message })
            }
            (Some("tpm-ek"), encoding) => Ok(format!("tpm-ek:{}", encoding.map_or("hex", |(_, encoding)| encoding))),
            (Some(_), Some((at, _))) => {
                let message = "goes with from = \"tpm-ek\" only; remove it".to_owned();
                Err(Member { name: "encoding".to_owned(), at: Some(at), message })
            }
            (Some(text), None) => Ok(text.to_owned()),
        }
    }
}

fn unknown(name: &str) -> String {
    match schema::nearest(name, MEMBERS) {
        Some(near) => format!("unknown member; did you mean `{near}`?"),
        None => "unknown member; there are from and encoding".to_owned(),
    }
}
