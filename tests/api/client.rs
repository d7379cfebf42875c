//! A client that sends what it is told, byte for byte, and reads what comes.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Long for a machine that is busy; what is tested for takes far less.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Until what is asked for is the case.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A connection.
pub struct Client {
    pub stream: UnixStream,
    read: Vec<u8>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Client {
    pub fn to(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    pub fn no_more(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).receive()
    }

    pub fn post(&mut self, target: &str, body: &str) -> Response {
        self.send(post(target, body)).receive()
    }

    /// The next response.
    pub fn receive(&mut self) -> Response {
        self.try_receive().unwrap_or_else(|error| panic!("{error}; {:?}", String::from_utf8_lossy(&self.read)))
    }

    pub fn try_receive(&mut self) -> io::Result<Response> {
        loop {
            if let Some((response, length)) = whole(&self.read) {
                self.read.drain(..length);
                return Ok(response);
            }
            let mut part = [0; 4096];
            match self.stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.read.extend_from_slice(&part[..length]),
            }
        }
    }

    /// Whether the agent has ended the connection, without another word.
    pub fn is_ended(&mut self) -> bool {
        self.read.is_empty() && matches!(self.stream.read(&mut [0]), Ok(0))
    }

    /// Whether the agent leaves the connection as it is.
    pub fn is_left_alone(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and message of an error.
    pub fn refusal(&self) -> (u16, String) {
        let json = self.json();
        let message = json["error"]["message"].as_str().unwrap_or_else(|| panic!("{self:?}"));
        (self.status, message.to_owned())
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A request with JSON.
pub fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn whole(bytes: &[u8]) -> Option<(Response, usize)> {
    let text = String::from_utf8_lossy(bytes);
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().unwrap();
    let stated = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = stated.map_or(0, |length| length.parse::<usize>().unwrap());
    let body = rest.get(..length)?.to_owned();
    Some((Response { status, head: head.to_owned(), body }, head.len() + 4 + length))
}
