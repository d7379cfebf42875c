//! An identity as it was written, from JSON or CSV, and the checks that make a device of it.

use super::{Attestation, Identity, Place};
use crate::certificate::Certificate;
use crate::endorsement::EndorsementKey;

/// The texts of one identity; what was empty or null is `None`.
#[derive(Debug, Clone)]
pub struct Raw {
    pub place: Place,
    pub registration_id: Option<String>,
    pub device_id: Option<String>,
    pub attestation: Option<String>,
    pub fingerprint: Option<String>,
    pub certificate: Option<String>,
    pub sha256: Option<String>,
    pub endorsement_key: Option<String>,
    pub endorsement_certificate: Option<String>,
    /// Another endorsement key of the same TPM, which the certificate is for.
    pub certified_key: Option<String>,
    /// The message of an error that was printed instead of an identity.
    pub error: Option<String>,
}

impl Raw {
    /// Nothing but its place.
    pub fn at(place: Place) -> Self {
        Self {
            place,
            registration_id: None,
            device_id: None,
            attestation: None,
            fingerprint: None,
            certificate: None,
            sha256: None,
            endorsement_key: None,
            endorsement_certificate: None,
            certified_key: None,
            error: None,
        }
    }

    /// Judges it. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// `FILE:LINE: what is wrong; the cure`.
    pub fn check(self, now: u64) -> Result<Identity, String> {
        let place = self.place.clone();
        self.judge(now).map_err(|problem| format!("{place}: {problem}"))
    }

    fn judge(self, now: u64) -> Result<Identity, String> {
        if let Some(error) = &self.error {
            return Err(format!("dps-agent printed an error instead of an identity: {error}"));
        }
        let missing = "registrationId is missing; take what dps-agent identity prints";
        let registration_id = self.registration_id.as_deref().ok_or(missing)?.parse()?;
        let device_id = self.device_id.as_deref().map(str::parse).transpose()?;
        let attestation = match self.attestation.as_deref() {
            Some("symmetric-key" | "symmetricKey") => Attestation::SymmetricKey { fingerprint: self.fingerprint.clone() },
            Some("x509") => Attestation::X509(Box::new(self.x509(now)?)),
            Some("tpm") => Attestation::Tpm(Box::new(self.tpm(now)?)),
            Some(other) => return Err(format!("attestation {other:?} is not symmetric-key, x509 or tpm")),
            None => return Err("attestation is missing; it is symmetric-key, x509 or tpm".to_owned()),
        };
        Ok(Identity { place: self.place, registration_id, device_id, attestation })
    }

    fn x509(&self, now: u64) -> Result<Certificate, String> {
        let missing = "certificate is missing; a thumbprint alone cannot be enrolled";
        let certificate =
            Certificate::parse(self.certificate.as_deref().ok_or(missing)?).map_err(|wrong| format!("certificate: {wrong}"))?;
        let registration_id = self.registration_id.as_deref().unwrap_or_default();
        let common_name = certificate.common_name().map_err(|wrong| format!("certificate: {wrong}"))?;
        if common_name != registration_id {
            let cure = "they must be equal; correct registration_id of the device, or issue its certificate anew";
            return Err(format!(
                "certificate: its common name is {common_name:?} and the registration ID {registration_id:?}; {cure}"
            ));
        }
        if self.sha256.as_ref().is_some_and(|sha256| !sha256.eq_ignore_ascii_case(&certificate.sha256())) {
            return Err(
                "certificate: its SHA-256 is not the sha256Thumbprint beside it; the text was damaged on the way".to_owned()
            );
        }
        if certificate.not_after() < now {
            let cure = "issue a new one (and look at this machine's clock)";
            return Err(format!("certificate: expired at {}; {cure}", certificate.not_after_text()));
        }
        Ok(certificate)
    }

    fn tpm(&self, now: u64) -> Result<EndorsementKey, String> {
        let missing = "endorsementKey is missing; take what dps-agent identity prints";
        let parse = |text: &str| EndorsementKey::parse(text).map_err(|wrong| format!("endorsement key: {wrong}"));
        let key = parse(self.endorsement_key.as_deref().ok_or(missing)?)?;
        let Some(certificate) = &self.endorsement_certificate else { return Ok(key) };
        let anyway = "to enroll it without its certificate, set endorsementCertificate to null";
        let of = |problem: &str| format!("certificate of the endorsement key: {problem}; {anyway}");
        let certificate = Certificate::parse(certificate).map_err(|wrong| of(&wrong))?;
        let certified = certificate.modulus();
        let is_for = |key: &EndorsementKey| certified.as_deref() == Some(key.modulus());
        // The manufacturer certified another endorsement key of this TPM; the agent has both from the same chip.
        let by_another = || self.certified_key.as_deref().is_some_and(|other| parse(other).is_ok_and(|other| is_for(&other)));
        if !is_for(&key) && !by_another() {
            return Err(of("it is for another key; another TPM's, or somebody has put a key of their own here"));
        }
        if certificate.not_after() < now {
            return Err(of(&format!("expired at {}", certificate.not_after_text())));
        }
        Ok(key)
    }
}
