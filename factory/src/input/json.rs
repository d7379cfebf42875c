//! Identities as JSON: an object, an array, or objects one after the other, as `dps-agent identity --json` prints them.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Place;
use super::raw::Raw;

/// Every identity of a text, in its order. What is no JSON is the last entry: nobody knows where the next one begins.
pub fn records(file: &Arc<str>, text: &str) -> Vec<Result<Raw, String>> {
    let lines = Lines::of(text);
    let mut records = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        match value.and_then(elements) {
            Ok(elements) => records.extend(elements.into_iter().map(|element| {
                let place = Place { file: Arc::clone(file), line: lines.number(text, element.get()) };
                serde_json::from_str(element.get()).map(|value| record(place, &value)).map_err(|error| error.to_string())
            })),
            Err(error) => records.push(Err(format!("{file}:{}: not JSON: {error}", error.line()))),
        }
    }
    records
}

/// The elements of an array, or the value itself.
fn elements(value: &RawValue) -> Result<Vec<&RawValue>, serde_json::Error> {
    if value.get().starts_with('[') { serde_json::from_str(value.get()) } else { Ok(vec![value]) }
}

fn record(place: Place, value: &Value) -> Raw {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    Raw {
        registration_id: text("/registrationId"),
        device_id: text("/deviceId"),
        attestation: text("/attestation"),
        fingerprint: text("/symmetricKey/fingerprint"),
        certificate: text("/x509/certificate"),
        sha256: text("/x509/sha256Thumbprint"),
        endorsement_key: text("/tpm/endorsementKey"),
        endorsement_certificate: text("/tpm/endorsementCertificate/certificate"),
        certified_key: text("/tpm/certifiedKey"),
        error: text("/error/message"),
        ..Raw::at(place)
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line, counted from 1, on which `part`, a slice of `text`, begins.
    fn number(&self, text: &str, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        self.0.partition_point(|&end| end < offset) + 1
    }
}
