//! The agent with a TPM: software TPMs, and machines in the middle that count, delay, cut, alter and lose what passes.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cutter;
mod flights;
mod gateway;
mod happy;
mod hostile;
mod hostile_blobs;
mod hostile_gateway;
mod hostile_middle;
mod hostile_objects;
mod hostile_presence;
mod hostile_take_over;
mod loader;
mod power_cut;
mod power_cut_files;
mod power_cut_scene;
mod relay;
mod swtpm;
mod tls_relay;
mod verbs;
mod wire;
