//! The verbs on a real TPM in software: each test has its own, started empty.

mod blobs;
mod device;
mod examine;
mod flow;
mod gate;
mod hostile;
mod identity;
mod passwords;
mod simulator;

use super::*;
use blobs::Blob;
use simulator::Simulator;

const EK: u32 = 0x8101_0001;
const SRK: u32 = 0x8100_0001;
const IDENTITY: u32 = 0x8100_0100;

/// What a test asks of a verb, on a runtime of its own.
fn run<T>(verb: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(verb)
}

/// A password as a hierarchy has it.
fn password(text: &str) -> Option<Secret<Vec<u8>>> {
    Some(Secret::new(text.as_bytes().to_vec()))
}
