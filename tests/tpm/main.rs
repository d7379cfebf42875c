//! The agent with a TPM: software TPMs, and machines in the middle that count, delay, cut, alter and lose what passes.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cutter;
#[cfg(feature = "tpm")]
mod gateway;
#[cfg(feature = "tpm")]
mod power_cut;
#[cfg(feature = "tpm")]
mod power_cut_files;
#[cfg(feature = "tpm")]
mod power_cut_scene;
mod relay;
mod swtpm;
mod tls_relay;
mod wire;
