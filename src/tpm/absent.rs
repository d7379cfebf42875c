//! Stands in for a session where the feature `tpm` is off: there is none, and every verb says so.

use super::{Auths, Examination, HubKey, Identification, Keys, Memory, Name, Placed, Signature, StorageKey, TpmError};
use crate::config::TpmSettings;
use crate::protocol::AuthenticationKey;

#[derive(Debug)]
pub(super) struct Shared;

/// Nobody can have one.
pub(super) enum Session {}

impl Shared {
    pub(super) fn new(_: TpmSettings, _: Auths) -> Self {
        Self
    }
}

impl Session {
    pub(super) fn open(_: &Shared) -> Result<Self, TpmError> {
        Err(TpmError::NotBuilt)
    }

    pub(super) fn detail(&mut self, _: TpmError) -> TpmError {
        match *self {}
    }

    pub(super) fn attend(&mut self, _: Option<&Memory>) -> Result<Keys, TpmError> {
        match *self {}
    }

    pub(super) fn answer(&mut self, _: &Keys, _: &AuthenticationKey, _: &str) -> Result<Signature, TpmError> {
        match *self {}
    }

    pub(super) fn import(&mut self, _: &Keys, _: &AuthenticationKey) -> Result<HubKey, TpmError> {
        match *self {}
    }

    pub(super) fn sign(&mut self, _: &StorageKey, _: &HubKey, _: &str) -> Result<Signature, TpmError> {
        match *self {}
    }

    pub(super) fn place(&mut self, _: &StorageKey, _: &HubKey, _: &[Name]) -> Result<Placed, TpmError> {
        match *self {}
    }

    pub(super) fn found(&mut self) -> Result<HubKey, TpmError> {
        match *self {}
    }

    pub(super) fn examine(&mut self) -> Result<Examination, TpmError> {
        match *self {}
    }

    pub(super) fn identify(&mut self) -> Result<Identification, TpmError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EkUnique;
    use crate::tpm::Tpm;

    #[test]
    fn verbs_say_that_there_is_no_tpm_support() {
        let settings = TpmSettings {
            tcti: "device:/dev/tpmrm0".to_owned(),
            owner_auth: None,
            endorsement_auth: None,
            ek_handle: 0x8101_0001,
            srk_handle: 0x8100_0001,
            identity_handle: None,
            ek_unique: EkUnique::Tcg,
        };
        let tpm = Tpm::new(settings, Auths::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(tpm.attend(None)), Err(TpmError::NotBuilt));
        assert_eq!(runtime.block_on(tpm.found()), Err(TpmError::NotBuilt));
    }
}
