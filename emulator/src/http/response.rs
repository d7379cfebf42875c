//! HTTP/1.1 responses with the headers that DPS sends (DPS device API §6).

use crate::answer::{Answer, guid};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// The response with this answer.
pub(crate) fn to_bytes(answer: &Answer, keep_alive: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    let mut header = |name: &str, value: &str| {
        let _ = write!(head, "{name}: {value}\r\n");
    };
    let shift = Duration::from_secs(answer.dated.unsigned_abs());
    let now = SystemTime::now();
    header("Date", &httpdate::fmt_http_date(if answer.dated < 0 { now - shift } else { now + shift }));
    // RFC 9110 §8.6: never with 204.
    if answer.status != 204 {
        header("Content-Length", &answer.body.len().to_string());
    }
    header("x-ms-request-id", &guid());
    if !answer.body.is_empty() {
        header("Content-Type", answer.content_type);
    }
    if let Some(code) = answer.code {
        header("x-ms-error-code", &code.to_string());
    }
    if let Some(text) = &answer.retry_after {
        header("Retry-After", text);
    }
    for (name, value) in &answer.headers {
        header(name, value);
    }
    if !keep_alive {
        header("Connection", "close");
    }
    [head.as_bytes(), b"\r\n", &answer.body].concat()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
