//! The identities of devices that exist only as files: what `dps-agent identity` would have printed on each.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Done;

/// Everything of a TPM2B_PUBLIC by the TCG's template L-1 before the modulus.
const EK_HEAD: &str = "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEA";

/// What the service should hold in the end: by registration ID the public part of its attestation.
#[derive(Debug)]
pub struct Devices(HashMap<String, String>);

impl Devices {
    /// Writes the identities into `identities`, in both forms; the `real` one, JSON, is the last with a TPM.
    ///
    /// # Errors
    /// If a file cannot be written or a certificate not be made.
    pub fn make(directory: &Path, each: u32, real: &Value) -> Done<Self> {
        let folder = directory.join("identities");
        std::fs::create_dir_all(&folder)?;
        let mut devices = HashMap::new();
        let (mut tpms, mut certificates) = (String::new(), String::new());
        let mut keys =
            "registrationId,attestation,endorsementKey,storageRootKey,sha1Thumbprint,sha256Thumbprint,certificate\n".to_owned();
        for number in 1..=each {
            let (tpm, x509, key) = (format!("tpm-{number:04}"), format!("x509-{number:04}"), format!("key-{number:04}"));
            if number < each {
                let endorsement_key = endorsement_key()?;
                writeln!(tpms, "{}", identity(&tpm, "tpm", &json!({ "endorsementKey": endorsement_key })))?;
                devices.insert(tpm, endorsement_key);
            }
            let certificate = certificate(&x509)?;
            writeln!(certificates, "{}", identity(&x509, "x509", &json!({ "certificate": STANDARD.encode(&certificate) })))?;
            devices.insert(x509, thumbprint(&certificate));
            writeln!(keys, "{key},symmetric-key,,,,,")?;
            devices.insert(key, "symmetricKey".to_owned());
        }
        let text = |pointer| real.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or(pointer);
        devices.insert(text("/registrationId")?, text("/tpm/endorsementKey")?);
        writeln!(tpms, "{real}")?;
        std::fs::write(folder.join("tpms.jsonl"), tpms)?;
        std::fs::write(folder.join("certificates.jsonl"), certificates)?;
        std::fs::write(folder.join("keys.csv"), keys)?;
        Ok(Self(devices))
    }

    /// How many.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Whether exactly these are in a list of enrollments, a JSON object on each line.
    ///
    /// # Errors
    /// Names the first one that is not as it should be.
    pub fn are_all_in(&self, list: &str) -> Done {
        let records = list.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        for record in &records {
            let id = record["registrationId"].as_str().unwrap_or_default();
            let proof = record.pointer("/attestation/tpm/endorsementKey");
            let proof = proof.or(record.pointer("/attestation/x509/clientCertificates/primary/info/sha256Thumbprint"));
            let proof = proof.or(record.pointer("/attestation/type")).and_then(Value::as_str);
            if self.0.get(id).map(String::as_str) != proof {
                return Err(format!("{id} is enrolled as {record}").into());
            }
        }
        if records.len() == self.0.len() {
            Ok(())
        } else {
            Err(format!("{} of {} are enrolled", records.len(), self.0.len()).into())
        }
    }
}

fn identity(id: &str, attestation: &str, by: &Value) -> Value {
    let mut identity =
        json!({ "registrationId": id, "attestation": attestation, "symmetricKey": null, "x509": null, "tpm": null });
    identity[attestation] = by.clone();
    identity
}

/// Nobody has the private part of it, and nobody needs it: the service looks at the public one until a device comes.
fn endorsement_key() -> Done<String> {
    use std::io::Read;
    let mut modulus = [0; 256];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut modulus)?;
    modulus[0] |= 0x80;
    modulus[255] |= 1;
    Ok(STANDARD.encode([STANDARD.decode(EK_HEAD)?, modulus.to_vec()].concat()))
}

fn certificate(id: &str) -> Done<Vec<u8>> {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, id);
    Ok(parameters.self_signed(&rcgen::KeyPair::generate()?)?.der().to_vec())
}

fn thumbprint(certificate: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect()
}
