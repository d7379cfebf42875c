//! The agent that registers an embedded Linux gateway with the Azure IoT Hub Device Provisioning Service.
//!
//! The modules stand in the order in which a datum passes through them; each uses only modules above it
//! (`tests/architecture.rs` holds it to that). `ARCHITECTURE.md` is the map.

pub mod id;
pub mod secret;
pub mod blame;
pub mod clock;
pub mod protocol;
pub mod config;
pub mod identity;
pub mod transcript;
pub mod tls;
pub mod attestation;
pub mod transport;
