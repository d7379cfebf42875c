//! What of this identity an operator may know and DPS has to: gathered without a word to anybody.

use std::path::Path;

use super::symmetric_key::SymmetricKey;
use super::{AttestationError, tpm};
use crate::config::{Profile, TpmSettings};
use crate::identity::{self, Certificate, Credential, Enrollment, Known};
use crate::tpm::Examination;

/// What enrolls this device. Reads no more than that needs: no private key of a certificate. `root` is `/` outside tests;
/// `credentials` is systemd's `$CREDENTIALS_DIRECTORY`.
pub async fn enrollment(profile: &Profile, root: &Path, credentials: Option<&Path>) -> Result<Enrollment, AttestationError> {
    let named = |known: Known<'_>, credential: Credential| -> Result<Enrollment, AttestationError> {
        let registration_id = identity::registration_id(profile.registration_id(), known, root)?;
        Ok(Enrollment { registration_id, credential })
    };
    match profile {
        Profile::SymmetricKey { primary, secondary, .. } => {
            let fingerprint = format!("symmetric-key:{}", SymmetricKey::open(primary, credentials)?.fingerprint());
            let second = secondary.as_ref().map(|source| SymmetricKey::open(source, credentials)).transpose()?.is_some();
            named(Known::Nothing, Credential::SymmetricKey { fingerprint, second })
        }
        Profile::X509 { chain, .. } => {
            let no_chain = |why: String| AttestationError::NoChain { path: chain.clone(), why };
            let certificate = Box::new(Certificate::read(chain).map_err(no_chain)?);
            let common_name = certificate.common_name().map_err(no_chain)?.to_owned();
            named(Known::CommonName(&common_name), Credential::X509 { file: chain.clone(), certificate })
        }
        Profile::Tpm { tpm: settings, .. } => {
            let found = tpm::closed(settings, credentials)?.identify().await?;
            let endorsement_key = found.keys.endorsement_key.clone();
            named(Known::EndorsementKey(&endorsement_key), Credential::Tpm(Box::new(found)))
        }
    }
}

/// What is where in the TPM. Nothing in it is changed.
pub async fn examination(settings: &TpmSettings, credentials: Option<&Path>) -> Result<Examination, AttestationError> {
    Ok(tpm::closed(settings, credentials)?.examine().await?)
}
