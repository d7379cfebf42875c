//! A request and its answer as bytes of HTTP/1.1 (RFC 9112): as much of it as a local API needs, and words for all that is wrong.

use httparse::{EMPTY_HEADER, Error, Header, Status};
use serde_json::Value;

use crate::blame::Blame;
use crate::failure::Failure;
use crate::secret::Secret;

/// A longer head of a request is refused, in bytes.
pub(super) const LARGEST_HEAD: usize = 8 * 1024;
/// A longer body is refused, in bytes.
pub(super) const LARGEST_BODY: usize = 16 * 1024;
/// So many header fields are read.
const MOST_FIELDS: usize = 64;
/// So many times longer a chunked body may be than what is in it.
const CHUNK_FRAMING: usize = 4;

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    /// What stands behind `?`; may be empty.
    pub(super) query: String,
    /// `Content-Type` without its parameters, in lower case.
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
    /// The client sends no other one on this connection.
    pub(super) is_last: bool,
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not enough of them yet. The client may wait for `100 Continue` before it sends more.
    More { awaits_continue: bool },
    /// A request, and how many bytes it took.
    Whole(Request, usize),
}

/// Reads the request at the beginning of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Answer> {
    // An empty line before a request is to be overlooked (RFC 9112 §2.2), and httparse does so.
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(Status::Complete(length)) if length <= LARGEST_HEAD => whole(&head, bytes, length),
        Ok(Status::Partial) if bytes.len() <= LARGEST_HEAD => Ok(Parsed::More { awaits_continue: false }),
        Ok(_) => Err(Answer::refused(431, format!("the head of the request is larger than {LARGEST_HEAD} bytes"))),
        Err(Error::TooManyHeaders) => Err(Answer::refused(431, format!("the request has more than {MOST_FIELDS} header fields"))),
        Err(error) => Err(Answer::refused(400, format!("this is no HTTP/1.1 request: {error}"))),
    }
}

fn whole(head: &httparse::Request<'_, '_>, bytes: &[u8], length: usize) -> Result<Parsed, Answer> {
    let rest = &bytes[length..];
    let Some((body, used)) = body(head.headers, rest)? else {
        let awaits_continue = rest.is_empty() && field(head.headers, "expect")?.is_some();
        return Ok(Parsed::More { awaits_continue });
    };
    let (path, query) = target(head.path.unwrap_or_default());
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        content_type: field(head.headers, "content-type")?.map(media_type),
        body,
        is_last: is_last(head)?,
    };
    Ok(Parsed::Whole(request, length + used))
}

/// The body and the bytes that it took; `None` while it is not all there.
fn body(fields: &[Header<'_>], rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Answer> {
    match (field(fields, "transfer-encoding")?, field(fields, "content-length")?) {
        (Some(_), Some(_)) => Err(Answer::refused(400, "the request has both Transfer-Encoding and Content-Length")),
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => dechunk(rest),
        (Some(coding), None) => {
            Err(Answer::refused(501, format!("Transfer-Encoding {coding:?} is not understood; send it plain")))
        }
        (None, Some(length)) => {
            let length = content_length(length)?;
            Ok(rest.get(..length).map(|body| (body.to_vec(), length)))
        }
        (None, None) => Ok(Some((Vec::new(), 0))),
    }
}

fn content_length(text: &str) -> Result<usize, Answer> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(length) if is_number && length <= LARGEST_BODY => Ok(length),
        _ if is_number => Err(too_large()),
        _ => Err(Answer::refused(400, format!("Content-Length {text:?} is no number"))),
    }
}

/// A chunked body (RFC 9112 §7.1). Trailer fields are overlooked.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Answer> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        if at > LARGEST_BODY * CHUNK_FRAMING {
            return Err(too_large());
        }
        let size = httparse::parse_chunk_size(&bytes[at..]).map_err(|_| bad_chunk())?;
        let Status::Complete((line, size)) = size else { return unfinished(bytes.len() - at) };
        at += line;
        if size == 0 {
            return trailer(&bytes[at..]).map(|found| found.map(|length| (body, at + length)));
        }
        let size = usize::try_from(size).ok().filter(|size| body.len() + size <= LARGEST_BODY).ok_or_else(too_large)?;
        let Some(chunk) = bytes[at..].get(..size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err(bad_chunk());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
}

/// The line with a chunk's size may be long, not endless.
fn unfinished<T>(line: usize) -> Result<Option<T>, Answer> {
    if line > LARGEST_HEAD { Err(bad_chunk()) } else { Ok(None) }
}

fn trailer(bytes: &[u8]) -> Result<Option<usize>, Answer> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(Status::Complete((length, _))) => Ok(Some(length)),
        Ok(Status::Partial) => unfinished(bytes.len()),
        Err(_) => Err(bad_chunk()),
    }
}

fn too_large() -> Answer {
    Answer::refused(413, format!("the body is larger than {LARGEST_BODY} bytes"))
}

fn bad_chunk() -> Answer {
    Answer::refused(400, "the body says that it is chunked, and is not")
}

/// The one value of a field.
fn field<'h>(fields: &[Header<'h>], name: &str) -> Result<Option<&'h str>, Answer> {
    let mut found = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => match std::str::from_utf8(field.value) {
            Ok(value) => Ok(Some(value.trim())),
            Err(_) => Err(Answer::refused(400, format!("the header field {name} is no text"))),
        },
        (Some(_), Some(_)) => Err(Answer::refused(400, format!("the header field {name} is there twice"))),
    }
}

fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_last(head: &httparse::Request<'_, '_>) -> Result<bool, Answer> {
    let named = |word: &str, value: &str| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word));
    let connection = field(head.headers, "connection")?.unwrap_or_default();
    Ok(if head.version == Some(1) { named("close", connection) } else { !named("keep-alive", connection) })
}

/// Path and query of a request target, also where it is a whole URL (RFC 9112 §3.2.2).
fn target(text: &str) -> (&str, &str) {
    let path = match text.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => text,
    };
    path.split_once('?').unwrap_or((path, ""))
}

/// What a client is told.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    kind: &'static str,
    /// For 405: the methods that there are.
    allow: Option<&'static str>,
    /// For 429 and 503: seconds after which to ask again.
    retry_after: Option<u64>,
    body: Secret<Vec<u8>>,
}

impl Answer {
    /// 200 with JSON.
    pub(super) fn json(value: &Value) -> Self {
        Self::of(200, value)
    }

    /// 200 with JSON that holds a secret.
    pub(super) fn secret(text: Secret<Vec<u8>>) -> Self {
        Self { status: 200, kind: JSON, allow: None, retry_after: None, body: text }
    }

    /// 200 with a text of this media type.
    pub(super) fn text(kind: &'static str, text: String) -> Self {
        Self { kind, ..Self::secret(Secret::new(text.into_bytes())) }
    }

    /// A status without a body.
    pub(super) fn empty(status: u16) -> Self {
        Self { status, ..Self::secret(Secret::new(Vec::new())) }
    }

    /// This status with JSON.
    pub(super) fn of(status: u16, value: &Value) -> Self {
        Self { status, ..Self::secret(Secret::new(format!("{value}\n").into_bytes())) }
    }

    /// A request that cannot be served, with the reason in words.
    pub(super) fn refused(status: u16, why: impl Into<String>) -> Self {
        let blame = if matches!(status, 408 | 429 | 503) { Blame::Busy } else { Blame::Usage };
        Self::of(status, &Failure::new(blame, why).to_json())
    }

    /// With the methods that there are.
    pub(super) fn allowing(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    /// With the seconds after which to ask again.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// As bytes, without the body for `HEAD`. After the last one the connection ends.
    pub(super) fn render(&self, head_only: bool, is_last: bool) -> Secret<Vec<u8>> {
        let body = self.body.expose();
        let mut head = format!("HTTP/1.1 {} {}\r\nCache-Control: no-store\r\n", self.status, reason(self.status));
        if self.status != 304 {
            head.push_str(&format!("Content-Type: {}\r\nContent-Length: {}\r\n", self.kind, body.len()));
        }
        head.extend(self.allow.map(|methods| format!("Allow: {methods}\r\n")));
        head.extend(self.retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")));
        head.push_str(if is_last { "Connection: close\r\n\r\n" } else { "\r\n" });
        // Made in one piece: a buffer that grows would leave copies of a secret behind.
        let mut bytes = Vec::with_capacity(head.len() + body.len());
        bytes.extend_from_slice(head.as_bytes());
        if !head_only {
            bytes.extend_from_slice(body);
        }
        Secret::new(bytes)
    }
}

const JSON: &str = "application/json";

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "",
    }
}
