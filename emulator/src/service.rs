//! What the service knows: enrollments, devices, hub identities, faults to play, and the transcript of it all.

use crate::answer::Answer;
use crate::attest::{Audience, Credential, Proof, Refusal, valid_token};
use crate::challenge::Tpm;
use crate::config::{self, Config, Group, Kinder, Settings};
use crate::fault::{self, Fault, Lie, Misdeed, Stage};
use crate::hub::{Hubs, Identity, Telemetry};
use crate::names::is_registration_id;
use crate::registration::{Assignment, Registration};
use crate::requests::Counts;
use crate::sas::Token;
use crate::service_api::{Rate, Record, ServiceApi};
use crate::transcript::{self, NOBODY, Transcript};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The way a conversation comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Mqtt,
    MqttWs,
    Https,
}

impl Via {
    /// Its name in transcripts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
            Self::Https => "https",
        }
    }
}

/// The one service behind all listeners.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) config: config::Service,
    pub(crate) api: ServiceApi,
    state: Mutex<State>,
    changed: Condvar,
}

/// What changes while it runs.
#[derive(Debug)]
pub(crate) struct State {
    /// By lower-case registration ID: DPS does not distinguish case (DPS device API §2).
    pub(crate) devices: BTreeMap<String, Device>,
    pub(crate) groups: Vec<Group>,
    /// The enrollments that were removed, with what there was.
    pub(crate) removed: BTreeMap<String, Option<Device>>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) hubs: Hubs,
    pub(crate) rate: Rate,
    pub(crate) requests: Counts,
    transcript: Transcript,
    /// Grows whenever something may have changed.
    pub(crate) changes: u64,
}

/// How all devices stood at one moment, at DPS and at the hubs.
#[derive(Debug, Clone)]
pub struct Snapshot {
    devices: BTreeMap<String, Device>,
    groups: Vec<Group>,
    hubs: Hubs,
}

/// One device: an individual enrollment, or a member of a group since it first said its name.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) registration_id: String,
    /// `None` until a member of a group has proved which group it belongs to.
    pub(crate) proof: Option<Proof>,
    pub(crate) group: Option<String>,
    pub(crate) settings: Settings,
    /// What the service API knows of an individual enrollment.
    pub(crate) record: Option<Record>,
    pub(crate) registration: Registration,
    pub(crate) via: Option<Via>,
    pub(crate) last_step: String,
}

impl Service {
    pub(crate) fn new(config: Config, api: ServiceApi) -> std::io::Result<Self> {
        let transcript = Transcript::new(config.service.transcript_file.as_deref())?;
        let devices = config.enrollments.into_iter().map(|enrollment| {
            let proof = Some(Proof::individual(&enrollment.attestation));
            let device = Device::new(enrollment.registration_id, proof, None, enrollment.settings);
            let device = Device { record: Some(Record::default()), ..device };
            (device.registration_id.to_lowercase(), device)
        });
        let state = State {
            devices: devices.collect(),
            groups: config.groups,
            removed: BTreeMap::new(),
            faults: config.service.faults.clone(),
            hubs: Hubs::default(),
            rate: Rate::default(),
            requests: Counts::default(),
            transcript,
            changes: 0,
        };
        Ok(Self { config: config.service, api, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The state, to be changed in one short step; whoever waits is told afterwards.
    pub(crate) fn with<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.changes += 1;
        let result = step(&mut state);
        drop(state);
        self.changed.notify_all();
        result
    }

    /// The state, to be looked at.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.lock())
    }

    /// Waits until `done` finds what it looks for, at most for `patience`.
    pub(crate) fn wait<T>(&self, patience: Duration, mut done: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(found) = done(&state) {
                return Some(found);
            }
            let left = end.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn is_kinder(&self, switch: Kinder) -> bool {
        self.config.kinder.contains(&switch)
    }

    /// Whether DPS speaks this api-version (DPS device API §3).
    pub(crate) fn speaks(&self, api_version: &str) -> bool {
        self.config.api_versions.iter().any(|known| known == api_version) || self.is_kinder(Kinder::ApiVersion)
    }

    /// Writes a line about `device` (a registration ID, or nobody).
    pub(crate) fn say(&self, device: Option<&str>, line: impl Into<String>) {
        let line = line.into();
        self.with(|state| state.say(device, line));
    }

    /// Writes down an answer.
    pub(crate) fn say_answer(&self, device: Option<&str>, answer: &Answer) {
        self.say(device, transcript::answer_line(answer.status, answer.retry_after.as_deref(), &answer.body));
    }

    /// The next fault to play for `device` at `stage`, if it `fits` the way of talking.
    pub(crate) fn fault(&self, device: Option<&str>, stage: Stage, fits: impl Fn(&Misdeed) -> bool) -> Option<Misdeed> {
        self.with(|state| {
            let own = device.and_then(|device| state.device_or_stranger(device));
            let own = own.and_then(|device| fault::take(&mut device.settings.faults, stage, &fits));
            own.or_else(|| fault::take(&mut state.faults, stage, &fits))
        })
    }

    /// Checks what a client shows for a registration (DPS device API §4, §8).
    pub(crate) fn admit(&self, via: Via, scope: &str, registration_id: &str, shown: &Credential) -> Result<(), Refusal> {
        let admitted = self.check(scope, registration_id, shown).and_then(|()| self.check_way(via, registration_id));
        self.explain(registration_id, &admitted);
        admitted
    }

    /// Writes down why somebody is refused, which the client is not told, as a comment.
    pub(crate) fn explain<T>(&self, device: &str, admitted: &Result<T, Refusal>) {
        if let Err(refusal) = admitted {
            self.with(|state| state.transcript.add(device, &format!("# refused: {refusal}")));
        }
    }

    fn check(&self, scope: &str, registration_id: &str, shown: &Credential) -> Result<(), Refusal> {
        if !is_registration_id(registration_id) {
            return Err(Refusal::Name);
        }
        let kinder = &self.config.kinder;
        let audience = Audience::registration(scope, registration_id);
        match shown {
            Credential::Token(text) => drop(valid_token(text, &audience, kinder)?),
            Credential::Certificates(chain) if chain.is_empty() => return Err(Refusal::Nothing),
            Credential::Certificates(_) => {}
        }
        if scope != self.config.id_scope {
            return Err(Refusal::Scope);
        }
        let name = Some(registration_id);
        self.with(|state| state.admit(registration_id, |proof| proof.admits(shown, &audience, name, kinder)))
    }

    /// DPS device API §9.6.
    fn check_way(&self, via: Via, registration_id: &str) -> Result<(), Refusal> {
        let is_tpm = self.look(|state| state.tpm(registration_id).is_some());
        let refused = is_tpm && via != Via::Https && !self.is_kinder(Kinder::Transport);
        if refused { Err(Refusal::Transport) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn say(&mut self, device: Option<&str>, line: String) {
        let known = device.map(|id| (id, self.devices.get_mut(&id.to_lowercase())));
        let name = match known {
            None => NOBODY.to_owned(),
            Some((id, None)) => id.to_owned(),
            Some((_, Some(device))) => {
                device.last_step.clone_from(&line);
                device.registration_id.clone()
            }
        };
        self.transcript.add(&name, &line);
    }

    pub(crate) fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    pub(crate) fn device(&mut self, registration_id: &str) -> Option<&mut Device> {
        self.devices.get_mut(&registration_id.to_lowercase())
    }

    /// The registration ID behind a device ID, for a device that is not (any more) at the hub it asks for.
    pub(crate) fn registration_of(&self, device_id: &str) -> Option<String> {
        let is_it = |device: &&Device| {
            let assigned = device.registration.assignment.as_ref().is_some_and(|at| at.device_id == device_id);
            assigned || device.registration_id == device_id || device.settings.device_id.as_deref() == Some(device_id)
        };
        self.devices.values().find(is_it).map(|device| device.registration_id.clone())
    }

    /// The device, or, where there are groups, a place for one that may turn out to be a member.
    fn device_or_stranger(&mut self, registration_id: &str) -> Option<&mut Device> {
        let key = registration_id.to_lowercase();
        if !self.devices.contains_key(&key) {
            let group = self.groups.first().filter(|_| !self.removed.contains_key(&key))?;
            let device = Device::new(registration_id.to_owned(), None, Some(group.name.clone()), group.settings.clone());
            self.devices.insert(key.clone(), device);
        }
        self.devices.get_mut(&key)
    }

    fn admit(&mut self, id: &str, check: impl Fn(&Proof) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let individual = self.device(id).filter(|device| device.group.is_none());
        if let Some(device) = individual {
            return device.proof.as_ref().map_or(Err(Refusal::Device), check);
        }
        if self.removed.contains_key(&id.to_lowercase()) {
            return Err(Refusal::Device);
        }
        self.admit_member(id, check)
    }

    /// Finds the group that the device proves to belong to. What refuses best is the group that comes closest.
    fn admit_member(&mut self, id: &str, check: impl Fn(&Proof) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let mut refusal = Refusal::Device;
        for position in 0..self.groups.len() {
            let group = &self.groups[position];
            let proof = Proof::member(&group.attestation, id);
            match check(&proof) {
                Ok(()) => {
                    self.join(id, proof, position);
                    return Ok(());
                }
                // A group with another kind of attestation says nothing about the device.
                Err(Refusal::OtherKind) => {}
                Err(closer) => refusal = closer,
            }
        }
        Err(refusal)
    }

    fn join(&mut self, id: &str, proof: Proof, position: usize) {
        let (name, settings) = (self.groups[position].name.clone(), self.groups[position].settings.clone());
        if let Some(device) = self.device_or_stranger(id) {
            if device.group.as_ref() != Some(&name) {
                device.settings = settings;
                device.group = Some(name);
            }
            device.proof = Some(proof);
        }
    }

    /// Changes the settings of a device, or those of a group and of its members.
    pub(crate) fn change(&mut self, name: &str, change: impl Fn(&mut Settings)) -> bool {
        if let Some(device) = self.device(name) {
            change(&mut device.settings);
            device.record.iter_mut().for_each(Record::touch);
            return true;
        }
        let Some(group) = self.groups.iter_mut().find(|group| group.name == name) else {
            return false;
        };
        change(&mut group.settings);
        group.record.touch();
        let members = self.devices.values_mut().filter(|device| device.group.as_deref() == Some(name));
        members.for_each(|device| change(&mut device.settings));
        true
    }

    /// Removes an enrollment; the identity at the hub stays (DPS device API §14).
    pub(crate) fn remove(&mut self, registration_id: &str) -> bool {
        let key = registration_id.to_lowercase();
        let device = self.devices.remove(&key);
        let was_there = device.is_some();
        if was_there || !self.removed.contains_key(&key) {
            self.removed.insert(key, device);
        }
        was_there
    }

    /// Makes an enrollment that was removed anew: as it was, but DPS knows of no registration any more.
    pub(crate) fn enroll_again(&mut self, registration_id: &str) -> bool {
        let key = registration_id.to_lowercase();
        let Some(removed) = self.removed.remove(&key) else {
            return false;
        };
        if let Some(device) = removed {
            self.devices.insert(key, Device { registration: Registration::default(), ..device });
        }
        true
    }

    /// The registration IDs of a device, or of the members of a group that have shown themselves.
    pub(crate) fn named(&self, name: &str) -> Vec<String> {
        let is_it = |device: &&Device| device.registration_id.eq_ignore_ascii_case(name) || device.group.as_deref() == Some(name);
        self.devices.values().filter(is_it).map(|device| device.registration_id.clone()).collect()
    }

    pub(crate) fn find(&self, registration_id: &str) -> Option<&Device> {
        self.devices.get(&registration_id.to_lowercase())
    }

    /// The device's identity at the hub that it is assigned to.
    pub(crate) fn identity(&self, device: &Device) -> Option<&Identity> {
        let assignment = device.registration.assignment.as_ref()?;
        self.hubs.identity(&assignment.hub, &assignment.device_id)
    }

    /// Whether the hub that a token names would let this device in with it.
    pub(crate) fn hub_accepts(&self, registration_id: &str, token: &str, kinder: &[Kinder]) -> bool {
        let resource = Token::parse(token).map(|token| token.resource).unwrap_or_default();
        let Some((hub, device_id)) = resource.split_once("/devices/") else {
            return false;
        };
        let identity = self.hubs.identity(hub, device_id);
        let own = identity.filter(|identity| identity.registration_id.eq_ignore_ascii_case(registration_id));
        own.is_some_and(|own| own.admits(&Credential::Token(token.to_owned()), hub, device_id, kinder).is_ok())
    }

    pub(crate) fn remove_from_hub(&mut self, registration_id: &str) -> bool {
        self.assignment(registration_id).is_some_and(|at| self.hubs.remove(&at.hub, &at.device_id))
    }

    /// Makes a device's identity at its hub anew, for the credential that it has now.
    pub(crate) fn add_to_hub(&mut self, registration_id: &str) -> bool {
        let (at, device) = (self.assignment(registration_id), self.find(registration_id));
        let proof = device.and_then(|device| device.tpm().map(Tpm::hub_proof).or_else(|| device.proof.clone()));
        let (Some(at), Some(device), Some(proof)) = (at, device, proof) else {
            return false;
        };
        let identity = Identity::new(device.registration_id.clone(), proof, device.settings.spread());
        self.hubs.add(&at.hub, &at.device_id, identity);
        true
    }

    pub(crate) fn set_enabled_at_hub(&mut self, registration_id: &str, enabled: bool) -> bool {
        self.assignment(registration_id).is_some_and(|at| self.hubs.set_enabled(&at.hub, &at.device_id, enabled))
    }

    pub(crate) fn assignment(&self, registration_id: &str) -> Option<Assignment> {
        self.find(registration_id)?.registration.assignment.clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { devices: self.devices.clone(), groups: self.groups.clone(), hubs: self.hubs.clone() }
    }

    pub(crate) fn restore(&mut self, then: &Snapshot) {
        self.devices.clone_from(&then.devices);
        self.groups.clone_from(&then.groups);
        self.hubs.restore(&then.hubs);
    }

    pub(crate) fn telemetry(&self) -> &[Telemetry] {
        self.hubs.telemetry()
    }
}

impl Device {
    pub(crate) fn new(registration_id: String, proof: Option<Proof>, group: Option<String>, settings: Settings) -> Self {
        let registration = Registration::default();
        Self { registration_id, proof, group, settings, record: None, registration, via: None, last_step: String::new() }
    }
}

/// Faults that an MQTT connection can play.
pub(crate) fn fits_mqtt(misdeed: &Misdeed) -> bool {
    match misdeed {
        Misdeed::Plain(_) | Misdeed::Connack(_) | Misdeed::Delivery(_) => true,
        Misdeed::Answer(lie) => !matches!(lie, Lie::Redirect(_)),
    }
}
