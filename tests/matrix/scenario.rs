//! What a scenario is made of: what the emulator does, how the agent is called, and what must come of it.

use crate::device::{Attestation, Credential};

/// The way to the service that a device is configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Mqtt,
    MqttWs,
    Https,
    Auto,
}

impl Transport {
    pub const ALL: [Self; 4] = [Self::Mqtt, Self::MqttWs, Self::Https, Self::Auto];

    /// Its name in the configuration and in the names of cells.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
            Self::Https => "https",
            Self::Auto => "auto",
        }
    }

    /// The proof's transport. Where only HTTPS gets out, MQTT on 8883 does not.
    pub fn hub(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttWs | Self::Https => "mqtt-ws",
            Self::Auto => "auto",
        }
    }

    /// The transport of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|via| via.name() == name)
    }
}

/// The cells that a scenario is for.
#[derive(Debug, Clone, Copy)]
pub struct On {
    pub attestations: &'static [Attestation],
    pub transports: &'static [Transport],
}

const EACH: &[Attestation] = &Attestation::ALL;
const CERTIFICATES: &[Attestation] = &[Attestation::X509Ec, Attestation::X509Rsa, Attestation::X509Intermediate];
const FIXED: &[Transport] = &[Transport::Mqtt, Transport::MqttWs, Transport::Https];

impl On {
    /// Every device over every transport.
    pub const ALL: Self = Self { attestations: EACH, transports: FIXED };
    /// Every device where MQTT is spoken.
    pub const MQTT: Self = Self { attestations: EACH, transports: &[Transport::Mqtt, Transport::MqttWs] };
    /// Every device over WebSocket.
    pub const WEBSOCKET: Self = Self { attestations: EACH, transports: &[Transport::MqttWs] };
    /// Every device over HTTPS.
    pub const HTTPS: Self = Self { attestations: EACH, transports: &[Transport::Https] };
    /// Every device that is to find its way.
    pub const AUTO: Self = Self { attestations: EACH, transports: &[Transport::Auto] };
    /// Every device over MQTT without WebSocket.
    pub const PLAIN_MQTT: Self = Self { attestations: EACH, transports: &[Transport::Mqtt] };
    /// Devices with an enrollment of their own.
    pub const INDIVIDUAL: Self =
        Self { attestations: &[Attestation::SymmetricKey, Attestation::X509Ec, Attestation::X509Rsa], transports: FIXED };
    /// Devices with certificates.
    pub const X509: Self = Self { attestations: CERTIFICATES, transports: FIXED };
    /// The device whose chain has an intermediate.
    pub const INTERMEDIATE: Self = Self { attestations: &[Attestation::X509Intermediate], transports: FIXED };
    /// The device with an individual enrollment's two keys.
    pub const TWO_KEYS: Self = Self { attestations: &[Attestation::SymmetricKey], transports: FIXED };
}

/// One row of the matrix.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub on: On,
    /// Lines for the emulator's `[service]`.
    pub service: &'static [&'static str],
    /// Lines for the device's enrollment or group.
    pub device: &'static [&'static str],
    /// There is an enrollment for this device.
    pub enrolled: bool,
    pub credential: Credential,
    /// Lines for the agent's `[dps]` and `[hub]`.
    pub dps: &'static [&'static str],
    pub hub: &'static [&'static str],
    /// Ports of the agent's configuration at which nobody answers.
    pub closed: &'static [Port],
    pub steps: Vec<Step>,
}

impl Scenario {
    /// An enrolled device with its right credential, a usual emulator, a usual agent.
    pub fn new(name: &'static str, on: On, steps: Vec<Step>) -> Self {
        let (service, device, dps, hub, closed): (&[_], &[_], &[_], &[_], &[_]) = (&[], &[], &[], &[], &[]);
        Self { name, on, service, device, enrolled: true, credential: Credential::Right, dps, hub, closed, steps }
    }
}

/// A port in the agent's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    DpsMqtt,
    HubMqtt,
    HubHttps,
}

/// One run of the agent.
#[derive(Debug, Clone)]
pub struct Step {
    /// What changes before it.
    pub acts: &'static [Act],
    /// `--force`
    pub force: bool,
    /// `--timeout`
    pub timeout: &'static str,
    pub end: End,
    /// What the emulator hears and says during it, in order. See [`crate::conversation`].
    pub said: &'static str,
    /// The run takes at least so many seconds: a wait that was asked for is never shortened.
    pub at_least: u64,
    /// It does not sit its patience out: it ends in less than three quarters of it.
    pub at_once: bool,
    /// The custom payload that the emulator has received, as JSON.
    pub received: Option<&'static str>,
}

/// What changes at the service.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    MoveHub(&'static str),
    Disable,
    Enable,
    Faults(&'static [&'static str]),
}

/// How a run ends.
#[derive(Debug, Clone)]
pub enum End {
    /// With an assignment, a record and exit code 0.
    Adopted(Adopted),
    /// Without: nothing new is stored.
    Failed(Failed),
}

/// What is printed and stored of an assignment.
#[derive(Debug, Clone)]
pub struct Adopted {
    pub generation: u64,
    pub hub: &'static str,
    pub substatus: &'static str,
    pub proof: &'static str,
    /// JSON text.
    pub payload: &'static str,
    pub key: &'static str,
    /// The way that worked, where the configured one is `auto`.
    pub transport: Option<&'static str>,
    /// The device ID, where it is not the registration ID.
    pub device_id: Option<&'static str>,
}

/// What is printed of a failure.
#[derive(Debug, Clone)]
pub struct Failed {
    pub blame: Blame,
    /// What is said of DPS's error code.
    pub code: Code,
    /// The message, in which `*` stands for anything.
    pub message: &'static str,
}

/// DPS's error code in a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// None is known.
    None,
    /// This one.
    Of(u32),
    /// That of a wrong key or, for X.509, of a wrong certificate.
    Unauthorized,
}

impl Code {
    /// The number, for this kind of device.
    pub fn number(self, attestation: Attestation) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Of(code) => Some(code),
            Self::Unauthorized if attestation.is_x509() => Some(401_002),
            Self::Unauthorized => Some(401_000),
        }
    }
}

/// The fixed table of exit codes, written down once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Refused,
    Network,
    Clock,
    Busy,
    Hub,
    Untrusted,
    Peer,
    Unauthorized,
}

impl Blame {
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Refused => 69,
            Self::Network | Self::Clock | Self::Busy | Self::Hub => 75,
            Self::Untrusted | Self::Peer => 76,
            Self::Unauthorized => 77,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Network => "network",
            Self::Clock => "clock",
            Self::Busy => "busy",
            Self::Hub => "hub",
            Self::Untrusted => "untrusted",
            Self::Peer => "peer",
            Self::Unauthorized => "unauthorized",
        }
    }
}

impl Step {
    /// A run that ends with a proven first assignment to `localhost`.
    pub fn adopts(said: &'static str) -> Self {
        let adopted = Adopted {
            generation: 1,
            hub: "localhost",
            substatus: "initialAssignment",
            proof: "proven",
            payload: "null",
            key: "primary",
            transport: None,
            device_id: None,
        };
        Self::new(End::Adopted(adopted), said)
    }

    /// A run that fails without an error code of DPS.
    pub fn fails(blame: Blame, message: &'static str, said: &'static str) -> Self {
        Self::new(End::Failed(Failed { blame, code: Code::None, message }), said)
    }

    fn new(end: End, said: &'static str) -> Self {
        Self { acts: &[], force: false, timeout: "60s", end, said, at_least: 0, at_once: false, received: None }
    }

    pub fn after(self, acts: &'static [Act]) -> Self {
        Self { acts, ..self }
    }

    pub fn forced(self) -> Self {
        Self { force: true, ..self }
    }

    pub fn within(self, timeout: &'static str) -> Self {
        Self { timeout, ..self }
    }

    pub fn at_least(self, seconds: u64) -> Self {
        Self { at_least: seconds, ..self }
    }

    pub fn at_once(self) -> Self {
        Self { at_once: true, ..self }
    }

    pub fn received(self, payload: &'static str) -> Self {
        Self { received: Some(payload), ..self }
    }

    pub fn code(mut self, code: Code) -> Self {
        if let End::Failed(failed) = &mut self.end {
            failed.code = code;
        }
        self
    }

    /// Changes what is expected of the assignment.
    pub fn with(mut self, change: impl Fn(&mut Adopted)) -> Self {
        if let End::Adopted(adopted) = &mut self.end {
            change(adopted);
        }
        self
    }

    pub fn proof(self, proof: &'static str) -> Self {
        self.with(|adopted| adopted.proof = proof)
    }
}
