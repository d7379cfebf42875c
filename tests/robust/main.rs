//! The built binary on a bad day: checks, power cuts, bad input, secrets, and the life of the daemon, against the emulator.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_input;
mod check;
mod daemon;
mod evidence;
mod gateway;
mod identity;
mod life;
mod machine;
mod notify;
mod power_cut;
mod proof;
mod proxy;
mod secrets;
mod strace;
