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

/// What an RSA-2048 key was made from, if its `unique` was 256 zero bytes.
pub(super) fn like(key: &PublicArea) -> PublicArea {
    with_unique(key, &[&[0x01, 0x00][..], &[0; 256]].concat())
}

/// What it was made from if its `unique` was empty.
pub(super) fn like_without_unique(key: &PublicArea) -> PublicArea {
    with_unique(key, &[0, 0])
}

fn with_unique(key: &PublicArea, unique: &[u8]) -> PublicArea {
    let end = key.bytes().len().saturating_sub(2 + 256);
    PublicArea::new([&key.bytes()[..end], unique].concat())
}

/// A key of nobody's hierarchy, for the salt of a session. Every TPM has P-256, and makes such a key in no time.
pub(super) fn salt() -> PublicArea {
    public::ecc_storage()
}
