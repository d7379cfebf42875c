//! TPM enrollments: challenge, registration and hub key, as a TPM sees them.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::tpm::{Device, ID, activated, body, enrollment, hub_token, keys};
use client::{Mqtt, SCOPE, emulator, in_one_hour, token};
use dps_emulator::Emulator;

fn connect(emulator: &Emulator, hub: &str, key: &[u8]) -> u8 {
    let user = format!("{hub}/{ID}/?api-version=2021-04-12");
    Mqtt::open(emulator, None).connect(ID, &user, Some(&hub_token(key, hub))).unwrap()
}

#[test]
fn challenge_register_poll_and_hub_on_one_connection() {
    let emulator = emulator("", &enrollment("polls = 1"));
    let mut device = Device::new(&emulator);
    let challenge = device.show(&keys().0, &keys().1).unwrap();
    assert_eq!((challenge.status, challenge.header("x-ms-error-code")), (401, None));
    let challenge = challenge.json();
    assert_eq!(challenge["keyName"], "registration");
    assert!(challenge["message"].is_string());
    assert_eq!(challenge.get("unencryptedAuthenticationKey"), Some(&serde_json::Value::Null));
    device.key = activated(&challenge["authenticationKey"]).unwrap();
    let answer = device.register().unwrap();
    assert_eq!(answer.status, 202);
    let operation = answer.json()["operationId"].as_str().unwrap().to_owned();
    assert_eq!(device.query(&operation).unwrap().status, 202);
    assert_eq!(emulator.hub_key_generation(ID), 0, "not before it is assigned");
    let state = device.query(&operation).unwrap().json()["registrationState"].clone();
    assert_eq!((&state["status"], &state["assignedHub"]), (&"assigned".into(), &"localhost".into()));
    let key = activated(&state["tpm"]["authenticationKey"]).unwrap();
    assert_ne!(key, device.key);
    assert_eq!(connect(&emulator, "localhost", &key), 0);
    assert_eq!(connect(&emulator, "localhost", &device.key), 5, "the key of the challenge is none of the hub's");
    let again = device.query(&operation).unwrap().json();
    assert_eq!(activated(&again["registrationState"]["tpm"]["authenticationKey"]).unwrap(), key, "asked twice, the same key");
    let known = &emulator.devices()[0];
    assert_eq!((known.challenges, known.hub_keys, known.attestation.as_str()), (1, 1, "TPM"));
    assert_eq!(emulator.challenges(ID), 1);
    let lines = emulator.transcript(ID);
    let words: Vec<&str> = lines.iter().map(|line| &line[..line.len().min(11)]).collect();
    assert_eq!(words[..5], ["> connect h", "> challenge", "< 401 {\"aut", "> register", "< 202 {\"ope"]);
    assert!(lines.iter().any(|line| line.contains("\"authenticationKey\":\"(scrubbed)\"")));
}
