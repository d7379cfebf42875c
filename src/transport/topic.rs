//! The topics of the registration protocol (DPS device API, MQTT, topics).

use crate::protocol::Request;
use crate::protocol::wire::scrubbed;

/// What the service publishes its answers under.
pub(super) const RESPONSES: &str = "$dps/registrations/res/#";

/// Where a response was published: everything but its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// As in HTTP.
    pub(super) status: u16,
    /// Which request this answers.
    pub(super) rid: String,
    /// `retry-after` as it was sent.
    pub(super) retry_after: Option<String>,
}

/// The topic to publish a request under. `rid` must be plain letters, digits and dashes.
pub(super) fn of(request: &Request, rid: &str) -> String {
    match request {
        Request::Challenge | Request::Register => format!("$dps/registrations/PUT/iotdps-register/?$rid={rid}"),
        Request::Query(operation) => {
            format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation}")
        }
    }
}

impl Response {
    /// Takes a response topic apart: parameters in any order, names in any case, values percent-encoded, and a `+` is a plus. The first of two parameters
    /// with one name counts.
    ///
    /// # Errors
    /// What is wrong, in words, if this is no response topic.
    pub(super) fn parse(topic: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what} in the topic {:?}", scrubbed(topic).chars().take(120).collect::<String>());
        let rest = topic.strip_prefix("$dps/registrations/res/").ok_or_else(|| wrong("no DPS response"))?;
        let (status, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let digits = status.strip_suffix('/').unwrap_or(status);
        let status = Some(digits).filter(|text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()));
        let status = status.and_then(|text| text.parse().ok()).ok_or_else(|| wrong("no status"))?;
        let parameter = |name: &str| {
            let mut pairs = parameters.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| percent_decode(value))
        };
        let rid = parameter("$rid").ok_or_else(|| wrong("no $rid"))?;
        Ok(Self { status, rid, retry_after: parameter("retry-after") })
    }
}

/// What is no escape stays as it is: the text is compared or parsed, and fails there if it was meant otherwise.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = escaped.filter(|digits| !digits.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> serde_json::Value {
        serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap()
    }

    #[test]
    fn response_topics_are_parsed_like_the_vectors() {
        let vectors = vectors();
        let vectors = vectors["mqtt"]["parse_topic"].as_array().unwrap();
        assert_eq!(vectors.len(), 16);
        for vector in vectors {
            let parsed = Response::parse(vector["topic"].as_str().unwrap());
            if vector.get("error").is_some() {
                assert!(parsed.is_err(), "{vector}");
                continue;
            }
            let parsed = parsed.unwrap();
            assert_eq!(u64::from(parsed.status), vector["status"], "{vector}");
            assert_eq!(parsed.rid, vector["rid"].as_str().unwrap(), "{vector}");
            // A number that is none is the core's to judge: here it stays as it was sent.
            let seconds = parsed.retry_after.as_deref().and_then(|text| text.parse::<u64>().ok());
            assert_eq!(seconds, vector["retry_after"].as_u64(), "{vector}");
        }
    }

    #[test]
    fn request_topics_are_written_like_the_vectors() {
        let vectors = vectors();
        for vector in vectors["mqtt"]["publish"].as_array().unwrap() {
            let request = match vector["op"].as_str().unwrap() {
                "register" => Request::Register,
                _ => Request::Query("4.d0a671905ea5b2c8.42d78160-4c78-479e-8be7-61d5e55dac0d".parse().unwrap()),
            };
            assert_eq!(of(&request, vector["rid"].as_str().unwrap()), vector["topic"].as_str().unwrap());
        }
        assert_eq!(RESPONSES, vectors["mqtt"]["subscribe"].as_str().unwrap());
    }

    #[test]
    fn a_plus_stays_a_plus_and_the_first_of_two_counts() {
        let parsed = Response::parse("$dps/registrations/res/202/?$RID=a+b&retry-after=Mon,+23+Nov&$rid=c").unwrap();
        assert_eq!(parsed, Response { status: 202, rid: "a+b".to_owned(), retry_after: Some("Mon,+23+Nov".to_owned()) });
    }

    #[test]
    fn a_value_may_be_escaped() {
        let parsed = Response::parse("$dps/registrations/res/429/?$rid=1&retry-after=Mon%2C%2023%20Nov%202026").unwrap();
        assert_eq!(parsed.retry_after.as_deref(), Some("Mon, 23 Nov 2026"));
        for odd in ["%", "%2", "%zz", "%+1", "100%"] {
            assert_eq!(percent_decode(odd), odd);
        }
        assert_eq!(percent_decode("%ff"), "%ff");
    }

    #[test]
    fn what_is_no_response_topic_is_named() {
        for (topic, what) in [
            ("devices/x", "no DPS response in the topic \"devices/x\""),
            ("SharedAccessSignature sr=a", "no DPS response in the topic \"(scrubbed)\""),
            ("$dps/registrations/res/+20/?$rid=1", "no status in the topic \"$dps/registrations/res/+20/?$rid=1\""),
            ("$dps/registrations/res/65736/?$rid=1", "no status in the topic \"$dps/registrations/res/65736/?$rid=1\""),
            ("$dps/registrations/res/200/?rid=1", "no $rid in the topic \"$dps/registrations/res/200/?rid=1\""),
            ("$dps/registrations/res/200/", "no $rid in the topic \"$dps/registrations/res/200/\""),
        ] {
            assert_eq!(Response::parse(topic).unwrap_err(), what);
        }
    }
}
