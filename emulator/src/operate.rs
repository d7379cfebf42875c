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

/// What is to be changed or brought back is not there, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotThere {
    /// The device is assigned to no hub, or its hub has no identity for it.
    #[error("{0} has no identity at a hub")]
    Identity(String),
    /// No enrollment with this registration ID was removed.
    #[error("no enrollment of {0} was removed")]
    Removed(String),
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

    /// As [`Emulator::move_hub`], and the old identity goes at once: an operator has removed it, its connection ends, and the hub
    /// refuses the device until it registers again.
    ///
    /// # Errors
    /// When there is no such device or group.
    pub fn move_hub_now(&self, name: &str, hub: &str) -> Result<(), UnknownDevice> {
        let moved = self.service.with(|state| {
            let known = state.change(name, |settings| settings.hub = Some(hub.to_owned()));
            for device in state.named(name) {
                if state.assignment(&device).is_some_and(|at| !at.hub.eq_ignore_ascii_case(hub)) {
                    state.remove_from_hub(&device);
                }
            }
            known
        });
        moved.then_some(()).ok_or_else(|| UnknownDevice(name.to_owned()))
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

    /// Enrolls a device again that was [removed](Emulator::remove), as it was; DPS knows of no registration any more.
    ///
    /// # Errors
    /// When none was removed.
    pub fn enroll_again(&self, registration_id: &str) -> Result<(), NotThere> {
        let enrolled = self.service.with(|state| state.enroll_again(registration_id));
        enrolled.then_some(()).ok_or_else(|| NotThere::Removed(registration_id.to_owned()))
    }

    /// Removes a device's identity from its hub; its connection ends. The enrollment stays.
    ///
    /// # Errors
    /// When it has none.
    pub fn remove_from_hub(&self, registration_id: &str) -> Result<(), UnknownDevice> {
        let removed = self.service.with(|state| state.remove_from_hub(registration_id));
        removed.then_some(()).ok_or_else(|| UnknownDevice(registration_id.to_owned()))
    }

    /// Makes the identity anew that was [removed](Emulator::remove_from_hub), with the credential that DPS last gave it.
    ///
    /// # Errors
    /// When the device is assigned to no hub.
    pub fn add_to_hub(&self, registration_id: &str) -> Result<(), NotThere> {
        let added = self.service.with(|state| state.add_to_hub(registration_id));
        added.then_some(()).ok_or_else(|| NotThere::Identity(registration_id.to_owned()))
    }

    /// Enables or disables a device's identity at its hub; disabled, its connection ends. A registration does not enable it.
    ///
    /// # Errors
    /// When it has none.
    pub fn set_enabled_at_hub(&self, registration_id: &str, enabled: bool) -> Result<(), NotThere> {
        let changed = self.service.with(|state| state.set_enabled_at_hub(registration_id, enabled));
        changed.then_some(()).ok_or_else(|| NotThere::Identity(registration_id.to_owned()))
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
