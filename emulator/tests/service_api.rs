//! Enrollments made, read, changed and removed through the service API, and what devices make of them.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::api::{Backend, CONTRIBUTOR, refusal, tables};
use client::{KEY, emulator, https_register};
use serde_json::{Value, json};

const B64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

fn key(bytes: &[u8]) -> String {
    base64::Engine::encode(&B64, bytes)
}

fn symmetric() -> Value {
    json!({"registrationId": "gw", "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key(KEY)}}})
}

#[test]
fn an_enrollment_from_its_creation_to_its_end() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    for backend in [Backend::owner(&emulator), Backend::app(&emulator)] {
        assert_eq!(refusal(&backend.get("/enrollments/gw")), (404, 404_201));
        let made = backend.put("/enrollments/gw", &symmetric());
        assert_eq!(made.status, 200, "{}", made.json());
        let read = backend.get("/enrollments/gw").json();
        assert_eq!(read, made.json());
        assert_eq!(read["attestation"], json!({"type": "symmetricKey"}), "no keys");
        assert_eq!((&read["provisioningStatus"], &read["capabilities"]["iotEdge"]), (&json!("enabled"), &json!(false)));
        let details = backend.call("POST", "/enrollments/gw/attestationmechanism", &[], "").json();
        assert_eq!(details["symmetricKey"]["primaryKey"], json!(key(KEY)));
        assert_eq!(details["symmetricKey"]["secondaryKey"].as_str().map(str::len), Some(88), "64 bytes");
        assert_eq!(https_register(&emulator).unwrap().status, 202);
        assert_eq!(backend.query("enrollments").json(), json!([read]));
        assert_eq!(backend.delete("/enrollments/gw").status, 204);
        assert_eq!(refusal(&backend.delete("/enrollments/gw")), (404, 404_201));
        assert_eq!(https_register(&emulator).unwrap().json()["errorCode"], 404_201);
        assert_eq!(backend.query("enrollments").json(), json!([]));
    }
}
