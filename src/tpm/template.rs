//! The templates that keys are derived from: the same template gives the same key on the same TPM, until it is cleared.

use super::memory::PublicArea;
use super::public::{self, ENDORSEMENT_ATTRIBUTES, ENDORSEMENT_POLICY, STORAGE_ATTRIBUTES};

/// The TCG's template L-1 with 256 zero bytes, or the manufacturer's nonce in front of them (TCG EK Credential Profile).
pub(super) fn endorsement(nonce: &[u8]) -> PublicArea {
    let mut unique = [0; 256];
    unique.iter_mut().zip(nonce).for_each(|(to, from)| *to = *from);
    public::rsa(ENDORSEMENT_ATTRIBUTES, &ENDORSEMENT_POLICY, &unique)
}

/// The same with an empty `unique`, as some of Microsoft's clients make it. It gives another key.
pub(super) fn endorsement_empty() -> PublicArea {
    public::rsa(ENDORSEMENT_ATTRIBUTES, &ENDORSEMENT_POLICY, &[])
}

/// The storage root key.
pub(super) fn storage() -> PublicArea {
    public::rsa(STORAGE_ATTRIBUTES, &[], &[0; 256])
}

/// What a storage or endorsement key was derived from, if its `unique` was 256 zero bytes.
pub(super) fn like(key: &PublicArea) -> PublicArea {
    let mut bytes = key.bytes().to_vec();
    bytes.iter_mut().rev().take(256).for_each(|byte| *byte = 0);
    PublicArea::new(bytes)
}

/// A key of nobody's hierarchy, for the salt of a session. Every TPM has P-256, and makes such a key in no time.
pub(super) fn salt() -> PublicArea {
    public::ecc_storage()
}
