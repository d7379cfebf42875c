//! The shipped units on a booted systemd, against the emulator: `cargo xtask system-test`. README.md says what runs where.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "it waits for machines, of which nothing tells when they are up")]

mod full;
mod kernel;
mod later;
mod machine;
mod package;
mod quick;
#[path = "../tpm/swtpm.rs"]
#[expect(dead_code, reason = "made for the tests of the TPM, which use all of it")]
mod swtpm;
