//! The configuration: services, enrollments and groups as a TOML text, checked before anything starts.

mod read;
mod service_api;

pub(crate) use service_api::{Client, Entra, Federated, Policy, ServiceApi};

use crate::fault::Fault;
use crate::hub::Spread;
use crate::service_api::Record;
use crate::tpm::ParentKey;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A configuration that has been checked.
#[derive(Debug)]
pub struct Config {
    pub(crate) service: Service,
    pub(crate) enrollments: Vec<Enrollment>,
    pub(crate) groups: Vec<Group>,
    pub(crate) service_api: ServiceApi,
    pub(crate) entra: Option<Entra>,
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Says which line is wrong, and what would be right.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        read::read(text).map_err(|(message, at)| ConfigError { file: None, line: line(text, at), message })
    }

    /// Reads a configuration file. Paths in it are relative to the working directory.
    ///
    /// # Errors
    /// As [`Config::from_toml`], with the file's name; also when it cannot be read.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let named = |error| ConfigError { file: Some(path.to_owned()), ..error };
        let text = std::fs::read_to_string(path)
            .map_err(|error| named(ConfigError { file: None, line: None, message: format!("cannot read it: {error}") }))?;
        Self::from_toml(&text).map_err(named)
    }

    /// Every hub that is named anywhere, for the server's certificate.
    pub(crate) fn hubs(&self) -> Vec<String> {
        let settings = self.enrollments.iter().map(|enrollment| &enrollment.settings);
        let named = settings.chain(self.groups.iter().map(|group| &group.settings)).filter_map(|of| of.hub.clone());
        self.service.hubs.iter().cloned().chain(named).collect()
    }
}

/// What is wrong with a configuration.
#[derive(Debug)]
pub struct ConfigError {
    file: Option<PathBuf>,
    line: Option<usize>,
    message: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.file {
            Some(file) => write!(to, "{}", file.display())?,
            None => write!(to, "configuration")?,
        }
        if let Some(line) = self.line {
            write!(to, ":{line}")?;
        }
        write!(to, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

fn line(text: &str, offset: Option<usize>) -> Option<usize> {
    Some(text.get(..offset?)?.matches('\n').count() + 1)
}

/// `[service]`, checked.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) id_scope: String,
    pub(crate) host: String,
    pub(crate) listen: IpAddr,
    pub(crate) mqtt_port: u16,
    pub(crate) https_port: u16,
    pub(crate) tls: Vec<TlsVersion>,
    pub(crate) server_key: ServerKey,
    pub(crate) server_certificate: ServerCertificate,
    /// Another certificate for clients whose SNI is a hub's name.
    pub(crate) hub_certificate: Option<ServerCertificate>,
    pub(crate) own_ca: Option<(PathBuf, PathBuf)>,
    pub(crate) ca_out: Option<PathBuf>,
    pub(crate) hubs: Vec<String>,
    pub(crate) transcript_file: Option<PathBuf>,
    pub(crate) wrong_key_on_mqtt: WrongKey,
    pub(crate) api_versions: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) kinder: Vec<Kinder>,
}

/// A TLS version to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum TlsVersion {
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

/// The kind of the server's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServerKey {
    Rsa,
    Ecdsa,
}

/// What is wrong with the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServerCertificate {
    Good,
    Expired,
    NotYetValid,
    WrongName,
    UnknownCa,
}

/// Where a wrong key or certificate shows on MQTT; which one the service uses is UNCONFIRMED (DPS device API §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WrongKey {
    /// As the answer to the first request.
    Response,
    /// As return code 5 of CONNACK.
    Connack,
}

/// A check that is switched off, for testing the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Kinder {
    #[serde(rename = "skip-signature")]
    Signature,
    #[serde(rename = "skip-expiry")]
    Expiry,
    #[serde(rename = "skip-audience")]
    Audience,
    #[serde(rename = "skip-cn")]
    Cn,
    #[serde(rename = "skip-chain")]
    Chain,
    #[serde(rename = "skip-thumbprint")]
    Thumbprint,
    #[serde(rename = "skip-rid")]
    Rid,
    #[serde(rename = "skip-order")]
    Order,
    #[serde(rename = "skip-api-version")]
    ApiVersion,
    #[serde(rename = "skip-body")]
    Body,
    #[serde(rename = "skip-hub-credential")]
    HubCredential,
    /// Keys of earlier challenges are good, too.
    #[serde(rename = "skip-challenge")]
    Challenge,
    /// Any EK is taken for the enrolled one.
    #[serde(rename = "skip-endorsement-key")]
    EndorsementKey,
    /// The SRK may have any attributes.
    #[serde(rename = "skip-storage-key")]
    StorageKey,
    /// A register call may repeat other keys than those of the challenge.
    #[serde(rename = "skip-same-keys")]
    SameKeys,
    /// A TPM's token may come without `skn`.
    #[serde(rename = "skip-key-name")]
    KeyName,
    /// Earlier hub keys are good, too.
    #[serde(rename = "skip-hub-key")]
    HubKey,
    /// A TPM may come over MQTT.
    #[serde(rename = "skip-transport")]
    Transport,
}

/// How one device is treated: what an individual enrollment and a group have in common.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) device_id: Option<String>,
    pub(crate) hub: Option<String>,
    pub(crate) enabled: bool,
    pub(crate) payload: Option<serde_json::Value>,
    pub(crate) polls: u32,
    pub(crate) at_once: bool,
    pub(crate) retry_after: Option<String>,
    pub(crate) fail: Option<Fail>,
    /// A hub refuses a new identity for so many seconds, and so many times.
    pub(crate) hub_delay: u32,
    pub(crate) hub_refusals: u32,
    pub(crate) faults: Vec<Fault>,
    pub(crate) reprovision: Reprovision,
}

/// What becomes of an assignment when the device registers again (DPS device API §14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Reprovision {
    /// Otherwise the first hub is for ever.
    #[serde(default = "yes")]
    pub(crate) update_hub_assignment: bool,
    #[serde(default = "yes")]
    pub(crate) migrate_device_data: bool,
}

impl Default for Reprovision {
    fn default() -> Self {
        Self { update_hub_assignment: true, migrate_device_data: true }
    }
}

fn yes() -> bool {
    true
}

impl Settings {
    /// What is before an identity that a hub is given now.
    pub(crate) fn spread(&self) -> Spread {
        Spread { refusals: self.hub_refusals, end: Instant::now() + Duration::from_secs(self.hub_delay.into()) }
    }
}

/// The end of a registration that fails.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fail {
    pub(crate) code: u32,
    pub(crate) message: String,
}

/// `[[enrollment]]`, checked.
#[derive(Debug)]
pub(crate) struct Enrollment {
    pub(crate) registration_id: String,
    pub(crate) attestation: Attestation,
    pub(crate) settings: Settings,
}

/// `[[group]]`, checked, or made through the service API.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) attestation: Attestation,
    pub(crate) settings: Settings,
    pub(crate) record: Record,
}

/// What proves a device's identity.
#[derive(Debug, Clone)]
pub(crate) enum Attestation {
    /// The decoded keys, primary first; for a group, those that device keys are derived from.
    SymmetricKey(Vec<Vec<u8>>),
    /// The device's own certificate, or for a group the CA's; possibly a second one.
    X509(Vec<CertificateDer<'static>>),
    /// The EK of the device's TPM; no group has one.
    Tpm(Box<ParentKey>),
}
