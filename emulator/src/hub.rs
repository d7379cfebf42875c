//! The IoT Hubs: which device identities exist, who is connected, and the messages that arrived.

use crate::attest::{Audience, Credential, Proof, Refusal};
use crate::config::Kinder;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// A message from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The device ID.
    pub device: String,
    /// The hub's host name, as assigned.
    pub hub: String,
    /// The whole topic, property bag included.
    pub topic: String,
    /// The message.
    pub payload: Vec<u8>,
}

/// All hubs: their identities and what was sent to them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hubs {
    /// By lower-case host name and by device ID, which is case-sensitive.
    identities: BTreeMap<(String, String), Identity>,
    telemetry: Vec<Telemetry>,
    sessions: u64,
}

/// A device identity at one hub.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) registration_id: String,
    proof: Proof,
    session: Option<(u64, Arc<Notify>)>,
    pub(crate) messages: u64,
}

/// The right to be connected, until `evicted` says otherwise.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) evicted: Arc<Notify>,
}

impl Identity {
    pub(crate) fn new(registration_id: String, proof: Proof) -> Self {
        Self { registration_id, proof, session: None, messages: 0 }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Whether this is the credential of the device.
    pub(crate) fn admits(&self, shown: &Credential, hub: &str, device_id: &str, kinder: &[Kinder]) -> Result<(), Refusal> {
        let named = match self.proof {
            Proof::IssuedBy(_) => Some(device_id),
            Proof::Keys(_) | Proof::Certificate(_) | Proof::Tpm(_) | Proof::HubKeys(_) => None,
        };
        let admitted = self.proof.admits(shown, &Audience::hub(hub, device_id), named, kinder);
        if kinder.contains(&Kinder::HubCredential) { Ok(()) } else { admitted }
    }

    fn evict(&mut self) {
        if let Some((_, evicted)) = self.session.take() {
            evicted.notify_one();
        }
    }
}

impl Hubs {
    /// The same identities as in `then`, with nobody connected. Messages that have arrived stay.
    pub(crate) fn restore(&mut self, then: &Self) {
        self.identities.values_mut().for_each(Identity::evict);
        self.identities.clone_from(&then.identities);
        self.identities.values_mut().for_each(|identity| identity.session = None);
    }

    /// Creates an identity, or gives an old one the new proof.
    pub(crate) fn add(&mut self, hub: &str, device_id: &str, identity: Identity) {
        match self.identities.get_mut(&key(hub, device_id)) {
            Some(old) => old.proof = identity.proof,
            None => drop(self.identities.insert(key(hub, device_id), identity)),
        }
    }

    /// Removes an identity; its connection ends.
    pub(crate) fn remove(&mut self, hub: &str, device_id: &str) -> bool {
        let removed = self.identities.remove(&key(hub, device_id));
        removed.map(|mut identity| identity.evict()).is_some()
    }

    pub(crate) fn identity(&self, hub: &str, device_id: &str) -> Option<&Identity> {
        self.identities.get(&key(hub, device_id))
    }

    /// Lets a device in with exactly the credential of its enrollment (hub connection §1, §3), and evicts whoever was
    /// connected as the same device.
    pub(crate) fn connect(
        &mut self,
        hub: &str,
        device_id: &str,
        shown: &Credential,
        kinder: &[Kinder],
    ) -> Result<Session, Refusal> {
        let identity = self.identities.get_mut(&key(hub, device_id)).ok_or(Refusal::Device)?;
        identity.admits(shown, hub, device_id, kinder)?;
        identity.evict();
        self.sessions += 1;
        let session = Session { number: self.sessions, evicted: Arc::default() };
        identity.session = Some((session.number, Arc::clone(&session.evicted)));
        Ok(session)
    }

    /// Notes that a connection has ended.
    pub(crate) fn disconnect(&mut self, hub: &str, device_id: &str, number: u64) {
        if let Some(identity) = self.identities.get_mut(&key(hub, device_id)) {
            identity.session.take_if(|(current, _)| *current == number);
        }
    }

    pub(crate) fn receive(&mut self, message: Telemetry) {
        if let Some(identity) = self.identities.get_mut(&key(&message.hub, &message.device)) {
            identity.messages += 1;
        }
        self.telemetry.push(message);
    }

    pub(crate) fn telemetry(&self) -> &[Telemetry] {
        &self.telemetry
    }
}

fn key(hub: &str, device_id: &str) -> (String, String) {
    (hub.to_lowercase(), device_id.to_owned())
}
