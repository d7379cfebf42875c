//! Attestation by an X.509 certificate: chain and key, checked to be a pair before anybody is asked.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::AttestationError;
use crate::identity::Certificate;
pub use crate::identity::Validity;
use crate::secret::read_secret_file;
use crate::tls;

/// A client certificate with its chain and key, ready for TLS.
#[derive(Debug)]
pub struct X509 {
    certified_key: Arc<CertifiedKey>,
    common_name: String,
    validity: Validity,
}

impl X509 {
    /// Reads a PEM chain, leaf first, and the leaf's key in PKCS#8, SEC1 or PKCS#1.
    pub fn open(chain_file: &Path, key_file: &Path) -> Result<Self, AttestationError> {
        let no_chain = |why: String| AttestationError::NoChain { path: chain_file.to_owned(), why };
        let chain = read_chain(chain_file).map_err(no_chain)?;
        let leaf = chain.first().ok_or_else(|| no_chain("it has no CERTIFICATE section".into()))?;
        let (common_name, validity) = describe(leaf).map_err(no_chain)?;
        let key = read_key(key_file)?;
        let certified_key = CertifiedKey::new(chain, tls::signing_key(&key)?);
        match certified_key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(AttestationError::NoPair { chain: chain_file.to_owned(), key: key_file.to_owned() });
            }
            Err(error) => {
                return Err(no_chain(format!("TLS cannot use its first certificate ({error}): it must be X.509 version 3")));
            }
        }
        Ok(Self { certified_key: Arc::new(certified_key), common_name, validity })
    }

    /// The subject's common name: for DPS it is the registration ID.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// When the leaf is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// For TLS.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified_key.clone()
    }

    /// SHA-256 of the leaf, in lower-case hex.
    pub fn thumbprint(&self) -> String {
        let leaf = self.certified_key.cert.first().map_or(&[][..], |leaf| leaf.as_ref());
        Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| format!("its PEM is damaged ({error})"))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, AttestationError> {
    let text = read_secret_file(path)?;
    PrivateKeyDer::from_pem_slice(text.expose()).map_err(|error| {
        let encrypted = text.expose().windows(9).any(|window| window == b"ENCRYPTED");
        let why = if encrypted {
            "it is encrypted, and nobody is there to type the password: openssl pkey -in FILE -out PLAIN".into()
        } else if matches!(error, pem::Error::NoItemsFound) {
            "it has no section PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY".into()
        } else {
            // The parser's words name sections and positions, never content.
            format!("its PEM is damaged ({error})")
        };
        AttestationError::NoPrivateKey { path: path.to_owned(), why }
    })
}

fn describe(leaf: &CertificateDer<'_>) -> Result<(String, Validity), String> {
    let leaf = Certificate::parse(leaf).map_err(|error| format!("its first certificate is damaged ({error})"))?;
    Ok((leaf.common_name()?.to_owned(), leaf.validity()))
}
