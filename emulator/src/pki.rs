//! A public key infrastructure for tests: authorities, intermediates and leaves, made when they are needed.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use time::{Duration, OffsetDateTime};

/// Why a key or certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate library refused.
    #[error("cannot make the certificate")]
    Certificate(#[from] rcgen::Error),
    /// Key generation failed.
    #[error("cannot make the RSA key")]
    Rsa(#[from] rsa::Error),
    /// It is a key of another kind.
    #[error("the key is not an RSA key")]
    NotRsa,
    /// The key cannot be written in this form.
    #[error("cannot encode the key")]
    Encoding(#[from] rsa::pkcs8::Error),
}

/// The algorithm of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-256.
    EcP256,
    /// RSA with 2048 bits. Takes a good part of a second to generate.
    Rsa2048,
}

/// When a certificate is valid, in days from now: `-1..=1` is from yesterday until tomorrow.
pub type Days = RangeInclusive<i64>;

/// The usual window: it began yesterday and ends in thirty days.
pub const VALID: Days = -1..=30;
/// A window that ended yesterday.
pub const EXPIRED: Days = -30..=-1;
/// A window that begins in a week.
pub const NOT_YET_VALID: Days = 7..=30;

/// A private key.
pub struct Key {
    pair: KeyPair,
    algorithm: Algorithm,
}

impl Key {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, PkiError> {
        let pair = match algorithm {
            Algorithm::EcP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Algorithm::Rsa2048 => {
                let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048)?;
                Self::rsa_pair(key.to_pkcs8_der()?.as_bytes())?
            }
        };
        Ok(Self { pair, algorithm })
    }

    /// Another owner of the same key.
    ///
    /// # Errors
    /// Never in practice.
    pub fn copy(&self) -> Result<Self, PkiError> {
        let der = self.pair.serialize_der();
        let pair = match self.algorithm {
            Algorithm::EcP256 => KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256)?,
            Algorithm::Rsa2048 => Self::rsa_pair(&der)?,
        };
        Ok(Self { pair, algorithm: self.algorithm })
    }

    fn rsa_pair(pkcs8: &[u8]) -> Result<KeyPair, rcgen::Error> {
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_RSA_SHA256)
    }

    /// As PKCS#8, PEM.
    pub fn pkcs8_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// In the older form of its algorithm: SEC1 for EC, PKCS#1 for RSA, PEM.
    ///
    /// # Errors
    /// Never in practice.
    pub fn traditional_pem(&self) -> Result<String, PkiError> {
        let pkcs8 = self.pair.serialize_der();
        match self.algorithm {
            Algorithm::EcP256 => Ok(pem("EC PRIVATE KEY", &sec1(&pkcs8))),
            Algorithm::Rsa2048 => {
                let key = rsa::RsaPrivateKey::from_pkcs8_der(&pkcs8)?;
                let text = key.to_pkcs1_pem(LineEnding::LF).map_err(rsa::pkcs8::Error::from)?;
                Ok(text.to_string())
            }
        }
    }

    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Key({:?})", self.algorithm)
    }
}

/// A certificate authority: a root or an intermediate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    /// The intermediates from this one up to below the root, PEM: what a leaf's chain must carry.
    chain_pem: String,
}

impl Authority {
    /// A root with this common name, valid for [`VALID`].
    ///
    /// # Errors
    /// When the generator fails.
    pub fn root(common_name: &str, algorithm: Algorithm) -> Result<Self, PkiError> {
        Self::root_with(common_name, Key::generate(algorithm)?)
    }

    /// A root with a key that is there already.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn root_with(common_name: &str, key: Key) -> Result<Self, PkiError> {
        let params = authority(common_name)?;
        let certificate_pem = params.self_signed(&key.pair)?.pem();
        Ok(Self { issuer: Issuer::new(params, key.pair), certificate_pem, chain_pem: String::new() })
    }

    /// An authority that is there already: its certificate and private key, PEM.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    pub fn read(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), chain_pem: String::new() })
    }

    /// An intermediate below this authority.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn intermediate(&self, common_name: &str, algorithm: Algorithm) -> Result<Self, PkiError> {
        let key = Key::generate(algorithm)?;
        let params = authority(common_name)?;
        let certificate_pem = params.signed_by(&key.pair, &self.issuer)?.pem();
        let chain_pem = format!("{certificate_pem}{}", self.chain_pem);
        Ok(Self { issuer: Issuer::new(params, key.pair), certificate_pem, chain_pem })
    }

    /// A device's certificate with a new key.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn leaf(&self, common_name: &str, algorithm: Algorithm, days: Days) -> Result<Leaf, PkiError> {
        let key = Key::generate(algorithm)?;
        let mut params = named(common_name, days)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key.pair, &self.issuer)?;
        Ok(Leaf { certificate_pem: certificate.pem(), chain_pem: format!("{}{}", certificate.pem(), self.chain_pem), key })
    }

    /// A server's certificate for `key` and these host names or addresses; returns the chain, leaf first, PEM.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server(&self, key: &Key, names: &[String], days: Days) -> Result<String, PkiError> {
        let mut params = named(names.first().map_or("server", String::as_str), days)?;
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let certificate = params.signed_by(&key.pair, &self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.chain_pem))
    }

    /// The authority's own certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Authority")
    }
}

/// A device's certificate and key.
#[derive(Debug)]
pub struct Leaf {
    /// The leaf alone, PEM.
    pub certificate_pem: String,
    /// The leaf and the intermediates above it, PEM, without the root.
    pub chain_pem: String,
    /// The private key.
    pub key: Key,
}

impl Leaf {
    /// A certificate that nobody but itself issued.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn self_signed(common_name: &str, algorithm: Algorithm, days: Days) -> Result<Self, PkiError> {
        let key = Key::generate(algorithm)?;
        let mut params = named(common_name, days)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let pem = params.self_signed(&key.pair)?.pem();
        Ok(Self { certificate_pem: pem.clone(), chain_pem: pem, key })
    }
}

fn named(common_name: &str, days: Days) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now + Duration::days(*days.start());
    params.not_after = now + Duration::days(*days.end());
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority(common_name: &str) -> Result<CertificateParams, PkiError> {
    let mut params = named(common_name, VALID)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    Ok(params)
}

fn alternative(name: &str) -> Result<SanType, PkiError> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

/// SEC1 (RFC 5915) out of the PKCS#8 that `ring` writes for P-256, whose fields stand at fixed places.
fn sec1(pkcs8: &[u8]) -> Vec<u8> {
    let (private, public) = (&pkcs8[36..68], &pkcs8[73..138]);
    let mut der = vec![0x30, 0x77, 2, 1, 1, 4, 32];
    der.extend(private);
    der.extend([0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 0xa1, 0x44, 3, 0x42, 0]);
    der.extend(public);
    der
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
