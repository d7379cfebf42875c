//! MQTT 3.1.1 as far as DPS and the proof need it; the only file that names the MQTT library, of which it uses the packets.
//!
//! The library's event loop stays out: it dials for itself, tells name lookup, TCP and TLS apart badly, knows one deadline for
//! all of them, and after an error connects again with the password of the first time. An exchange at a time needs no loop.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use rumqttc::mqttbytes::{Error as PacketError, QoS};
use rumqttc::{Connect, ConnectReturnCode, Login, Packet, Protocol, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode};
use zeroize::Zeroize;

use super::deadline::Deadline;
use super::dial::Dialer;
use super::failure::{Failure, Peer};
use super::topic::{self, Response};
use super::websocket::Wire;
use crate::id::HostName;
use crate::protocol::wire::{LARGEST_BODY, scrubbed};
use crate::protocol::{Answer, Lost, Request, Stage, Via};
use crate::secret::Secret;
use crate::transcript::Transcript;

/// The largest packet that is read, in bytes: a body, the longest topic, its length and the packet identifier.
pub(super) const LARGEST_PACKET: usize = LARGEST_BODY + 65_535 + 4;

/// Where to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    /// MQTT or WebSocket.
    pub(crate) via: Via,
    /// The host whose certificate is checked.
    pub(crate) host: &'a HostName,
    /// 1 to 65535.
    pub(crate) port: u16,
}

/// What the CONNECT packet says.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) client_id: String,
    pub(crate) user_name: String,
    /// The token. `None` sends a user name and no password, which MQTT 3.1.1 §3.1.2.9 allows.
    pub(crate) password: Option<Secret<String>>,
    pub(crate) clean_session: bool,
}

/// A connection that was accepted.
pub(crate) struct Session {
    wire: Wire,
    peer: Peer,
    input: BytesMut,
    requests: u16,
}

/// Connects, up to CONNACK, before the deadline. Whether the peer kept a session does not matter to either caller.
pub(crate) async fn open(
    dialer: &Dialer,
    address: Address<'_>,
    hello: Hello,
    deadline: Deadline,
    transcript: &Transcript,
) -> Result<Session, Failure> {
    let stream = dialer.dial(address.host, address.port, deadline).await?;
    let peer = dialer.peer(address.host, address.port);
    let over_http = address.via == Via::MqttWs;
    let opening = async {
        let wire = if over_http { Wire::upgrade(stream, &peer).await? } else { Wire::Plain(Box::new(stream)) };
        let mut session = Session { wire, peer: peer.clone(), input: BytesMut::new(), requests: 0 };
        let stage = if over_http { peer.stage_of_hang_up(Stage::Open) } else { Stage::Open };
        session.connect(hello, stage, transcript).await.map(|()| session)
    };
    deadline.bound(Stage::Open, &peer.place, opening).await?
}

impl Session {
    /// Subscribes to the responses and waits for the acknowledgement.
    ///
    /// A refusal is nonsense, not a refused credential: it is the one filter that DPS documents, and CONNECT was accepted.
    pub(super) async fn subscribe(&mut self, deadline: Deadline) -> Result<(), Failure> {
        let place = self.peer.place.clone();
        deadline.bound(Stage::Reply, &format!("{place} to SUBSCRIBE"), self.subscribed()).await?
    }

    /// Publishes the request and waits for the response to it.
    pub(super) async fn ask(&mut self, request: &Request, register_body: &[u8], deadline: Deadline) -> Result<Answer, Failure> {
        let place = self.peer.place.clone();
        deadline.bound(Stage::Reply, &place, self.answered(request, register_body)).await?
    }

    /// Whether the peer has hung up while nobody listened. Reads what is there; waits for nothing.
    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.wire.receive(&mut self.input).now_or_never(), Some(Err(_)))
    }

    /// DISCONNECT, and the end of TLS. The peer gets a second for it.
    pub(crate) async fn disconnect(mut self) {
        let goodbye = async {
            // A peer that is gone already has what it wants.
            let _ = self.send(&Packet::Disconnect, Stage::Reply).await;
            self.wire.close().await;
        };
        let _ = tokio::time::timeout(super::GOODBYE, goodbye).await;
    }

    async fn connect(&mut self, hello: Hello, stage: Stage, transcript: &Transcript) -> Result<(), Failure> {
        let password = hello.password.as_ref().map_or_else(String::new, |token| token.expose().clone());
        let mut connect = Connect {
            protocol: Protocol::V4,
            // Nobody polls during a pause, so nobody could ping. The deadlines notice a dead peer sooner anyway.
            keep_alive: 0,
            client_id: hello.client_id,
            clean_session: hello.clean_session,
            last_will: None,
            login: Some(Login { username: hello.user_name, password }),
        };
        let mut output = BytesMut::with_capacity(2048);
        let written = connect.write(&mut output);
        connect.login.iter_mut().for_each(|login| login.password.zeroize());
        written.map_err(nonsense)?;
        self.transmit(output, stage).await?;
        let code = match self.packet(stage).await {
            Ok(Packet::ConnAck(connack)) => connack.code as u8,
            Err(Received::UnknownConnack(code)) => code,
            Ok(other) => return Err(Lost::Nonsense(format!("{} instead of CONNACK", kind(&other))).into()),
            Err(Received::Failure(failure)) => return Err(failure),
        };
        transcript.line(format_args!("< connack {code}"));
        if code == ConnectReturnCode::Success as u8 { Ok(()) } else { Err(Failure::Refused(Answer::refused_connect(code))) }
    }

    async fn subscribed(&mut self) -> Result<(), Failure> {
        let mut subscribe = Subscribe::new(topic::RESPONSES, QoS::AtLeastOnce);
        subscribe.pkid = self.next_identifier();
        self.send(&Packet::Subscribe(subscribe.clone()), Stage::Reply).await?;
        let packet = self.packet(Stage::Reply).await?;
        let Packet::SubAck(SubAck { pkid, return_codes }) = &packet else {
            return Err(Lost::Nonsense(format!("{} instead of SUBACK", kind(&packet))).into());
        };
        match return_codes[..] {
            [SubscribeReasonCode::Success(_)] if *pkid == subscribe.pkid => Ok(()),
            _ => Err(Lost::Nonsense(format!("the subscription to {} was refused", topic::RESPONSES)).into()),
        }
    }

    async fn answered(&mut self, request: &Request, register_body: &[u8]) -> Result<Answer, Failure> {
        let body = match request {
            Request::Challenge | Request::Register => register_body.to_vec(),
            Request::Query(_) => Vec::new(),
        };
        let rid = request_id(self.requests)?;
        let mut publish = Publish::new(topic::of(request, &rid), QoS::AtLeastOnce, body);
        publish.pkid = self.next_identifier();
        self.send(&Packet::Publish(publish), Stage::Reply).await?;
        loop {
            let packet = self.packet(Stage::Reply).await?;
            if let Packet::PubAck(_) = packet {
                continue;
            }
            let Packet::Publish(publish) = packet else {
                return Err(Lost::Nonsense(format!("{} instead of a response", kind(&packet))).into());
            };
            let Response { status, rid: answered, retry_after } = Response::parse(&publish.topic).map_err(Lost::Nonsense)?;
            let body = self.accept(publish).await?;
            if answered == rid {
                return Ok(Answer { status, retry_after, body, ..Answer::default() });
            }
            tracing::debug!("a response to another request is ignored: {:?}", scrubbed(&answered));
        }
    }

    /// Acknowledges a message and takes its body, if it is one that this client may get.
    async fn accept(&mut self, publish: Publish) -> Result<Vec<u8>, Failure> {
        if publish.payload.len() > LARGEST_BODY {
            return Err(too_large().into());
        }
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.send(&Packet::PubAck(PubAck::new(publish.pkid)), Stage::Reply).await?,
            QoS::ExactlyOnce => return Err(Lost::Nonsense("a message of QoS 2, which nobody subscribed to".to_owned()).into()),
        }
        Ok(publish.payload.to_vec())
    }

    async fn packet(&mut self, stage: Stage) -> Result<Packet, Received> {
        loop {
            match Packet::read(&mut self.input, LARGEST_PACKET) {
                Ok(packet) => return Ok(packet),
                Err(PacketError::InsufficientBytes(_)) => {}
                Err(PacketError::InvalidConnectReturnCode(code)) => return Err(Received::UnknownConnack(code)),
                Err(PacketError::PayloadSizeLimitExceeded(_)) => return Err(Failure::from(too_large()).into()),
                Err(other) => return Err(Failure::from(nonsense(other)).into()),
            }
            let received = self.wire.receive(&mut self.input).await;
            received.map_err(|error| self.broken(&error, stage))?;
        }
    }

    async fn send(&mut self, packet: &Packet, stage: Stage) -> Result<(), Failure> {
        let mut output = BytesMut::new();
        packet.write(&mut output, usize::MAX).map_err(nonsense)?;
        self.transmit(output, stage).await
    }

    /// Sends bytes, and wipes them: there may be a token in them.
    async fn transmit(&mut self, bytes: BytesMut, stage: Stage) -> Result<(), Failure> {
        let bytes = bytes.freeze();
        let sent = self.wire.send(Bytes::clone(&bytes)).await;
        if let Ok(mut own) = bytes.try_into_mut() {
            own.as_mut().zeroize();
        }
        sent.map_err(|error| self.broken(&error, stage))
    }

    fn broken(&self, error: &io::Error, stage: Stage) -> Failure {
        self.peer.failure(error, stage)
    }

    fn next_identifier(&mut self) -> u16 {
        self.requests = self.requests.checked_add(1).unwrap_or(1);
        self.requests
    }
}

/// What else may come instead of a packet.
enum Received {
    /// CONNACK with a return code that MQTT 3.1.1 reserves.
    UnknownConnack(u8),
    Failure(Failure),
}

impl From<Failure> for Received {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Received> for Failure {
    fn from(received: Received) -> Self {
        match received {
            Received::UnknownConnack(code) => Lost::Nonsense(format!("CONNACK {code} in the middle of a connection")).into(),
            Received::Failure(failure) => failure,
        }
    }
}

/// A `$rid` that no earlier connection of anybody used, so that a late response to another request cannot match.
fn request_id(count: u16) -> Result<String, Lost> {
    let random = getrandom::u64().map_err(|error| Lost::Credential(format!("the system gives no random numbers: {error}")))?;
    Ok(format!("{random:016x}-{count}"))
}

fn too_large() -> Lost {
    Lost::Nonsense(format!("it is larger than {LARGEST_BODY} bytes"))
}

fn nonsense(error: PacketError) -> Lost {
    Lost::Nonsense(format!("no MQTT 3.1.1 packet: {error}"))
}

fn kind(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::PubAck(_) => "PUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::SubAck(_) => "SUBACK",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::PingReq => "PINGREQ",
        Packet::PingResp => "PINGRESP",
        Packet::Disconnect => "DISCONNECT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_the_decoder_panic_or_stand_still() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        for round in 0..100_000 {
            // Half of them begin as a packet of one of the sixteen kinds that is all there.
            let mut bytes: Vec<u8> = (0..=random() % 40).map(|_| random()).collect();
            if round % 2 == 0 && bytes.len() > 2 {
                bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
            }
            let mut input = BytesMut::from(&bytes[..]);
            while let before @ 1.. = input.len() {
                if Packet::read(&mut input, LARGEST_PACKET).is_err() {
                    break;
                }
                assert!(input.len() < before, "{bytes:?}");
            }
        }
    }
}
