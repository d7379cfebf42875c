//! How this device proves who it is. Key material does not leave this module: tokens and signatures do.

mod symmetric_key;
mod x509;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::blame::Blame;
use crate::config::Profile;
use crate::id::RegistrationId;
use crate::identity::{self, IdentityError, Known};
use crate::protocol::KeySlot;
use crate::protocol::sas::Audience;
use crate::secret::{Secret, SecretFileError};
use crate::tls::TlsError;
use crate::tpm::TpmError;
use symmetric_key::SymmetricKey;
pub use x509::Validity;
use x509::X509;

/// An opened identity: who we are, and the means to prove it.
#[derive(Debug)]
pub struct Attestation {
    registration_id: RegistrationId,
    means: Means,
}

#[derive(Debug)]
enum Means {
    SymmetricKey { primary: SymmetricKey, secondary: Option<SymmetricKey> },
    X509(X509),
}

impl Attestation {
    /// Opens what the profile names: reads keys and certificates, finds the registration ID. `root` is `/` outside tests;
    /// `credentials` is systemd's `$CREDENTIALS_DIRECTORY`.
    pub fn open(profile: &Profile, root: &Path, credentials: Option<&Path>) -> Result<Self, AttestationError> {
        match profile {
            Profile::SymmetricKey { registration_id, primary, secondary } => {
                let primary = SymmetricKey::open(primary, credentials)?;
                let secondary = secondary.as_ref().map(|source| SymmetricKey::open(source, credentials)).transpose()?;
                let registration_id = identity::registration_id(registration_id, Known::Nothing, root)?;
                Ok(Self { registration_id, means: Means::SymmetricKey { primary, secondary } })
            }
            Profile::X509 { registration_id, chain, key } => {
                let x509 = X509::open(chain, key)?;
                let registration_id = identity::registration_id(registration_id, Known::CommonName(x509.common_name()), root)?;
                Ok(Self { registration_id, means: Means::X509(x509) })
            }
            Profile::Tpm { .. } => Err(TpmError::NotBuilt.into()),
        }
    }

    /// The name under which this device registers.
    pub fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    /// The method, as the configuration names it.
    pub fn method(&self) -> &'static str {
        match self.means {
            Means::SymmetricKey { .. } => "symmetric-key",
            Means::X509(_) => "x509",
        }
    }

    /// Whether there is a second key to try.
    pub fn has_second_key(&self) -> bool {
        matches!(self.means, Means::SymmetricKey { secondary: Some(_), .. })
    }

    /// A token for this audience, good until `expiry` (seconds since 1970), made now. `None` where a certificate proves us.
    pub fn token(&self, audience: &Audience, slot: KeySlot, expiry: u64) -> Option<Secret<String>> {
        let key = match (&self.means, slot) {
            (Means::X509(_), _) => return None,
            (Means::SymmetricKey { secondary: Some(secondary), .. }, KeySlot::Secondary) => secondary,
            (Means::SymmetricKey { primary, .. }, _) => primary,
        };
        Some(audience.token(&key.sign(&audience.to_sign(expiry)), expiry))
    }

    /// The client certificate for TLS, where that is what proves us.
    pub fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        match &self.means {
            Means::SymmetricKey { .. } => None,
            Means::X509(x509) => Some(x509.certified_key()),
        }
    }

    /// When the client certificate is valid.
    pub fn validity(&self) -> Option<Validity> {
        match &self.means {
            Means::SymmetricKey { .. } => None,
            Means::X509(x509) => Some(x509.validity()),
        }
    }

    /// What of this identity may be known: it changes with the key or certificate and tells nothing of them.
    pub fn fingerprint(&self) -> String {
        match &self.means {
            Means::SymmetricKey { primary, .. } => format!("symmetric-key:{}", primary.fingerprint()),
            Means::X509(x509) => format!("x509:{}", x509.thumbprint()),
        }
    }
}

/// Why the identity cannot be opened.
#[derive(Debug, Error)]
pub enum AttestationError {
    /// A file with a secret is not usable.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A systemd credential is asked for, and systemd has passed none.
    #[error(
        "the systemd credential {0:?} is not there: $CREDENTIALS_DIRECTORY is not set; put LoadCredential={0}:FILE into the unit, or use a …_file key"
    )]
    NoCredentials(String),
    /// The text is no symmetric key.
    #[error("{origin} holds no symmetric key: {why}")]
    NoSymmetricKey {
        /// The file or credential.
        origin: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file is no certificate chain with which DPS can know us.
    #[error("{path} holds no usable certificate chain: {why}")]
    NoChain {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file is no private key that TLS can use.
    #[error("{path} holds no usable private key: {why}")]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the private key in {key} does not belong to the first certificate in {chain}: write the leaf first, and its own key"
    )]
    NoPair {
        /// The certificate file.
        chain: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The registration ID cannot be found.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot use the key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TPM does not do what it is needed for.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

impl AttestationError {
    /// Whom to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Identity(error) => error.blame(),
            Self::Tpm(error) => error.blame(),
            Self::File(_)
            | Self::NoCredentials(_)
            | Self::NoSymmetricKey { .. }
            | Self::NoChain { .. }
            | Self::NoPrivateKey { .. }
            | Self::NoPair { .. }
            | Self::Tls(_) => Blame::Credential,
        }
    }
}
