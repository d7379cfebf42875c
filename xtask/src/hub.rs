//! A device's first message: a small MQTT client that uses the hub connection which a registration gave.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rumqttc::{Client, Connection, Event, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration, Transport};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::Sha256;

use crate::Done;
use crate::credentials::Certificate;

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
    let mut options = MqttOptions::new(device, hub.host, hub.port);
    let user = format!("{}/{device}/?api-version=2021-04-12", hub.host);
    let (password, tls) = match credential {
        Credential::SymmetricKey(key) => (token(hub.host, device, key)?, tls(&hub.roots, None)?),
        Credential::X509(certificate) => (String::new(), tls(&hub.roots, Some(certificate))?),
    };
    options.set_credentials(user, password).set_keep_alive(Duration::from_secs(60));
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
    let (client, mut connection) = Client::new(options, 10);
    client.publish(format!("devices/{device}/messages/events/"), QoS::AtLeastOnce, false, message)?;
    until(&mut connection, |event| matches!(event, Event::Incoming(Packet::PubAck(_))))?;
    client.disconnect()?;
    until(&mut connection, |event| matches!(event, Event::Outgoing(Outgoing::Disconnect)))
}

fn until(connection: &mut Connection, done: impl Fn(&Event) -> bool) -> Done {
    loop {
        match connection.recv_timeout(Duration::from_secs(10)) {
            Ok(Ok(event)) if done(&event) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("the hub: {error}").into()),
            Err(_) => return Err("the hub has been silent for ten seconds".into()),
        }
    }
}

/// A hub token for the next five minutes (hub connection: `sr`, `sig`, `se`).
fn token(hub: &str, device: &str, key: &str) -> Done<String> {
    let resource = encoded(&format!("{hub}/devices/{device}"));
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 300;
    let key = STANDARD.decode(key).map_err(|error| format!("the key is no base64: {error}"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key)?;
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = encoded(&STANDARD.encode(mac.finalize().into_bytes()));
    Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"))
}

/// Percent-encodes what is not unreserved in RFC 3986.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn tls(roots: &Path, certificate: Option<&Certificate>) -> Done<ClientConfig> {
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
