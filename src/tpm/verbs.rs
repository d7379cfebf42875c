//! The verbs, each a straight walk through the TPM's commands.

use super::esys::{Duplicate, Hierarchy, Object};
use super::fault::{About, Fault};
use super::keys::Located;
use super::session::{Session, explain};
use super::{HubKey, Identification, Keys, Memory, Name, Placed, PublicArea, Signature, StorageKey, TpmError, template};
use crate::protocol::AuthenticationKey;
use crate::secret::Secret;

/// TPM_RC_BINDING: public and private part are not of one key.
const BINDING: u32 = 0xa5;
/// What one command can sign, in bytes (TPM_PT_INPUT_BUFFER).
const LONGEST: usize = 1024;

impl Session<'_> {
    pub(super) fn attend(&mut self, remembered: Option<&Memory>) -> Result<Keys, TpmError> {
        let known = remembered.map(|memory| &memory.keys);
        let endorsement = self.endorsement_key(known.map(|keys| &keys.endorsement_key))?;
        self.release(&endorsement)?;
        let storage = self.storage_key(known.map(|keys| &keys.storage_key.public))?;
        let storage_key = StorageKey { public: storage.public, handle: storage.handle };
        Ok(Keys { endorsement_key: endorsement.public, storage_key })
    }

    pub(super) fn answer(&mut self, keys: &Keys, challenge: &AuthenticationKey, text: &str) -> Result<Signature, TpmError> {
        let (_, _, key) = self.take_in(keys, challenge)?;
        self.hmac(key, text)
    }

    pub(super) fn import(&mut self, keys: &Keys, key: &AuthenticationKey) -> Result<HubKey, TpmError> {
        let (public, private, _) = self.take_in(keys, key)?;
        Ok(HubKey::Wrapped { public, private })
    }

    pub(super) fn sign(&mut self, storage: &StorageKey, key: &HubKey, text: &str) -> Result<Signature, TpmError> {
        let key = self.ready(storage, key)?;
        self.hmac(key, text)
    }

    pub(super) fn place(&mut self, storage: &StorageKey, key: &HubKey, ours: &[Name]) -> Result<Placed, TpmError> {
        const DOING: &str = "to keep the hub key at identity_handle";
        let handle = self.identity_handle()?;
        let old = self.find(handle)?;
        let name = old.map(|old| self.esys.name(old)).transpose().map_err(|fault| explain(DOING, fault))?;
        match name {
            Some(name) if name == key.name() => return Ok(Placed::Already),
            // It is kept elsewhere, cannot be moved, and nothing is to go in its favour.
            _ if key.is_kept() => return Ok(Placed::Already),
            Some(name) if !ours.contains(&name) => return Ok(Placed::Foreign),
            Some(_) | None => {}
        }
        let new = self.ready(storage, key)?;
        if let Some(old) = old {
            self.persist(old, handle, DOING)?;
        }
        self.persist(new, handle, DOING)?;
        Ok(Placed::Written)
    }

    pub(super) fn found(&mut self) -> Result<HubKey, TpmError> {
        let handle = self.identity_handle()?;
        let object = self.find(handle)?.ok_or(TpmError::NothingFound(handle))?;
        let public = match self.esys.read_public(object) {
            Ok(public) => public,
            Err(Fault::UNUSABLE) => return Err(TpmError::Unsuitable { handle, kind: "an object of unknown type" }),
            Err(fault) => return Err(explain("to read identity_handle", fault)),
        };
        match public.is_signing_key() {
            true => Ok(HubKey::Kept { public, handle }),
            false => Err(TpmError::Unsuitable { handle, kind: public.kind() }),
        }
    }

    pub(super) fn identify(&mut self) -> Result<Identification, TpmError> {
        let keys = self.attend(None)?;
        let template = self.manufacturers_template()?;
        let template_from_nv = template.is_some();
        let certificate = self.certificate()?;
        let vendor = self.vendor()?;
        let mut found = Identification { keys, certificate, template_from_nv, vendor, certified_key: None };
        if found.certificate.is_some() && !found.is_certified() {
            let template = template.unwrap_or_else(|| template::endorsement(&[]));
            let other = self.derive(Hierarchy::Endorsement, &template, "to make the endorsement key of the certificate")?;
            found.certified_key = Some(other.public).filter(|key| found.certifies(key));
        }
        Ok(found)
    }

    /// Activates, imports and loads a key of the service's: its public area, its private one under our storage key, and the key.
    fn take_in(&mut self, keys: &Keys, key: &AuthenticationKey) -> Result<(PublicArea, Vec<u8>, Object), TpmError> {
        let endorsement = self.same_endorsement_key(&keys.endorsement_key)?;
        let storage = self.same_storage_key(&keys.storage_key)?;
        let inner = self.activate(&endorsement, &storage, key)?;
        self.release(&endorsement)?;
        let public = PublicArea::new(key.public.clone());
        let duplicate = Duplicate { inner: &inner, public: &public, private: &key.duplicate, seed: &key.seed };
        let private = match self.esys.import(storage.object, &duplicate) {
            Err(fault) if self.only_claims_failure(&storage, fault) => {
                return Err(TpmError::Rejected(OTHER_STORAGE_KEY.to_owned()));
            }
            done => done.map_err(|fault| rejected_import(&storage, fault))?,
        };
        let loaded = self.esys.load(storage.object, &public, &private).map_err(|fault| rejected_load(&storage, fault))?;
        Ok((public, private, loaded))
    }

    fn activate(
        &mut self,
        endorsement: &Located,
        storage: &Located,
        key: &AuthenticationKey,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        let policy = self.esys.start_policy().map_err(|fault| explain("to start a policy session", fault))?;
        let authorization = self.authorize(Hierarchy::Endorsement)?;
        let shown = self.esys.policy_secret(policy, authorization);
        shown.map_err(|fault| self.refusal(Hierarchy::Endorsement, "to let us use the endorsement key", fault))?;
        let opened = self.esys.activate(storage.object, (endorsement.object, policy), &key.credential, &key.secret);
        match opened {
            Err(fault) if self.only_claims_failure(storage, fault) => Err(TpmError::Rejected(OTHER_ENDORSEMENT_KEY.to_owned())),
            opened => opened.map_err(|fault| rejected_credential(storage, fault)),
        }
    }

    /// Some TPMs (libtpms 0.9) call it a failure where RSA decryption comes to nothing, and go on working. In failure mode proper a TPM
    /// answers no such question.
    fn only_claims_failure(&mut self, storage: &Located, fault: Fault) -> bool {
        fault.is_failure() && self.esys.read_public(storage.object).is_ok()
    }

    /// Loads the hub key, or finds it where it is kept.
    fn ready(&mut self, storage: &StorageKey, key: &HubKey) -> Result<Object, TpmError> {
        match key {
            HubKey::Kept { public, handle } => {
                let changed = || TpmError::Lost(format!("it is no longer at handle {handle:#010x}"));
                self.named(*handle, public)?.ok_or_else(changed)
            }
            HubKey::Wrapped { public, private } => {
                let parent = self.same_storage_key(storage)?;
                self.esys.load(parent.object, public, private).map_err(|fault| lost(&parent, fault))
            }
        }
    }

    fn hmac(&mut self, key: Object, text: &str) -> Result<Signature, TpmError> {
        const DOING: &str = "to sign with HMAC-SHA256";
        if text.len() > LONGEST {
            return Err(TpmError::TooLong(text.len()));
        }
        let digest = match self.esys.hmac(key, text.as_bytes()) {
            Err(fault) if fault.is_wrong_auth() => return Err(TpmError::Lost("it has a password of its own".to_owned())),
            done => done.map_err(|fault| explain(DOING, fault))?,
        };
        digest.try_into().map_err(|_| TpmError::Garbled("an HMAC of another length".to_owned()))
    }

    /// Makes room where a key is there for this verb only.
    fn release(&mut self, key: &Located) -> Result<(), TpmError> {
        if key.is_transient { self.flush(key.object) } else { Ok(()) }
    }

    fn identity_handle(&self) -> Result<u32, TpmError> {
        self.shared.settings.identity_handle.ok_or(TpmError::NoHandle)
    }
}

const OTHER_ENDORSEMENT_KEY: &str = "its credential was made for another endorsement key; enroll this TPM's (dps-agent identity)";
const OTHER_NAME: &str = "its credential was made for another storage key, or is damaged";
const UNFIT_PUBLIC_AREA: &str = "its public area does not fit the key";
const OTHER_STORAGE_KEY: &str = "it was wrapped for another storage key";

/// TPM2_ActivateCredential: parameter 1 is the credential, 2 its seed.
fn rejected_credential(storage: &Located, fault: Fault) -> TpmError {
    match fault.tpm() {
        Some((_, About::Parameter(2))) => TpmError::Rejected(OTHER_ENDORSEMENT_KEY.to_owned()),
        Some((_, About::Parameter(_))) => TpmError::Rejected(OTHER_NAME.to_owned()),
        _ if fault == Fault::UNFIT => TpmError::Rejected("its credential is longer than any".to_owned()),
        _ => with_password(storage, "to activate the credential", fault),
    }
}

/// TPM2_Import: parameter 1 is the inner wrapping's key, 2 the public area, 3 the wrapped key, 4 the outer wrapping's seed.
fn rejected_import(storage: &Located, fault: Fault) -> TpmError {
    let cause = match fault.tpm() {
        Some((_, About::Parameter(1))) => "the key of its inner wrapping is none",
        Some((BINDING, _) | (_, About::Parameter(2))) => UNFIT_PUBLIC_AREA,
        Some((_, About::Parameter(4))) => OTHER_STORAGE_KEY,
        Some((_, About::Parameter(_))) => "its wrapping is damaged, or was made for another storage key",
        _ if fault == Fault::UNFIT => "it is of a kind that no TPM key has",
        _ => return with_password(storage, "to import the key", fault),
    };
    TpmError::Rejected(cause.to_owned())
}

/// TPM2_Load of what was imported just now: parameter 1 is what the TPM itself has wrapped, 2 the public area.
fn rejected_load(storage: &Located, fault: Fault) -> TpmError {
    match fault.tpm() {
        Some((_, About::Parameter(1))) => TpmError::Garbled("it does not load what it has just imported".to_owned()),
        Some((_, About::Parameter(_))) => TpmError::Rejected(UNFIT_PUBLIC_AREA.to_owned()),
        _ => with_password(storage, "to load the imported key", fault),
    }
}

/// TPM2_Load of what this TPM has wrapped itself, long ago.
fn lost(storage: &Located, fault: Fault) -> TpmError {
    match fault.tpm() {
        Some((_, About::Parameter(_))) => {
            TpmError::Lost("it does not belong to this TPM's storage key, or its record is damaged".to_owned())
        }
        _ => with_password(storage, "to load the hub key", fault),
    }
}

fn with_password(storage: &Located, doing: &'static str, fault: Fault) -> TpmError {
    match (fault.tpm(), storage.handle) {
        (Some((_, About::Session(1))), Some(handle)) if fault.is_wrong_auth() => TpmError::StorageAuth(handle),
        _ => explain(doing, fault),
    }
}
