//! MQTT over WebSocket (MQTT 3.1.1 §6): the upgrade, and the bytes of the binary frames.

use super::{Request, fits_connect, play_plain, to_bytes};
use crate::answer::Answer;
use crate::fault::{Misdeed, Stage};
use crate::mqtt::{self, Peer};
use crate::registration::lie_alone;
use crate::service::{Service, Via};
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, handshake::derive_accept_key, protocol::Role};

/// DPS device API §5.1, hub connection §2.
const PATH: &str = "/$iothub/websocket";
/// How much may wait between the two sides.
const BUFFER: usize = 256 * 1024;

/// Serves one upgrade request, and then MQTT until the connection ends. A fault at this stage can only be one of the
/// service's own: who connects is not known before CONNECT.
pub(super) async fn serve(
    service: Arc<Service>,
    mut stream: TlsStream<TcpStream>,
    received: Vec<u8>,
    request: &Request,
    certificates: Vec<CertificateDer<'static>>,
) {
    let refused = match service.fault(None, Stage::Connect, fits_connect) {
        Some(Misdeed::Plain(plain)) => {
            service.say(None, format!("! {}", plain.name()));
            if play_plain(&mut stream, plain).await.is_err() {
                return;
            }
            None
        }
        Some(Misdeed::Answer(lie)) => lie_alone(&lie),
        Some(Misdeed::Connack(_) | Misdeed::Delivery(_)) | None => None,
    };
    let accepted = match refused {
        Some(answer) => Err(answer),
        None => accept(request),
    };
    let head = match accepted {
        Ok(head) => head,
        Err(answer) => {
            service.say(None, format!("> connect {}", Via::MqttWs.name()));
            service.say_answer(None, &answer);
            let _ = stream.write_all(&to_bytes(&answer, false)).await;
            let _ = stream.shutdown().await;
            return;
        }
    };
    if stream.write_all(head.as_bytes()).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    let socket = WebSocketStream::from_partially_read(stream, received, Role::Server, None).await;
    let (inner, outer) = tokio::io::duplex(BUFFER);
    let peer = Peer { via: Via::MqttWs, certificates };
    tokio::join!(mqtt::serve(service, Box::new(inner), peer), carry(socket, outer));
}

/// The head of the 101 response, or the refusal.
fn accept(request: &Request) -> Result<String, Answer> {
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let protocols = request.header("sec-websocket-protocol").unwrap_or_default();
    // Microsoft's C client writes it in capitals.
    let protocol = protocols.split(',').map(str::trim).find(|protocol| protocol.eq_ignore_ascii_case("mqtt"));
    let version = request.header("sec-websocket-version") == Some("13");
    match protocol {
        _ if request.path != PATH => Err(Answer::raw(404, Vec::new())),
        Some(protocol) if request.method == "GET" && version && !key.is_empty() => Ok(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )),
        _ => Err(Answer::raw(400, Vec::new())),
    }
}

/// Carries bytes between the frames and `inner` until either side ends.
async fn carry(mut socket: WebSocketStream<TlsStream<TcpStream>>, mut inner: DuplexStream) {
    let mut buffer = vec![0; BUFFER];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if inner.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) => {
                    let _ = socket.flush().await;
                    return;
                }
                // MQTT travels in binary frames only (§6.0).
                Some(Ok(Message::Text(_) | Message::Frame(_)) | Err(_)) | None => return,
            },
            read = inner.read(&mut buffer) => match read {
                Ok(read) if read > 0 => {
                    let message = Message::binary(buffer[..read].to_vec());
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => return,
            },
        }
    }
}
