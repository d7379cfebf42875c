//! A TPM's endorsement key as the service has to have it: a whole TPM2B_PUBLIC (TPM 2.0 Part 2), and one that is an endorsement key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// TPM_ALG_RSA with TPM_ALG_SHA256 as the algorithm of the name.
const RSA_SHA256: [u8; 4] = [0x00, 0x01, 0x00, 0x0b];
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt (TCG EK Credential Profile, template L-1).
const ATTRIBUTES: [u8; 4] = [0x00, 0x03, 0x00, 0xb2];
/// PolicySecret of the endorsement hierarchy (the same profile, policy A).
const POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06,
    0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// AES-128 in CFB, no scheme, 2048 bits.
const PARAMETERS: [u8; 10] = [0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00];

/// The public part of an RSA-2048 endorsement key by the TCG's template L-1, whatever was in its field `unique` before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementKey {
    text: String,
    modulus: Vec<u8>,
}

impl EndorsementKey {
    /// Reads base64 of a TPM2B_PUBLIC. The error says what it is instead, and follows the words "endorsement key: ".
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).map_err(|_| "it is not base64".to_owned())?;
        let (size, public) = bytes.split_first_chunk::<2>().ok_or("it is too short")?;
        if usize::from(u16::from_be_bytes(*size)) != public.len() {
            let cure = "it is not a whole TPM2B_PUBLIC: its first two bytes are not the length of the rest";
            return Err(if public.len() > 200 {
                format!("{cure}; take what dps-agent identity prints, or tpm2_createek -u")
            } else {
                cure.to_owned()
            });
        }
        let modulus = modulus(public)?.to_vec();
        Ok(Self { text: STANDARD.encode(&bytes), modulus })
    }

    /// Base64, as the enrollment holds it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The RSA modulus, 256 bytes: what the key's certificate has too.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }
}

/// The field behind what every endorsement key has in common.
fn expect<T>(found: Option<T>, otherwise: &str) -> Result<T, String> {
    found.ok_or_else(|| otherwise.to_owned())
}

fn modulus(public: &[u8]) -> Result<&[u8], String> {
    let rest = expect(public.strip_prefix(&RSA_SHA256), "it is no RSA key with SHA-256, and the service takes no other")?;
    let rest =
        expect(rest.strip_prefix(&ATTRIBUTES), "its attributes are not those of an endorsement key (is it a storage key?)")?;
    let rest = expect(rest.strip_prefix(&[0x00, 0x20]), "it has no policy, as an endorsement key does")?;
    let rest = expect(rest.strip_prefix(&POLICY), "its policy is not the one of endorsement keys")?;
    let rest = expect(rest.strip_prefix(&PARAMETERS), "its parameters are not RSA-2048 with AES-128")?;
    let (exponent, unique) = expect(rest.split_first_chunk::<4>(), "it ends early")?;
    if ![[0, 0, 0, 0], [0, 1, 0, 1]].contains(exponent) {
        return Err("its exponent is not 65537".to_owned());
    }
    let modulus = expect(unique.strip_prefix(&[0x01, 0x00]), "its modulus has not 256 bytes")?;
    if modulus.len() != 256 || modulus.first().is_none_or(|first| first & 0x80 == 0) {
        return Err("its modulus is not one of 2048 bits".to_owned());
    }
    Ok(modulus)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An endorsement key whose modulus is made of one byte.
    pub fn made(byte: u8) -> String {
        of(&[byte; 256])
    }

    /// An endorsement key with this modulus.
    pub fn of(modulus: &[u8]) -> String {
        let public =
            [&RSA_SHA256[..], &ATTRIBUTES, &[0x00, 0x20], &POLICY, &PARAMETERS, &[0; 4], &[0x01, 0x00], modulus].concat();
        STANDARD.encode([&u16::try_from(public.len()).unwrap().to_be_bytes()[..], &public].concat())
    }

    #[test]
    fn an_endorsement_key_is_taken_as_it_is() {
        let key = EndorsementKey::parse(&made(0xc5)).unwrap();
        assert_eq!(key.text(), made(0xc5));
        assert_eq!(key.modulus(), [0xc5; 256]);
        assert_eq!(STANDARD.decode(key.text()).unwrap().len(), 316, "DPS service API §3.2");
    }

    #[test]
    fn what_is_no_endorsement_key_is_named() {
        let bytes = STANDARD.decode(made(0xc5)).unwrap();
        let changed = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            EndorsementKey::parse(&STANDARD.encode(bytes)).unwrap_err()
        };
        assert_eq!(EndorsementKey::parse("no!").unwrap_err(), "it is not base64");
        assert_eq!(EndorsementKey::parse("AA==").unwrap_err(), "it is too short");
        assert!(EndorsementKey::parse(&STANDARD.encode(&bytes[2..])).unwrap_err().starts_with("it is not a whole TPM2B_PUBLIC"));
        assert_eq!(changed(3, 0x23), "it is no RSA key with SHA-256, and the service takes no other");
        assert_eq!(changed(8, 0x04), "its attributes are not those of an endorsement key (is it a storage key?)");
        assert_eq!(changed(20, 0), "its policy is not the one of endorsement keys");
        assert_eq!(changed(45, 0), "its parameters are not RSA-2048 with AES-128");
        assert_eq!(changed(56, 9), "its exponent is not 65537");
        assert_eq!(changed(60, 0), "its modulus is not one of 2048 bits");
    }
}
