//! The record of what was said, line by line, in the notation of `docs/transcript.md`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// Who a line belongs to when no device is known yet.
pub(crate) const NOBODY: &str = "-";

/// All lines of one emulator in the order in which they happened, each with its device.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    lines: Vec<(String, String)>,
    file: Option<File>,
}

impl Transcript {
    /// A transcript that also appends each line to `file`.
    pub(crate) fn new(file: Option<&Path>) -> std::io::Result<Self> {
        let Some(path) = file else {
            return Ok(Self::default());
        };
        let mut file = File::options().create(true).append(true).open(path)?;
        writeln!(file, "# dps-emulator {} transcript 1", env!("CARGO_PKG_VERSION"))?;
        Ok(Self { lines: Vec::new(), file: Some(file) })
    }

    pub(crate) fn add(&mut self, device: &str, line: &str) {
        let (device, line) = (one_line(device), one_line(line));
        if let Some(file) = &mut self.file {
            // A full disk must not stop the service; what is missing in the file is still in memory.
            let _ = writeln!(file, "{device} {line}");
        }
        self.lines.push((device, line));
    }

    /// The lines of one device, without the comments.
    pub(crate) fn of(&self, device: &str) -> Vec<String> {
        let is_own = |of: &str, line: &str| of.eq_ignore_ascii_case(device) && !line.starts_with('#');
        let own = self.lines.iter().filter(|(of, line)| is_own(of, line));
        own.map(|(_, line)| line.clone()).collect()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.iter().map(|(device, line)| format!("{device} {line}")).collect()
    }
}

/// `< STATUS [retry-after=TEXT] [BODY]`, scrubbed.
pub(crate) fn answer_line(status: u16, retry_after: Option<&str>, body: &[u8]) -> String {
    let mut line = format!("< {status}");
    if let Some(text) = retry_after {
        let _ = write!(line, " retry-after={}", crate::names::percent_encode(text));
    }
    if !body.is_empty() {
        let _ = write!(line, " {}", scrubbed(body));
    }
    line
}

/// What a client says must not look like a line of its own, nor move a terminal's cursor.
fn one_line(text: &str) -> String {
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escaped).collect()
}

fn scrubbed(body: &[u8]) -> String {
    const LONGEST: usize = 8 * 1024;
    if body.len() > LONGEST {
        return format!("({} bytes)", body.len());
    }
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(mut json) => {
            scrub(&mut json);
            json.to_string()
        }
        Err(_) => one_line(&String::from_utf8_lossy(body)),
    }
}

/// What must not be read in a transcript: secrets, and what a custom payload holds.
const SECRET: [&str; 5] = ["payload", "authenticationKey", "primaryKey", "secondaryKey", "access_token"];

fn scrub(json: &mut serde_json::Value) {
    if let Some(items) = json.as_array_mut() {
        items.iter_mut().for_each(scrub);
    }
    for (name, value) in json.as_object_mut().into_iter().flatten() {
        if SECRET.contains(&name.as_str()) {
            *value = "(scrubbed)".into();
        } else {
            scrub(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_one_line_and_hold_no_secret() {
        let body =
            br#"{"registrationState":{"payload":{"wifi":"s3cret"},"tpm":{"authenticationKey":"AAAA"}},"status":"assigned"}"#;
        assert_eq!(
            answer_line(200, None, body),
            r#"< 200 {"registrationState":{"payload":"(scrubbed)","tpm":{"authenticationKey":"(scrubbed)"}},"status":"assigned"}"#
        );
        let retry_after = Some("Wed, 21 Oct 2026 07:28:00 GMT");
        assert_eq!(
            answer_line(503, retry_after, b"<html>\r\n\x1b[2J"),
            "< 503 retry-after=Wed%2C%2021%20Oct%202026%2007%3A28%3A00%20GMT <html>\\r\\n\\u{1b}[2J"
        );
        assert_eq!(answer_line(429, None, b""), "< 429");
        assert_eq!(answer_line(200, None, &[b' '; 10_000]), "< 200 (10000 bytes)");
    }

    #[test]
    fn a_client_cannot_forge_a_line() {
        let mut transcript = Transcript::default();
        transcript.add("gw\n-", "> query x\n= assigned hub gw");
        assert_eq!(transcript.all(), ["gw\\n- > query x\\n= assigned hub gw"]);
    }
}
