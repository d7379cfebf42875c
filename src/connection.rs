//! What a program on the gateway needs to connect to the hub as this device, made afresh each time it is asked for.

mod roots;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::attestation::{Attestation, Key};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::failure::Failure;
use crate::id::{DeviceId, HostName};
use crate::proof;
use crate::protocol::KeySlot;
use crate::protocol::sas::Audience;
use crate::record::{Record, rfc3339};
use crate::secret::Secret;
use crate::transport::WEB_SOCKET_PATH;

/// How long a token lives if nobody asks for another time.
pub const USUAL_LIFE: Duration = Duration::from_secs(3600);

/// The longest that a token lives.
pub const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// All that an MQTT client needs (IoT Hub, MQTT). `Debug` shows no token.
pub struct Connection {
    /// Counts the changes of hub, device, key and payload: the record's.
    pub generation: u64,
    /// The hub. It stands in user name and token, whoever takes the connection.
    pub hub: HostName,
    /// The device's name there, and the client ID.
    pub device_id: DeviceId,
    /// The parent gateway that takes the connection in the hub's place.
    pub gateway_host: Option<HostName>,
    /// The port of MQTT over TLS.
    pub port: u16,
    /// The port of MQTT over WebSocket.
    pub web_socket_port: u16,
    /// The user name of CONNECT.
    pub user_name: String,
    /// What proves the device.
    pub proof: Means,
    /// The root certificates (PEM) by which the peer is known.
    pub ca_file: PathBuf,
}

/// How a program shows that it speaks for this device.
pub enum Means {
    /// The password of CONNECT.
    Token {
        /// A shared access signature.
        token: Secret<String>,
        /// When it ends, in seconds since 1970.
        expires_at: u64,
    },
    /// A client certificate in the TLS handshake, and no password.
    Certificate {
        /// The chain in PEM, leaf first.
        chain: PathBuf,
        /// Its private key in PEM. The program must be able to read it.
        key: PathBuf,
    },
}

/// The connection of the device that `record` is of, with a token that lives for `life` from now on, 24 hours at most.
///
/// Asks the TPM where there is one, and nobody else. Where the configuration trusts a file beside the system's roots, the two are
/// joined in a file of the runtime directory (`ca.pem`), which is written when one of them has changed.
///
/// # Errors
/// [`Blame::Clock`] if the clock is below its floor and a token is needed; [`Blame::Configuration`] without a file of roots;
/// [`Blame::Storage`] if the record names no hub; what [`Attestation::token`] says.
pub async fn make(
    config: &Config,
    attestation: &Attestation,
    record: &Record,
    clock: Clock,
    life: Duration,
) -> Result<Connection, Failure> {
    until(config, attestation, record, Until::Life(clock, life)).await
}

/// As [`make`], with a token that ends at a given time: the same as one that was made before, if key and names are the same.
pub(crate) async fn again(
    config: &Config,
    attestation: &Attestation,
    record: &Record,
    expires_at: u64,
) -> Result<Connection, Failure> {
    until(config, attestation, record, Until::Time(expires_at)).await
}

/// How long a token is to be good.
#[derive(Clone, Copy)]
enum Until {
    /// So long from now on.
    Life(Clock, Duration),
    /// Until this second since 1970.
    Time(u64),
}

async fn until(config: &Config, attestation: &Attestation, record: &Record, until: Until) -> Result<Connection, Failure> {
    let (hub, device_id) = names(record)?;
    Ok(Connection {
        generation: record.generation,
        user_name: proof::user_name(&hub, &device_id),
        proof: means(config, attestation, record, until).await?,
        gateway_host: config.hub.gateway.as_ref().map(|gateway| gateway.host.clone()),
        port: config.hub.mqtt_port,
        web_socket_port: config.hub.https_port,
        ca_file: roots::file(config)?,
        hub,
        device_id,
    })
}

async fn means(config: &Config, attestation: &Attestation, record: &Record, until: Until) -> Result<Means, Failure> {
    if let Profile::X509 { chain, key, .. } = &config.attestation {
        return Ok(Means::Certificate { chain: chain.clone(), key: key.clone() });
    }
    let expires_at = until.seconds()?;
    Ok(Means::Token { token: signed(attestation, record, expires_at).await?, expires_at })
}

/// A token for the hub, made now, and when it ends in seconds since 1970. It lives for `life`, 24 hours at most.
///
/// # Errors
/// As [`make`]; [`Blame::Usage`] for a device that has a certificate, and so no tokens.
pub async fn token(
    attestation: &Attestation,
    record: &Record,
    clock: Clock,
    life: Duration,
) -> Result<(Secret<String>, u64), Failure> {
    let expires_at = Until::Life(clock, life).seconds()?;
    Ok((signed(attestation, record, expires_at).await?, expires_at))
}

async fn signed(attestation: &Attestation, record: &Record, expires_at: u64) -> Result<Secret<String>, Failure> {
    let (hub, device_id) = names(record)?;
    let token = attestation.token(&Audience::device(&hub, &device_id), &key(record), expires_at).await?;
    token.ok_or_else(|| Failure::new(Blame::Usage, CERTIFICATE))
}

impl Until {
    fn seconds(self) -> Result<u64, Failure> {
        match self {
            Self::Life(clock, life) => Ok(believed(clock)?.saturating_add(life.min(LONGEST_LIFE).as_secs())),
            Self::Time(expires_at) => Ok(expires_at),
        }
    }
}

/// What to tell who asks for the token of a device that has a certificate.
pub const CERTIFICATE: &str = "with method = \"x509\" there are no tokens: the device shows certificate_file to the hub, with private_key_file, in the TLS handshake";

fn names(record: &Record) -> Result<(HostName, DeviceId), Failure> {
    match (record.assigned_hub.parse(), record.device_id.parse()) {
        (Ok(hub), Ok(device_id)) => Ok((hub, device_id)),
        (Err(_), _) | (_, Err(_)) => Err(Failure::new(
            Blame::Storage,
            "the record names no usable hub or device; `dps-agent provision --force` makes it anew",
        )),
    }
}

/// The time; a token of a clock that is certainly behind would be one of the past.
fn believed(clock: Clock) -> Result<u64, Failure> {
    match clock.below_floor() {
        None => Ok(clock.now()),
        Some(behind) => {
            let message = format!("the clock is {} s behind the earliest time it can be; set it", behind.as_secs());
            Err(Failure::new(Blame::Clock, message))
        }
    }
}

/// The key that the service has accepted, or given.
pub fn key(record: &Record) -> Key {
    match (&record.tpm, record.key.as_str()) {
        (Some(memory), _) => Key::Hub(memory.hub_key.clone()),
        (None, "secondary") => Key::Enrolled(KeySlot::Secondary),
        (None, _) => Key::Enrolled(KeySlot::Primary),
    }
}

impl Connection {
    /// Whom to connect to: the gateway where there is one, else the hub.
    pub fn host(&self) -> &HostName {
        self.gateway_host.as_ref().unwrap_or(&self.hub)
    }

    /// The token, where there is one.
    pub fn password(&self) -> Option<&Secret<String>> {
        match &self.proof {
            Means::Token { token, .. } => Some(token),
            Means::Certificate { .. } => None,
        }
    }

    /// When the token ends, in seconds since 1970. A certificate ends when it says.
    pub fn expires_at(&self) -> Option<u64> {
        match &self.proof {
            Means::Token { expires_at, .. } => Some(*expires_at),
            Means::Certificate { .. } => None,
        }
    }

    /// The certificate chain and its key, where these prove the device.
    pub fn certificate(&self) -> Option<(&Path, &Path)> {
        match &self.proof {
            Means::Token { .. } => None,
            Means::Certificate { chain, key } => Some((chain, key)),
        }
    }

    /// One line of JSON, in memory that is wiped.
    pub fn to_json(&self) -> Secret<Vec<u8>> {
        // Room enough: where it grew, it would leave a copy behind.
        let mut line = Vec::with_capacity(8192);
        #[expect(clippy::expect_used, reason = "strings and numbers always serialize")]
        serde_json::to_writer(&mut line, &self.shown()).expect("plain data");
        Secret::new(line)
    }

    /// Its members as JSON and templates have them.
    pub(crate) fn shown(&self) -> Shown<'_> {
        let (certificate_file, private_key_file) = self.certificate().unzip();
        Shown {
            generation: self.generation,
            host: self.host().as_str(),
            port: self.port,
            client_id: self.device_id.as_str(),
            username: &self.user_name,
            password: self.password().map(|token| token.expose().as_str()),
            expires_at: self.expires_at().map(rfc3339),
            certificate_file: certificate_file.map(text),
            private_key_file: private_key_file.map(text),
            ca_file: text(&self.ca_file),
            web_socket: WebSocket { port: self.web_socket_port, path: WEB_SOCKET_PATH },
            hub: self.hub.as_str(),
            device_id: self.device_id.as_str(),
            gateway_host: self.gateway_host.as_ref().map(HostName::as_str),
        }
    }
}

/// The members of a connection by their public names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'c> {
    generation: u64,
    host: &'c str,
    port: u16,
    client_id: &'c str,
    username: &'c str,
    password: Option<&'c str>,
    expires_at: Option<String>,
    certificate_file: Option<&'c str>,
    private_key_file: Option<&'c str>,
    ca_file: &'c str,
    web_socket: WebSocket,
    hub: &'c str,
    device_id: &'c str,
    gateway_host: Option<&'c str>,
}

#[derive(Serialize)]
struct WebSocket {
    port: u16,
    path: &'static str,
}

/// Each of these paths was a text in the configuration, or was found to be one.
fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("generation", &self.generation)
            .field("host", self.host())
            .field("user_name", &self.user_name)
            .field("password", &self.password())
            .field("expires_at", &self.expires_at())
            .field("certificate", &self.certificate())
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
