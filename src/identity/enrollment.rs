//! What an operator needs to enroll this device: as words, as JSON, and as a line of a table.

use std::fmt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Certificate, of_endorsement_key};
use crate::config::Encoding;
use crate::id::RegistrationId;
use crate::record::rfc3339;
use crate::tpm::{Identification, Keys, PublicArea};

/// The columns of [`Enrollment::csv_line`]. New ones come last.
pub const CSV_HEADER: &str =
    "registrationId,attestation,endorsementKey,storageRootKey,sha1Thumbprint,sha256Thumbprint,certificate";

/// A device as DPS has to know it. There is no secret in it.
#[derive(Debug, Clone)]
pub struct Enrollment {
    /// Under which name.
    pub registration_id: RegistrationId,
    /// By what.
    pub credential: Credential,
}

/// What the enrollment has to hold.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A symmetric key, which is not shown: DPS has made it, or a factory has derived it.
    SymmetricKey {
        /// Tells this key from another one and nothing else.
        fingerprint: String,
        /// Whether there is a second key.
        second: bool,
    },
    /// A client certificate.
    X509 {
        /// Where it is.
        file: PathBuf,
        /// The leaf.
        certificate: Box<Certificate>,
    },
    /// A TPM.
    Tpm(Box<Identification>),
}

/// The line of [`CSV_HEADER`] that enrolls a TPM with these keys.
pub fn enrollment_line(registration_id: &RegistrationId, keys: &Keys) -> String {
    let (endorsement_key, storage_root_key) = (keys.endorsement_key.text(), keys.storage_key.public.text());
    // Nothing in it needs quotes: an ID has no comma, and base64 neither.
    format!("{registration_id},tpm,{endorsement_key},{storage_root_key},,,")
}

impl Enrollment {
    /// One line with the columns of [`CSV_HEADER`]; those that this method has not are empty.
    pub fn csv_line(&self) -> String {
        let id = &self.registration_id;
        match &self.credential {
            Credential::SymmetricKey { .. } => format!("{id},symmetric-key,,,,,"),
            Credential::X509 { certificate, .. } => {
                format!("{id},x509,,,{},{},{}", certificate.sha1(), certificate.sha256(), certificate.base64())
            }
            Credential::Tpm(tpm) => enrollment_line(id, &tpm.keys),
        }
    }

    /// `{"registrationId", "attestation", "symmetricKey", "x509", "tpm"}`, of which the last three are null but one.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "registrationId": self.registration_id.as_str(), "attestation": self.method(),
            "symmetricKey": null, "x509": null, "tpm": null,
        });
        let (member, value) = match &self.credential {
            Credential::SymmetricKey { fingerprint, second } => {
                ("symmetricKey", json!({ "fingerprint": fingerprint, "secondKey": second }))
            }
            Credential::X509 { file, certificate } => {
                let mut shown = certificate_json(certificate);
                shown["file"] = json!(file.display().to_string());
                shown["commonName"] = json!(certificate.common_name().ok());
                ("x509", shown)
            }
            Credential::Tpm(tpm) => ("tpm", tpm_json(tpm)),
        };
        object[member] = value;
        object
    }

    fn method(&self) -> &'static str {
        match self.credential {
            Credential::SymmetricKey { .. } => "symmetric-key",
            Credential::X509 { .. } => "x509",
            Credential::Tpm(_) => "tpm",
        }
    }
}

/// A line for each thing, the longest last.
impl fmt::Display for Enrollment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "registration ID", &self.registration_id)?;
        line(f, "attestation", &self.method())?;
        match &self.credential {
            Credential::SymmetricKey { fingerprint, second } => {
                let keys = if *second { "two keys are there and not shown" } else { "the key is there and not shown" };
                line(f, "key", &keys)?;
                line(f, "fingerprint", fingerprint)
            }
            Credential::X509 { file, certificate } => {
                line(f, "certificate", &file.display())?;
                line(f, "common name", &certificate.common_name().unwrap_or_default())?;
                in_words(f, certificate)?;
                line(f, "SHA-1", &certificate.sha1())?;
                line(f, "SHA-256", &certificate.sha256())
            }
            Credential::Tpm(tpm) => tpm_in_words(f, tpm),
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display) -> fmt::Result {
    writeln!(f, "{name:22} {value}")
}

fn in_words(f: &mut fmt::Formatter<'_>, certificate: &Certificate) -> fmt::Result {
    let validity = certificate.validity();
    line(f, "  subject", &or_empty(certificate.subject()))?;
    line(f, "  issuer", &or_empty(certificate.issuer()))?;
    line(f, "  valid", &format_args!("{} to {}", rfc3339(validity.from), rfc3339(validity.until)))
}

/// A name may be empty, and what follows a label must not be.
fn or_empty(text: String) -> String {
    if text.is_empty() { "(empty)".to_owned() } else { text.chars().filter(|c| !c.is_control()).collect() }
}

fn tpm_in_words(f: &mut fmt::Formatter<'_>, tpm: &Identification) -> fmt::Result {
    let key = &tpm.keys.endorsement_key;
    line(f, "TPM", &or_empty(tpm.vendor.trim().to_owned()))?;
    line(f, "ID of the key, hex", &of_endorsement_key(key, Encoding::Hex))?;
    line(f, "ID of the key, base32", &of_endorsement_key(key, Encoding::Base32))?;
    let template = if tpm.template_from_nv { "the manufacturer's, from the TPM's memory" } else { "the TCG's" };
    line(f, "EK template", &template)?;
    match tpm.certificate.as_deref().map(Certificate::parse) {
        None => line(f, "EK certificate", &"none in the TPM")?,
        Some(Err(error)) => line(f, "EK certificate", &format_args!("not understood ({error})"))?,
        Some(Ok(certificate)) => {
            line(f, "EK certificate", &whose(tpm))?;
            in_words(f, &certificate)?;
        }
    }
    line(f, "SRK", &kept(tpm.keys.storage_key.handle))?;
    line(f, "endorsement key", &key.text())?;
    line(f, "storage root key", &tpm.keys.storage_key.public.text())?;
    tpm.certified_key.iter().try_for_each(|key| line(f, "certified key", &key.text()))
}

fn whose(tpm: &Identification) -> &'static str {
    match (tpm.is_certified(), &tpm.certified_key) {
        (true, _) => "of this endorsement key",
        (false, Some(_)) => "of ANOTHER endorsement key of this TPM, the certified key below",
        (false, None) => "of ANOTHER key, which this TPM does not make",
    }
}

fn kept(handle: Option<u32>) -> String {
    handle.map_or_else(|| "made anew for each use".to_owned(), |handle| format!("kept at {handle:#010x}"))
}

fn tpm_json(tpm: &Identification) -> Value {
    let key = &tpm.keys.endorsement_key;
    let storage_key = &tpm.keys.storage_key;
    let certificate = tpm.certificate.as_deref().map(|der| {
        let (mut shown, error) = match Certificate::parse(der) {
            Ok(certificate) => (certificate_json(&certificate), None),
            Err(error) => (json!({ "certificate": STANDARD.encode(der) }), Some(error)),
        };
        shown["matches"] = json!(tpm.is_certified());
        shown["error"] = json!(error);
        shown
    });
    json!({
        "endorsementKey": key.text(),
        "storageRootKey": storage_key.public.text(),
        "storageRootKeyHandle": storage_key.handle.map(|handle| format!("{handle:#010x}")),
        "idHex": of_endorsement_key(key, Encoding::Hex),
        "idBase32": of_endorsement_key(key, Encoding::Base32),
        "endorsementCertificate": certificate,
        "certifiedKey": tpm.certified_key.as_ref().map(PublicArea::text),
        "templateFromNv": tpm.template_from_nv,
        "vendor": tpm.vendor.trim(),
    })
}

fn certificate_json(certificate: &Certificate) -> Value {
    let validity = certificate.validity();
    json!({
        "subject": certificate.subject(),
        "issuer": certificate.issuer(),
        "notBefore": rfc3339(validity.from),
        "notAfter": rfc3339(validity.until),
        "sha1Thumbprint": certificate.sha1(),
        "sha256Thumbprint": certificate.sha256(),
        "certificate": certificate.base64(),
    })
}
