//! The other end of the sockets: how the agent's own verbs ask the daemon.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::GROUP;
use crate::blame::Blame;
use crate::failure::Failure;
use crate::secret::Secret;

/// What the daemon has said.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// JSON or text. It may hold a token.
    pub body: Secret<Vec<u8>>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// [`Blame::Peer`] if it is none.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(self.body.expose()).map_err(|_| Failure::new(Blame::Peer, "the daemon's answer is no JSON"))
    }

    /// The body as text.
    ///
    /// # Errors
    /// [`Blame::Peer`] if it is none.
    pub fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(self.body.expose()).map_err(|_| Failure::new(Blame::Peer, "the daemon's answer is no text"))
    }

    /// The reply, or the failure that it tells of.
    ///
    /// # Errors
    /// What the daemon has said, if it is no success.
    pub fn success(self) -> Result<Self, Failure> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(told(self.status, &self.json()?["error"])) }
    }
}

/// Asks the daemon behind this socket, for so long at most. `None` if there is no daemon.
///
/// # Errors
/// [`Blame::Unwritable`] if this user may not ask; [`Blame::Network`] if the daemon does not answer in time or hangs up.
pub async fn ask(socket: &Path, method: &str, target: &str, body: &Value, patience: Duration) -> Result<Option<Reply>, Failure> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(not_let_in(socket, &error)),
    };
    match timeout(patience, converse(stream, method, target, body)).await {
        Ok(answered) => {
            let broken = |error| Failure::new(Blame::Network, format!("the daemon at {}: {error}", socket.display()));
            answered.map(Some).map_err(broken)
        }
        Err(_) => {
            let silent = format!("the daemon at {} has not answered within {} s", socket.display(), patience.as_secs());
            Err(Failure::new(Blame::Network, silent))
        }
    }
}

async fn converse(mut stream: UnixStream, method: &str, target: &str, body: &Value) -> io::Result<Reply> {
    let content = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
        content.len()
    );
    // It may have been answered and closed before all of it was taken: what counts is what can be read.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::with_capacity(64 * 1024);
    let read = stream.read_to_end(&mut bytes).await;
    let bytes = Secret::new(bytes);
    match (parse(bytes.expose()), read) {
        (Some(reply), _) => Ok(reply),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up in the middle of its answer")),
    }
}

/// A whole response: its length must be what it says.
fn parse(bytes: &[u8]) -> Option<Reply> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = response.parse(bytes) else { return None };
    let body = &bytes[length..];
    let stated = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let stated = stated.map_or(Some(0), |field| std::str::from_utf8(field.value).ok()?.parse().ok())?;
    (stated == body.len()).then(|| Reply { status: response.code.unwrap_or_default(), body: Secret::new(body.to_vec()) })
}

fn not_let_in(socket: &Path, error: &io::Error) -> Failure {
    let cure = if error.kind() == io::ErrorKind::PermissionDenied {
        format!(" (this takes root, or for the client socket a member of the group {GROUP})")
    } else {
        String::new()
    };
    Failure::new(Blame::Unwritable, format!("cannot ask the daemon at {}: {error}{cure}", socket.display()))
}

/// The failure of which an answer tells.
fn told(status: u16, error: &Value) -> Failure {
    let blame = Blame::ALL.into_iter().find(|blame| error["blame"] == blame.word()).unwrap_or(Blame::Peer);
    let message = error["message"].as_str().map_or_else(|| format!("the daemon answered {status}"), str::to_owned);
    Failure {
        code: error["errorCode"].as_u64().and_then(|code| u32::try_from(code).ok()),
        tracking_id: error["trackingId"].as_str().map(str::to_owned),
        ..Failure::new(blame, message)
    }
}
