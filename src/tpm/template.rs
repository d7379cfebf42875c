//! The templates that keys are derived from: the same template gives the same key on the same TPM, until it is cleared.

use super::memory::PublicArea;
use super::public::{
    ECC, ENDORSEMENT_ATTRIBUTES, ENDORSEMENT_POLICY, EXPONENTS, RSA, RSA_2048_STORAGE, SHA256, STORAGE_ATTRIBUTES,
};

/// The TCG's template L-1 with 256 zero bytes, or the manufacturer's nonce in front of them (TCG EK Credential Profile).
pub(super) fn endorsement(nonce: &[u8]) -> PublicArea {
    let mut unique = [0; 256];
    unique.iter_mut().zip(nonce).for_each(|(to, from)| *to = *from);
    rsa(ENDORSEMENT_ATTRIBUTES, &ENDORSEMENT_POLICY, &unique)
}

/// The same with an empty `unique`, as some of Microsoft's clients make it. It gives another key.
pub(super) fn endorsement_empty() -> PublicArea {
    rsa(ENDORSEMENT_ATTRIBUTES, &ENDORSEMENT_POLICY, &[])
}

/// The storage root key.
pub(super) fn storage() -> PublicArea {
    rsa(STORAGE_ATTRIBUTES, &[], &[0; 256])
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
    const P256: u16 = 0x0003;
    const NULL: u16 = 0x0010;
    const AES_128_CFB: [u16; 3] = [0x0006, 0x0080, 0x0043];
    let parameters = [&AES_128_CFB[..], &[NULL, P256, NULL]].concat();
    let coordinates = [0; 4];
    let parameters: Vec<_> = parameters.into_iter().flat_map(u16::to_be_bytes).collect();
    PublicArea::new([&head(ECC, STORAGE_ATTRIBUTES, &[])[..], &parameters, &coordinates].concat())
}

/// The public area of an RSA-2048 decryption key that is yet to be made.
fn rsa(attributes: u32, policy: &[u8], unique: &[u8]) -> PublicArea {
    PublicArea::new([&head(RSA, attributes, policy)[..], &RSA_2048_STORAGE, &EXPONENTS[0], &sized(unique)].concat())
}

fn head(kind: u16, attributes: u32, policy: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &SHA256.to_be_bytes(), &attributes.to_be_bytes(), &sized(policy)].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_differ_in_what_makes_the_key() {
        let plain = endorsement(&[]);
        assert_eq!((plain.bytes().len(), plain.modulus()), (314, Some(&[0; 256][..])));
        assert_eq!(endorsement_empty().bytes(), [&plain.bytes()[..56], &[0, 0]].concat());
        assert_eq!(endorsement(&[7; 20]).bytes()[..78], [&plain.bytes()[..58], &[7; 20]].concat());
        assert_eq!(storage().sized().len(), 284);
        let key = PublicArea::new([&storage().bytes()[..26], &[9; 256]].concat());
        assert_eq!((salt().kind(), salt().is_storage_key()), ("an ECC key", false));
        assert_eq!(like(&key), storage());
        assert_eq!(like_without_unique(&key).bytes(), [&storage().bytes()[..24], &[0, 0]].concat());
    }
}
