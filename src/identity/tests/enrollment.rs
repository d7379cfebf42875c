//! What an operator is told: each method as words, JSON and a line of CSV, and what a certificate is said to be for.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_cert::der::{Decode, Encode};

use crate::identity::{CSV_HEADER, Certificate, Credential, Enrollment, enrollment_line};
use crate::tpm::{Identification, Keys, StorageKey};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
const DEVICE: &str = "device-certificate.pem";
const ENDORSEMENT: &str = "endorsement-certificate.pem";

fn read(name: &str) -> Certificate {
    Certificate::read(&Path::new(DATA).join(name)).unwrap()
}

fn der(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(Path::new(DATA).join(name)).unwrap().to_vec()
}

fn vector(name: &str) -> Value {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/data/test-vectors.json")).unwrap();
    vectors["tpm"]["activation_blob_static"][name].clone()
}

/// The TPM of the vectors, whose endorsement key the certificate is for.
fn tpm() -> Identification {
    let public = |name: &str| serde_json::from_value(vector(name)).unwrap();
    let storage_key = StorageKey { public: public("srk_tpm2b_public_b64"), handle: Some(0x8100_0001) };
    Identification {
        keys: Keys { endorsement_key: public("ek_tpm2b_public_b64"), storage_key },
        certificate: Some(der(ENDORSEMENT)),
        certified_key: None,
        template_from_nv: false,
        vendor: "IBM  SW   TPM 1.2.0.0".to_owned(),
    }
}

fn enrollment(credential: Credential) -> Enrollment {
    Enrollment { registration_id: "gw-0001".parse().unwrap(), credential }
}

fn of_tpm(tpm: Identification) -> Enrollment {
    enrollment(Credential::Tpm(Box::new(tpm)))
}

fn of_certificate() -> Enrollment {
    enrollment(Credential::X509 { file: "/c.pem".into(), certificate: Box::new(read(DEVICE)) })
}

fn of_key(second: bool) -> Enrollment {
    enrollment(Credential::SymmetricKey { fingerprint: "symmetric-key:0011223344556677".to_owned(), second })
}

const SHA1: &str = "F5CAE25A6D41F4904D9F089A1CD83E2C4019C49F";
const SHA256: &str = "3A637B88EC2884D6E84627767E7391D7B3877F87E8CBC354FDF298A424EB8909";

#[test]
fn a_symmetric_key_is_there_and_not_shown() {
    assert_eq!(
        of_key(false).to_string(),
        "registration ID        gw-0001\nattestation            symmetric-key\nkey                    the key is there and not shown\nfingerprint            symmetric-key:0011223344556677\n"
    );
    assert!(of_key(true).to_string().contains("two keys are there and not shown"));
    let expected = json!({
        "registrationId": "gw-0001", "attestation": "symmetric-key", "x509": null, "tpm": null,
        "symmetricKey": { "fingerprint": "symmetric-key:0011223344556677", "secondKey": true },
    });
    assert_eq!(of_key(true).to_json(), expected);
}

#[test]
fn a_certificate_is_told_as_the_portal_shows_it() {
    assert_eq!(
        of_certificate().to_string(),
        format!(
            "registration ID        gw-0001\nattestation            x509\ncertificate            /c.pem\ncommon name            gw-0001\n  subject              CN=gw-0001\n  issuer               CN=gw-0001\n  valid                2026-11-24T00:25:33Z to 2036-11-21T00:25:33Z\nSHA-1                  {SHA1}\nSHA-256                {SHA256}\n"
        )
    );
    let base64 = read(DEVICE).base64();
    let expected = json!({
        "file": "/c.pem", "commonName": "gw-0001", "subject": "CN=gw-0001", "issuer": "CN=gw-0001",
        "notBefore": "2026-11-24T00:25:33Z", "notAfter": "2036-11-21T00:25:33Z",
        "sha1Thumbprint": SHA1, "sha256Thumbprint": SHA256, "certificate": base64,
    });
    assert_eq!(of_certificate().to_json()["x509"], expected);
    let pem = std::fs::read_to_string(Path::new(DATA).join(DEVICE)).unwrap();
    let between: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(base64, between);
}

#[test]
fn a_tpm_is_told_with_its_keys_ids_and_certificate() {
    let (ek, srk, ids) = (vector("ek_tpm2b_public_b64"), vector("srk_tpm2b_public_b64"), vector("registration_ids"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let expected = [
        "registration ID        gw-0001".to_owned(),
        "attestation            tpm".to_owned(),
        "TPM                    IBM  SW   TPM 1.2.0.0".to_owned(),
        format!("ID of the key, hex     {}", text(&ids["sha256_hex"])),
        format!("ID of the key, base32  {}", text(&ids["base32_lower_nopad"])),
        "EK template            the TCG's".to_owned(),
        "EK certificate         of this endorsement key".to_owned(),
        "  subject              (empty)".to_owned(),
        "  issuer               CN=Example TPM CA,O=Example".to_owned(),
        "  valid                2026-01-01T00:00:00Z to 9999-12-31T23:59:59Z".to_owned(),
        "SRK                    kept at 0x81000001".to_owned(),
        format!("endorsement key        {}", text(&ek)),
        format!("storage root key       {}", text(&srk)),
    ];
    assert_eq!(of_tpm(tpm()).to_string(), expected.join("\n") + "\n");
    let certificate = json!({
        "matches": true, "error": null, "subject": "", "issuer": "CN=Example TPM CA,O=Example",
        "notBefore": "2026-01-01T00:00:00Z", "notAfter": "9999-12-31T23:59:59Z",
        "sha1Thumbprint": "F4B55E0E21595921DB1D598E0A66384C9F8C9867",
        "sha256Thumbprint": "DE6E456FA15AB7B80BC99F67C216B9A7B7B215C20ED95C8B4A1FE9CFF7B677E2",
        "certificate": read(ENDORSEMENT).base64(),
    });
    let expected = json!({
        "endorsementKey": ek, "storageRootKey": srk, "storageRootKeyHandle": "0x81000001",
        "idHex": ids["sha256_hex"], "idBase32": ids["base32_lower_nopad"], "endorsementCertificate": certificate, "certifiedKey": null,
        "templateFromNv": false, "vendor": "IBM  SW   TPM 1.2.0.0",
    });
    assert_eq!(of_tpm(tpm()).to_json()["tpm"], expected);
}

#[test]
fn what_a_tpm_has_not_is_said() {
    let bare = Identification { certificate: None, template_from_nv: true, vendor: String::new(), ..tpm() };
    let mut bare = of_tpm(bare);
    if let Credential::Tpm(tpm) = &mut bare.credential {
        tpm.keys.storage_key.handle = None;
    }
    let text = bare.to_string();
    for line in [
        "TPM                    (empty)",
        "EK template            the manufacturer's, from the TPM's memory",
        "EK certificate         none in the TPM",
        "SRK                    made anew for each use",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{text}");
    }
    let json = bare.to_json();
    assert_eq!((&json["tpm"]["endorsementCertificate"], &json["tpm"]["storageRootKeyHandle"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_certificate_of_another_key_is_told_from_one_of_this() {
    let mut other = tpm();
    other.keys.endorsement_key = other.keys.storage_key.public.clone();
    let told = |other: Identification, line: &str, certified: Value| {
        let other = of_tpm(other);
        assert!(other.to_string().contains(&format!("\nEK certificate         of ANOTHER {line}\n")), "{other}");
        let json = other.to_json();
        assert_eq!(
            (&json["tpm"]["endorsementCertificate"]["matches"], &json["tpm"]["certifiedKey"]),
            (&json!(false), &certified)
        );
        other.to_string()
    };
    let no_key = "key, which this TPM does not make";
    told(other.clone(), no_key, Value::Null);
    told(Identification { certificate: Some(der(DEVICE)), ..tpm() }, no_key, Value::Null);
    other.certified_key = Some(tpm().keys.endorsement_key);
    let ek = vector("ek_tpm2b_public_b64");
    let text = told(other, "endorsement key of this TPM, the certified key below", ek.clone());
    assert!(text.ends_with(&format!("\ncertified key          {}\n", ek.as_str().unwrap())), "{text}");
}

#[test]
fn the_name_of_the_algorithm_and_what_follows_in_the_memory_do_not_matter() {
    let mut certificate = x509_cert::Certificate::from_der(&der(ENDORSEMENT)).unwrap();
    // RSAES-OAEP, as makers of TPMs write it.
    certificate.tbs_certificate.subject_public_key_info.algorithm.oid = "1.2.840.113549.1.1.7".parse().unwrap();
    let mut bytes = certificate.to_der().unwrap();
    let base64 = Certificate::parse(&bytes).unwrap().base64();
    bytes.resize(2048, 0xff);
    let json = of_tpm(Identification { certificate: Some(bytes), ..tpm() }).to_json();
    assert_eq!(json["tpm"]["endorsementCertificate"]["matches"], true);
    assert_eq!(json["tpm"]["endorsementCertificate"]["certificate"], base64);
}

#[test]
fn a_certificate_that_is_none_is_said_to_be_so() {
    let broken = of_tpm(Identification { certificate: Some(b"x509".to_vec()), ..tpm() });
    assert!(broken.to_string().contains("\nEK certificate         not understood ("), "{broken}");
    let shown = broken.to_json()["tpm"]["endorsementCertificate"].clone();
    assert_eq!((&shown["certificate"], &shown["matches"]), (&json!("eDUwOQ=="), &json!(false)));
    assert!(shown["error"].as_str().is_some_and(|error| !error.is_empty()), "{shown}");
}

#[test]
fn a_line_of_csv_has_every_column_and_needs_no_quotes() {
    let columns = CSV_HEADER.split(',').count();
    for enrollment in [of_key(true), of_certificate(), of_tpm(tpm())] {
        let line = enrollment.csv_line();
        assert_eq!(line.split(',').count(), columns, "{line}");
        assert!(!line.contains(['"', '\n', ' ']), "{line}");
    }
    assert_eq!(of_key(true).csv_line(), "gw-0001,symmetric-key,,,,,");
    assert_eq!(of_certificate().csv_line(), format!("gw-0001,x509,,,{SHA1},{SHA256},{}", read(DEVICE).base64()));
    let (ek, srk) = (vector("ek_tpm2b_public_b64"), vector("srk_tpm2b_public_b64"));
    let expected = format!("gw-0001,tpm,{},{},,,", ek.as_str().unwrap(), srk.as_str().unwrap());
    assert_eq!(of_tpm(tpm()).csv_line(), expected);
    assert_eq!(enrollment_line(&"gw-0001".parse().unwrap(), &tpm().keys), expected);
}
