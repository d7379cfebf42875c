//! How this device proves who it is. Key material does not leave this module, but by [`Attestation::export`] and with the leave that
//! the configuration gives: tokens and signatures do.

mod enroll;
mod symmetric_key;
mod tpm;
mod x509;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::blame::Blame;
use crate::config::{ExportKey, KeySource, Profile};
use crate::id::RegistrationId;
use crate::identity::{self, IdentityError, Known};
use crate::protocol::sas::Audience;
use crate::protocol::wire::TpmKeys;
use crate::protocol::{AuthenticationKey, KeySlot};
use crate::secret::{Secret, SecretFileError, read_secret_file};
use crate::tls::TlsError;
use crate::tpm::{HubKey, Keys, Memory, Name, Placed, TpmError};
pub use enroll::{enrollment, examination};
use symmetric_key::SymmetricKey;
use tpm::Attended;
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
    Tpm(Attended),
}

/// Which key signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// One of those with which the device is enrolled.
    Enrolled(KeySlot),
    /// The one that the service gave to the TPM, for the hub only.
    Hub(HubKey),
}

impl Attestation {
    /// Opens what the profile names: reads keys and certificates, or asks the TPM, and finds the registration ID. `root` is `/`
    /// outside tests; `credentials` is systemd's `$CREDENTIALS_DIRECTORY`; `remembered` is what the record keeps of the TPM.
    pub async fn open(
        profile: &Profile,
        root: &Path,
        credentials: Option<&Path>,
        remembered: Option<&Memory>,
    ) -> Result<Self, AttestationError> {
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
            Profile::Tpm { registration_id, tpm } => {
                let attended = Attended::open(tpm, credentials, remembered).await?;
                let known = Known::EndorsementKey(&attended.keys.endorsement_key);
                let registration_id = identity::registration_id(registration_id, known, root)?;
                Ok(Self { registration_id, means: Means::Tpm(attended) })
            }
        }
    }

    /// As [`open`](Self::open), but the TPM is believed to be the remembered one, and not asked: if it is another one it cannot sign.
    pub async fn recall(
        profile: &Profile,
        root: &Path,
        credentials: Option<&Path>,
        remembered: Option<&Memory>,
    ) -> Result<Self, AttestationError> {
        let (Profile::Tpm { registration_id, tpm }, Some(memory)) = (profile, remembered) else {
            return Self::open(profile, root, credentials, remembered).await;
        };
        let keys = memory.keys.clone();
        let registration_id = identity::registration_id(registration_id, Known::EndorsementKey(&keys.endorsement_key), root)?;
        Ok(Self { registration_id, means: Means::Tpm(Attended { tpm: tpm::closed(tpm, credentials)?, keys }) })
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
            Means::Tpm(_) => "tpm",
        }
    }

    /// Whether there is a second key to try.
    pub fn has_second_key(&self) -> bool {
        matches!(self.means, Means::SymmetricKey { secondary: Some(_), .. })
    }

    /// Whether the service asks for a proof of what the TPM can do (DPS device API, TPM attestation).
    pub fn is_challenged(&self) -> bool {
        matches!(self.means, Means::Tpm(_))
    }

    /// A token for this audience, good until `expiry` (seconds since 1970), made now. `None` where a certificate proves us.
    pub async fn token(&self, audience: &Audience, key: &Key, expiry: u64) -> Result<Option<Secret<String>>, AttestationError> {
        let text = audience.to_sign(expiry);
        let signature = match (&self.means, key) {
            (Means::X509(_), _) => return Ok(None),
            (Means::SymmetricKey { secondary: Some(secondary), .. }, Key::Enrolled(KeySlot::Secondary)) => secondary.sign(&text),
            (Means::SymmetricKey { primary, .. }, _) => primary.sign(&text),
            (Means::Tpm(Attended { tpm, keys }), Key::Hub(key)) => tpm.sign(&keys.storage_key, key, text).await?,
            (Means::Tpm(_), Key::Enrolled(_)) => return Err(AttestationError::NoHubKey),
        };
        Ok(Some(audience.token(&signature, expiry)))
    }

    /// The symmetric key itself, in base64, for a program that makes its own tokens. Only where the configuration says
    /// `export_key = true`; `None` where the device has no such key. Whoever calls this tells the log.
    pub fn export(&self, key: &Key, _: &ExportKey) -> Option<Secret<String>> {
        match (&self.means, key) {
            (Means::X509(_) | Means::Tpm(_), _) => None,
            (Means::SymmetricKey { secondary: Some(secondary), .. }, Key::Enrolled(KeySlot::Secondary)) => Some(secondary.text()),
            (Means::SymmetricKey { primary, .. }, _) => Some(primary.text()),
        }
    }

    /// A token for this audience that answers the service's challenge. Its key is forgotten.
    pub async fn answer(
        &self,
        challenge: &AuthenticationKey,
        audience: &Audience,
        expiry: u64,
    ) -> Result<Secret<String>, AttestationError> {
        let Attended { tpm, keys } = self.attended()?;
        let signature = tpm.answer(keys, challenge, audience.to_sign(expiry)).await?;
        Ok(audience.token(&signature, expiry))
    }

    /// Takes the key that the service wrapped for the hub; what comes back is for the record.
    pub async fn import(&self, key: &AuthenticationKey) -> Result<Memory, AttestationError> {
        let Attended { tpm, keys } = self.attended()?;
        let hub_key = tpm.import(keys, key).await?;
        Ok(Memory { keys: keys.clone(), hub_key })
    }

    /// Puts the hub key where programs built on Microsoft's C client look for it; see [`Tpm::place`](crate::tpm::Tpm::place).
    pub async fn place(&self, key: &HubKey, ours: &[Name]) -> Result<Placed, AttestationError> {
        let Attended { tpm, keys } = self.attended()?;
        Ok(tpm.place(&keys.storage_key, key, ours).await?)
    }

    /// The hub key that another program left at the identity handle.
    pub async fn found(&self) -> Result<Memory, AttestationError> {
        let Attended { tpm, keys } = self.attended()?;
        Ok(Memory { keys: keys.clone(), hub_key: tpm.found().await? })
    }

    /// The public keys that the register call shows; `None` where there is no TPM in play.
    pub fn shown_keys(&self) -> Option<TpmKeys> {
        let keys = self.tpm_keys()?;
        Some(TpmKeys { endorsement_key: keys.endorsement_key.text(), storage_root_key: keys.storage_key.public.text() })
    }

    /// The TPM's public keys; `None` where there is no TPM in play.
    pub fn tpm_keys(&self) -> Option<&Keys> {
        self.attended().ok().map(|attended| &attended.keys)
    }

    fn attended(&self) -> Result<&Attended, AttestationError> {
        match &self.means {
            Means::Tpm(attended) => Ok(attended),
            Means::SymmetricKey { .. } | Means::X509(_) => Err(AttestationError::NoTpm),
        }
    }

    /// The client certificate for TLS, where that is what proves us.
    pub fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        match &self.means {
            Means::SymmetricKey { .. } | Means::Tpm(_) => None,
            Means::X509(x509) => Some(x509.certified_key()),
        }
    }

    /// When the client certificate is valid.
    pub fn validity(&self) -> Option<Validity> {
        match &self.means {
            Means::SymmetricKey { .. } | Means::Tpm(_) => None,
            Means::X509(x509) => Some(x509.validity()),
        }
    }

    /// What of this identity may be known: it changes with the key or certificate and tells nothing of them.
    pub fn fingerprint(&self) -> String {
        match &self.means {
            Means::SymmetricKey { primary, .. } => format!("symmetric-key:{}", primary.fingerprint()),
            Means::X509(x509) => format!("x509:{}", x509.thumbprint()),
            Means::Tpm(attended) => format!("tpm:{}", attended.keys.endorsement_key.name()),
        }
    }
}

/// The secret that the source names, and the file that it was read from.
fn secret_of(source: &KeySource, credentials: Option<&Path>) -> Result<(PathBuf, Secret<Vec<u8>>), AttestationError> {
    let path = path_of(source, credentials)?;
    let secret = read_secret_file(&path)?;
    Ok((path, secret))
}

fn path_of(source: &KeySource, credentials: Option<&Path>) -> Result<PathBuf, AttestationError> {
    match (source, credentials) {
        (KeySource::File(path), _) => Ok(path.clone()),
        (KeySource::Credential(name), Some(directory)) => Ok(directory.join(name)),
        (KeySource::Credential(name), None) => Err(AttestationError::NoCredentials(name.clone())),
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
    /// A TPM has no enrolled key that signs.
    #[error("the TPM has no hub key yet: the device has to register first")]
    NoHubKey,
    /// The service asks for what only a TPM can do.
    #[error("this device has no TPM in play: [attestation] method is another one")]
    NoTpm,
    /// The TPM does not do what it is needed for.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

impl AttestationError {
    /// Whether there is no TPM yet: some appear late.
    pub fn is_absent_tpm(&self) -> bool {
        matches!(self, Self::Tpm(error) if error.is_absent())
    }

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
            | Self::NoHubKey
            | Self::NoTpm
            | Self::Tls(_) => Blame::Credential,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systemd_credential_is_found_or_its_absence_explained() {
        let source = KeySource::Credential("dps-key".into());
        assert_eq!(path_of(&source, Some(Path::new("/run/c"))).unwrap(), Path::new("/run/c/dps-key"));
        assert_eq!(
            path_of(&source, None).unwrap_err().to_string(),
            "the systemd credential \"dps-key\" is not there: $CREDENTIALS_DIRECTORY is not set; put LoadCredential=dps-key:FILE into the unit, or use a …_file key"
        );
    }
}
