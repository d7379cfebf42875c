//! Conversations: what the emulator has heard and said, made comparable, and the notation in which it is expected.
//!
//! An expectation is a text with one line for each line of the emulator's transcript, in the same order and without any
//! between. Answers are shortened to what matters: `< 202 assigning op1`, `< 401 401000`, `< 200 assigned op1 HUB DEVICE SUBSTATUS`;
//! operations are numbered in the order in which they appear. Lines of which the emulator cannot say whose they are begin
//! with `- `. In an expectation there is also:
//!
//! * `@open`, `@close`: a connection to DPS begins or ends as it does on this transport;
//! * `@hub`, `@refused`: a proof that the hub accepts or refuses;
//! * `{via}`, `{hub-via}`, `{id}`, and `{assigned}` for a first assignment to `localhost`;
//! * `mqtt| …`, `https| …`, `ws| …`: a line that only these transports have (`mqtt|` covers WebSocket);
//! * `(` … `)+`: these lines once or more often.

use serde_json::Value;

use crate::scenario::Transport;

/// One element of an expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Line(String),
    Many(Vec<Piece>),
}

/// An expected conversation.
#[derive(Debug, Clone)]
pub struct Expected(Vec<Piece>);

impl Expected {
    /// Reads the notation for one device and transport. `via` is the transport that is spoken, also where it was found.
    pub fn read(text: &str, id: &str, transport: Transport) -> Self {
        let mut stack = vec![Vec::new()];
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line {
                "(" => stack.push(Vec::new()),
                ")+" => {
                    let block = stack.pop().unwrap_or_default();
                    stack.last_mut().into_iter().for_each(|outer| outer.push(Piece::Many(block.clone())));
                }
                line => {
                    let lines = expand(line, id, transport).into_iter().map(Piece::Line);
                    stack.last_mut().into_iter().for_each(|inner| inner.extend(lines.clone()));
                }
            }
        }
        Self(stack.pop().unwrap_or_default())
    }

    /// Whether the whole conversation is as expected.
    pub fn matches(&self, said: &[String]) -> bool {
        ends(&self.0, said).contains(&said.len())
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        fn write(pieces: &[Piece], indent: &str, lines: &mut Vec<String>) {
            for piece in pieces {
                match piece {
                    Piece::Line(line) => lines.push(format!("{indent}{line}")),
                    Piece::Many(block) => {
                        lines.push(format!("{indent}("));
                        write(block, &format!("{indent}  "), lines);
                        lines.push(format!("{indent})+"));
                    }
                }
            }
        }
        let mut lines = Vec::new();
        write(&self.0, "", &mut lines);
        lines
    }
}

/// The places at which these pieces can have come to their end.
fn ends(pieces: &[Piece], said: &[String]) -> Vec<usize> {
    let Some((first, rest)) = pieces.split_first() else { return vec![0] };
    let mut found = Vec::new();
    let after_first = match first {
        Piece::Line(line) => Vec::from_iter((said.first() == Some(line)).then_some(1)),
        Piece::Many(block) => repeated(block, said),
    };
    for start in after_first {
        found.extend(ends(rest, &said[start..]).into_iter().map(|end| start + end));
    }
    found
}

fn repeated(block: &[Piece], said: &[String]) -> Vec<usize> {
    let mut found = Vec::new();
    for once in ends(block, said).into_iter().filter(|end| *end > 0) {
        found.push(once);
        found.extend(repeated(block, &said[once..]).into_iter().map(|end| once + end));
    }
    found
}

fn expand(line: &str, id: &str, transport: Transport) -> Vec<String> {
    let mqtt = transport != Transport::Https;
    if let Some((guard, rest)) = line.split_once("| ") {
        let applies = match guard {
            "mqtt" => mqtt,
            "https" => !mqtt,
            _ => transport == Transport::MqttWs,
        };
        return if applies { expand(rest, id, transport) } else { Vec::new() };
    }
    let lines: &[&str] = match line {
        "@open" if mqtt => &["> connect {via}", "< connack 0", "> subscribe", "< suback"],
        "@open" => &["> connect {via}"],
        "@close" if mqtt => &["> disconnect"],
        "@close" => &[],
        "@hub" => &["> hub connect {hub-via} localhost {id}", "< connack 0", "> disconnect"],
        "@refused" => &["> hub connect {hub-via} localhost {id}", "< connack 5"],
        other => &[other],
    };
    lines.iter().map(|line| fill(line, id, transport)).collect()
}

fn fill(line: &str, id: &str, transport: Transport) -> String {
    line.replace("{assigned}", "assigned op1 localhost {id} initialAssignment")
        .replace("{via}", transport.name())
        .replace("{hub-via}", transport.hub())
        .replace("{id}", id)
}

/// The emulator's transcript, shortened. Each line of it begins with whose it is.
pub fn shortened(transcript: &[String], id: &str) -> Vec<String> {
    let mut operations = Vec::new();
    transcript.iter().map(|line| shorten(line, id, &mut operations)).collect()
}

/// The tracking ID of the last error that the emulator has sent.
pub fn last_tracking_id(transcript: &[String]) -> Option<String> {
    let of = |line: &String| {
        let body: Value = serde_json::from_str(&line[line.find('{')?..]).ok()?;
        body["trackingId"].as_str().map(str::to_owned)
    };
    transcript.iter().rev().find_map(of)
}

fn shorten(line: &str, id: &str, operations: &mut Vec<String>) -> String {
    let (whose, line) = line.split_once(' ').unwrap_or((line, ""));
    let short = match line.split_once(' ') {
        Some((">", rest)) => match rest.strip_prefix("query ") {
            Some(operation) => format!("> query {}", number(operation, operations)),
            None => line.to_owned(),
        },
        Some(("<", rest)) if rest.starts_with(|first: char| first.is_ascii_digit()) => answer(rest, operations),
        // What TLS calls it is not the emulator's word.
        Some(("!", rest)) if rest.starts_with("tls ") => "! tls".to_owned(),
        _ => line.to_owned(),
    };
    if whose == id { short } else { format!("{whose} {short}") }
}

fn answer(rest: &str, operations: &mut Vec<String>) -> String {
    let (head, body) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
    let Ok(body) = serde_json::from_str::<Value>(body) else { return format!("< {rest}") };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let state = &body["registrationState"];
    let mut words = vec![format!("< {}", head.trim_end())];
    words.extend(text(&body["status"]));
    words.extend(text(&body["operationId"]).filter(|id| !id.is_empty()).map(|id| number(&id, operations)));
    words.extend([&state["assignedHub"], &state["deviceId"], &state["substatus"]].into_iter().filter_map(text));
    words.extend([&state["errorCode"], &body["errorCode"]].into_iter().filter_map(Value::as_u64).map(|code| code.to_string()));
    words.join(" ")
}

fn number(operation: &str, operations: &mut Vec<String>) -> String {
    let position = operations.iter().position(|known| known == operation).unwrap_or_else(|| {
        operations.push(operation.to_owned());
        operations.len() - 1
    });
    format!("op{}", position + 1)
}
