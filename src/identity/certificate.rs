//! What a certificate says: whose it is, when it is valid, which key it is for, and the thumbprints by which people know it.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, SliceReader};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// When a certificate is valid, in seconds since 1970, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: u64,
    /// The last second.
    pub until: u64,
}

/// An X.509 certificate, read and not verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// The first certificate of a PEM file. Errors are words about the file that do not name it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| error.to_string())?;
        let leaf = CertificateDer::pem_slice_iter(&text).next().ok_or("it has no CERTIFICATE section")?;
        let leaf = leaf.map_err(|error| format!("its PEM is damaged ({error})"))?;
        Self::parse(&leaf).map_err(|error| format!("its first certificate is damaged ({error})"))
    }

    /// Understands DER. What follows it is left out: the memory of a TPM may be larger than the certificate in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read = || {
            let mut reader = SliceReader::new(bytes)?;
            let parsed = x509_cert::Certificate::decode(&mut reader)?;
            Ok((parsed, usize::try_from(reader.position())?))
        };
        let (parsed, length) = read().map_err(|error: x509_cert::der::Error| error.to_string())?;
        Ok(Self { der: bytes.get(..length).unwrap_or_default().to_vec(), parsed })
    }

    /// The subject's only common name: for DPS it is the registration ID. Errors are words about the file that do not name it.
    pub fn common_name(&self) -> Result<&str, String> {
        let subject = &self.parsed.tbs_certificate.subject;
        let mut names = subject.0.iter().flat_map(|rdn| rdn.0.iter()).filter(|attribute| attribute.oid == COMMON_NAME);
        match (names.next(), names.next()) {
            (Some(name), None) => std::str::from_utf8(name.value.value()).map_err(|_| "its common name is not UTF-8".to_owned()),
            (None, _) => Err(format!(
                "the subject of its first certificate ({subject}) has no common name, and DPS knows a device by that"
            )),
            (Some(_), Some(_)) => Err(format!("the subject of its first certificate ({subject}) has more than one common name")),
        }
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        let validity = &self.parsed.tbs_certificate.validity;
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        Validity { from: seconds(validity.not_before), until: seconds(validity.not_after) }
    }

    /// The subject, as RFC 4514 writes it; empty in many certificates of TPMs.
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate.subject.to_string()
    }

    /// The issuer, as RFC 4514 writes it.
    pub fn issuer(&self) -> String {
        self.parsed.tbs_certificate.issuer.to_string()
    }

    /// SHA-1 in upper-case hexadecimal digits, as the portal shows it.
    pub fn sha1(&self) -> String {
        hexadecimal(&Sha1::digest(&self.der))
    }

    /// SHA-256 in upper-case hexadecimal digits, as the portal shows it.
    pub fn sha256(&self) -> String {
        hexadecimal(&Sha256::digest(&self.der))
    }

    /// Base64 of DER, on one line: what stands between the lines of PEM.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.der)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
