//! Clients that misbehave as the agent never would: whether the emulator would notice if it did.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use dps_emulator::{Config, Emulator, sas};
use rumqttc::{Connect, Login, Packet, Protocol, Publish, QoS, Subscribe};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::cell::{Checked, ID_SCOPE, Workshop, words};
use crate::device::{self, Attestation, Credential};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);
const FILTER: &str = "$dps/registrations/res/#";
const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?$rid=1";
const ID: &str = "gw-symmetric";

/// A cell without the agent.
#[derive(Debug, Clone, Copy)]
pub struct Rogue {
    name: &'static str,
    misdeed: Misdeed,
    /// What the emulator says to it.
    answer: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Misdeed {
    /// Registers over HTTPS.
    Https { token: Token, body: &'static str },
    /// Registers over HTTPS with a certificate of the fleet whose name is another one.
    Certificate,
    /// Connects over MQTT, subscribes if it is `patient`, and publishes to this topic.
    Mqtt { token: Token, patient: bool, topic: &'static str },
    /// Registers as it should, and comes to the hub with this.
    Hub { token: Token },
}

/// A token with one thing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Right,
    Expired,
    OtherDevice,
    OtherScope,
    WrongKey,
}

/// All of them.
pub const ALL: &[Rogue] = &[
    Rogue { name: "https/all-is-right", misdeed: Misdeed::Https { token: Token::Right, body: RIGHT_BODY }, answer: "200" },
    Rogue { name: "https/expired-token", misdeed: Misdeed::Https { token: Token::Expired, body: RIGHT_BODY }, answer: "401" },
    Rogue {
        name: "https/token-of-another",
        misdeed: Misdeed::Https { token: Token::OtherDevice, body: RIGHT_BODY },
        answer: "401",
    },
    Rogue {
        name: "https/token-of-another-scope",
        misdeed: Misdeed::Https { token: Token::OtherScope, body: RIGHT_BODY },
        answer: "401",
    },
    Rogue { name: "https/wrong-signature", misdeed: Misdeed::Https { token: Token::WrongKey, body: RIGHT_BODY }, answer: "401" },
    Rogue { name: "https/body-of-another", misdeed: Misdeed::Https { token: Token::Right, body: WRONG_BODY }, answer: "400" },
    Rogue { name: "https/certificate-of-another", misdeed: Misdeed::Certificate, answer: "401" },
    Rogue {
        name: "mqtt/all-is-right",
        misdeed: mqtt(Token::Right, true, REGISTER),
        answer: "$dps/registrations/res/200/?$rid=1",
    },
    Rogue { name: "mqtt/expired-token", misdeed: mqtt(Token::Expired, true, REGISTER), answer: "connack 5" },
    Rogue { name: "mqtt/token-of-another", misdeed: mqtt(Token::OtherDevice, true, REGISTER), answer: "connack 5" },
    Rogue {
        name: "mqtt/wrong-signature",
        misdeed: mqtt(Token::WrongKey, true, REGISTER),
        answer: "$dps/registrations/res/401/?$rid=1",
    },
    Rogue {
        name: "mqtt/no-rid",
        misdeed: mqtt(Token::Right, true, "$dps/registrations/PUT/iotdps-register/?$rid="),
        answer: "closed",
    },
    Rogue { name: "mqtt/before-suback", misdeed: mqtt(Token::Right, false, REGISTER), answer: "closed" },
    Rogue { name: "hub/all-is-right", misdeed: Misdeed::Hub { token: Token::Right }, answer: "connack 0" },
    Rogue { name: "hub/expired-token", misdeed: Misdeed::Hub { token: Token::Expired }, answer: "connack 5" },
    Rogue { name: "hub/token-of-another", misdeed: Misdeed::Hub { token: Token::OtherDevice }, answer: "connack 5" },
    Rogue { name: "hub/wrong-signature", misdeed: Misdeed::Hub { token: Token::WrongKey }, answer: "connack 5" },
];

const RIGHT_BODY: &str = "{\"registrationId\":\"gw-symmetric\"}";
const WRONG_BODY: &str = "{\"registrationId\":\"gw-somebody\"}";

const fn mqtt(token: Token, patient: bool, topic: &'static str) -> Misdeed {
    Misdeed::Mqtt { token, patient, topic }
}

impl Rogue {
    /// `rogue/…`
    pub fn name(&self) -> String {
        format!("rogue/{}", self.name)
    }

    /// Misbehaves, perhaps with a check of the emulator switched off.
    pub fn run(&self, workshop: &Workshop, kinder: Option<&str>) -> Checked {
        let answer = self.answer(workshop, kinder)?;
        let as_expected = answer == self.answer;
        as_expected.then_some(()).ok_or_else(|| format!("expected {:?}, found {answer:?}", self.answer))
    }

    fn answer(&self, workshop: &Workshop, kinder: Option<&str>) -> Checked<String> {
        let kinder = kinder.map_or_else(String::new, |switch| format!("kinder = [\"{switch}\"]"));
        let enrollment = |of| format!("{}answer = \"at-once\"\n", workshop.materials.enrollment(of, Credential::Right));
        let [device, fleet] = [Attestation::SymmetricKey, Attestation::X509Intermediate].map(enrollment);
        let config = Config::from_toml(&format!("[service]\nid_scope = \"{ID_SCOPE}\"\n{kinder}\n{device}\n{fleet}"));
        let emulator = Emulator::start(config.map_err(words)?).map_err(words)?;
        match self.misdeed {
            Misdeed::Https { token, body } => https(&emulator, None, Some(&token.text("registrations")), ID, body),
            Misdeed::Certificate => https(&emulator, Some(workshop), None, "gw-somebody", WRONG_BODY),
            Misdeed::Mqtt { token, patient, topic } => Session::open(&emulator)?.register(token, patient, topic),
            Misdeed::Hub { token } => {
                https(&emulator, None, Some(&Token::Right.text("registrations")), ID, RIGHT_BODY)?;
                let code = Session::open(&emulator)?
                    .connect(&format!("localhost/{ID}/?api-version=2021-04-12"), &token.text("devices"))?;
                Ok(format!("connack {code}"))
            }
        }
    }
}

impl Token {
    /// For `registrations` of the scope or for `devices` of the hub.
    fn text(self, of: &str) -> String {
        let place = match (of, self) {
            ("devices", _) => "localhost",
            (_, Self::OtherScope) => "0ne00OTHER",
            _ => ID_SCOPE,
        };
        let name = if self == Self::OtherDevice { "gw-somebody" } else { ID };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expiry = if self == Self::Expired { now - 60 } else { now + 600 };
        let key = if self == Self::WrongKey { device::wrong_key() } else { device::enrolled_key() };
        let resource = format!("{place}%2F{of}%2F{name}");
        // The derivation of keys is the same function as a signature: HMAC-SHA256 of a text.
        let signature = STANDARD.encode(sas::derived_key(&key, &format!("{resource}\n{expiry}")));
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}")
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A connection; with the certificate of a fleet's member if `member` is there.
fn dial(emulator: &Emulator, port: u16, member: Option<&Workshop>) -> Checked<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes()).map_err(words)?).map_err(words)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(words)?
        .with_root_certificates(roots);
    let config = match member.map(|workshop| workshop.materials.member()) {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(leaf.key.pkcs8_pem().as_bytes()).map_err(words)?;
            builder.with_client_auth_cert(chain.map_err(words)?, key).map_err(words)?
        }
    };
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().map_err(words)?).map_err(words)?;
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(words)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(words)?;
    Ok(StreamOwned::new(connection, stream))
}

/// One register call; the status of the answer.
fn https(emulator: &Emulator, member: Option<&Workshop>, token: Option<&str>, id: &str, body: &str) -> Checked<String> {
    let mut stream = dial(emulator, emulator.https_port(), member)?;
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: {token}\r\n"));
    let request = format!(
        "PUT /{ID_SCOPE}/registrations/{id}/register?api-version=2021-06-01 HTTP/1.1\r\nHost: localhost\r\n{authorization}\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(words)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(words)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

struct Session {
    stream: Tls,
    input: BytesMut,
}

impl Session {
    fn open(emulator: &Emulator) -> Checked<Self> {
        Ok(Self { stream: dial(emulator, emulator.mqtt_port(), None)?, input: BytesMut::new() })
    }

    /// The topic of the answer, or what came instead of it.
    fn register(mut self, token: Token, patient: bool, topic: &str) -> Checked<String> {
        let user = format!("{ID_SCOPE}/registrations/{ID}/api-version=2021-06-01");
        let code = self.connect(&user, &token.text("registrations"))?;
        if code != 0 {
            return Ok(format!("connack {code}"));
        }
        if patient {
            let mut subscribe = Subscribe::new(FILTER, QoS::AtLeastOnce);
            subscribe.pkid = 1;
            self.send(&Packet::Subscribe(subscribe))?;
            self.next()?;
        }
        self.send(&Packet::Publish(Publish::new(topic, QoS::AtMostOnce, RIGHT_BODY)))?;
        Ok(match self.next()? {
            None => "closed".to_owned(),
            Some(Packet::Publish(answer)) => answer.topic,
            Some(other) => format!("{other:?}"),
        })
    }

    /// The return code.
    fn connect(&mut self, user: &str, token: &str) -> Checked<u8> {
        let login = Some(Login { username: user.to_owned(), password: token.to_owned() });
        let client_id = ID.to_owned();
        let connect = Connect { protocol: Protocol::V4, keep_alive: 0, client_id, clean_session: true, last_will: None, login };
        let mut output = BytesMut::new();
        connect.write(&mut output).map_err(words)?;
        self.stream.write_all(&output).map_err(words)?;
        match self.next()? {
            Some(Packet::ConnAck(connack)) => Ok(connack.code as u8),
            other => Err(format!("{other:?} instead of CONNACK")),
        }
    }

    fn send(&mut self, packet: &Packet) -> Checked {
        let mut output = BytesMut::new();
        packet.write(&mut output, usize::MAX).map_err(words)?;
        self.stream.write_all(&output).map_err(words)
    }

    /// The next packet; `None` when the connection was closed.
    fn next(&mut self) -> Checked<Option<Packet>> {
        loop {
            match Packet::read(&mut self.input, usize::MAX) {
                Ok(packet) => return Ok(Some(packet)),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(other) => return Err(words(other)),
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return Ok(None),
                Err(error) => return Err(words(error)),
            }
        }
    }
}
