//! What the operator wrote, understood: TOML files in, one [`Config`] out, and nothing that cannot work gets through.

pub mod aziot;
mod document;
mod handoff;
mod handoff_tables;
mod layers;
mod problem;
mod profile;
mod proxy;
mod reader;
mod schema;
mod settings;
mod show;
mod source_table;
#[cfg(test)]
mod tests;
mod tpm;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::handoff::{Credentials, ExportKey, Handoff, Shipped, Template, TemplateSource};
pub use self::layers::Source;
pub use self::problem::{ConfigErrors, KeyName, Origin, Problem};
pub use self::show::validation_json;
#[cfg(feature = "tpm")]
pub use self::tpm::is_way_to_tpm;
use crate::id::{HostName, IdScope, RegistrationId};
use crate::protocol::Via;
use crate::secret::Secret;

/// The whole configuration. Reading it touched the configuration files only; keys and certificates are opened by `attestation`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[dps]`: where the service is and how to reach it.
    pub dps: Dps,
    /// `[attestation]`: who we are and how we prove it.
    pub attestation: Profile,
    /// `[hub]`: how the assigned hub is reached for the proof.
    pub hub: Hub,
    /// Whom TLS trusts, for DPS and hub alike.
    pub trust: Trust,
    /// The proxy on the way to DPS and hub.
    pub proxy: Option<Proxy>,
    /// `[clock] trust_service_date`: where the machine's clock is certainly wrong, tokens are made by the service's time.
    pub trust_service_date: bool,
    /// `[state] directory`: the record lives here; created 0700 if missing.
    pub state_directory: PathBuf,
    /// `[runtime] directory`: what other programs get is written here.
    pub runtime_directory: PathBuf,
    /// `[handoff]`: files and credentials for other programs.
    pub handoff: Handoff,
}

/// A configuration that can work, with what is worth knowing about it.
#[derive(Debug)]
pub struct Loaded {
    /// What the files say.
    pub config: Config,
    /// What works and may still not be meant.
    pub warnings: Vec<Problem>,
    /// The main file, whether it is there or not, and the drop-ins that were read, lowest first.
    pub files: Vec<PathBuf>,
    settings: settings::Settings,
    variables: proxy::Variables,
}

impl Config {
    /// Reads the files of `source` and understands them. `environment` is asked for `HTTPS_PROXY` and `NO_PROXY`, in either case.
    pub fn load(source: &Source, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigErrors> {
        let mut report = problem::Report::default();
        let layers = layers::read(source, &mut report);
        merge(layers, environment, report)
    }

    /// Understands the texts of a main file and of the drop-ins over it, lowest first, without touching a file.
    ///
    /// What is missing is said to be missing from the first. A file that is not TOML hides what the files together would
    /// lack or contradict; a wrong `method` hides what belongs to it; everything else comes to light at once.
    pub fn from_layers(
        layers: Vec<(PathBuf, String)>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Loaded, ConfigErrors> {
        merge(layers, environment, problem::Report::default())
    }
}

fn merge(
    layers: Vec<(PathBuf, String)>,
    environment: &dyn Fn(&str) -> Option<String>,
    mut report: problem::Report,
) -> Result<Loaded, ConfigErrors> {
    let mut settings = settings::Settings::default();
    let mut unread = !report.is_empty();
    for (n, (path, text)) in layers.iter().enumerate() {
        match document::read(path, text, &mut report) {
            Ok(file) if n == 0 => settings.main(file, &mut report),
            Ok(file) => settings.drop_in(file),
            Err(_) => unread = true,
        }
    }
    if unread {
        report = report.verdict()?;
    }
    settings.defaults();
    let variables = proxy::Variables::ask(environment);
    let files: Vec<PathBuf> = layers.into_iter().map(|(path, _)| path).collect();
    let main = files.first().map_or(Path::new(layers::MAIN), PathBuf::as_path);
    let (config, warnings) = reader::understand(&settings, main, &variables, report)?;
    Ok(Loaded { config, warnings, files, settings, variables })
}

/// `[dps]`
#[derive(Debug, Clone, PartialEq)]
pub struct Dps {
    /// `host`: the global endpoint, a sovereign cloud's, or one instance's own.
    pub host: HostName,
    /// `id_scope`: the tenant.
    pub id_scope: IdScope,
    /// `transport`: the ways to try, in order. One, or all three for `auto`.
    pub routes: Vec<Via>,
    /// `mqtt_port`, 1 to 65535.
    pub mqtt_port: u16,
    /// `https_port`, 1 to 65535; for WebSocket too.
    pub https_port: u16,
    /// `api_version`, such as `2021-06-01`.
    pub api_version: String,
    /// `payload` or `payload_file`: a JSON text for custom allocation, checked to be JSON when it was inline.
    pub payload: Option<Payload>,
}

/// The custom allocation payload (DPS device API, custom allocation payload).
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// `payload`: JSON text, already parsed.
    Inline(serde_json::Value),
    /// `payload_file`: read when registering.
    File(PathBuf),
}

/// `[attestation]`: one variant per method, so that settings of two methods cannot meet.
#[derive(Debug, Clone, PartialEq)]
pub enum Profile {
    /// `method = "symmetric-key"`
    SymmetricKey {
        /// `registration_id` or `registration_id_from`.
        registration_id: RegistrationIdSource,
        /// `key_file` or `key_credential`.
        primary: KeySource,
        /// `secondary_key_file` or `secondary_key_credential`.
        secondary: Option<KeySource>,
    },
    /// `method = "x509"`
    X509 {
        /// `registration_id`, `registration_id_from`, or the certificate's common name.
        registration_id: RegistrationIdSource,
        /// `certificate_file`: PEM, leaf first.
        chain: PathBuf,
        /// `private_key_file`: PEM of PKCS#8, SEC1 or PKCS#1.
        key: PathBuf,
    },
    /// `method = "tpm"`
    Tpm {
        /// `registration_id`, `registration_id_from`, or the digest of the endorsement key.
        registration_id: RegistrationIdSource,
        /// Which TPM, and how it is spoken to.
        tpm: TpmSettings,
    },
}

impl Profile {
    /// Where the registration ID comes from, whatever the method.
    pub fn registration_id(&self) -> &RegistrationIdSource {
        match self {
            Self::SymmetricKey { registration_id, .. }
            | Self::X509 { registration_id, .. }
            | Self::Tpm { registration_id, .. } => registration_id,
        }
    }
}

/// A TPM 2.0, its hierarchies and its handles. Whether they are there is found out by `tpm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmSettings {
    /// `tcti`: how the TPM is reached, in the words of tpm2-tss, such as `device:/dev/tpmrm0`.
    pub tcti: String,
    /// `owner_auth_file` or `owner_auth_credential`: the password of the owner hierarchy, where one is set.
    pub owner_auth: Option<KeySource>,
    /// `endorsement_auth_file` or `endorsement_auth_credential`: that of the endorsement hierarchy.
    pub endorsement_auth: Option<KeySource>,
    /// `ek_handle`: where the endorsement key is kept, 0x81000000 to 0x81ffffff.
    pub ek_handle: u32,
    /// `srk_handle`: where the storage root key is kept.
    pub srk_handle: u32,
    /// `identity_handle`: where the hub key is put for programs built on Microsoft's C client; `None` is nowhere.
    pub identity_handle: Option<u32>,
    /// `ek_unique`
    pub ek_unique: EkUnique,
}

/// `ek_unique`: what the endorsement key's template has in its field `unique` when the key is made (DPS device API, handles and
/// templates). The two give different keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EkUnique {
    /// `tcg`: 256 zero bytes, as the TCG's default template has them.
    Tcg,
    /// `empty`: nothing, as some of Microsoft's clients made it.
    Empty,
}

/// Where a symmetric key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `…key_file`: base64 text in a file that only its owner (or root's group) reads.
    File(PathBuf),
    /// `…key_credential`: the name of a systemd credential, found under `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// Where the registration ID comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationIdSource {
    /// `registration_id`: used as it is written.
    Written(RegistrationId),
    /// `registration_id_from`, behind `registration_id_prefix`.
    From {
        /// What to read.
        source: IdentitySource,
        /// Put before it, as it is written. Empty if none.
        prefix: String,
    },
}

/// `registration_id_from`: what of this very machine names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// `certificate-cn`: the common name of the leaf certificate; x509 only, and its default.
    CertificateCn,
    /// `device-tree-serial`
    DeviceTreeSerial,
    /// `dmi-serial`
    DmiSerial,
    /// `mac:IFACE`
    Mac(String),
    /// `machine-id`: an application-specific hash of it (machine-id(5)).
    MachineId,
    /// `file:PATH`
    File(PathBuf),
    /// `tpm-ek:hex` or `tpm-ek:base32`: the SHA-256 of the TPM's endorsement key; tpm only, and its default (DPS device API, TPM
    /// registration ID convention).
    TpmEk(Encoding),
}

/// How a digest becomes a registration ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 64 digits, lower case.
    Hex,
    /// 52 letters and digits, lower case, without padding.
    Base32,
}

/// `[hub]`
#[derive(Debug, Clone, PartialEq)]
pub struct Hub {
    /// `transport`: the ways to try for the proof, in order; MQTT, WebSocket, or both for `auto`.
    pub routes: Vec<Via>,
    /// `mqtt_port`, 1 to 65535.
    pub mqtt_port: u16,
    /// `https_port`, 1 to 65535: the WebSocket's.
    pub https_port: u16,
    /// `verify`
    pub verify: Verify,
    /// `gateway_host`, `gateway_ca_file`: the parent gateway through which the hub is reached.
    pub gateway: Option<Gateway>,
}

/// `[hub] verify`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// `on-change`: after a first assignment and after a hub move.
    OnChange,
    /// `never`
    Never,
}

/// A parent gateway: TLS goes to it, while user name and token keep the hub's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// `gateway_host`
    pub host: HostName,
    /// `gateway_ca_file`: trusted in addition, for this host.
    pub ca_file: Option<PathBuf>,
}

/// `ca_file`, `ca_only`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The system's certificate store.
    System,
    /// The system's store and this PEM file.
    SystemAnd(PathBuf),
    /// This PEM file alone.
    Only(PathBuf),
}

/// An HTTP proxy that is asked to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The proxy's host.
    pub host: HostName,
    /// Its port, 1 to 65535.
    pub port: u16,
    /// What it is shown, if anything.
    pub credentials: Option<ProxyCredentials>,
    /// Hosts that are reached without it: `NO_PROXY`, when the proxy came from the environment. See [`Proxy::serves`].
    pub except: Vec<String>,
}

/// Where the `user:password` for a proxy is.
#[derive(Debug, Clone)]
pub enum ProxyCredentials {
    /// `proxy_credentials_file`: read when it is needed.
    File(PathBuf),
    /// They stood in the URL of the environment variable; this is `user:password`, decoded. The copies share one secret.
    Environment(Arc<Secret<String>>),
}

impl PartialEq for ProxyCredentials {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Environment(one), Self::Environment(other)) => one.expose() == other.expose(),
            (Self::File(_), Self::Environment(_)) | (Self::Environment(_), Self::File(_)) => false,
        }
    }
}

impl Eq for ProxyCredentials {}
