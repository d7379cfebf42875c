//! Registration states, as the service API reads and removes them (service API §2, R1 to R3).

use super::enrollments::{Condition, Obstacle};
use super::view;
use crate::service::{Device, State};
use serde_json::Value;

impl State {
    /// R1: also of a device that came through a group.
    pub(super) fn registration(&self, id: &str) -> Option<Value> {
        self.find(id).and_then(view::registration)
    }

    /// R2: the next registration is a first one (UNCONFIRMED); the identity at the hub stays.
    pub(super) fn delete_registration(&mut self, id: &str, condition: Condition<'_>) -> Result<(), Obstacle> {
        let device = self.device(id).ok_or(Obstacle::Missing)?;
        let etag = device.registration.assignment.as_ref().map(|assignment| assignment.etag.as_str());
        condition.check_old(etag)?;
        device.registration.assignment = None;
        Ok(())
    }

    /// R3: the members of a group that have registered, by lower-case registration ID. `None` if nothing is left of the group.
    pub(super) fn registrations(&self, group: &str) -> Option<Vec<String>> {
        let is_member = |device: &Device| device.group.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(group));
        let has_registered = |device: &Device| device.registration.assignment.is_some();
        let members = self.devices.iter().filter(|(_, device)| is_member(device) && has_registered(device));
        let ids: Vec<String> = members.map(|(id, _)| id.clone()).collect();
        let is_there = !ids.is_empty() || self.groups.iter().any(|one| one.name.eq_ignore_ascii_case(group));
        is_there.then_some(ids)
    }
}
