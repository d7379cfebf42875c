//! The one TLS configuration of DPS and hub, whatever the transport; the only file that names the crypto provider.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme, version,
};
use thiserror::Error as ThisError;
use x509_cert::der::Decode;

use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::Trust;
use crate::protocol::{Lost, Stage};

/// Why there is no TLS configuration. Nothing is trusted instead: the operator mends the configuration or the system's store.
#[derive(Debug, ThisError)]
pub enum TlsError {
    /// The system's certificate store holds nothing that can be trusted.
    #[error(
        "the system's certificate store is empty or cannot be read{details}: install the package ca-certificates, \
         point SSL_CERT_FILE at a PEM file, or set ca_file together with ca_only = true"
    )]
    NoSystemRoots {
        /// What went wrong with which file, if anything did.
        details: String,
    },
    /// A CA file is not there, may not be read, or is not PEM.
    #[error("the CA file {path} cannot be read as PEM certificates: it must exist and be readable by this user", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// A CA file without a certificate would trust nobody.
    #[error("the CA file {path} holds no certificate: it must be PEM, with -----BEGIN CERTIFICATE----- lines", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in a CA file cannot be understood.
    #[error("certificate number {number} in the CA file {path} cannot be understood: replace or remove it", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// A private key is of a kind that TLS here cannot use.
    #[error(
        "the private key cannot be used for TLS: it must be RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519"
    )]
    Key(#[source] rustls::Error),
    /// The parts do not fit together. A defect of this program.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    /// Who can mend it.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::NoSystemRoots { .. }
            | Self::Unreadable { .. }
            | Self::Empty { .. }
            | Self::Unusable { .. }
            | Self::Setup(_) => Blame::Configuration,
            Self::Key(_) => Blame::Credential,
        }
    }
}

/// TLS 1.3 and 1.2 as a client that trusts `trust`, and `also` where a parent gateway has its own CA, at the time of `clock`.
///
/// Nothing is resumed: each connection shows what the peer says about the credential of that very connection.
pub fn client(
    trust: &Trust,
    also: Option<&Path>,
    certificate: Option<Arc<CertifiedKey>>,
    clock: Clock,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let judge = Judge::of(trusted(trust, also)?, &provider)?;
    let builder = ClientConfig::builder_with_details(provider, Arc::new(clock))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let mut config = match certificate {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The key of a client certificate, able to sign.
pub fn signing_key(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, TlsError> {
    ring::sign::any_supported_type(key).map_err(TlsError::Key)
}

/// Who vouched for the peer of a connection, and by which protocol, for people.
pub fn describe(connection: &CommonState) -> String {
    let version = connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let chain = connection.peer_certificates().unwrap_or_default();
    let issuer = chain.last().map_or_else(|| "nobody".to_owned(), |topmost| StrangeIssuer::of(topmost).name);
    format!("{}, its certificate is trusted and issued by {issuer:?}", version.replacen('v', " ", 1).replace('_', "."))
}

/// The TLS error somewhere in the causes of another error: I/O, WebSocket and HTTP wrap it, each in its own way.
pub fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An io::Error hides what it was made of: its source() is the source of that.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What a failed handshake means, apart from a [`refusal`] of our own certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's enums grow, and what is new is like the rest")]
pub fn lost(error: &rustls::Error, host: &str) -> Lost {
    let host = host.to_owned();
    match error {
        rustls::Error::InvalidCertificate(
            fault @ (CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }),
        ) => Lost::NotYetValid { host, why: explain(fault) },
        rustls::Error::InvalidCertificate(fault) => Lost::Untrusted { host, why: explain(fault) },
        rustls::Error::NoCertificatesPresented => Lost::Untrusted { host, why: "it has none".to_owned() },
        other => Lost::Unreachable { stage: Stage::Tls, why: format!("the TLS handshake with {host} failed: {other}") },
    }
}

/// In words, that the peer refuses our client certificate, where that is what the error says. With TLS 1.3 it arrives after
/// our side of the handshake is done, in place of the first answer.
///
/// On the network such an alert looks like any other failure; but trying again with the same certificate is of no use, and
/// the service says the same on other layers as 401. So that is what it becomes.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's enums grow, and what is new is like the rest")]
pub fn refusal(error: &rustls::Error) -> Option<String> {
    let rustls::Error::AlertReceived(alert) = error else { return None };
    let about = match alert {
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it has been revoked",
        AlertDescription::UnknownCA => "its issuer is not known there, or the chain is incomplete",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::AccessDenied => "it is not accepted",
        _ => return None,
    };
    Some(format!("the peer refuses our client certificate: {about} (TLS alert {alert:?})"))
}

/// Names the issuer that nobody vouched for, and otherwise judges as rustls does.
#[derive(Debug)]
struct Judge(Arc<WebPkiServerVerifier>);

impl Judge {
    fn of(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        judge.map(Self).map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        // The topmost certificate that was sent tells most about who sits there.
        let stranger = || StrangeIssuer::of(intermediates.last().unwrap_or(end_entity)).into();
        verdict.map_err(|error| if error == unknown { stranger() } else { error })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// An issuer that is not among the trusted ones.
#[derive(Debug, ThisError)]
#[error(
    "its issuer {name:?} is not trusted; if this network inspects TLS or the service is a private one, put that CA into ca_file"
)]
struct StrangeIssuer {
    name: String,
}

impl StrangeIssuer {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let parsed = x509_cert::Certificate::from_der(certificate);
        let name = parsed.map_or_else(|_| "(unreadable)".to_owned(), |parsed| parsed.tbs_certificate.issuer.to_string());
        // It comes from a stranger: the message stays readable.
        Self { name: name.chars().take(200).collect() }
    }
}

impl From<StrangeIssuer> for rustls::Error {
    fn from(strange: StrangeIssuer) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(strange))))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's enums grow, and what is new is like the rest")]
fn explain(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("it expired on {}; our clock says {}", date(*not_after), date(*time))
        }
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("it begins on {}; our clock says {}", date(*not_before), date(*time))
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => "it names no host".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented.iter().take(5).map(|name| name.chars().take(80).collect::<String>()).collect();
            format!("it is for {}; check the host name, and who answers there", names.join(", "))
        }
        CertificateError::Other(other) => other.0.to_string(),
        other => other.to_string(),
    }
}

fn date(time: UnixTime) -> String {
    // Beyond year 9999 httpdate panics, and a certificate can say anything.
    const LAST: u64 = 253_402_300_799;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs().min(LAST)))
}

fn trusted(trust: &Trust, also: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => add_system(&mut roots)?,
        Trust::SystemAnd(file) => {
            add_system(&mut roots)?;
            add_file(&mut roots, file)?;
        }
        Trust::Only(file) => add_file(&mut roots, file)?,
    }
    if let Some(file) = also {
        add_file(&mut roots, file)?;
    }
    Ok(roots)
}

fn add_system(roots: &mut RootCertStore) -> Result<(), TlsError> {
    let found = rustls_native_certs::load_native_certs();
    // One that cannot be parsed is left out, as everybody does with a system's store: it vouches for nobody then.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    let details: String = found.errors.iter().map(|error| format!("; {error}")).collect();
    if added == 0 {
        return Err(TlsError::NoSystemRoots { details });
    }
    if !details.is_empty() {
        tracing::warn!("a part of the system's certificate store cannot be read{details}");
    }
    Ok(())
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    let certificates = certificates.map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    for (index, certificate) in certificates.into_iter().enumerate() {
        let unusable = |source| TlsError::Unusable { path: path.to_owned(), number: index + 1, source };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A server with this chain and key (PEM); with a root (PEM) it wants a client certificate below that.
    pub(crate) fn server(
        chain: &str,
        key: &str,
        clients: Option<&str>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
                let judge =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(judge)
            }
        };
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        Arc::new(builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap())
    }

    /// A client's chain and key (PEM), ready to be used.
    pub(crate) fn certified(chain: &str, key: &str) -> Arc<CertifiedKey> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = signing_key(&PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
        Arc::new(CertifiedKey::new(chain, key))
    }

    #[test]
    fn the_cause_is_found_behind_what_carries_it() {
        let tls = || rustls::Error::NoCertificatesPresented;
        let io = io::Error::new(io::ErrorKind::InvalidData, tls());
        assert_eq!(cause(&io), Some(&tls()));
        let nested = io::Error::other(io::Error::other(tls()));
        assert_eq!(cause(&nested), Some(&tls()));
        assert_eq!(cause(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }

    #[test]
    fn only_alerts_about_our_certificate_refuse_it() {
        let alert = |alert| refusal(&rustls::Error::AlertReceived(alert));
        assert_eq!(
            alert(AlertDescription::UnknownCA).unwrap(),
            "the peer refuses our client certificate: its issuer is not known there, or the chain is incomplete (TLS alert UnknownCA)"
        );
        assert_eq!(alert(AlertDescription::HandshakeFailure), None);
        assert_eq!(alert(AlertDescription::ProtocolVersion), None);
        assert_eq!(refusal(&rustls::Error::InvalidCertificate(CertificateError::Expired)), None);
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_with_its_dates() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: time(86_400), not_after: time(0) };
        let lost = lost(&rustls::Error::InvalidCertificate(expired), "hub");
        assert_eq!(
            lost.to_string(),
            "the certificate of hub is not trusted: it expired on Thu, 01 Jan 1970 00:00:00 GMT; our clock says Fri, 02 Jan 1970 00:00:00 GMT"
        );
        assert_eq!(date(time(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_is_an_error_and_never_an_empty_trust() {
        let scratch = std::env::temp_dir().join(format!("dps-agent-tls-{}", std::process::id()));
        std::fs::create_dir(&scratch).unwrap();
        let try_file = |name: &str, content: Option<&str>| {
            let path = scratch.join(name);
            content.map_or(Ok(()), |content| std::fs::write(&path, content)).unwrap();
            let error = client(&Trust::Only(path), None, None, Clock::with_floor(None)).unwrap_err();
            assert_eq!(error.blame(), Blame::Configuration);
            error.to_string().replace(scratch.to_str().unwrap(), "")
        };
        let found = [
            try_file("absent", None),
            try_file("empty", Some("# nothing\n")),
            try_file("junk", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
            try_file("torn", Some("-----BEGIN CERTIFICATE-----\nAAAA\n")),
        ];
        std::fs::remove_dir_all(&scratch).unwrap();
        assert_eq!(
            found,
            [
                "the CA file /absent cannot be read as PEM certificates: it must exist and be readable by this user",
                "the CA file /empty holds no certificate: it must be PEM, with -----BEGIN CERTIFICATE----- lines",
                "certificate number 1 in the CA file /junk cannot be understood: replace or remove it",
                "the CA file /torn cannot be read as PEM certificates: it must exist and be readable by this user",
            ]
        );
    }
}
