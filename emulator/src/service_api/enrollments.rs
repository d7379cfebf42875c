//! Enrollments and groups in the service's state: found, replaced and removed (service API §2).

use super::access::Kind;
use super::body::Wanted;
use super::record::Record;
use super::view;
use crate::attest::Proof;
use crate::config::{Attestation, Group, Settings};
use crate::service::{Device, State};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

/// Why a change is not made; the codes are UNCONFIRMED but for the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Missing,
    Exists,
    Changed,
}

impl Obstacle {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Missing => 404_201,
            Self::Exists => 409_000,
            Self::Changed => 412_000,
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Missing => "The record does not exist.",
            Self::Exists => "The record exists.",
            Self::Changed => "The ETag is not that of the record.",
        }
    }
}

/// What a client says of the record that it wants to change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition<'a> {
    None,
    /// It must not be there yet.
    New,
    /// It must be there.
    Any,
    /// It must be this version.
    Version(&'a str),
}

impl<'a> Condition<'a> {
    /// The header `If-Match`.
    pub(super) fn if_match(header: Option<&'a str>) -> Self {
        match header {
            None => Self::None,
            Some("*") => Self::Any,
            Some(etag) => Self::Version(etag),
        }
    }

    /// Checks a record that is to be written.
    pub(super) fn check(self, current: Option<&str>) -> Result<(), Obstacle> {
        match (self, current) {
            (Self::None, _) | (Self::New, None) | (Self::Any, Some(_)) => Ok(()),
            (Self::New, Some(_)) => Err(Obstacle::Exists),
            (Self::Version(wanted), Some(current)) if is_same(wanted, current) => Ok(()),
            (Self::Any | Self::Version(_), _) => Err(Obstacle::Changed),
        }
    }

    /// Checks a record that must be there.
    pub(super) fn check_old(self, current: Option<&str>) -> Result<(), Obstacle> {
        current.ok_or(Obstacle::Missing).and_then(|current| self.check(Some(current)))
    }
}

/// The quotation marks are part of an ETag's value here; a client that leaves them out means the same.
fn is_same(wanted: &str, current: &str) -> bool {
    wanted == current || format!("\"{wanted}\"") == current
}

impl State {
    fn individual(&self, id: &str) -> Option<(&Device, &Record)> {
        let device = self.find(id)?;
        Some((device, device.record.as_ref()?))
    }

    fn group(&self, id: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name.eq_ignore_ascii_case(id))
    }

    /// The version of a record, if it is there.
    pub(super) fn etag(&self, kind: Kind, id: &str) -> Option<&str> {
        match kind {
            Kind::Individual => self.individual(id).map(|(_, record)| record.etag.as_str()),
            Kind::Group => self.group(id).map(|group| group.record.etag.as_str()),
        }
    }

    /// A record as a read shows it, without keys.
    pub(super) fn enrollment(&self, kind: Kind, id: &str) -> Option<Value> {
        match kind {
            Kind::Individual => self.individual(id).map(|(device, record)| view::individual(device, record)),
            Kind::Group => self.group(id).map(view::group),
        }
    }

    /// The lower-case IDs of all of them, in order.
    pub(super) fn enrollments(&self, kind: Kind) -> Vec<String> {
        let mut ids: Vec<String> = match kind {
            Kind::Individual => {
                let enrolled = self.devices.iter().filter(|(_, device)| device.record.is_some());
                enrolled.map(|(id, _)| id.clone()).collect()
            }
            Kind::Group => self.groups.iter().map(|group| group.name.to_lowercase()).collect(),
        };
        ids.sort();
        ids
    }

    /// How a device, or the members of a group, prove their identity, with the keys.
    pub(super) fn attestation(&self, kind: Kind, id: &str) -> Option<Value> {
        match kind {
            Kind::Individual => self.individual(id).map(|(device, record)| view::device_attestation(device, record, true)),
            Kind::Group => self.group(id).map(|group| view::group_attestation(group, true)),
        }
    }

    /// The certificates of a record.
    pub(super) fn certificates(&self, kind: Kind, id: &str) -> Vec<CertificateDer<'static>> {
        let proof = match kind {
            Kind::Individual => self.individual(id).and_then(|(device, _)| device.proof.clone()),
            Kind::Group => self.group(id).map(|group| Proof::member(&group.attestation, id)),
        };
        match proof {
            Some(Proof::Certificate(certificates) | Proof::IssuedBy(certificates)) => certificates,
            Some(Proof::Keys(_) | Proof::Tpm(_) | Proof::HubKeys(_)) | None => Vec::new(),
        }
    }

    /// Creates a record, or replaces all of it.
    pub(super) fn put(&mut self, kind: Kind, wanted: Wanted) {
        match kind {
            Kind::Individual => self.put_individual(wanted),
            Kind::Group => self.put_group(wanted),
        }
    }

    /// A device that was a member of a group is one no longer, and keeps its assignment (UNCONFIRMED).
    fn put_individual(&mut self, wanted: Wanted) {
        let key = wanted.id.to_lowercase();
        self.removed.remove(&key);
        let new = || Device::new(wanted.id.clone(), None, None, Settings::default());
        let device = self.devices.entry(key).or_insert_with(new);
        device.group = None;
        device.proof = Some(renewed(device.proof.take(), &wanted.attestation));
        device.settings = settings(&device.settings, &wanted);
        device.record = Some(match &device.record {
            Some(old) => old.replaced(wanted.details),
            None => Record::new(wanted.details),
        });
    }

    fn put_group(&mut self, wanted: Wanted) {
        let Some(place) = self.groups.iter().position(|group| group.name.eq_ignore_ascii_case(&wanted.id)) else {
            let settings = settings(&Settings::default(), &wanted);
            let record = Record::new(wanted.details);
            return self.groups.push(Group { name: wanted.id, attestation: wanted.attestation, settings, record });
        };
        let group = &mut self.groups[place];
        group.settings = settings(&group.settings, &wanted);
        group.record = group.record.replaced(wanted.details.clone());
        group.attestation = wanted.attestation.clone();
        let name = group.name.clone();
        let members = self.devices.values_mut().filter(|device| device.group.as_ref() == Some(&name));
        members.for_each(|member| member.settings = settings(&member.settings, &wanted));
    }

    /// Removes a record. Identities at hubs stay, and so do the registrations of a group's members; a group that a device
    /// belongs to, too, lets it in again (service API §2).
    pub(super) fn delete(&mut self, kind: Kind, id: &str) {
        match kind {
            Kind::Individual => drop(self.devices.remove(&id.to_lowercase())),
            Kind::Group => self.groups.retain(|group| !group.name.eq_ignore_ascii_case(id)),
        }
    }
}

/// What the client can say is replaced; what only tests can say stays.
fn settings(old: &Settings, wanted: &Wanted) -> Settings {
    Settings {
        device_id: wanted.device_id.clone(),
        hub: wanted.hub.clone(),
        enabled: wanted.enabled,
        reprovision: wanted.reprovision,
        ..old.clone()
    }
}

/// A TPM that stays enrolled keeps its challenges and its hub key.
fn renewed(old: Option<Proof>, wanted: &Attestation) -> Proof {
    match (old, wanted) {
        (Some(Proof::Tpm(tpm)), Attestation::Tpm(key)) if *tpm.enrolled() == **key => Proof::Tpm(tpm),
        (_, attestation) => Proof::individual(attestation),
    }
}
