//! The steps of one registration: each is a value whose methods are its only legal continuations.

use super::{KeySlot, Via};

/// The connection on which an exchange is to happen. Another value means another connection: the old one is closed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The transport.
    pub via: Via,
    /// The key that signs for it.
    pub slot: KeySlot,
    /// Counts the connections of this registration, so that two in a row can differ in nothing else.
    pub number: u32,
}
