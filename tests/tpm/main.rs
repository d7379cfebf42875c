//! The agent with a TPM: software TPMs, and machines in the middle that count, delay, cut, alter and lose what passes.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cutter;
#[cfg(feature = "tpm")]
mod flights;
#[cfg(feature = "tpm")]
mod gateway;
#[cfg(feature = "tpm")]
mod happy;
#[cfg(feature = "tpm")]
mod hostile;
#[cfg(feature = "tpm")]
mod hostile_blobs;
#[cfg(feature = "tpm")]
mod hostile_gateway;
#[cfg(feature = "tpm")]
mod hostile_objects;
#[cfg(feature = "tpm")]
mod hostile_presence;
mod relay;
mod swtpm;
mod tls_relay;
mod verbs;
mod wire;
