//! The requests of each device to DPS: a line of the transcript each, and how many there were of each kind.

use crate::service::{Service, Via};
use std::collections::BTreeMap;

/// One request, as it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Connect(Via),
    Challenge,
    Register,
    /// With its operation.
    Query(&'a str),
    Lookup,
}

/// How often a device has asked DPS, the requests that were refused or met a fault included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Connections over MQTT (each one a CONNECT) or HTTPS (each one with a first request).
    pub connections: u64,
    /// Register calls without a token that showed a TPM's keys, and lookups of that kind.
    pub challenges: u64,
    /// Register calls, the only ones that are billed.
    pub registrations: u64,
    /// Polls: operation status calls.
    pub queries: u64,
    /// Registration status lookups.
    pub lookups: u64,
}

/// By lower-case registration ID, of devices that nobody enrolled, too.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, Requests>);

impl Request<'_> {
    fn line(self) -> String {
        match self {
            Self::Connect(via) => format!("> connect {}", via.name()),
            Self::Challenge => "> challenge".to_owned(),
            Self::Register => "> register".to_owned(),
            Self::Query(operation) => format!("> query {operation}"),
            Self::Lookup => "> lookup".to_owned(),
        }
    }
}

impl Counts {
    pub(crate) fn of(&self, device: &str) -> Requests {
        self.0.get(&device.to_lowercase()).copied().unwrap_or_default()
    }

    fn add(&mut self, device: &str, request: Request<'_>) {
        let counts = self.0.entry(device.to_lowercase()).or_default();
        let count = match request {
            Request::Connect(_) => &mut counts.connections,
            Request::Challenge => &mut counts.challenges,
            Request::Register => &mut counts.registrations,
            Request::Query(_) => &mut counts.queries,
            Request::Lookup => &mut counts.lookups,
        };
        *count += 1;
    }
}

impl Service {
    /// Counts a request, then writes it down: whoever waits for the line finds it counted.
    pub(crate) fn note(&self, device: &str, request: Request<'_>) {
        self.with(|state| state.requests.add(device, request));
        self.say(Some(device), request.line());
    }
}
