//! Answers of the provisioning service, before they become an MQTT topic or an HTTP response.

use crate::attest::Refusal;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use std::time::SystemTime;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The text of `Retry-After`.
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: &'static str,
    /// The error code, for the header `x-ms-error-code`.
    pub(crate) code: Option<u32>,
    /// How much later than now its `Date` is, in seconds, on HTTPS.
    pub(crate) dated: i64,
    /// Further headers, on HTTPS.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Answer {
    /// An answer with a JSON body.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::raw(status, body.to_string().into_bytes())
    }

    /// An answer with these bytes, said to be JSON.
    pub(crate) fn raw(status: u16, body: Vec<u8>) -> Self {
        let content_type = "application/json; charset=utf-8";
        Self { status, retry_after: None, body, content_type, code: None, dated: 0, headers: Vec::new() }
    }

    /// An error object (DPS device API §7.3); `code / 1000` is the status.
    pub(crate) fn error(code: u32, message: &str) -> Self {
        Self::error_with_status(u16::try_from(code / 1000).unwrap_or(500), code, message)
    }

    /// An error object whose code and status need not agree.
    pub(crate) fn error_with_status(status: u16, code: u32, message: &str) -> Self {
        let body = json!({
            "errorCode": code,
            "trackingId": guid(),
            "message": message,
            "timestampUtc": timestamp(),
        });
        Self { code: Some(code), ..Self::json(status, &body) }
    }

    /// What a proxy says.
    pub(crate) fn html(status: u16) -> Self {
        let page = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n");
        Self { content_type: "text/html", ..Self::raw(status, page.into_bytes()) }
    }

    /// How a refused client is told.
    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Nothing
            | Refusal::OtherKind
            | Refusal::Malformed
            | Refusal::Audience
            | Refusal::Expired
            | Refusal::Signature
            | Refusal::KeyName
            | Refusal::Unchallenged
            | Refusal::EndorsementKey
            | Refusal::OtherKeys
            | Refusal::Transport
            // At a hub only.
            | Refusal::Disabled
            | Refusal::NotYet => Self::error(401_000, "Unauthorized"),
            Refusal::Certificate(_) => Self::error(401_002, "Invalid certificate."),
            Refusal::Name => Self::error(400_000, "Invalid registration ID."),
            Refusal::Scope | Refusal::Device => Self::error(404_201, "Not found."),
        }
    }
}

/// A random GUID in its usual spelling.
pub(crate) fn guid() -> String {
    let [a, b, c, d, e] = [4, 2, 2, 2, 6].map(random_hex);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// `bytes` random bytes in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    // A generator that fails leaves zeros: good enough for a tracking ID.
    let _ = SystemRandom::new().fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time of day as DPS writes it: ISO 8601 with seven fractional digits.
pub(crate) fn timestamp() -> String {
    let now = time::OffsetDateTime::from(SystemTime::now());
    let (date, clock, ticks) = (now.date(), now.time(), now.nanosecond() / 100);
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = clock.as_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ticks:07}Z")
}
