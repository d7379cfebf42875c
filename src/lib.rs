//! The agent that registers an embedded Linux gateway with the Azure IoT Hub Device Provisioning Service.
//!
//! The modules stand in the order in which a datum passes through them; each uses only modules above it
//! (`tests/architecture.rs` holds it to that). `ARCHITECTURE.md` is the map.

pub mod id;
pub mod blame;
pub mod event;
pub mod secret;
pub mod clock;
pub mod files;
pub mod protocol;
pub mod config;
pub mod tpm;
pub mod transcript;
pub mod record;
pub mod tls;
pub mod identity;
pub mod attestation;
pub mod transport;
pub mod proof;
pub mod failure;
pub mod connection;
pub mod campaign;
pub mod lifecycle;
pub mod desk;
pub mod handoff;
pub mod api;
pub mod notify;
pub mod progress;
pub mod agent;
pub mod daemon;
pub mod check;
pub mod reset;
pub mod migrate;
pub mod cli;
