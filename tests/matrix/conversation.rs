//! Conversations: what the emulator has heard and said, made comparable, and the notation in which it is expected.
//!
//! An expectation is a text with one line for each line of the emulator's transcript, in the same order and without any
//! between. Answers are shortened to what matters: `< 202 assigning op1`, `< 401 401000`, `< 200 assigned op1 HUB DEVICE SUBSTATUS`;
//! operations are numbered in the order in which they appear. Lines of which the emulator cannot say whose they are begin
//! with `- `. In an expectation there is also:
//!
//! * `@open`, `@close`: a connection to DPS begins or ends as it does on this transport, or on the one named after it;
//! * `@hub`, `@refused`: a proof that the hub accepts or refuses, on the hub's transport or on the one named after it;
//! * `@clock ANSWER`: where a token was refused by somebody who tells no time, the lookup over HTTPS that does, and its answer;
//! * `@assigned`: a whole registration that is answered at once, and its proof;
//! * `{via}`, `{hub-via}`, `{id}`, `{unauthorized}` for a refused credential, and `{assigned}`, `{assigned2}`… for an answer
//!   to the first, second… operation that assigns `localhost`;
//! * `mqtt| …`, `https| …`, `ws| …`: a line that only these transports have (`mqtt|` covers WebSocket);
//! * `#`: 1 where it first stands, then 2, 3…;
//! * `(` … `)+`: these lines once or more often; `(` … `)3`: three times; `(` … `)*`: as often as it likes.

use serde_json::Value;

use crate::device::Attestation;
use crate::scenario::{Code, Transport};

/// Whose conversation it is.
#[derive(Debug, Clone, Copy)]
pub struct Device {
    pub attestation: Attestation,
    pub transport: Transport,
}

/// One element of an expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Line(String),
    /// A block, and how often it may come: at least and at most.
    Many(Vec<Piece>, usize, usize),
}

/// An expected conversation.
#[derive(Debug, Clone)]
pub struct Expected(Vec<Piece>);

impl Expected {
    /// Reads the notation for one device.
    pub fn read(text: &str, device: Device) -> Self {
        let mut stack = vec![Vec::new()];
        let text = numbered(text);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let pieces = match (line, line.strip_prefix(')')) {
                ("(", _) => {
                    stack.push(Vec::new());
                    continue;
                }
                (_, Some(times)) => {
                    let (least, most) = match times.parse() {
                        Ok(times) => (times, times),
                        Err(_) => (usize::from(times == "+"), usize::MAX),
                    };
                    vec![Piece::Many(stack.pop().unwrap_or_default(), least, most)]
                }
                (line, None) => expand(line, device).into_iter().map(Piece::Line).collect(),
            };
            stack.last_mut().into_iter().for_each(|inner| inner.extend(pieces.clone()));
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
                    Piece::Many(block, least, most) => {
                        lines.push(format!("{indent}("));
                        write(block, &format!("{indent}  "), lines);
                        let times = if least == most { format!("{least}") } else { format!("{least} or more") };
                        lines.push(format!("{indent}) {times}"));
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
        Piece::Many(block, least, most) => repeated(block, *least, *most, said),
    };
    for start in after_first {
        found.extend(ends(rest, &said[start..]).into_iter().map(|end| start + end));
    }
    found
}

fn repeated(block: &[Piece], least: usize, most: usize, said: &[String]) -> Vec<usize> {
    let mut found = Vec::from_iter((least == 0).then_some(0));
    if most > 0 {
        for once in ends(block, said).into_iter().filter(|end| *end > 0) {
            let more = repeated(block, least.saturating_sub(1), most - 1, &said[once..]);
            found.extend(more.into_iter().map(|end| once + end));
        }
    }
    found
}

fn numbered(text: &str) -> String {
    let mut parts = text.split('#');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.enumerate().fold(first, |text, (before, part)| format!("{text}{}{part}", before + 1))
}

fn expand(line: &str, device: Device) -> Vec<String> {
    if let Some((guard, rest)) = line.split_once("| ") {
        let applies = match guard {
            "mqtt" => device.transport != Transport::Https,
            "https" => device.transport == Transport::Https,
            _ => device.transport == Transport::MqttWs,
        };
        return if applies { expand(rest, device) } else { Vec::new() };
    }
    let (word, argument) = line.split_once(' ').filter(|_| line.starts_with('@')).unwrap_or((line, ""));
    let via = Transport::named(argument).unwrap_or(device.transport);
    let hub_via = if argument.is_empty() { device.transport.hub() } else { argument };
    let mqtt = via != Transport::Https;
    if word == "@clock" {
        let asks = mqtt && device.attestation.signs_tokens();
        return if asks { vec!["> connect https".into(), "> lookup".into(), format!("< {argument}")] } else { Vec::new() };
    }
    let lines: &[&str] = match word {
        "@open" if mqtt => &["> connect {via}", "< connack 0", "> subscribe", "< suback"],
        "@open" => &["> connect {via}"],
        "@close" if mqtt => &["> disconnect"],
        "@close" => &[],
        "@hub" => &["> hub connect {hub-via} localhost {id}", "< connack 0", "> disconnect"],
        "@refused" => &["> hub connect {hub-via} localhost {id}", "< connack 5"],
        "@assigned" => {
            let parts = ["@open", "> register", "< 200 {assigned}", "@close", "@hub"];
            return parts.into_iter().flat_map(|part| expand(part, device)).collect();
        }
        _ => &[line],
    };
    lines.iter().map(|line| fill(line, device, via.name(), hub_via)).collect()
}

fn fill(line: &str, device: Device, via: &str, hub_via: &str) -> String {
    let mut line = line.replace("{assigned}", "{assigned1}");
    for number in 1..=4 {
        line = line.replace(&format!("{{assigned{number}}}"), &format!("assigned op{number} localhost {{id}} initialAssignment"));
    }
    let code = Code::Unauthorized.number(device.attestation).unwrap_or_default();
    line.replace("{unauthorized}", &format!("401 {code}"))
        .replace("{via}", via)
        .replace("{hub-via}", hub_via)
        .replace("{id}", device.attestation.registration_id())
}

/// The emulator's transcript, shortened and without its comments. Each line of it begins with whose it is.
pub fn shortened(transcript: &[String], id: &str) -> Vec<String> {
    let mut operations = Vec::new();
    let is_comment = |line: &&String| line.split_once(' ').is_some_and(|(_, line)| line.starts_with('#'));
    transcript.iter().filter(|line| !is_comment(line)).map(|line| shorten(line, id, &mut operations)).collect()
}

/// The tracking ID in the last answer that the emulator has sent, but for those to lookups: they only tell the time.
pub fn last_tracking_id(transcript: &[String]) -> Option<String> {
    let is_answer = |line: &str| line.contains(" < ") && !line.contains(" < connack");
    let lines: Vec<&String> = transcript.iter().filter(|line| !line.contains(" # ")).collect();
    let mut pairs = lines.windows(2).rev().map(|pair| (pair[0], pair[1]));
    let (_, last) = pairs.find(|(asked, said)| is_answer(said) && !asked.ends_with(" > lookup"))?;
    let body: Value = serde_json::from_str(&last[last.find('{')?..]).ok()?;
    body["trackingId"].as_str().map(str::to_owned)
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
    let head = without_date(head.trim_end());
    let Ok(body) = serde_json::from_str::<Value>(body) else { return format!("< {}", without_date(rest)) };
    let text = |value: &Value| value.as_str().map(|text| text.escape_debug().to_string());
    let state = &body["registrationState"];
    let mut words = vec![format!("< {head}")];
    words.extend(text(&body["status"]));
    words.extend(text(&body["operationId"]).filter(|id| !id.is_empty()).map(|id| number(&id, operations)));
    words.extend([&state["assignedHub"], &state["deviceId"], &state["substatus"]].into_iter().filter_map(text));
    words.extend([&state["errorCode"], &body["errorCode"]].into_iter().filter_map(Value::as_u64).map(|code| code.to_string()));
    words.join(" ")
}

/// `retry-after` as a date is another one each time.
fn without_date(head: &str) -> String {
    let is_date = |word: &&str| word.starts_with("retry-after=") && word.ends_with("%20GMT");
    head.split(' ').map(|word| if is_date(&word) { "retry-after=DATE" } else { word }).collect::<Vec<_>>().join(" ")
}

fn number(operation: &str, operations: &mut Vec<String>) -> String {
    let position = operations.iter().position(|known| known == operation).unwrap_or_else(|| {
        operations.push(operation.to_owned());
        operations.len() - 1
    });
    format!("op{}", position + 1)
}
