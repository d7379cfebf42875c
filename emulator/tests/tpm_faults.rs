//! Each fault that a TPM can meet: of the challenge, of the assignment, and of the keys that it is sent.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::End;
use client::tpm::{Device, ID, activated, emulator_for, enrollment, hub_token, keys};
use dps_emulator::Emulator;

const BLOBS: [(&str, &str); 4] = [
    ("wrong-blob", "ActivateCredential: secret"),
    ("truncated-blob", "truncated"),
    ("other-ek-blob", "ActivateCredential: secret"),
    ("no-key", "no blob"),
];

fn faulty(fault: &str) -> Emulator {
    emulator_for("", &enrollment(&format!("faults = ['{fault}']")))
}

fn show(emulator: &Emulator) -> Result<client::Response, End> {
    Device::new(emulator).show(&keys().0, &keys().1)
}

/// A device whose registration runs, and its operation.
fn running(emulator: &Emulator) -> (Device, String) {
    let mut device = Device::challenged(emulator);
    let operation = device.register().unwrap().json()["operationId"].as_str().unwrap().to_owned();
    (device, operation)
}

#[test]
fn keys_that_no_tpm_takes_in() {
    for (fault, refused) in BLOBS {
        let emulator = faulty(&format!("challenge: {fault}"));
        let answer = show(&emulator).unwrap();
        assert_eq!((answer.status, answer.json()["keyName"].as_str()), (401, Some("registration")));
        assert_eq!(activated(&answer.json()["authenticationKey"]), Err(refused), "{fault}");
        Device::challenged(&emulator);
        for at in ["register", "query"] {
            emulator.set_faults(ID, &[&format!("{at}: {fault}")]).unwrap();
            let (mut device, operation) = running(&emulator);
            let generation = emulator.hub_key_generation(ID);
            let state = device.query(&operation).unwrap().json()["registrationState"].clone();
            assert_eq!((&state["status"], &state["assignedHub"]), (&"assigned".into(), &"localhost".into()));
            assert_eq!(activated(&state["tpm"]["authenticationKey"]), Err(refused), "{at}: {fault}");
            assert_eq!(emulator.hub_key_generation(ID), generation + 1, "the key has changed all the same");
        }
    }
}

#[test]
fn failures_instead_of_the_challenge() {
    assert_eq!(show(&faulty("challenge: drop")).unwrap_err(), End::Closed);
    assert_eq!(show(&faulty("challenge: truncate")).unwrap_err(), End::Closed);
    assert_eq!(show(&faulty("challenge: big 200000")).unwrap().body.len(), 200_000);
    assert_eq!(show(&faulty("challenge: body {}")).unwrap().status, 200);
    let emulator = faulty("challenge: status 429 retry-after=7");
    assert_eq!(show(&emulator).unwrap().header("retry-after"), Some("7"));
    assert_eq!(emulator.challenges(ID), 0);
    let emulator = faulty("challenge: late-drop");
    assert_eq!(show(&emulator).unwrap_err(), End::Closed);
    assert_eq!(emulator.challenges(ID), 1, "made, but never sent");
    assert_eq!(emulator.transcript(ID)[1..], ["> challenge", "! late-drop"]);
}

#[test]
fn failures_after_the_challenge() {
    for (fault, expected) in [("status 500", Ok(500)), ("drop", Err(End::Closed)), ("late-drop", Err(End::Closed))] {
        let emulator = faulty(&format!("register: {fault}"));
        let mut device = Device::challenged(&emulator);
        assert_eq!(device.register().map(|answer| answer.status), expected, "{fault}");
        assert_eq!(emulator.hub_key_generation(ID), 0);
        Device::assigned(&emulator);
    }
}

#[test]
fn failures_before_and_after_the_assignment_is_decided() {
    for (fault, decided) in [("drop", false), ("status 500", false), ("late-drop", true), ("truncate", true)] {
        let emulator = emulator_for("", &enrollment(""));
        let (key, hub) = Device::assigned(&emulator);
        emulator.set_faults(ID, &[&format!("query: {fault}")]).unwrap();
        let (mut device, operation) = running(&emulator);
        let answer = device.query(&operation);
        assert_eq!(answer.is_ok(), fault == "status 500", "{fault}");
        assert_eq!(emulator.hub_key_generation(ID), if decided { 2 } else { 1 }, "{fault}");
        assert_eq!(emulator.hub_accepts(ID, &hub_token(&key, &hub)), !decided, "{fault}");
        let (key, hub) = Device::assigned(&emulator);
        assert!(emulator.hub_accepts(ID, &hub_token(&key, &hub)));
    }
}

#[test]
fn an_answer_that_was_lost_can_be_asked_for_again() {
    let emulator = faulty("query: late-drop");
    let (device, operation) = running(&emulator);
    let mut again = Device::new(&emulator);
    again.key.clone_from(&device.key);
    let mut device = device;
    assert_eq!(device.query(&operation).unwrap_err(), End::Closed);
    let state = again.query(&operation).unwrap().json()["registrationState"].clone();
    let key = activated(&state["tpm"]["authenticationKey"]).unwrap();
    assert_eq!(emulator.hub_key_generation(ID), 1, "the same key");
    assert!(emulator.hub_accepts(ID, &hub_token(&key, "localhost")));
}

#[test]
fn faults_that_any_device_can_meet() {
    let emulator = faulty("connect: status 503");
    assert_eq!(show(&emulator).unwrap().status, 503);
    let result = |fault: &str| {
        emulator.set_faults(ID, &[fault]).unwrap();
        let (mut device, operation) = running(&emulator);
        let answer = device.query(&operation).unwrap();
        (answer.status, answer.json())
    };
    assert_eq!(result("register: assigning-forever").0, 202);
    assert_eq!(result("query: lost-operation").1["errorCode"], 404_203);
    assert_eq!(emulator.hub_key_generation(ID), 0);
    let (_, answer) = result("query: no-hub");
    assert_eq!(answer["registrationState"].get("assignedHub"), None);
    assert!(activated(&answer["registrationState"]["tpm"]["authenticationKey"]).is_ok());
    assert_eq!(result("query: unknown-status pending").1["status"], "pending");
}
