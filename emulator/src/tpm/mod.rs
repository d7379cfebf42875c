//! What the service computes for a TPM 2.0: keys that only one TPM can take in (DPS device API §9.3, §9.4).

mod blob;
mod crypto;
mod public;

pub(crate) use blob::{Blob, HmacKey, Tail, random};
pub(crate) use public::{ParentKey, WrongPublic};
