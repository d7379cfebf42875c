//! MQTT connections: CONNECT is read here and routed by its user name, to DPS or to a hub.

mod codec;
mod dps;
mod hub;

use crate::attest::Credential;
use crate::fault::{Misdeed, Plain};
use crate::names::UserName;
use crate::service::{Service, Via};
use codec::{Connect, Packet, ReadError, Wire, connack};
use rustls_pki_types::CertificateDer;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// MQTT 3.1.1 §3.2.2.3.
const ACCEPTED: u8 = 0;
const WRONG_LEVEL: u8 = 1;
const WRONG_CLIENT_ID: u8 = 2;
const NOT_AUTHORIZED: u8 = 5;

/// Bytes that no protocol knows: a reserved MQTT packet type with an endless length, and no HTTP status line.
pub(crate) const GARBAGE: &[u8] = b"\xff\xff\xff\xff\xff\x00\x01garbage\r\n\r\n";

/// Anything that carries bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What was learned about the client before MQTT began.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) via: Via,
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

/// A connection of a client that has sent CONNECT.
struct Link {
    service: Arc<Service>,
    wire: Wire<Box<dyn Stream>>,
    /// The registration ID, or a device ID that no registration stands behind.
    device: String,
}

/// The rest of a connection is nobody's business any more.
struct Ended;

impl From<ReadError> for Ended {
    fn from(_: ReadError) -> Self {
        Self
    }
}

impl From<std::io::Error> for Ended {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(service: Arc<Service>, stream: Box<dyn Stream>, peer: Peer) {
    let mut wire = Wire::new(stream);
    let connect = match wire.next().await {
        Ok(Packet::Connect(connect)) => connect,
        Ok(_) => return service.say(None, "! closed: the first packet is not CONNECT"),
        Err(ReadError::Malformed(what)) => return service.say(None, format!("! closed: {what}")),
        Err(ReadError::Closed | ReadError::KeepAlive) => return,
    };
    wire.set_keep_alive(connect.keep_alive);
    let user = connect.user_name.as_deref().and_then(UserName::parse);
    let mut link = Link { service, wire, device: String::new() };
    let _ = match user {
        Some(UserName::Dps { scope, registration_id, api_version }) => {
            link.device.clone_from(&registration_id);
            dps::serve(link, &connect, peer, scope, registration_id, &api_version).await
        }
        Some(UserName::Hub { hub, device_id, .. }) => hub::serve(link, &connect, peer, hub, device_id).await,
        None => link.refuse_stranger(&peer).await,
    };
}

impl Link {
    fn say(&self, line: impl Into<String>) {
        self.service.say(Some(&self.device), line);
    }

    async fn connack(&mut self, code: u8) -> Result<(), Ended> {
        self.say(format!("< connack {code}"));
        Ok(self.wire.send(&connack(code)).await?)
    }

    /// Ends the connection for a breach of the rules. That the service closes, rather than answers, is UNCONFIRMED
    /// (DPS device API §5.4).
    fn close(&self, why: &str) -> Ended {
        self.say(format!("! closed: {why}"));
        Ended
    }

    async fn next(&mut self) -> Result<Packet, Ended> {
        match self.wire.next().await {
            Ok(packet) => Ok(packet),
            Err(ReadError::Malformed(what)) => Err(self.close(what)),
            Err(ReadError::KeepAlive) => Err(self.close("keep-alive time is over")),
            Err(ReadError::Closed) => Err(Ended),
        }
    }

    async fn refuse_stranger(mut self, peer: &Peer) -> Result<(), Ended> {
        self.service.say(None, format!("> connect {}", peer.via.name()));
        self.service.say(None, format!("< connack {NOT_AUTHORIZED}"));
        Ok(self.wire.send(&connack(NOT_AUTHORIZED)).await?)
    }

    /// Plays a fault of the connection; other faults are left to the caller.
    async fn play(&mut self, fault: Option<&Misdeed>) -> Result<(), Ended> {
        let Some(Misdeed::Plain(plain)) = fault else {
            return Ok(());
        };
        self.say(format!("! {}", plain.name()));
        match play(*plain, &mut self.wire).await {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Ended),
        }
    }
}

/// Plays a fault of a connection. `Break`: it is over.
async fn play<S: AsyncRead + AsyncWrite + Unpin>(plain: Plain, wire: &mut Wire<S>) -> ControlFlow<()> {
    match plain {
        Plain::Drop => {}
        Plain::Silence => wire.hold().await,
        Plain::Garbage => {
            if wire.send(GARBAGE).await.is_ok() {
                wire.hold().await;
            }
        }
        Plain::Slow(delay) => {
            tokio::time::sleep(delay).await;
            return ControlFlow::Continue(());
        }
    }
    ControlFlow::Break(())
}

/// What the client shows: its password, or else the certificates of the handshake.
fn credential(connect: &Connect, peer: Peer) -> Credential {
    match &connect.password {
        Some(password) => Credential::Token(password.clone()),
        None => Credential::Certificates(peer.certificates),
    }
}
