//! Bodies and answers on the wire, the same for every transport.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Answer, Assignment, AuthenticationKey, Lost, Refusal, Reply, Request};
use crate::id::{InvalidId, OperationId, RegistrationId};

/// The largest reply that is read, in bytes. DPS itself documents messages of 96 KB at most.
pub const LARGEST_BODY: usize = 128 * 1024;

/// The longest wait that a `Retry-After` can ask for; what is longer is taken as this.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The public keys of a TPM in the register call, each as the base64 of its TPM2B_PUBLIC (DPS device API, TPM attestation).
#[derive(Debug, Clone)]
pub struct TpmKeys {
    /// The endorsement key.
    pub endorsement_key: String,
    /// The storage root key.
    pub storage_root_key: String,
}

/// The body of the register call, with the custom allocation payload and the TPM's keys if there are any.
pub fn register_body(id: &RegistrationId, payload: Option<&Value>, tpm: Option<&TpmKeys>) -> Vec<u8> {
    let mut body = json!({ "registrationId": id.as_str() });
    if let Some(TpmKeys { endorsement_key, storage_root_key }) = tpm {
        body["tpm"] = json!({ "endorsementKey": endorsement_key, "storageRootKey": storage_root_key });
    }
    if let Some(payload) = payload {
        body["payload"] = payload.clone();
    }
    body.to_string().into_bytes()
}

/// Understands an answer to `request`. `now` is our own time in seconds since 1970, for a `Retry-After` that is a date
/// where the service does not tell its time.
///
/// The status is looked at before the body: a proxy's HTML page with status 502 is a 502, not bad JSON. What makes no
/// sense is [`Lost::Nonsense`].
pub fn decode(request: &Request, answer: &Answer, id: &RegistrationId, now: u64) -> Result<Reply, Lost> {
    let retry_after = answer.retry_after.as_deref().and_then(|text| retry_after(text, answer.date.as_deref(), now));
    match answer.status {
        // Nobody was authorized to do anything yet.
        status @ (200 | 202) if *request == Request::Challenge => {
            Err(Lost::Nonsense(format!("status {status} where a challenge is due")))
        }
        200 | 202 => understood(request, answer, id, retry_after),
        401 if *request == Request::Challenge => challenge(answer, retry_after),
        400..=599 => Ok(Reply::Refused(refusal(answer, retry_after))),
        other => Err(Lost::Nonsense(format!("status {other} is none of this protocol"))),
    }
}

/// `Retry-After` in seconds or as an HTTP date (RFC 9110 §10.2.3). One that cannot be parsed counts as absent.
pub fn retry_after(text: &str, date: Option<&str>, own_now: u64) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are still a wish to be left alone for long.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let then = httpdate::parse_http_date(text).ok()?;
        // The service's own clock is the one its date was made with; ours may be wrong.
        let now = date.and_then(|text| httpdate::parse_http_date(text.trim()).ok());
        let now = now.or_else(|| UNIX_EPOCH.checked_add(Duration::from_secs(own_now)))?;
        then.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

fn understood(request: &Request, answer: &Answer, id: &RegistrationId, retry_after: Option<Duration>) -> Result<Reply, Lost> {
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| nonsense(format!("the body is no JSON ({error})")))?;
    let status = text(&body, "status").ok_or_else(|| nonsense("the body has no status"))?;
    let state = &body["registrationState"];
    match status.as_str() {
        "assigning" | "unassigned" => Ok(Reply::Pending { operation: operation(request, &body)?, retry_after }),
        "assigned" => assignment(state, id).map(Reply::Assigned),
        _ => Ok(Reply::Refused(Refusal {
            status: answer.status,
            connack: None,
            final_status: Some(status),
            code: code(state),
            tracking_id: text(&body, "trackingId"),
            message: text(state, "errorMessage"),
            retry_after,
        })),
    }
}

/// Without a key it is a refusal like any other.
fn challenge(answer: &Answer, retry_after: Option<Duration>) -> Result<Reply, Lost> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match key(&body)? {
        Some(key) => Ok(Reply::Challenged(key)),
        None => Ok(Reply::Refused(refusal(answer, retry_after))),
    }
}

fn key(object: &Value) -> Result<Option<AuthenticationKey>, Lost> {
    object["authenticationKey"].as_str().map(AuthenticationKey::parse).transpose().map_err(nonsense)
}

/// What the registration status lookup tells of a device that is assigned (DPS device API, HTTPS).
///
/// # Errors
/// [`Lost::Nonsense`] if it is not assigned, or the answer is none.
pub fn looked_up(answer: &Answer, id: &RegistrationId) -> Result<Assignment, Lost> {
    let state: Value =
        serde_json::from_slice(&answer.body).map_err(|error| nonsense(format!("the body is no JSON ({error})")))?;
    match text(&state, "status").as_deref() {
        Some("assigned") => assignment(&state, id),
        Some(other) => Err(nonsense(format!("the device is {other:?} and not assigned"))),
        None => Err(nonsense("the body has no status")),
    }
}

/// The operation to ask for next. An answer to a query may leave out what we have asked with.
fn operation(request: &Request, body: &Value) -> Result<OperationId, Lost> {
    match (body["operationId"].as_str(), request) {
        (None | Some(""), Request::Query(operation)) => Ok(operation.clone()),
        (found, _) => found.unwrap_or_default().parse().map_err(|error: InvalidId| nonsense(error.to_string())),
    }
}

fn assignment(state: &Value, id: &RegistrationId) -> Result<Assignment, Lost> {
    let field = |name: &str| state[name].as_str().ok_or_else(|| nonsense(format!("it assigns without {name}")));
    if let Some(other) = state["registrationId"].as_str().filter(|other| !id.same_as(other)) {
        return Err(nonsense(format!("it is for registration ID {:?}", clean(other))));
    }
    let invalid = |error: InvalidId| nonsense(error.to_string());
    Ok(Assignment {
        hub: field("assignedHub")?.parse().map_err(invalid)?,
        device_id: field("deviceId")?.parse().map_err(invalid)?,
        substatus: text(state, "substatus"),
        payload: state.get("payload").filter(|payload| !payload.is_null()).cloned(),
        updated: text(state, "lastUpdatedDateTimeUtc"),
        key: key(&state["tpm"])?,
    })
}

/// An answer that is a no, whatever its body.
pub fn refusal(answer: &Answer, retry_after: Option<Duration>) -> Refusal {
    // Whatever stands in between answers in its own words, which are not JSON and not for people.
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Refusal {
        status: answer.status,
        connack: answer.connack,
        final_status: None,
        code: code(&body),
        tracking_id: text(&body, "trackingId"),
        message: text(&body, "message"),
        retry_after,
    }
}

fn code(object: &Value) -> Option<u32> {
    object["errorCode"].as_u64().and_then(|code| code.try_into().ok())
}

fn text(object: &Value, name: &str) -> Option<String> {
    object[name].as_str().map(clean)
}

/// The text, unless it repeats a token of ours.
pub fn scrubbed(text: &str) -> &str {
    let has_token = ["SharedAccessSignature", "SharedAccessKey", "sig="].iter().any(|mark| text.contains(mark));
    if has_token { "(scrubbed)" } else { text }
}

/// The peer's words end in our log: one line, no control characters, not for ever.
fn clean(text: &str) -> String {
    scrubbed(text).chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What is quoted in it is the peer's, and may be our own token.
fn nonsense(what: impl Into<String>) -> Lost {
    Lost::Nonsense(scrubbed(&what.into()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> RegistrationId {
        "my-device-01".parse().unwrap()
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() }
    }

    fn decoded(status: u16, body: &str) -> Result<Reply, Lost> {
        decode(&Request::Register, &answer(status, body), &id(), 0)
    }

    #[test]
    fn bodies_of_the_published_traces_are_understood() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap();
        for case in vectors["bodies"].as_array().unwrap() {
            let (name, mut body) = (case["id"].as_str().unwrap(), case["body"].clone());
            if body["authenticationKey"] == "<base64>" {
                body["authenticationKey"] = vectors["tpm"]["activation_blob_static"]["authenticationKey_b64"].clone();
            }
            let own = body["registrationState"]["registrationId"].as_str().unwrap_or("my-device-01").parse().unwrap();
            let status = body["errorCode"].as_u64().map_or(200, |code| u16::try_from(code / 1000).unwrap());
            let challenge = case["classification"] == "tpm-challenge";
            let (status, request) = if challenge { (401, Request::Challenge) } else { (status, Request::Register) };
            let reply = decode(&request, &answer(status, &body.to_string()), &own, 0).unwrap();
            let class = match &reply {
                Reply::Pending { .. } => "poll",
                Reply::Assigned(_) => "assigned",
                Reply::Refused(Refusal { final_status: Some(word), .. }) => word,
                Reply::Refused(_) => "error",
                Reply::Challenged(_) => "tpm-challenge",
            };
            assert_eq!(class, case["classification"].as_str().unwrap(), "{name}");
        }
    }

    #[test]
    fn an_assignment_keeps_the_hub_as_it_was_written() {
        let body = r#"{"operationId":"5.3","status":"assigned","registrationState":{"registrationId":"MY-device-01",
            "assignedHub":"MyExampleHub.azure-devices.net","deviceId":"other","substatus":"initialAssignment","payload":{"a":1},
            "lastUpdatedDateTimeUtc":"2026-11-23T10:00:00.1234567Z","new":[]}}"#;
        assert_eq!(
            decoded(200, body),
            Ok(Reply::Assigned(Assignment {
                hub: "MyExampleHub.azure-devices.net".parse().unwrap(),
                device_id: "other".parse().unwrap(),
                substatus: Some("initialAssignment".into()),
                payload: Some(json!({"a": 1})),
                updated: Some("2026-11-23T10:00:00.1234567Z".into()),
                key: None,
            }))
        );
    }

    #[test]
    fn answers_that_make_no_sense_say_why() {
        let assigned = |state: &str| format!(r#"{{"operationId":"5.3","status":"assigned","registrationState":{state}}}"#);
        for (status, body, why) in [
            (200, "<html>".into(), "the body is no JSON (expected value at line 1 column 1)"),
            (200, "[]".into(), "the body has no status"),
            (
                202,
                r#"{"status":"assigning"}"#.into(),
                "operation ID \"\": an operation ID is 1 to 256 letters, digits and '-', '.', '_', ':', '~'",
            ),
            (202, r#"{"status":"assigning","operationId":"SharedAccessSignature sr=a&sig=b"}"#.into(), "(scrubbed)"),
            (200, assigned("{}"), "it assigns without assignedHub"),
            (200, assigned(r#"{"assignedHub":"h"}"#), "it assigns without deviceId"),
            (
                200,
                assigned(r#"{"registrationId":"else","assignedHub":"h","deviceId":"d"}"#),
                "it is for registration ID \"else\"",
            ),
            (
                200,
                assigned(r#"{"assignedHub":"h/p","deviceId":"d"}"#),
                "host name \"h/p\": a host name is labels of letters, digits and '-' joined by dots, or an IP address; without scheme, port or path",
            ),
            (
                200,
                assigned(r#"{"assignedHub":"h\r\nX: y","deviceId":"d"}"#),
                "host name \"h\\r\\nX: y\": a host name is labels of letters, digits and '-' joined by dots, or an IP address; without scheme, port or path",
            ),
            (302, String::new(), "status 302 is none of this protocol"),
            (204, String::new(), "status 204 is none of this protocol"),
        ] {
            assert_eq!(decoded(status, &body), Err(Lost::Nonsense(why.into())), "{status} {body}");
        }
    }

    #[test]
    fn a_lookup_tells_the_assignment_of_a_device_that_has_one() {
        let told = |body: &str| looked_up(&answer(200, body), &id()).map_err(|lost| lost.to_string());
        let assigned =
            told(r#"{"registrationId":"my-device-01","status":"assigned","assignedHub":"h.net","deviceId":"d"}"#).unwrap();
        assert_eq!((assigned.hub.as_str(), assigned.device_id.as_str()), ("h.net", "d"));
        for (body, why) in [
            (r#"{"status":"disabled"}"#, "the answer makes no sense: the device is \"disabled\" and not assigned"),
            ("{}", "the answer makes no sense: the body has no status"),
            (r#"{"status":"assigned","assignedHub":"h.net"}"#, "the answer makes no sense: it assigns without deviceId"),
        ] {
            assert_eq!(told(body).unwrap_err(), why);
        }
    }

    #[test]
    fn a_refusal_keeps_code_words_and_tracking_id() {
        let body = r#"{"errorCode":401002,"trackingId":"8ad0463c","message":"Invalid\ncertificate.","timestampUtc":"2020-04-10T05:24:22Z"}"#;
        let Ok(Reply::Refused(refusal)) = decoded(401, body) else { panic!() };
        assert_eq!(
            refusal.to_string(),
            "the service answered 401, error code 401002: Invalid certificate. (trackingId 8ad0463c)"
        );
        let Ok(Reply::Refused(page)) = decoded(502, "<html>Bad Gateway</html>") else { panic!() };
        assert_eq!(page.to_string(), "the service answered 502");
    }

    #[test]
    fn words_that_repeat_a_token_are_not_repeated() {
        let Ok(Reply::Refused(refusal)) = decoded(401, r#"{"message":"bad: SharedAccessSignature sr=a&sig=b&se=1"}"#) else {
            panic!()
        };
        assert_eq!(refusal.message.as_deref(), Some("(scrubbed)"));
    }

    #[test]
    fn status_200_can_mean_failed_disabled_or_something_unknown() {
        for (word, said) in [
            ("failed", "the registration ended as \"failed\", error code 400207: Custom allocation failed"),
            ("disabled", "the registration ended as \"disabled\", error code 400207: Custom allocation failed"),
            ("blocked-by-moon", "the registration ended as \"blocked-by-moon\", error code 400207: Custom allocation failed"),
        ] {
            let body = format!(
                r#"{{"operationId":"","status":"{word}","registrationState":{{"errorCode":400207,"errorMessage":"Custom allocation failed"}}}}"#
            );
            let Ok(Reply::Refused(refusal)) = decoded(200, &body) else { panic!("{word}") };
            assert_eq!(refusal.to_string(), said);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_shortened() {
        let own = |text: &str| retry_after(text, None, 1_700_000_000);
        for (text, seconds) in
            [("0", 0), ("3", 3), (" 120 ", 120), ("301", 301), ("3600", 3600), ("86401", 86400), (&"9".repeat(40), 86400)]
        {
            assert_eq!(own(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for absent in ["", "abc", "-3", "3.5", "1e3"] {
            assert_eq!(own(absent), None, "{absent}");
        }
        assert_eq!(own("Tue, 14 Nov 2023 22:15:20 GMT"), Some(Duration::from_secs(120)));
        assert_eq!(own("Tue, 14 Nov 2023 22:00:00 GMT"), Some(Duration::ZERO));
        // Our clock is in 1970; the service's own date tells how long it means.
        let by_its_clock = retry_after("Tue, 14 Nov 2023 22:15:20 GMT", Some("Tue, 14 Nov 2023 22:13:20 GMT"), 0);
        assert_eq!(by_its_clock, Some(Duration::from_secs(120)));
    }

    #[test]
    fn the_register_body_carries_the_payload() {
        assert_eq!(register_body(&id(), None, None), br#"{"registrationId":"my-device-01"}"#);
        let payload = json!({"modelId": "dtmi:com:example:Thermostat;1"});
        assert_eq!(
            String::from_utf8(register_body(&id(), Some(&payload), None)).unwrap(),
            r#"{"payload":{"modelId":"dtmi:com:example:Thermostat;1"},"registrationId":"my-device-01"}"#
        );
        let tpm = TpmKeys { endorsement_key: "AToA".into(), storage_root_key: "ARoA".into() };
        assert_eq!(
            String::from_utf8(register_body(&id(), None, Some(&tpm))).unwrap(),
            r#"{"registrationId":"my-device-01","tpm":{"endorsementKey":"AToA","storageRootKey":"ARoA"}}"#
        );
    }
}
