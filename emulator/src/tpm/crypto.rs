//! The primitives of TPM 2.0 Part 1, with SHA-256 and AES-128 throughout.

use super::public::ParentKey;
use aes::Aes128;
use aes::cipher::{BlockEncrypt, KeyInit};
use ring::{digest, hmac};

/// SHA-256 and its HMAC.
pub(super) type Digest = [u8; 32];

/// SHA-256 of these parts one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> Digest {
    let digest = digest::digest(&digest::SHA256, &parts.concat());
    first(digest.as_ref())
}

/// HMAC-SHA256 of these parts one after the other.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Digest {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat());
    first(tag.as_ref())
}

/// The key that encrypts what `seed` protects: KDFa(SHA256, seed, "STORAGE", name, "", 128).
pub(super) fn storage_key(seed: &Digest, name: &[u8]) -> [u8; 16] {
    first(&kdfa(seed, "STORAGE", name, 128))
}

/// The key that authenticates what `seed` protects: KDFa(SHA256, seed, "INTEGRITY", "", "", 256).
pub(super) fn integrity_key(seed: &Digest) -> Digest {
    kdfa(seed, "INTEGRITY", b"", 256)
}

/// Part 1 §11.4.10.2, the one block that no more than 256 bits take.
fn kdfa(key: &Digest, label: &str, context: &[u8], bits: u32) -> Digest {
    hmac_sha256(key, &[&1_u32.to_be_bytes(), label.as_bytes(), &[0], context, &bits.to_be_bytes()])
}

/// AES-128 in CFB mode with 128-bit feedback and a zero IV.
pub(super) fn cfb(key: &[u8; 16], plain: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new(key.into());
    let (mut feedback, mut encrypted) = ([0; 16], Vec::with_capacity(plain.len()));
    for block in plain.chunks(16) {
        cipher.encrypt_block((&mut feedback).into());
        feedback.iter_mut().zip(block).for_each(|(stream, byte)| *stream ^= byte);
        encrypted.extend(&feedback[..block.len()]);
    }
    encrypted
}

/// RSA-OAEP with SHA-256; a TPM counts the label's terminating NUL in.
pub(super) fn oaep(to: &ParentKey, label: &str, secret: &[u8]) -> Result<Vec<u8>, rsa::Error> {
    let padding = rsa::Oaep::new_with_label::<sha2::Sha256, _>(format!("{label}\0"));
    to.rsa().encrypt(&mut rsa::rand_core::OsRng, padding, secret)
}

/// The first bytes of what is long enough by construction.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    taken.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    taken
}
