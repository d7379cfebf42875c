//! The proof of an assignment: one CONNECT to the hub with the credential just obtained, and DISCONNECT.

use crate::attestation::{Attestation, Key};
use crate::clock::Clock;
use crate::config::{Config, Gateway};
use crate::id::{DeviceId, HostName};
use crate::protocol::sas::{Audience, percent_encode};
use crate::protocol::{Answer, Assignment, Lost, Stage, Via};
use crate::secret::Secret;
use crate::tls::{self, TlsError};
use crate::transcript::Transcript;
use crate::transport::{AGENT, Address, Dialer, Failure, Hello, Limits, credential, note, open};

/// The api-version of IoT Hub that the user name asks for.
const HUB_API_VERSION: &str = "2021-04-12";

/// What one try of the hub brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The hub let the device in.
    Proven,
    /// The hub refused the credential: `connack` holds the return code where it was CONNACK that said so. It may be too soon: a new
    /// identity takes time to spread.
    Refused(Answer),
    /// The hub could not be asked.
    Unreachable(Lost),
    /// The hub is too busy to say (CONNACK 3, 429, 5xx).
    Busy(Lost),
    /// We could not make the credential.
    Unable(Lost),
    /// Whoever answers there has not shown that it is the hub.
    Untrusted(Lost),
}

/// The means to try a hub: the same roots and proxy as for DPS, and a parent gateway where there is one.
pub struct Proof<'a> {
    config: &'a Config,
    attestation: &'a Attestation,
    clock: Clock,
    transcript: &'a Transcript,
    dialer: Dialer,
}

impl<'a> Proof<'a> {
    /// Connects nowhere yet.
    ///
    /// # Errors
    /// If there is nobody to trust: see [`TlsError`].
    pub fn new(
        config: &'a Config,
        attestation: &'a Attestation,
        clock: Clock,
        transcript: &'a Transcript,
    ) -> Result<Self, TlsError> {
        let also = config.hub.gateway.as_ref().and_then(|gateway| gateway.ca_file.as_deref());
        let tls = tls::client(&config.trust, also, attestation.certificate(), clock)?;
        let dialer = Dialer { tls, proxy: config.proxy.clone(), certified: attestation.certificate().is_some() };
        Ok(Self { config, attestation, clock, transcript, dialer })
    }

    /// One try, with the key that DPS accepted. The configured routes in order: the next one only where the hub could not be
    /// reached on the one before. `limits.connect` is for each of them.
    ///
    /// A hub allows one connection per device: never call this while a consumer may hold it.
    pub async fn try_hub(&self, assignment: &Assignment, key: &Key, limits: Limits) -> Attempt {
        let mut attempt = Attempt::Unreachable(Lost::Credential("[hub] transport names no way to the hub".to_owned()));
        for via in &self.config.hub.routes {
            attempt = self.try_via(*via, assignment, key, limits).await;
            let (Attempt::Unreachable(Lost::Unreachable { .. }) | Attempt::Busy(_)) = attempt else { break };
        }
        attempt
    }

    /// Whether somebody answers there with the hub's certificate, by any of the configured routes. Nobody is told who we are, and
    /// no consumer loses its connection.
    pub async fn reach(&self, hub: &HostName, limits: Limits) -> Result<(), Lost> {
        let host = self.config.hub.gateway.as_ref().map_or(hub, |Gateway { host, .. }| host);
        let mut last = Lost::Credential("[hub] transport names no way to the hub".to_owned());
        for via in &self.config.hub.routes {
            match self.dialer.dial(host, self.port(*via), limits.to_connect(&self.clock)).await {
                // Whoever judges our certificate in the handshake is there.
                Ok(_) | Err(Failure::Refused(_)) => return Ok(()),
                Err(Failure::Lost(lost)) => last = lost,
            }
        }
        Err(last)
    }

    async fn try_via(&self, via: Via, assignment: &Assignment, key: &Key, limits: Limits) -> Attempt {
        match self.connect(via, assignment, key, limits).await {
            Ok(()) => Attempt::Proven,
            Err(Failure::Refused(answer)) => refused(answer),
            Err(Failure::Lost(lost)) => {
                note(self.transcript, &lost);
                match lost {
                    // A date in the future is looked at before the issuer: a stranger's certificate can have one.
                    Lost::Untrusted { .. } | Lost::NotYetValid { .. } => Attempt::Untrusted(lost),
                    Lost::Credential(_) | Lost::Tpm(_) => Attempt::Unable(lost),
                    Lost::Unreachable { .. } | Lost::Nonsense(_) => Attempt::Unreachable(lost),
                }
            }
        }
    }

    async fn connect(&self, via: Via, assignment: &Assignment, key: &Key, limits: Limits) -> Result<(), Failure> {
        let Assignment { hub, device_id, .. } = assignment;
        let audience = Audience::device(hub, device_id);
        let password = credential(self.attestation, &audience, key, self.clock).await?;
        let host = self.config.hub.gateway.as_ref().map_or(hub, |Gateway { host, .. }| host);
        self.transcript.line(format_args!("> hub connect {via} {host} {device_id}"));
        let address = Address { via, host, port: self.port(via) };
        let deadline = limits.to_connect(&self.clock);
        let session = open(&self.dialer, address, hello(assignment, password), deadline, self.transcript).await?;
        session.disconnect().await;
        Ok(())
    }

    const fn port(&self, via: Via) -> u16 {
        match via {
            Via::Mqtt => self.config.hub.mqtt_port,
            Via::MqttWs | Via::Https => self.config.hub.https_port,
        }
    }
}

/// The user name of a device (IoT Hub, MQTT). Nothing in it is percent-encoded.
pub fn user_name(hub: &HostName, device_id: &DeviceId) -> String {
    format!("{hub}/{device_id}/?api-version={HUB_API_VERSION}")
}

/// The CONNECT packet (IoT Hub, MQTT). The hub's name stands in it even if a gateway takes the connection.
fn hello(Assignment { hub, device_id, .. }: &Assignment, password: Option<Secret<String>>) -> Hello {
    let agent = percent_encode(AGENT);
    Hello {
        client_id: device_id.to_string(),
        user_name: format!("{}&DeviceClientType={agent}", user_name(hub, device_id)),
        password,
        // The queue of messages to the device belongs to the consumer: a clean session would throw it away.
        clean_session: false,
    }
}

/// Whether a no is about the credential. Busy (CONNACK 3, 429, 5xx) is no verdict.
fn refused(answer: Answer) -> Attempt {
    match answer.status {
        429 | 500..=599 => {
            let code = answer.connack.map_or_else(|| format!("status {}", answer.status), |code| format!("CONNACK {code}"));
            Attempt::Busy(Lost::Unreachable { stage: Stage::Open, why: format!("the hub is busy: {code}") })
        }
        _ => Attempt::Refused(answer),
    }
}

#[cfg(test)]
mod tests;
