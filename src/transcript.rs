//! The conversation as lines of one notation (`docs/transcript.md`), for a file that a user can send us and for the debug log.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::protocol::Answer;
use crate::protocol::sas::percent_encode;
use crate::protocol::wire::scrubbed;

/// Writes each line as it happens. What is given to it must already be free of secrets.
#[derive(Debug, Default)]
pub struct Transcript {
    file: RefCell<Option<File>>,
}

impl Transcript {
    /// Lines go to the debug log only.
    pub fn log_only() -> Self {
        Self::default()
    }

    /// Lines go to this file too. It is created, or emptied; an error to do so is the caller's to report.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        writeln!(file, "# dps-agent {} transcript 1", env!("CARGO_PKG_VERSION"))?;
        Ok(Self { file: RefCell::new(Some(file)) })
    }

    /// An answer, with its secrets replaced. A refused CONNECT has been told by the transport.
    pub fn answer(&self, answer: &Answer) {
        if answer.connack.is_none() {
            let wait = answer.retry_after.as_deref().map(|text| format!(" retry-after={}", percent_encode(scrubbed(text))));
            self.line(format_args!("< {}{}{}", answer.status, wait.unwrap_or_default(), scrubbed_body(&answer.body)));
        }
    }

    /// One line. A file that cannot be written is given up with a warning: the conversation is worth more than its protocol.
    pub fn line(&self, line: fmt::Arguments<'_>) {
        tracing::debug!(target: "dps_agent::transcript", "{line}");
        let mut file = self.file.borrow_mut();
        if let Some(open) = file.as_mut() {
            if let Err(error) = writeln!(open, "{line}") {
                tracing::warn!("the transcript ends here: {error}");
                *file = None;
            }
        }
    }
}

/// Members whose values are secret, or may be: what a webhook returns is anybody's guess.
const SECRET_MEMBERS: [&str; 4] = ["payload", "authenticationKey", "unencryptedAuthenticationKey", "symmetricKey"];

/// A space and the body, if there is one. What is not JSON is not shown: it may be a page that repeats our own request.
fn scrubbed_body(body: &[u8]) -> String {
    match serde_json::from_slice(body) {
        Ok(value) => format!(" {}", scrub(value)),
        Err(_) if body.is_empty() => String::new(),
        Err(_) => format!(" ({} bytes that are not JSON)", body.len()),
    }
}

fn scrub(value: Value) -> Value {
    match value {
        Value::Object(members) => members.into_iter().map(|(name, value)| scrub_member(name, value)).collect(),
        Value::Array(items) => items.into_iter().map(scrub).collect(),
        Value::String(text) => Value::String(scrubbed(&text).to_owned()),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

fn scrub_member(name: String, value: Value) -> (String, Value) {
    let secret = SECRET_MEMBERS.contains(&name.as_str()) && !value.is_null();
    let value = if secret { Value::from("(scrubbed)") } else { scrub(value) };
    (scrubbed(&name).to_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_without_its_secrets() {
        let body =
            br#"{"status":"assigned","registrationState":{"payload":{"pin":1},"tpm":{"authenticationKey":"AAAA"},"etag":"x",
            "errorMessage":"your SharedAccessSignature sr=a&sig=b was bad","symmetricKey":null,"sig=b":1}}"#;
        assert_eq!(
            scrubbed_body(body),
            r#" {"registrationState":{"(scrubbed)":1,"errorMessage":"(scrubbed)","etag":"x","payload":"(scrubbed)","symmetricKey":null,"tpm":{"authenticationKey":"(scrubbed)"}},"status":"assigned"}"#
        );
        assert_eq!(scrubbed_body(b"<html>Authorization: SharedAccessSignature</html>"), " (49 bytes that are not JSON)");
        assert_eq!(scrubbed_body(b""), "");
    }

    #[test]
    fn lines_reach_the_file_as_they_happen() {
        let path = std::env::temp_dir().join(format!("dps-agent-transcript-{}", std::process::id()));
        let transcript = Transcript::to_file(&path).unwrap();
        transcript.line(format_args!("> register"));
        transcript.answer(&Answer { status: 429, retry_after: Some("Tue, 14".into()), ..Answer::default() });
        transcript.answer(&Answer::refused_connect(5));
        let echo = Some("SharedAccessSignature sr=a&sig=b".into());
        transcript.answer(&Answer { status: 401, retry_after: echo, ..Answer::default() });
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "# dps-agent {version} transcript 1\n> register\n< 429 retry-after=Tue%2C%2014\n< 401 retry-after=%28scrubbed%29\n"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
