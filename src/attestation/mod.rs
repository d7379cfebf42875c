//! How this device proves who it is. Key material does not leave this module: tokens and signatures do.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::id::RegistrationId;
use crate::protocol::KeySlot;
use crate::protocol::sas::Audience;
use crate::secret::Secret;

/// An opened identity: who we are, and the means to prove it.
#[derive(Debug)]
pub struct Attestation {
    registration_id: RegistrationId,
}

/// Why the identity cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// Not there.
    #[error("not there")]
    Missing,
}

impl Attestation {
    /// The name under which this device registers.
    pub fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    /// A token for this audience, good until `expiry` (seconds since 1970), made now. `None` where a certificate proves us.
    pub fn token(&self, _audience: &Audience, _slot: KeySlot, _expiry: u64) -> Option<Secret<String>> {
        None
    }

    /// The client certificate for TLS, where that is what proves us.
    pub fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        None
    }
}
