//! A strict stand-in for the Azure IoT Hub Device Provisioning Service and an IoT Hub, for tests.
//!
//! It shares no code with the agent: what it knows about the wire comes from the published protocol. It verifies every
//! credential, refuses what the service refuses, and plays faults on request.
//!
//! ```
//! use dps_emulator::{Config, Emulator};
//!
//! let config = Config::from_toml(r#"
//!     [service]
//!     id_scope = "0ne00000000"
//!     [[enrollment]]
//!     registration_id = "gw-0001"
//!     primary_key = "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8h"
//!     faults = ["register: status 429 retry-after=2"]
//! "#)?;
//! let emulator = Emulator::start(config)?;
//! assert_ne!(emulator.mqtt_port(), 0);
//! assert!(emulator.transcript("gw-0001").is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "the emulator runs where clocks are right, and is asked for the time of day itself"
)]

mod answer;
mod attest;
mod challenge;
mod config;
mod control;
mod emulator;
mod entra;
mod fault;
mod http;
mod hub;
mod listener;
mod mqtt;
mod names;
mod operate;
pub mod pki;
mod registration;
mod requests;
pub mod sas;
mod service;
mod service_api;
mod tls;
mod tpm;
mod transcript;

pub use config::{Config, ConfigError};
pub use control::{Control, ControlError};
pub use emulator::{DeviceState, Emulator, StartError};
pub use hub::{IdentityState, Telemetry};
pub use operate::{NotThere, SetFaultsError, UnknownDevice};
pub use requests::Requests;
pub use service::Snapshot;
pub use tls::TlsError;
