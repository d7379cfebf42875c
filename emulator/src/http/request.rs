//! HTTP/1.1 requests as they come off the wire.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LARGEST_HEAD: usize = 32 * 1024;
/// More than the largest message of DPS (96 KB, DPS device API §12).
const LARGEST_BODY: usize = 128 * 1024;

/// One request, with its body.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Before the `?`, as received.
    pub(crate) path: String,
    /// After the `?`, as received; empty when there is none.
    pub(crate) query: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
}

impl Request {
    /// The value of the first header called `name`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated header has this token, in any case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.header(name).is_some_and(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
    }

    /// Whether it asks for a WebSocket.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.has_token("connection", "upgrade") && self.has_token("upgrade", "websocket")
    }
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum Broken {
    Closed,
    /// The status to answer with, and why.
    Request(u16, String),
}

/// Reads requests one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    received: Vec<u8>,
}

impl Reader {
    /// The next request.
    pub(crate) async fn next<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Result<Request, Broken> {
        let (mut request, head) = loop {
            if let Some(found) = head(&self.received)? {
                break found;
            }
            self.more(stream).await?;
        };
        self.received.drain(..head);
        if request.has_token("expect", "100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| Broken::Closed)?;
            stream.flush().await.map_err(|_| Broken::Closed)?;
        }
        request.body = match (request.header("transfer-encoding"), request.header("content-length")) {
            (Some(_), Some(_)) => return Err(bad("both Transfer-Encoding and Content-Length")),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => self.chunks(stream).await?,
            (Some(_), None) => return Err(bad("a transfer coding other than chunked")),
            (None, Some(length)) => {
                let length = length.parse().map_err(|_| bad("Content-Length is no number"))?;
                self.exactly(stream, length).await?
            }
            (None, None) => Vec::new(),
        };
        Ok(request)
    }

    /// What was received after the last request.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        self.received
    }

    async fn more<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<(), Broken> {
        self.received.reserve(8 * 1024);
        match stream.read_buf(&mut self.received).await {
            Ok(0) | Err(_) => Err(Broken::Closed),
            Ok(_) => Ok(()),
        }
    }

    async fn exactly<S: AsyncRead + Unpin>(&mut self, stream: &mut S, length: usize) -> Result<Vec<u8>, Broken> {
        if length > LARGEST_BODY {
            return Err(Broken::Request(413, "a body above 128 KiB".to_owned()));
        }
        while self.received.len() < length {
            self.more(stream).await?;
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    async fn chunks<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let (used, size) = loop {
                match httparse::parse_chunk_size(&self.received) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) => self.more(stream).await?,
                    Err(_) => return Err(bad("a broken chunk")),
                }
            };
            self.received.drain(..used);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let chunk = self.exactly(stream, size).await?;
            if self.exactly(stream, 2).await? != b"\r\n" {
                return Err(bad("a broken chunk"));
            }
            if size == 0 {
                return Ok(body);
            }
            body.extend(chunk);
            if body.len() > LARGEST_BODY {
                return Err(Broken::Request(413, "a body above 128 KiB".to_owned()));
            }
        }
    }
}

/// The head of the first request and its length, once it is there.
fn head(received: &[u8]) -> Result<Option<(Request, usize)>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(received) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if received.len() < LARGEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(Broken::Request(431, "a head above 32 KiB".to_owned()));
        }
        Err(error) => return Err(bad(&format!("no HTTP request: {error}"))),
    };
    let (path, query) = parsed.path.unwrap_or_default().split_once('?').unwrap_or((parsed.path.unwrap_or_default(), ""));
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        body: Vec::new(),
        keep_alive: false,
    };
    if request.header("host").is_none() {
        return Err(bad("no Host header"));
    }
    request.keep_alive = parsed.version == Some(1) && !request.has_token("connection", "close");
    Ok(Some((request, length)))
}

fn bad(why: &str) -> Broken {
    Broken::Request(400, why.to_owned())
}
