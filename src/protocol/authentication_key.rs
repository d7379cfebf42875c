//! The wrapped keys that DPS sends to a TPM: taken apart here, and understood by the TPM alone.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A larger one is not looked at, in bytes; the real ones have 768 to 924.
const LARGEST: usize = 8 * 1024;

/// A key for the TPM, wrapped to its endorsement and storage key (DPS device API, blob layout). Each part is what stands behind
/// its 16-bit length.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthenticationKey {
    /// TPM2B_ID_OBJECT: holds the inner wrapping key.
    pub credential: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET: the credential's seed, to the endorsement key.
    pub secret: Vec<u8>,
    /// TPM2B_PRIVATE: the key, in its two wrappings.
    pub duplicate: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET: the outer wrapping's seed, to the storage key.
    pub seed: Vec<u8>,
    /// TPM2B_PUBLIC: what kind of key it is.
    pub public: Vec<u8>,
}

impl AuthenticationKey {
    /// Takes the base64 text apart. What follows the fifth part is nobody's business: some services send a sixth, some none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LARGEST {
            return Err(format!("its key is {} characters long", text.len()));
        }
        let blob = STANDARD.decode(text).map_err(|_| "its key is no base64".to_owned())?;
        let mut rest = blob.as_slice();
        let mut part = |name| take(&mut rest).ok_or_else(|| format!("its key ends within {name}"));
        Ok(Self {
            credential: part("the credential")?,
            secret: part("the credential's seed")?,
            duplicate: part("the wrapped key")?,
            seed: part("the wrapping's seed")?,
            public: part("the key's public area")?,
        })
    }
}

/// The key is wrapped, and yet it is nobody else's to look at.
impl fmt::Debug for AuthenticationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = [&self.credential, &self.secret, &self.duplicate, &self.seed, &self.public].map(Vec::len);
        write!(f, "AuthenticationKey({lengths:?} bytes)")
    }
}

fn take(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, behind) = rest.split_first_chunk::<2>()?;
    let (part, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = behind;
    (!part.is_empty()).then(|| part.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Vec<u8> {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap();
        STANDARD.decode(vectors["tpm"]["activation_blob_static"]["authenticationKey_b64"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn the_published_blob_is_taken_apart() {
        let key = AuthenticationKey::parse(&STANDARD.encode(blob())).unwrap();
        assert_eq!(format!("{key:?}"), "AuthenticationKey([52, 256, 142, 256, 48] bytes)");
        assert_eq!(key.public[..8], [0, 8, 0, 0x0b, 0, 4, 0, 0x40]);
    }

    #[test]
    fn what_follows_the_fifth_part_does_not_matter() {
        let parsed = |blob: &[u8]| AuthenticationKey::parse(&STANDARD.encode(blob));
        let whole = parsed(&blob());
        assert_eq!(parsed(&blob()[..764]), whole);
        assert_eq!(parsed(&[&blob()[..], &[0xff; 154]].concat()), whole);
    }

    #[test]
    fn a_blob_that_ends_early_is_told_by_where() {
        for (end, name) in [
            (0, "the credential"),
            (1, "the credential"),
            (53, "the credential"),
            (54, "the credential's seed"),
            (311, "the credential's seed"),
            (400, "the wrapped key"),
            (700, "the wrapping's seed"),
            (763, "the key's public area"),
        ] {
            let error = AuthenticationKey::parse(&STANDARD.encode(&blob()[..end])).unwrap_err();
            assert_eq!(error, format!("its key ends within {name}"), "{end}");
        }
        assert_eq!(AuthenticationKey::parse("AAAA").unwrap_err(), "its key ends within the credential", "an empty part");
        assert_eq!(AuthenticationKey::parse("*").unwrap_err(), "its key is no base64");
        assert_eq!(AuthenticationKey::parse(&"A".repeat(8193)).unwrap_err(), "its key is 8193 characters long");
    }
}
