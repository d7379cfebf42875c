//! What a public area says of its key (TPM 2.0 Part 2, TPMT_PUBLIC), read from its bytes.

use super::memory::PublicArea;

pub(super) const RSA: u16 = 0x0001;
const KEYED_HASH: u16 = 0x0008;
pub(super) const ECC: u16 = 0x0023;
const SYMMETRIC: u16 = 0x0025;
pub(super) const SHA256: u16 = 0x000b;
const HMAC: u16 = 0x0005;
/// TPMA_OBJECT.
const USER_WITH_AUTH: u32 = 1 << 6;
const SIGN: u32 = 1 << 18;
/// AES, 128 bits, CFB; no scheme; 2048 bits.
pub(super) const RSA_2048_STORAGE: [u8; 10] = [0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00];
/// The exponent 65537, as the default and in full.
pub(super) const EXPONENTS: [[u8; 4]; 2] = [[0; 4], [0, 1, 0, 1]];

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
            Some(ECC) => "an ECC key",
            Some(SYMMETRIC) => "a symmetric key",
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

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn published(text: impl Fn(&serde_json::Value) -> &serde_json::Value) -> PublicArea {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap();
        serde_json::from_value(text(&vectors["tpm"]).clone()).unwrap()
    }

    fn keys() -> [PublicArea; 3] {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap();
        let blob = STANDARD.decode(vectors["tpm"]["activation_blob_static"]["authenticationKey_b64"].as_str().unwrap()).unwrap();
        let ek = published(|tpm| &tpm["activation_blob_static"]["ek_tpm2b_public_b64"]);
        let srk = published(|tpm| &tpm["activation_blob_static"]["srk_tpm2b_public_b64"]);
        // The fifth part, behind 54, 258, 144 and 258 bytes.
        [ek, srk, PublicArea::new(blob[716..764].to_vec())]
    }

    #[test]
    fn published_keys_are_what_they_are() {
        let kinds = |key: &PublicArea| (key.is_endorsement_key(), key.is_storage_key(), key.is_signing_key(), key.kind());
        let [ek, srk, hub_key] = keys();
        assert_eq!(kinds(&ek), (true, false, false, "an RSA key"));
        assert_eq!(kinds(&srk), (false, true, false, "an RSA key"));
        assert_eq!(kinds(&hub_key), (false, false, true, "an HMAC key or sealed data"));
        for number in 0..2 {
            assert!(published(|tpm| &tpm["registration_ids"][number]["ek_tpm2b_public_b64"]).is_endorsement_key());
        }
        assert_eq!(kinds(&PublicArea::new(vec![])), (false, false, false, "an object of unknown type"));
    }

    #[test]
    fn a_changed_or_cut_public_area_is_none_of_them() {
        let [ek, srk, hub_key] = keys();
        let is_any = |bytes: &[u8]| {
            let key = PublicArea::new(bytes.to_vec());
            key.is_endorsement_key() || key.is_storage_key() || key.is_signing_key()
        };
        // Up to what makes the key unique, and to the end: every length.
        for (key, head) in [(&ek, 58), (&srk, 26)] {
            for at in 0..head {
                let mut changed = key.bytes().to_vec();
                changed[at] ^= 0x80;
                assert!(!is_any(&changed), "{at}");
            }
            (0..key.bytes().len()).for_each(|end| assert!(!is_any(&key.bytes()[..end]), "{end}"));
        }
        for at in [0, 1, 2, 3, 5, 7, 10, 11, 12, 13] {
            let mut changed = hub_key.bytes().to_vec();
            changed[at] ^= 0x44;
            assert!(!is_any(&changed), "{at}");
        }
    }

    #[test]
    fn a_modulus_is_the_end_of_its_public_area() {
        let [ek, srk, hub_key] = keys();
        assert_eq!(ek.modulus(), Some(&ek.bytes()[58..]));
        assert_eq!(srk.modulus(), Some(&srk.bytes()[26..]));
        assert_eq!(hub_key.modulus(), None);
        assert_eq!(ek.modulus().map(<[u8]>::len), Some(256));
    }
}
