//! A device's first message: a small MQTT client that uses the hub connection which a registration gave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use hmac::{Hmac, Mac};
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet, Publish};
use rumqttc::mqttbytes::{Error, QoS};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::Sha256;

use crate::Done;
use crate::credentials::Certificate;

/// The largest MQTT packet in either direction, in bytes.
const LARGEST: usize = 16 * 1024;

/// What a device shows to its hub.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A base64 key that signs a token.
    SymmetricKey(String),
    X509(Certificate),
}

/// How to reach the hub.
#[derive(Debug)]
pub struct Hub<'a> {
    pub host: &'a str,
    pub port: u16,
    pub roots: PathBuf,
}

/// Connects as `device`, publishes one telemetry message and waits until the hub has acknowledged it.
///
/// # Errors
/// If the hub lets it not in, or does not acknowledge within ten seconds.
pub fn send(hub: &Hub<'_>, device: &str, credential: &Credential, message: &str) -> Done {
    match credential {
        Credential::SymmetricKey(key) => send_as(hub, device, &token(hub.host, device, key)?, None, message),
        Credential::X509(certificate) => send_as(hub, device, "", Some(certificate), message),
    }
}

/// The same with a token that something else has signed; or, with an empty one, with a certificate.
///
/// # Errors
/// As `send`.
pub fn send_as(hub: &Hub<'_>, device: &str, token: &str, certificate: Option<&Certificate>, message: &str) -> Done {
    let mut connect = Connect::new(device);
    connect.set_login(format!("{}/{device}/?api-version=2021-04-12", hub.host), token);
    let mut session = Session::open(hub, certificate)?;
    session.write(Packet::Connect(connect))?;
    let answer = session.read()?;
    if !matches!(&answer, Packet::ConnAck(answer) if answer.code == ConnectReturnCode::Success) {
        return Err(format!("the hub does not let {device} in: {answer:?}").into());
    }
    let mut publish = Publish::new(format!("devices/{device}/messages/events/"), QoS::AtLeastOnce, message);
    publish.pkid = 1;
    session.write(Packet::Publish(publish))?;
    let answer = session.read()?;
    if !matches!(answer, Packet::PubAck(_)) {
        return Err(format!("the hub does not acknowledge the message of {device}: {answer:?}").into());
    }
    session.write(Packet::Disconnect)
}

/// MQTT packets over TLS.
struct Session {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: BytesMut,
}

impl Session {
    fn open(hub: &Hub<'_>, certificate: Option<&Certificate>) -> Done<Self> {
        let tcp = TcpStream::connect((hub.host, hub.port)).map_err(|error| format!("{}:{}: {error}", hub.host, hub.port))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
        let tls = ClientConnection::new(Arc::new(tls(&hub.roots, certificate)?), hub.host.to_owned().try_into()?)?;
        Ok(Self { stream: StreamOwned::new(tls, tcp), received: BytesMut::new() })
    }

    fn write(&mut self, packet: Packet) -> Done {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, LARGEST)?;
        self.stream.write_all(&bytes)?;
        Ok(self.stream.flush()?)
    }

    fn read(&mut self) -> Done<Packet> {
        let mut buffer = [0; 1024];
        loop {
            match Packet::read(&mut self.received, LARGEST) {
                Err(Error::InsufficientBytes(_)) => {}
                packet => return Ok(packet?),
            }
            match self.stream.read(&mut buffer).map_err(|error| format!("no answer from the hub: {error}"))? {
                0 => return Err("the hub hung up".into()),
                length => self.received.extend(buffer.iter().take(length)),
            }
        }
    }
}

/// A hub token for the next five minutes (hub connection: `sr`, `sig`, `se`).
fn token(hub: &str, device: &str, key: &str) -> Done<String> {
    let resource = encoded(&format!("{hub}/devices/{device}"));
    let expiry = in_five_minutes()?;
    let key = STANDARD.decode(key).map_err(|error| format!("the key is no base64: {error}"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key)?;
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = encoded(&STANDARD.encode(mac.finalize().into_bytes()));
    Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"))
}

/// Seconds since 1970.
///
/// # Errors
/// If the clock stands before that.
pub fn in_five_minutes() -> Done<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 300)
}

/// Percent-encodes what is not unreserved in RFC 3986.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Trust in these roots, and no others.
///
/// # Errors
/// If a file cannot be read.
pub fn tls(roots: &Path, certificate: Option<&Certificate>) -> Done<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots)? {
        store.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(store);
    Ok(match certificate {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_file_iter(&own.certificate)?.collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&own.private_key)?)?
        }
    })
}
