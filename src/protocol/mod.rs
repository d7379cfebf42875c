//! The registration conversation with DPS, without socket, clock, key or file.
//!
//! DPS registration is half-duplex: at every moment exactly one thing is outstanding. So [`registration`] is a value that
//! says what to do next and is told the answer and the time:
//!
//! ```text
//! begin ─► Exchange(Register) ─► Pause ─► Exchange(Query) ─► Done(Ok(Assignment))
//!            ▲    │  ▲              ▲          │  │
//!            │    │  └── same again ┘  pending ┘  └─ refused for good, or out of patience ─► Done(Err(GaveUp))
//!            └────┴─ the operation is lost: register anew
//!
//! with a TPM  begin ─► Exchange(Challenge) ─► Import ─► Exchange(Register) ─► … ─► Import ─► Done(Ok(Assignment))
//! ```
//!
//! An MQTT response topic and an HTTPS response both reduce to one [`Answer`], so [`wire`] serves every transport.

mod authentication_key;
pub mod registration;
pub mod retry;
pub mod sas;
pub mod wire;

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::id::{DeviceId, HostName, OperationId};
pub use authentication_key::AuthenticationKey;

/// A way to reach DPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// MQTT 3.1.1 over TLS, port 8883.
    Mqtt,
    /// MQTT 3.1.1 over a WebSocket over TLS, port 443.
    MqttWs,
    /// HTTP/1.1 over TLS, port 443.
    Https,
}

impl Via {
    /// The name in configuration, JSON and transcripts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
            Self::Https => "https",
        }
    }

    /// The way with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Mqtt, Self::MqttWs, Self::Https].into_iter().find(|via| via.name() == name)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of a device's two enrolled keys signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlot {
    /// The one that is tried first.
    Primary,
    /// The one that is tried when the service refuses the first.
    Secondary,
}

/// One question to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Ask for a key with which to sign: a registration that nothing authorizes (DPS device API, TPM attestation).
    Challenge,
    /// Register this device (DPS device API, register).
    Register,
    /// Ask how a registration is going (DPS device API, operation status lookup).
    Query(OperationId),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Challenge => f.write_str("challenge"),
            Self::Register => f.write_str("register"),
            Self::Query(operation) => write!(f, "query {operation}"),
        }
    }
}

/// What came back, before anybody has understood it: the same four things on every transport.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The status of the response topic or of the HTTP response. For a refused CONNECT see [`Answer::connack`].
    pub status: u16,
    /// The MQTT return code, where CONNECT itself was refused (MQTT 3.1.1 §3.2.2.3). `status` then holds its equivalent.
    pub connack: Option<u8>,
    /// `Retry-After` as it was sent: seconds, or an HTTP date, or nonsense.
    pub retry_after: Option<String>,
    /// The service's own time, HTTPS only: the `Date` header as it was sent.
    pub date: Option<String>,
    /// The body, at most [`wire::LARGEST_BODY`] bytes.
    pub body: Vec<u8>,
}

impl Answer {
    /// A refused CONNECT, as the status that means the same: 4 and 5 are 401, 3 is 503, anything else 400.
    pub fn refused_connect(code: u8) -> Self {
        let status = match code {
            3 => 503,
            4 | 5 => 401,
            _ => 400,
        };
        Self { status, connack: Some(code), ..Self::default() }
    }
}

/// What the service said, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Still assigning: ask again.
    Pending {
        /// The operation to ask for.
        operation: OperationId,
        /// Not before this long from now.
        retry_after: Option<Duration>,
    },
    /// The service wants to see whether the TPM can use this key.
    Challenged(AuthenticationKey),
    /// The device has its hub.
    Assigned(Assignment),
    /// The service says no, for now or for good.
    Refused(Refusal),
}

/// The result of a registration (DPS device API, DeviceRegistrationResult).
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The assigned hub, exactly as received.
    pub hub: HostName,
    /// The device's name there. Not always the registration ID.
    pub device_id: DeviceId,
    /// Why this hub: `initialAssignment`, `deviceDataMigrated`, `deviceDataReset`, `reprovisionedToInitialAssignment`, or newer.
    pub substatus: Option<String>,
    /// What the custom allocation webhook returned.
    pub payload: Option<Value>,
    /// When the service last touched it, by the service's own clock, as it was written (ISO 8601, UTC).
    pub updated: Option<String>,
    /// The key for the hub, where the device has a TPM to use it.
    pub key: Option<AuthenticationKey>,
}

/// The service's no (DPS device API, error object; or a final status of `failed` or `disabled`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, or what a CONNACK code amounts to.
    pub status: u16,
    /// The MQTT return code, where CONNECT itself was refused.
    pub connack: Option<u8>,
    /// `failed`, `disabled` or an unknown word, where the service answered 200 and yet refused.
    pub final_status: Option<String>,
    /// The service's error code, such as 404201.
    pub code: Option<u32>,
    /// The only key into the service's own logs.
    pub tracking_id: Option<String>,
    /// The service's words.
    pub message: Option<String>,
    /// Not before this long from now.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.connack, &self.final_status) {
            (Some(code), _) => write!(f, "the service refused CONNECT with return code {code}")?,
            (None, Some(status)) => write!(f, "the registration ended as {status:?}")?,
            (None, None) => write!(f, "the service answered {}", self.status)?,
        }
        if let Some(code) = self.code {
            write!(f, ", error code {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        match &self.tracking_id {
            Some(id) => write!(f, " (trackingId {id})"),
            None => Ok(()),
        }
    }
}

/// How far an exchange came before the network failed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Looking up the host's name.
    Resolve,
    /// The TCP connection.
    Connect,
    /// The proxy's answer to CONNECT.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// Up to CONNACK, with the WebSocket upgrade where there is one.
    Open,
    /// The peer hung up when it wanted a client certificate in a second handshake, which this transport cannot give.
    Certificate,
    /// After the credential was accepted, or sent: waiting for an answer.
    Reply,
}

impl Stage {
    /// The word for it in transcripts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Open => "open",
            Self::Certificate => "certificate",
            Self::Reply => "reply",
        }
    }
}

/// Why an exchange brought no answer that makes sense. The connection is gone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Lost {
    /// The network failed, or somebody on it was silent.
    #[error("{why}")]
    Unreachable {
        /// How far it came.
        stage: Stage,
        /// What happened, for people.
        why: String,
    },
    /// The peer's certificate does not prove that it is the host we asked for.
    #[error("the certificate of {host} is not trusted: {why}")]
    Untrusted {
        /// Whom we wanted to reach.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// The peer's certificate becomes valid later than our clock says it is.
    #[error("the certificate of {host} is not valid yet: {why}")]
    NotYetValid {
        /// Whom we wanted to reach.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// An answer that makes no sense.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
    /// Our own credential could not be made, or used.
    #[error("{0}")]
    Credential(String),
    /// The TPM is not there, is locked, or fails.
    #[error("{0}")]
    Tpm(String),
}
