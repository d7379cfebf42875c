//! The IoT Hubs: which device identities exist, who is connected, and the messages that arrived.

use crate::attest::{Audience, Credential, Proof, Refusal};
use crate::config::Kinder;
use crate::sas::Token;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

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
    enabled: bool,
    spread: Spread,
    session: Option<(u64, watch::Sender<Farewell>)>,
    connections: u64,
    pub(crate) messages: u64,
}

/// How long a hub does not know a new identity yet.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    /// So many connections are refused,
    pub(crate) refusals: u32,
    /// and all until then.
    pub(crate) end: Instant,
}

/// Why a connection ends that has done nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// A newer connection of the same device.
    Evicted,
    /// The identity was removed.
    Removed,
    /// The identity was disabled.
    Disabled,
}

impl Farewell {
    /// Its line in the transcript.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::Evicted => "! evicted",
            Self::Removed => "! removed",
            Self::Disabled => "! disabled",
        }
    }
}

/// The right to be connected.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    /// How long the token is still good for; a certificate has no such end.
    pub(crate) left: Option<Duration>,
    /// Changes when the right ends.
    pub(crate) farewell: watch::Receiver<Farewell>,
}

/// How a device identity stands at one hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityState {
    /// The hub's host name.
    pub hub: String,
    /// The device ID.
    pub device_id: String,
    /// The registration ID behind it.
    pub registration_id: String,
    /// Whether it may connect.
    pub is_enabled: bool,
    /// Whether it is connected.
    pub is_connected: bool,
    /// How often it was let in.
    pub connections: u64,
    /// How many messages it has sent.
    pub messages: u64,
}

impl Identity {
    pub(crate) fn new(registration_id: String, proof: Proof, spread: Spread) -> Self {
        Self { registration_id, proof, enabled: true, spread, session: None, connections: 0, messages: 0 }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Whether this is the credential of the device, and the device may connect.
    pub(crate) fn admits(&self, shown: &Credential, hub: &str, device_id: &str, kinder: &[Kinder]) -> Result<(), Refusal> {
        let named = match self.proof {
            Proof::IssuedBy(_) => Some(device_id),
            Proof::Keys(_) | Proof::Certificate(_) | Proof::Tpm(_) | Proof::HubKeys(_) => None,
        };
        let admitted = self.proof.admits(shown, &Audience::hub(hub, device_id), named, kinder);
        match admitted {
            Err(refusal) if !kinder.contains(&Kinder::HubCredential) => Err(refusal),
            Ok(()) | Err(_) if !self.enabled => Err(Refusal::Disabled),
            Ok(()) | Err(_) if self.spread.is_going_on() => Err(Refusal::NotYet),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn end(&mut self, farewell: Farewell) {
        if let Some((_, session)) = self.session.take() {
            session.send_replace(farewell);
        }
    }

    fn begin(&mut self, number: u64) -> watch::Receiver<Farewell> {
        let (session, farewell) = watch::channel(Farewell::Evicted);
        self.session = Some((number, session));
        self.connections += 1;
        farewell
    }
}

impl Spread {
    fn is_going_on(&self) -> bool {
        self.refusals > 0 || Instant::now() < self.end
    }
}

impl Hubs {
    /// The same identities as in `then`, with nobody connected. Messages that have arrived stay.
    pub(crate) fn restore(&mut self, then: &Self) {
        self.identities.values_mut().for_each(|identity| identity.end(Farewell::Evicted));
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
        removed.map(|mut identity| identity.end(Farewell::Removed)).is_some()
    }

    /// Lets an identity connect, or not any more; its connection ends then.
    pub(crate) fn set_enabled(&mut self, hub: &str, device_id: &str, enabled: bool) -> bool {
        let Some(identity) = self.identities.get_mut(&key(hub, device_id)) else {
            return false;
        };
        identity.enabled = enabled;
        if !enabled {
            identity.end(Farewell::Disabled);
        }
        true
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
        let admitted = identity.admits(shown, hub, device_id, kinder);
        if admitted == Err(Refusal::NotYet) {
            identity.spread.refusals = identity.spread.refusals.saturating_sub(1);
        }
        admitted?;
        identity.end(Farewell::Evicted);
        self.sessions += 1;
        Ok(Session { number: self.sessions, left: left(shown, kinder), farewell: identity.begin(self.sessions) })
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

    pub(crate) fn states(&self) -> Vec<IdentityState> {
        let state = |((hub, device_id), identity): (&(String, String), &Identity)| IdentityState {
            hub: hub.clone(),
            device_id: device_id.clone(),
            registration_id: identity.registration_id.clone(),
            is_enabled: identity.enabled,
            is_connected: identity.is_connected(),
            connections: identity.connections,
            messages: identity.messages,
        };
        self.identities.iter().map(state).collect()
    }
}

/// A hub drops the connection when its token expires (hub connection §2).
fn left(shown: &Credential, kinder: &[Kinder]) -> Option<Duration> {
    let Credential::Token(token) = shown else {
        return None;
    };
    let lenient = kinder.contains(&Kinder::Expiry) || kinder.contains(&Kinder::HubCredential);
    let expiry = Token::parse(token).filter(|_| !lenient)?.expiry;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(Duration::from_secs(expiry).saturating_sub(now))
}

fn key(hub: &str, device_id: &str) -> (String, String) {
    (hub.to_lowercase(), device_id.to_owned())
}
