//! DPS over HTTPS: one HTTP/1.1 connection that is kept (DPS device API, HTTPS). The only file that names the HTTP library.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, Uri};
use hyper_util::rt::TokioIo;

use super::deadline::Deadline;
use super::dial::{Dialer, Stream};
use super::failure::{Failure, Peer};
use super::{AGENT, GOODBYE};
use crate::id::HostName;
use crate::protocol::wire::LARGEST_BODY;
use crate::protocol::{Answer, Lost, Stage};
use crate::secret::Secret;

/// A longer head of a response is not read, in bytes.
const LARGEST_HEADER: usize = 64 * 1024;

type Connection = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    /// Path and query, percent-encoded.
    pub(super) path: String,
    pub(super) verb: Verb,
}

/// The method, with the body where it has one.
#[derive(Debug)]
pub(super) enum Verb {
    Get,
    Put(Vec<u8>),
    Post(Vec<u8>),
}

/// An open connection.
pub(super) struct Session {
    requests: SendRequest<Full<Bytes>>,
    driver: Driver,
    peer: Peer,
    authority: String,
    answered: bool,
}

/// Connects, up to the end of the TLS handshake, before the deadline.
pub(super) async fn open(dialer: &Dialer, host: &HostName, port: u16, deadline: Deadline) -> Result<Session, Failure> {
    let stream = dialer.dial(host, port, deadline).await?;
    let peer = dialer.peer(host, port);
    let handshake = http1::Builder::new().max_buf_size(LARGEST_HEADER).handshake(TokioIo::new(stream)).await;
    let (requests, connection) = handshake.map_err(|error| peer.failure(&error, Stage::Open))?;
    let authority = if port == 443 { host.in_url() } else { peer.place.clone() };
    Ok(Session { requests, driver: Driver(Some(Box::pin(connection))), peer, authority, answered: false })
}

impl Session {
    /// Sends the call and reads the whole answer.
    pub(super) async fn ask(
        &mut self,
        call: Call,
        token: Option<&Secret<String>>,
        deadline: Deadline,
    ) -> Result<Answer, Failure> {
        let place = self.peer.place.clone();
        let answer = deadline.bound(Stage::Reply, &place, self.answer(call, token)).await??;
        self.answered = true;
        Ok(answer)
    }

    /// Whether the peer has hung up while nobody listened.
    pub(super) fn has_ended(&mut self) -> bool {
        self.driver.run().now_or_never().is_some() || self.requests.is_closed()
    }

    /// Ends TLS in order. The peer gets a second for it.
    pub(super) async fn close(mut self) {
        drop(self.requests);
        // Without a sender the connection shuts down by itself.
        let _ = tokio::time::timeout(GOODBYE, self.driver.run()).await;
    }

    async fn answer(&mut self, call: Call, token: Option<&Secret<String>>) -> Result<Answer, Failure> {
        let request = self.request(call, token)?;
        let asked = async {
            self.requests.ready().await?;
            self.requests.send_request(request).await
        };
        let response = self.driver.alongside(asked).await;
        let response = response.map_err(|error| self.broken(&error))?;
        if response.status().is_redirection() {
            return Err(redirected(response.headers()).into());
        }
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after: text(response.headers(), &header::RETRY_AFTER),
            date: text(response.headers(), &header::DATE),
            ..Answer::default()
        };
        answer.body = self.body(response).await?;
        Ok(answer)
    }

    async fn body(&mut self, response: Response<Incoming>) -> Result<Vec<u8>, Failure> {
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = self.driver.alongside(incoming.frame()).await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            let data = frame.into_data().unwrap_or_default();
            if body.len() + data.len() > LARGEST_BODY {
                return Err(Lost::Nonsense(format!("it is larger than {LARGEST_BODY} bytes")).into());
            }
            body.extend_from_slice(&data);
        }
        Ok(body)
    }

    fn request(&self, call: Call, token: Option<&Secret<String>>) -> Result<hyper::Request<Full<Bytes>>, Lost> {
        let (method, body) = match call.verb {
            Verb::Get => (Method::GET, None),
            Verb::Put(body) => (Method::PUT, Some(body)),
            Verb::Post(body) => (Method::POST, Some(body)),
        };
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(call.path)
            .header(header::HOST, &self.authority)
            .header(header::USER_AGENT, AGENT)
            .header(header::ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json; charset=utf-8");
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| unspeakable())?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::from(body.unwrap_or_default())).map_err(|_| unspeakable())
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        let stage = if self.answered { Stage::Reply } else { self.peer.stage_of_hang_up(Stage::Reply) };
        if error.is_parse() {
            return Lost::Nonsense(format!("{} does not speak HTTP/1.1: {error}", self.peer.place)).into();
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return self.peer.failure(&io::Error::from(io::ErrorKind::UnexpectedEof), stage);
        }
        self.peer.failure(error, stage)
    }
}

/// The connection's own half of the work. It happens while we wait for something, and at no other time.
struct Driver(Option<Pin<Box<Connection>>>);

impl Driver {
    /// Until the connection ends.
    async fn run(&mut self) {
        if let Some(connection) = &mut self.0 {
            // Why it ended is told to the request that waits for an answer, if there is one.
            let _ = connection.await;
        }
        self.0 = None;
    }

    /// What the future brings, with the connection driven meanwhile.
    async fn alongside<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        tokio::select! {
            biased;
            output = &mut future => return output,
            () = self.run() => {}
        }
        future.await
    }
}

/// DPS does not redirect. Who does wants the credential somewhere else.
fn redirected(headers: &HeaderMap) -> Lost {
    let location = text(headers, &header::LOCATION).and_then(|location| location.parse::<Uri>().ok());
    let host = location.as_ref().and_then(Uri::host).unwrap_or("somewhere without a name");
    Lost::Nonsense(format!("a redirection to {host}: something answers in the service's place, such as a captive portal"))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn unspeakable() -> Lost {
    Lost::Credential("the request cannot be written as HTTP".to_owned())
}
