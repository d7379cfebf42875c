//! The built binary on a bad day: checks, power cuts, bad input, secrets, and the life of the daemon, against the emulator.

mod bad_input;
mod check;
mod daemon;
mod gateway;
mod power_cut;
mod secrets;
mod strace;
