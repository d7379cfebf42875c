//! Bodies and answers on the wire, the same for every transport.

/// The largest reply that is read, in bytes. DPS itself documents messages of 96 KB at most.
pub const LARGEST_BODY: usize = 128 * 1024;
