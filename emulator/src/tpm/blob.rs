//! The field `authenticationKey`: an HMAC key that one TPM can import, wrapped for its EK and its SRK.

use super::crypto::{Digest, cfb, hmac_sha256, integrity_key, oaep, sha256, storage_key};
use super::public::{ALG_SHA256, ParentKey, name, sized};
use ring::rand::{SecureRandom, SystemRandom};

const ALG_HMAC: u16 = 0x0005;
const ALG_KEYEDHASH: u16 = 0x0008;
/// sign, noDA, userWithAuth: as seen in the real service's blobs (DPS device API §18).
const ATTRIBUTES: u32 = 0x0004_0440;

/// What stands at the end of a blob. Its content, "encrypted URI data", is UNCONFIRMED and read by no client; its
/// lengths are those of the real service (DPS device API §18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    Challenge,
    HubKey,
}

impl Tail {
    fn bytes(self) -> usize {
        match self {
            Self::Challenge => 154,
            Self::HubKey => 108,
        }
    }
}

/// An HMAC-SHA256 key as an object of a TPM.
#[derive(Clone)]
pub(crate) struct HmacKey {
    attributes: u32,
    /// TPMT_SENSITIVE.seedValue: it obfuscates `unique`.
    seed: Digest,
    key: Digest,
}

impl std::fmt::Debug for HmacKey {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("HmacKey(32 bytes)")
    }
}

impl HmacKey {
    /// A new one; `None` when there are no random numbers.
    pub(crate) fn random() -> Option<Self> {
        Some(Self { attributes: ATTRIBUTES, seed: random()?, key: random()? })
    }

    /// What signs.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.key
    }

    /// TPMT_PUBLIC.
    fn public(&self) -> Vec<u8> {
        let unique = sha256(&[&self.seed, &self.key]);
        [
            ALG_KEYEDHASH.to_be_bytes().as_slice(),
            &ALG_SHA256.to_be_bytes(),
            &self.attributes.to_be_bytes(),
            &sized(b""), // authPolicy
            &ALG_HMAC.to_be_bytes(),
            &ALG_SHA256.to_be_bytes(),
            &sized(&unique),
        ]
        .concat()
    }

    /// TPM2B_SENSITIVE.
    fn sensitive(&self) -> Vec<u8> {
        let no_auth = sized(b"");
        sized(&[ALG_KEYEDHASH.to_be_bytes().as_slice(), &no_auth, &sized(&self.seed), &sized(&self.key)].concat())
    }
}

/// The random numbers of one wrapping.
struct Seeds {
    /// The key of the inner wrapping, which only ActivateCredential yields.
    inner: [u8; 16],
    credential: Digest,
    duplicate: Digest,
}

/// The fields of a blob, each without its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    credential: Vec<u8>,
    credential_secret: Vec<u8>,
    duplicate: Vec<u8>,
    duplicate_secret: Vec<u8>,
    public: Vec<u8>,
    tail: Vec<u8>,
}

impl Blob {
    /// Wraps `key` anew for the TPM that has both `endorsement` and `storage`; `None` when there are no random numbers.
    pub(crate) fn wrap(key: &HmacKey, endorsement: &ParentKey, storage: &ParentKey, tail: Tail) -> Option<Self> {
        let seeds = Seeds { inner: random()?, credential: random()?, duplicate: random()? };
        let tail = random_bytes(tail.bytes())?;
        Self::of(key, &seeds, endorsement, storage, tail).ok()
    }

    fn of(key: &HmacKey, seeds: &Seeds, endorsement: &ParentKey, storage: &ParentKey, tail: Vec<u8>) -> Result<Self, rsa::Error> {
        Ok(Self {
            credential: credential(seeds, &storage.name()),
            credential_secret: oaep(endorsement, "IDENTITY", &seeds.credential)?,
            duplicate: duplicate(key, seeds),
            duplicate_secret: oaep(storage, "DUPLICATE", &seeds.duplicate)?,
            public: key.public(),
            tail,
        })
    }

    /// Random bytes in the place of all that is encrypted: no TPM takes it.
    pub(crate) fn scrambled(self) -> Option<Self> {
        Some(Self {
            credential: [sized(&random::<32>()?), random_bytes(18)?].concat(),
            credential_secret: random_bytes(256)?,
            duplicate: [sized(&random::<32>()?), random_bytes(108)?].concat(),
            duplicate_secret: random_bytes(256)?,
            ..self
        })
    }

    /// What `authenticationKey` is the base64 of.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let fields =
            [&self.credential, &self.credential_secret, &self.duplicate, &self.duplicate_secret, &self.public, &self.tail];
        fields.map(|field| sized(field)).concat()
    }
}

/// TPMS_ID_OBJECT of MakeCredential (Part 1 §24): the inner key, for the holder of the EK that also holds `storage`.
fn credential(seeds: &Seeds, storage: &[u8]) -> Vec<u8> {
    let encrypted = cfb(&storage_key(&seeds.credential, storage), &sized(&seeds.inner));
    authenticated(&seeds.credential, encrypted, storage)
}

/// The contents of TPM2B_PRIVATE of Duplicate (Part 1 §23.3): inner wrapping, then outer wrapping.
fn duplicate(key: &HmacKey, seeds: &Seeds) -> Vec<u8> {
    let (name, sensitive) = (name(&key.public()), key.sensitive());
    let integrity = sized(&sha256(&[&sensitive, &name]));
    let inner = cfb(&seeds.inner, &[integrity, sensitive].concat());
    let outer = cfb(&storage_key(&seeds.duplicate, &name), &inner);
    authenticated(&seeds.duplicate, outer, &name)
}

/// What is encrypted, behind its HMAC with the name of the object.
fn authenticated(seed: &Digest, encrypted: Vec<u8>, name: &[u8]) -> Vec<u8> {
    let tag = hmac_sha256(&integrity_key(seed), &[&encrypted, name]);
    [sized(&tag), encrypted].concat()
}

/// So many random bytes.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

fn random_bytes(count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
#[path = "blob_tests.rs"]
mod tests;
