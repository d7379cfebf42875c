//! The TLS side: the server's certificate with its possible faults, and client certificates as they come.

use crate::config::{self, ServerCertificate, ServerKey, TlsVersion};
use crate::pki::{self, Algorithm, Authority, Key, PkiError};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Why the listeners have no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file of one's own CA cannot be read.
    #[error("cannot read {path}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A PEM text is none.
    #[error("not a PEM certificate or key")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The TLS library refused.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// What clients have to trust, and what the listeners serve with.
pub(crate) struct Identity {
    pub(crate) ca_pem: String,
    pub(crate) certificates: Certificates,
}

/// The certificate for each client.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    usual: Arc<ServerConfig>,
    /// For those who ask for one of these names.
    hub: Option<(Vec<String>, Arc<ServerConfig>)>,
}

impl Certificates {
    /// What to serve a client with that sent this SNI.
    pub(crate) fn serve(&self, name: Option<&str>) -> Arc<ServerConfig> {
        let asked = |names: &[String]| name.is_some_and(|name| names.iter().any(|hub| hub.eq_ignore_ascii_case(name)));
        match &self.hub {
            Some((names, config)) if asked(names) => Arc::clone(config),
            Some(_) | None => Arc::clone(&self.usual),
        }
    }
}

impl Identity {
    pub(crate) fn new(config: &config::Service, hubs: &[String]) -> Result<Self, TlsError> {
        let new_key = || match config.server_key {
            ServerKey::Rsa => rsa_key(),
            ServerKey::Ecdsa => Key::generate(Algorithm::EcP256),
        };
        let key = new_key()?;
        let ca = match &config.own_ca {
            Some((certificate, key)) => Authority::read(&read(certificate)?, &read(key)?)?,
            None => throw_away(new_key()?)?,
        };
        let serve = |fault| {
            let chain = chain(fault, names(config, hubs), &ca, &key)?;
            Ok::<_, TlsError>(Arc::new(server(config, &chain, key.der())?))
        };
        let usual = serve(config.server_certificate)?;
        let hub = config.hub_certificate.map(|fault| serve(fault).map(|server| (hubs.to_vec(), server))).transpose()?;
        Ok(Self { ca_pem: ca.certificate_pem().to_owned(), certificates: Certificates { usual, hub } })
    }
}

/// An RSA key takes up to a second or two to make: there is one in a process, for all its servers and for their CAs.
/// Nobody has to be protected by them, and the chain is all RSA, as the service's is.
pub(crate) fn rsa_key() -> Result<Key, PkiError> {
    static KEY: OnceLock<Key> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(key) = KEY.get() {
        return key.copy();
    }
    let key = Key::generate(Algorithm::Rsa2048)?;
    KEY.get_or_init(|| key).copy()
}

/// Each has its own name: with a shared key, one emulator's CA must not vouch for another emulator.
fn throw_away(key: Key) -> Result<Authority, PkiError> {
    Authority::root_with(&format!("dps-emulator throw-away CA {}", crate::answer::random_hex(8)), key)
}

fn read(path: &PathBuf) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(|source| TlsError::File { path: path.clone(), source })
}

fn names(config: &config::Service, hubs: &[String]) -> Vec<String> {
    let usual = ["localhost", "127.0.0.1", "::1", "global.azure-devices-provisioning.net", &config.host];
    let mut names: Vec<String> = usual.map(str::to_owned).to_vec();
    names.extend(hubs.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn chain(fault: ServerCertificate, names: Vec<String>, ca: &Authority, key: &Key) -> Result<String, PkiError> {
    match fault {
        ServerCertificate::Good => ca.server(key, &names, pki::VALID),
        ServerCertificate::Expired => ca.server(key, &names, pki::EXPIRED),
        ServerCertificate::NotYetValid => ca.server(key, &names, pki::NOT_YET_VALID),
        ServerCertificate::WrongName => ca.server(key, &["wrong-name.example".to_owned()], pki::VALID),
        ServerCertificate::UnknownCa => throw_away(Key::generate(Algorithm::EcP256)?)?.server(key, &names, pki::VALID),
    }
}

fn server(config: &config::Service, chain_pem: &str, key: PrivateKeyDer<'static>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let version = |version: &TlsVersion| match version {
        TlsVersion::V12 => &rustls::version::TLS12,
        TlsVersion::V13 => &rustls::version::TLS13,
    };
    let versions: Vec<_> = config.tls.iter().map(version).collect();
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(Arc::new(AnyCertificate { algorithms }))
        .with_single_cert(chain, key)?;
    // Never kinder than the service: each connection is a whole handshake.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

/// Asks for a certificate in the initial handshake and takes any whose key the client holds: whether it is enrolled
/// is found out when the client says who it is.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
