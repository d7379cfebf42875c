//! What an operator does to a running emulator: moves, removals, refusals and faults.

use crate::config::Settings;
use crate::emulator::Emulator;
use crate::fault::Fault;

/// A device that the emulator does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no device or group is called {0}")]
pub struct UnknownDevice(pub String);

/// What went wrong when faults were set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetFaultsError {
    /// Not the notation.
    #[error("{0}")]
    Notation(String),
    /// There is no such device.
    #[error(transparent)]
    Unknown(#[from] UnknownDevice),
}

impl Emulator {
    /// From now on a device (or group) belongs to another hub: its next registration removes the old identity and
    /// creates one there. The server's certificate names only hubs that the configuration names.
    ///
    /// # Errors
    /// When there is no such device or group.
    pub fn move_hub(&self, name: &str, hub: &str) -> Result<(), UnknownDevice> {
        self.change(name, |settings| settings.hub = Some(hub.to_owned()))
    }

    /// Enables or disables an enrollment (or group).
    ///
    /// # Errors
    /// When there is no such device or group.
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), UnknownDevice> {
        self.change(name, |settings| settings.enabled = enabled)
    }

    /// Replaces the faults of a device (or group); those of the service stay.
    ///
    /// # Errors
    /// When a fault is not in the notation, or there is no such device or group.
    pub fn set_faults(&self, name: &str, faults: &[&str]) -> Result<(), SetFaultsError> {
        let faults = parse(faults)?;
        Ok(self.change(name, |settings| settings.faults.clone_from(&faults))?)
    }

    /// Replaces the faults of the service, which meet every device, and connections of nobody yet.
    ///
    /// # Errors
    /// When a fault is not in the notation.
    pub fn set_service_faults(&self, faults: &[&str]) -> Result<(), SetFaultsError> {
        let faults = parse(faults)?;
        self.service.with(|state| state.faults = faults);
        Ok(())
    }

    /// Removes an enrollment. The identity at the hub stays.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn remove(&self, registration_id: &str) -> Result<(), UnknownDevice> {
        let removed = self.service.with(|state| state.remove(registration_id));
        removed.then_some(()).ok_or_else(|| UnknownDevice(registration_id.to_owned()))
    }

    /// Removes a device's identity from its hub; its connection ends. The enrollment stays.
    ///
    /// # Errors
    /// When it has none.
    pub fn remove_from_hub(&self, registration_id: &str) -> Result<(), UnknownDevice> {
        let removed = self.service.with(|state| state.remove_from_hub(registration_id));
        removed.then_some(()).ok_or_else(|| UnknownDevice(registration_id.to_owned()))
    }

    fn change(&self, name: &str, change: impl Fn(&mut Settings)) -> Result<(), UnknownDevice> {
        let changed = self.service.with(|state| state.change(name, change));
        changed.then_some(()).ok_or_else(|| UnknownDevice(name.to_owned()))
    }
}

fn parse(faults: &[&str]) -> Result<Vec<Fault>, SetFaultsError> {
    let faults = faults.iter().map(|text| Fault::parse(text));
    faults.collect::<Result<_, _>>().map_err(SetFaultsError::Notation)
}
