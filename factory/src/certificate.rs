//! What of a device's certificate, or of one for an endorsement key, has to be right before it is enrolled.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, SliceReader};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// An X.509 certificate, read and not verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Understands base64 of DER, or PEM. The error follows the words "certificate: ".
    pub fn parse(text: &str) -> Result<Self, String> {
        let der = if text.trim_start().starts_with("-----") {
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| format!("its PEM is damaged ({error})"))?.to_vec()
        } else {
            STANDARD.decode(text.trim()).map_err(|_| "it is neither PEM nor base64 of DER".to_owned())?
        };
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|error| format!("it is no X.509 certificate ({error})"))?;
        Ok(Self { der, parsed })
    }

    /// The only common name of its subject: for the service that is the registration ID.
    pub fn common_name(&self) -> Result<&str, String> {
        let subject = &self.parsed.tbs_certificate.subject;
        let mut names = subject.0.iter().flat_map(|rdn| rdn.0.iter()).filter(|attribute| attribute.oid == COMMON_NAME);
        match (names.next(), names.next()) {
            (Some(name), None) => std::str::from_utf8(name.value.value()).map_err(|_| "its common name is not UTF-8".to_owned()),
            (None, _) => Err(format!("its subject ({subject}) has no common name, and the service knows a device by that")),
            (Some(_), Some(_)) => Err(format!("its subject ({subject}) has more than one common name")),
        }
    }

    /// Its last second, in seconds since 1970.
    pub fn not_after(&self) -> u64 {
        self.parsed.tbs_certificate.validity.not_after.to_unix_duration().as_secs()
    }

    /// Its last second, as RFC 3339 writes it.
    pub fn not_after_text(&self) -> String {
        self.parsed.tbs_certificate.validity.not_after.to_date_time().to_string()
    }

    /// SHA-256 in upper-case hexadecimal digits, as the service and the portal show it.
    pub fn sha256(&self) -> String {
        digest(&SHA256, &self.der).as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// Base64 of DER on one line, as an enrollment holds it.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.der)
    }

    /// The modulus of its key without leading zeros, if that is an RSA key.
    pub fn modulus(&self) -> Option<Vec<u8>> {
        let key = self.parsed.tbs_certificate.subject_public_key_info.subject_public_key.as_bytes()?;
        let mut reader = SliceReader::new(key).ok()?;
        let read = reader.sequence(|fields| {
            let modulus = fields.decode::<UintRef<'_>>()?.as_bytes().to_vec();
            fields.decode::<UintRef<'_>>()?;
            Ok(modulus)
        });
        read.ok()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A self-signed certificate for this common name, valid until that year.
    pub fn made(common_name: &str, until: i32) -> String {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        STANDARD.encode(parameters.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_certificate_says_its_name_and_end() {
        let certificate = Certificate::parse(&made("gw-0001", 2021)).unwrap();
        assert_eq!(certificate.common_name(), Ok("gw-0001"));
        assert_eq!((certificate.not_after(), certificate.not_after_text()), (1_609_459_200, "2021-01-01T00:00:00Z".to_owned()));
        assert_eq!(certificate.modulus(), None, "it is an ECDSA key");
        assert_eq!(certificate.sha256().len(), 64);
    }

    #[test]
    fn pem_and_base64_are_the_same_certificate() {
        let text = made("gw-0001", 2030);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        assert_eq!(Certificate::parse(&pem), Certificate::parse(&text));
        assert_eq!(Certificate::parse("AA==").unwrap_err().split(" (").next(), Some("it is no X.509 certificate"));
        assert_eq!(Certificate::parse("%").unwrap_err(), "it is neither PEM nor base64 of DER");
    }

    #[test]
    fn the_modulus_is_that_of_the_key() {
        let pem = include_str!("../../tests/data/endorsement-certificate.pem");
        let certificate = Certificate::parse(pem).unwrap();
        assert_eq!(certificate.modulus().map(|modulus| modulus.len()), Some(256));
    }
}
