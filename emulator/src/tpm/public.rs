//! Public areas as clients send them (TPM 2.0 Part 2, TPM2B_PUBLIC): read, checked, and named.

use super::crypto::sha256;
use rsa::{BigUint, RsaPublicKey};

const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
pub(super) const ALG_SHA256: u16 = 0x000b;
const ALG_NULL: u16 = 0x0010;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
/// TPMA_OBJECT.
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
/// Exponent 0 stands for this one.
const USUAL_EXPONENT: u32 = 65_537;
/// RSA-2048.
const MODULUS_BYTES: usize = 256;

/// What is wrong with a public area.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongPublic {
    #[error("it is not base64")]
    Base64,
    #[error("it ends in the middle of a field")]
    Short,
    #[error("it goes on after its end")]
    Long,
    #[error("it is an ECC key; only RSA-2048 is known here")]
    Ecc,
    #[error("type 0x{0:04x} is not RSA (0x0001)")]
    Type(u16),
    #[error("name algorithm 0x{0:04x} is not SHA-256 (0x000b)")]
    NameAlgorithm(u16),
    #[error("attributes 0x{0:08x} are not those of a restricted decryption key")]
    Attributes(u32),
    #[error("its symmetric algorithm is not AES-128-CFB")]
    Symmetric,
    #[error("its scheme 0x{0:04x} is not NULL (0x0010)")]
    Scheme(u16),
    #[error("it has {0} bits, not 2048")]
    Bits(u16),
    #[error("its modulus or exponent is that of no RSA-2048 key")]
    Modulus,
}

/// An RSA-2048 storage key: the EK that a credential is made for, or the SRK that a key is duplicated to.
#[derive(Debug, Clone)]
pub(crate) struct ParentKey {
    /// TPMT_PUBLIC.
    public: Vec<u8>,
    attributes: u32,
    rsa: RsaPublicKey,
}

impl PartialEq for ParentKey {
    /// The whole public area counts, not the modulus alone.
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl ParentKey {
    /// Reads a TPM2B_PUBLIC, exactly to its end.
    pub(crate) fn parse(tpm2b: &[u8]) -> Result<Self, WrongPublic> {
        let mut outer = Reader(tpm2b);
        let public = outer.sized()?;
        outer.end()?;
        let mut reader = Reader(public);
        match reader.u16()? {
            ALG_RSA => {}
            ALG_ECC => return Err(WrongPublic::Ecc),
            other => return Err(WrongPublic::Type(other)),
        }
        let name_algorithm = reader.u16()?;
        if name_algorithm != ALG_SHA256 {
            return Err(WrongPublic::NameAlgorithm(name_algorithm));
        }
        let attributes = reader.u32()?;
        reader.sized()?; // authPolicy
        let rsa = reader.rsa()?;
        reader.end()?;
        Ok(Self { public: public.to_vec(), attributes, rsa })
    }

    /// The TPM2B_PUBLIC that it was read from.
    pub(crate) fn to_tpm2b(&self) -> Vec<u8> {
        sized(&self.public)
    }

    /// Itself, if its attributes say that it wraps other keys and does nothing else.
    pub(crate) fn restricted(self) -> Result<Self, WrongPublic> {
        let expected = self.attributes & (RESTRICTED | DECRYPT | SIGN) == RESTRICTED | DECRYPT;
        if expected { Ok(self) } else { Err(WrongPublic::Attributes(self.attributes)) }
    }

    /// A key that no TPM has: the same public area around another modulus.
    pub(crate) fn of_another_tpm(&self, random: [u8; MODULUS_BYTES]) -> Result<Self, WrongPublic> {
        let mut modulus = random;
        modulus[0] |= 0x80;
        modulus[MODULUS_BYTES - 1] |= 1;
        let start = self.public.len() - MODULUS_BYTES;
        let public = [&self.public[..start], &modulus].concat();
        let rsa = key(&modulus, USUAL_EXPONENT)?;
        Ok(Self { public, attributes: self.attributes, rsa })
    }

    /// TPM2B_NAME without its length: the name algorithm and the digest of the public area.
    pub(crate) fn name(&self) -> Vec<u8> {
        name(&self.public)
    }

    pub(super) fn rsa(&self) -> &RsaPublicKey {
        &self.rsa
    }
}

/// The name of an object with this TPMT_PUBLIC.
pub(super) fn name(public: &[u8]) -> Vec<u8> {
    [ALG_SHA256.to_be_bytes().as_slice(), &sha256(&[public])].concat()
}

/// `bytes` behind their length: a TPM2B structure.
pub(super) fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [length.to_be_bytes().as_slice(), bytes].concat()
}

fn key(modulus: &[u8], exponent: u32) -> Result<RsaPublicKey, WrongPublic> {
    let top_bit = modulus.first().is_some_and(|first| first & 0x80 != 0);
    if modulus.len() != MODULUS_BYTES || !top_bit {
        return Err(WrongPublic::Modulus);
    }
    RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(exponent)).map_err(|_| WrongPublic::Modulus)
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WrongPublic> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WrongPublic::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, WrongPublic> {
        let bytes = self.take(2)?.try_into().map_err(|_| WrongPublic::Short)?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, WrongPublic> {
        let bytes = self.take(4)?.try_into().map_err(|_| WrongPublic::Short)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn sized(&mut self) -> Result<&'a [u8], WrongPublic> {
        let count = self.u16()?;
        self.take(count.into())
    }

    fn end(&self) -> Result<(), WrongPublic> {
        if self.0.is_empty() { Ok(()) } else { Err(WrongPublic::Long) }
    }

    /// TPMS_RSA_PARMS and the modulus.
    fn rsa(&mut self) -> Result<RsaPublicKey, WrongPublic> {
        if self.u16()? != ALG_AES || self.u16()? != 128 || self.u16()? != ALG_CFB {
            return Err(WrongPublic::Symmetric);
        }
        let scheme = self.u16()?;
        if scheme != ALG_NULL {
            return Err(WrongPublic::Scheme(scheme));
        }
        let bits = self.u16()?;
        if bits != 2048 {
            return Err(WrongPublic::Bits(bits));
        }
        let exponent = match self.u32()? {
            0 => USUAL_EXPONENT,
            other => other,
        };
        key(self.sized()?, exponent)
    }
}
