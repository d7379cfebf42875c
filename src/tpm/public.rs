//! What a public area says of its key (TPM 2.0 Part 2, TPMT_PUBLIC), read from its bytes.

use super::memory::PublicArea;

const RSA: u16 = 0x0001;
const KEYED_HASH: u16 = 0x0008;
const SHA256: u16 = 0x000b;
const HMAC: u16 = 0x0005;
const NULL: u16 = 0x0010;
/// TPMA_OBJECT.
const USER_WITH_AUTH: u32 = 1 << 6;
const SIGN: u32 = 1 << 18;
/// AES, 128 bits, CFB; no scheme; 2048 bits.
const RSA_2048_STORAGE: [u8; 10] = [0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00];
/// The exponent 65537, as the default and in full.
const EXPONENTS: [[u8; 4]; 2] = [[0; 4], [0, 1, 0, 1]];

/// The policy of the TCG's endorsement keys: PolicySecret of the endorsement hierarchy (TCG EK Credential Profile, policy A).
pub(super) const ENDORSEMENT_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06,
    0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
pub(super) const ENDORSEMENT_ATTRIBUTES: u32 = 0x0003_00b2;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
pub(super) const STORAGE_ATTRIBUTES: u32 = 0x0003_0472;
/// The same without noDA, as `tpm2_createprimary` makes it.
const STORAGE_ATTRIBUTES_DA: u32 = 0x0003_0072;

/// The fields of a public area, so far as all types have them.
struct Fields<'a> {
    kind: u16,
    digest: u16,
    attributes: u32,
    policy: &'a [u8],
    /// Parameters and what makes the key unique.
    rest: &'a [u8],
}

impl PublicArea {
    /// Whether it is an endorsement key as DPS wants it: RSA-2048 by the TCG's template L-1, whatever its `unique` was.
    pub fn is_endorsement_key(&self) -> bool {
        self.fields().is_some_and(|fields| {
            fields.attributes == ENDORSEMENT_ATTRIBUTES && fields.policy == ENDORSEMENT_POLICY && fields.modulus().is_some()
        })
    }

    /// Whether it is a storage key that hub keys can be children of: RSA-2048, without a policy.
    pub fn is_storage_key(&self) -> bool {
        self.fields().is_some_and(|fields| {
            [STORAGE_ATTRIBUTES, STORAGE_ATTRIBUTES_DA].contains(&fields.attributes)
                && fields.policy.is_empty()
                && fields.modulus().is_some()
        })
    }

    /// Whether it is a key that signs with HMAC-SHA256 for whoever can open the TPM.
    pub fn is_signing_key(&self) -> bool {
        let scheme = [HMAC.to_be_bytes(), SHA256.to_be_bytes()].concat();
        self.fields().is_some_and(|fields| {
            (fields.kind, fields.digest) == (KEYED_HASH, SHA256)
                && fields.attributes & (SIGN | USER_WITH_AUTH) == SIGN | USER_WITH_AUTH
                && fields.rest.starts_with(&scheme)
        })
    }

    /// The modulus of an RSA-2048 key of the two kinds above, 256 bytes: what its certificate has too.
    pub fn modulus(&self) -> Option<&[u8]> {
        self.fields()?.modulus()
    }

    /// What kind of object it is, for people, such as `an ECC key`.
    pub fn kind(&self) -> &'static str {
        match self.fields().map(|fields| fields.kind) {
            Some(RSA) => "an RSA key",
            Some(KEYED_HASH) => "an HMAC key or sealed data",
            Some(0x0023) => "an ECC key",
            Some(0x0025) => "a symmetric key",
            _ => "an object of unknown type",
        }
    }

    fn fields(&self) -> Option<Fields<'_>> {
        let (kind, rest) = self.bytes().split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (attributes, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (policy, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let [kind, digest] = [kind, digest].map(|number| u16::from_be_bytes(*number));
        Some(Fields { kind, digest, attributes: u32::from_be_bytes(*attributes), policy, rest })
    }
}

impl<'a> Fields<'a> {
    fn modulus(&self) -> Option<&'a [u8]> {
        let rest = self.rest.strip_prefix(&RSA_2048_STORAGE)?;
        let (exponent, unique) = rest.split_first_chunk::<4>()?;
        let modulus = unique.strip_prefix(&[0x01, 0x00])?;
        let is_whole = modulus.len() == 256 && EXPONENTS.contains(exponent);
        ((self.kind, self.digest) == (RSA, SHA256) && is_whole).then_some(modulus)
    }
}

/// The public area of an RSA-2048 decryption key that is yet to be made.
pub(super) fn rsa(attributes: u32, policy: &[u8], unique: &[u8]) -> PublicArea {
    PublicArea::new([&head(RSA, attributes, policy), &RSA_2048_STORAGE[..], &EXPONENTS[0], &sized(unique)].concat())
}

/// The public area of a storage key on P-256 that is yet to be made.
pub(super) fn ecc_storage() -> PublicArea {
    const P256: u16 = 0x0003;
    let [scheme, curve, kdf] = [NULL, P256, NULL].map(u16::to_be_bytes);
    let coordinates = [0; 4];
    PublicArea::new(
        [&head(0x0023, STORAGE_ATTRIBUTES, &[]), &RSA_2048_STORAGE[..6], &scheme, &curve, &kdf, &coordinates].concat(),
    )
}

fn head(kind: u16, attributes: u32, policy: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &SHA256.to_be_bytes(), &attributes.to_be_bytes(), &sized(policy)].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}
