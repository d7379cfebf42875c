//! Attestation by a TPM 2.0: the endorsement key says who we are, and the keys that the service wraps for it sign.

use std::path::Path;

use super::{AttestationError, secret_of};
use crate::config::TpmSettings;
use crate::tpm::{Auths, Keys, Memory, Tpm};

/// The TPM and its two public keys, as they are now.
#[derive(Debug)]
pub struct Attended {
    pub(super) tpm: Tpm,
    pub(super) keys: Keys,
}

impl Attended {
    /// Opens the TPM and finds its keys. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`.
    pub async fn open(
        settings: &TpmSettings,
        credentials: Option<&Path>,
        remembered: Option<&Memory>,
    ) -> Result<Self, AttestationError> {
        let tpm = closed(settings, credentials)?;
        let keys = tpm.attend(remembered).await?;
        Ok(Self { tpm, keys })
    }
}

/// The TPM with its passwords, not opened yet.
pub fn closed(settings: &TpmSettings, credentials: Option<&Path>) -> Result<Tpm, AttestationError> {
    let secret = |source| secret_of(source, credentials).map(|(_, secret)| secret);
    let auths = Auths {
        owner: settings.owner_auth.as_ref().map(secret).transpose()?,
        endorsement: settings.endorsement_auth.as_ref().map(secret).transpose()?,
    };
    Ok(Tpm::new(settings.clone(), auths))
}
