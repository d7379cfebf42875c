//! The program itself, run as a factory runs it, against the emulator: which judges every token, right and record by itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod enroll;
mod gateway;
mod killed;
mod records;
mod rights;
mod sign_in;
