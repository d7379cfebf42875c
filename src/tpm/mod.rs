//! The gateway's TPM 2.0: its endorsement and storage key, and the hub key that never leaves it. A verb at a time, on a thread of its own.

#[cfg(not(feature = "tpm"))]
mod absent;
mod error;
#[cfg(feature = "tpm")]
mod esys;
#[cfg(feature = "tpm")]
mod examine;
#[cfg(feature = "tpm")]
mod fault;
mod gate;
#[cfg(feature = "tpm")]
mod keys;
mod memory;
#[cfg(feature = "tpm")]
mod nv;
mod public;
#[cfg(feature = "tpm")]
mod reach;
#[cfg(feature = "tpm")]
mod session;
#[cfg(feature = "tpm")]
mod template;
#[cfg(feature = "tpm")]
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use crate::config::TpmSettings;
use crate::protocol::AuthenticationKey;
use crate::secret::Secret;
#[cfg(not(feature = "tpm"))]
use absent::{Session, Shared};
pub use error::TpmError;
use gate::Gate;
pub use memory::{HubKey, Keys, Memory, Name, PublicArea, StorageKey};
#[cfg(feature = "tpm")]
use session::{Session, Shared};

/// A signature of the TPM: HMAC-SHA256.
pub type Signature = [u8; 32];

/// This gateway's TPM. Nothing is opened until a verb needs it, and everything is closed at the verb's end.
#[derive(Debug)]
pub struct Tpm {
    has_identity_handle: bool,
    shared: Arc<Shared>,
    gate: Gate,
}

/// The passwords of the hierarchies, where they have any.
#[derive(Debug, Default)]
pub struct Auths {
    /// The owner's.
    pub owner: Option<Secret<Vec<u8>>>,
    /// The endorsement hierarchy's.
    pub endorsement: Option<Secret<Vec<u8>>>,
}

/// What a verb that writes the identity handle came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// No handle is configured.
    Nowhere,
    /// The hub key was there already.
    Already,
    /// It is there now.
    Written,
    /// Another object sits there that we did not make: it is left alone.
    Foreign,
}

/// What an operator wants to know of a TPM.
#[derive(Debug, Clone)]
pub struct Identification {
    /// The endorsement key, the storage key, and where they are.
    pub keys: Keys,
    /// The manufacturer's certificate of the endorsement key, DER, from NV; `None` if there is none.
    pub certificate: Option<Vec<u8>>,
    /// Another endorsement key of this TPM, made as the manufacturer wants it: looked for where there is a certificate that is not
    /// for the key at `ek_handle`, and there if it is for this one.
    pub certified_key: Option<PublicArea>,
    /// Whether the manufacturer has left a template or a nonce in NV; it decides how the endorsement key is made, where it has to be.
    pub template_from_nv: bool,
    /// Manufacturer and firmware, as the TPM names them, such as `IBM  SW   TPM 1.2.0.0`.
    pub vendor: String,
}

/// What is where in a TPM, and whether it is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Manufacturer and firmware, as the TPM names them.
    pub vendor: String,
    /// Where it is locked after wrong passwords: for how long at most, if it says so.
    pub locked: Option<Option<Duration>>,
    /// At `ek_handle`.
    pub endorsement_key: Occupant,
    /// At `srk_handle`.
    pub storage_key: Occupant,
    /// At `identity_handle`, where one is configured.
    pub identity: Option<Occupant>,
}

/// What is at a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing.
    Nothing,
    /// What belongs there, by its type, attributes and template.
    Fitting,
    /// Something else, in words such as `an ECC key`.
    Foreign(&'static str),
}

impl Identification {
    /// Whether the certificate is for the endorsement key.
    pub fn is_certified(&self) -> bool {
        self.certifies(&self.keys.endorsement_key)
    }

    /// Whether the certificate is for this key: whether it has its modulus, which no other text has.
    fn certifies(&self, key: &PublicArea) -> bool {
        let certificate = self.certificate.as_deref().unwrap_or_default();
        key.modulus().is_some_and(|modulus| certificate.windows(modulus.len()).any(|window| window == modulus))
    }
}

impl Tpm {
    /// The TPM that the settings name. Touches nothing.
    pub fn new(settings: TpmSettings, auths: Auths) -> Self {
        let has_identity_handle = settings.identity_handle.is_some();
        Self { has_identity_handle, shared: Arc::new(Shared::new(settings, auths)), gate: Gate::new() }
    }

    /// Finds, or makes and keeps, the endorsement key and the storage key. What is remembered saves commands where it still holds.
    pub async fn attend(&self, remembered: Option<&Memory>) -> Result<Keys, TpmError> {
        let remembered = remembered.cloned();
        self.run(move |session| session.attend(remembered.as_ref())).await
    }

    /// Answers a challenge: activates and imports its key, signs the text with it, and forgets the key.
    pub async fn answer(&self, keys: &Keys, challenge: &AuthenticationKey, text: String) -> Result<Signature, TpmError> {
        let (keys, challenge) = (keys.clone(), challenge.clone());
        self.run(move |session| session.answer(&keys, &challenge, &text)).await
    }

    /// Imports the hub key; what comes back can be used under this TPM's storage key only, and has been loaded once.
    pub async fn import(&self, keys: &Keys, key: &AuthenticationKey) -> Result<HubKey, TpmError> {
        let (keys, key) = (keys.clone(), key.clone());
        self.run(move |session| session.import(&keys, &key)).await
    }

    /// Signs at most 1024 bytes with the hub key.
    pub async fn sign(&self, storage: &StorageKey, key: &HubKey, text: String) -> Result<Signature, TpmError> {
        let (storage, key) = (storage.clone(), key.clone());
        self.run(move |session| session.sign(&storage, &key, &text)).await
    }

    /// Puts the hub key where `identity_handle` says, in place of nothing or of a key with one of the names in `ours`.
    pub async fn place(&self, storage: &StorageKey, key: &HubKey, ours: &[Name]) -> Result<Placed, TpmError> {
        if !self.has_identity_handle {
            return Ok(Placed::Nowhere);
        }
        let (storage, key, ours) = (storage.clone(), key.clone(), ours.to_vec());
        self.run(move |session| session.place(&storage, &key, &ours)).await
    }

    /// The HMAC key that another program left at `identity_handle`.
    pub async fn found(&self) -> Result<HubKey, TpmError> {
        self.run(|session| session.found()).await
    }

    /// What an operator has to know to enroll this TPM.
    pub async fn identify(&self) -> Result<Identification, TpmError> {
        self.run(|session| session.identify()).await
    }

    /// Looks at the TPM and its handles; nothing in it is made or changed.
    pub async fn examine(&self) -> Result<Examination, TpmError> {
        self.run(|session| session.examine()).await
    }

    async fn run<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Session) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let shared = Arc::clone(&self.shared);
        self.gate
            .pass(move || {
                let mut session = Session::open(&shared)?;
                verb(&mut session).map_err(|error| session.detail(error))
            })
            .await
    }
}

/// Waits until no verb is at work any more, whoever asked for it, or one has gone beyond its patience. Blocks the thread.
pub fn quiesce() {
    gate::quiesce();
}

#[cfg(test)]
#[cfg(feature = "tpm")]
mod tests;
