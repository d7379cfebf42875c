//! A look at the TPM that makes and changes nothing: what is at the handles, and whether it is locked.

use super::fault::Fault;
use super::session::{Session, explain};
use super::{Examination, Occupant, PublicArea, TpmError};

impl Session<'_> {
    pub(super) fn examine(&mut self) -> Result<Examination, TpmError> {
        let vendor = self.vendor()?;
        let locked = self.lock().map_err(|fault| explain("to tell whether it is locked", fault))?;
        let settings = &self.shared.settings;
        let (ek, srk, identity) = (settings.ek_handle, settings.srk_handle, settings.identity_handle);
        Ok(Examination {
            vendor,
            locked,
            endorsement_key: self.occupant(ek, PublicArea::is_endorsement_key)?,
            storage_key: self.occupant(srk, PublicArea::is_storage_key)?,
            identity: identity.map(|handle| self.occupant(handle, PublicArea::is_signing_key)).transpose()?,
        })
    }

    fn occupant(&mut self, handle: u32, fits: fn(&PublicArea) -> bool) -> Result<Occupant, TpmError> {
        let Some(object) = self.find(handle)? else { return Ok(Occupant::Nothing) };
        match self.esys.read_public(object) {
            Ok(public) if fits(&public) => Ok(Occupant::Fitting),
            Ok(public) => Ok(Occupant::Foreign(public.kind())),
            Err(Fault::UNUSABLE) => Ok(Occupant::Foreign("an object of unknown type")),
            Err(fault) => Err(explain("to show a key", fault)),
        }
    }
}
