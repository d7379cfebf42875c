//! What carries MQTT packets: TLS itself, or a WebSocket over it (MQTT 3.1.1 §6). The only file that names the WebSocket library.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, Response, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::dial::Stream;
use super::failure::{Failure, Peer, unreachable};
use super::{AGENT, WEB_SOCKET_PATH, mqtt};
use crate::protocol::{Answer, Lost, Stage};

/// An ordered stream of bytes with an end.
pub(super) enum Wire {
    /// TLS.
    Plain(Box<Stream>),
    /// WebSocket over TLS.
    WebSocket(Box<WebSocketStream<Stream>>),
}

impl Wire {
    /// Upgrades a connection to a WebSocket with the subprotocol `mqtt`.
    pub(super) async fn upgrade(stream: Stream, peer: &Peer) -> Result<Self, Failure> {
        let url = format!("wss://{}{WEB_SOCKET_PATH}", peer.place);
        let mut request = url.into_client_request().map_err(|error| refused_upgrade(error, peer))?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .max_message_size(Some(mqtt::LARGEST_PACKET))
            .max_frame_size(Some(mqtt::LARGEST_PACKET));
        let upgraded = client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = upgraded.map_err(|error| refused_upgrade(error, peer))?;
        Ok(Self::WebSocket(Box::new(socket)))
    }

    pub(super) async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Plain(stream) => {
                stream.write_all(&bytes).await?;
                stream.flush().await
            }
            Self::WebSocket(socket) => socket.send(Message::Binary(bytes)).await.map_err(as_io),
        }
    }

    /// Waits for more bytes and appends them. The end is an error, `UnexpectedEof`. May be cancelled without loss.
    pub(super) async fn receive(&mut self, into: &mut BytesMut) -> io::Result<()> {
        match self {
            Self::Plain(stream) => match stream.read_buf(into).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            },
            Self::WebSocket(socket) => match socket.next().await.transpose().map_err(as_io)? {
                Some(Message::Binary(bytes)) => {
                    into.extend_from_slice(&bytes);
                    Ok(())
                }
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(()),
                Some(Message::Text(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "text on an MQTT WebSocket")),
                Some(Message::Close(_)) | None => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// Says goodbye on each layer. That the peer does not listen any more is none of our business.
    pub(super) async fn close(&mut self) {
        match self {
            Self::Plain(stream) => drop(stream.shutdown().await),
            Self::WebSocket(socket) => drop(SinkExt::close(socket).await),
        }
    }
}

/// I/O errors keep their cause, which may be TLS's; what only a broken peer sends is `InvalidData`.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's other errors mean one thing")]
fn as_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::UnexpectedEof.into()
        }
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

/// What it means that there is no WebSocket. That a service refuses us or is busy is its answer; any other status means that
/// this way is not open.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's other errors mean one thing")]
fn refused_upgrade(error: Error, peer: &Peer) -> Failure {
    let stage = peer.stage_of_hang_up(Stage::Open);
    match error {
        Error::Http(response) => refusal(response, peer),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            peer.failure(&io::Error::from(io::ErrorKind::UnexpectedEof), stage)
        }
        Error::Io(error) => peer.failure(&error, stage),
        other => Lost::Nonsense(format!("{} does not open a WebSocket: {other}", peer.place)).into(),
    }
}

fn refusal(response: Response<Option<Vec<u8>>>, peer: &Peer) -> Failure {
    let status = response.status().as_u16();
    match status {
        401 | 403 | 429 | 500..=599 => Failure::Refused(Answer {
            status,
            retry_after: text(response.headers(), &header::RETRY_AFTER),
            date: text(response.headers(), &header::DATE),
            body: response.into_body().unwrap_or_default(),
            ..Answer::default()
        }),
        _ => {
            let why = format!(
                "{} answers the WebSocket upgrade with {status}: something on the way takes it for plain HTTP",
                peer.place
            );
            unreachable(Stage::Open, why).into()
        }
    }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
