//! Services that send keys which are no good, or none, or go away at the wrong moment.

use crate::hostile_gateway::{Gateway, ID};

/// What the service is made to do, and what the agent says when that does not end.
const BLOBS: [(&str, &str); 3] = [
    ("wrong-blob", "the answer makes no sense: the TPM does not accept the key that DPS sent: "),
    ("truncated-blob", "the answer makes no sense: "),
    ("other-ek-blob", "the answer makes no sense: the TPM does not accept the key that DPS sent: "),
];

#[test]
fn a_key_that_is_no_good_is_made_good_by_another_registration() {
    let bad = |place| BLOBS.iter().map(move |(blob, _)| (place, *blob));
    for (place, blob) in bad("challenge").chain(bad("register")).chain([("register", "no-key")]) {
        let gateway = Gateway::new();
        gateway.provision();
        let old = gateway.hub_key();
        gateway.emulator.set_faults(ID, &[&format!("{place}: {blob}")]).unwrap();
        gateway.run(&["provision", "--force"]).well();
        assert_ne!(gateway.hub_key(), old);
        assert!(gateway.works(), "{place}: {blob}");
    }
}

#[test]
fn three_keys_in_a_row_that_are_no_good_are_the_services_fault() {
    let bad = |place| BLOBS.iter().map(move |(blob, begins)| (place, *blob, *begins));
    let none = ("register", "no-key", "the answer makes no sense: it assigns a hub without the TPM's key for it; ");
    for (place, blob, begins) in bad("challenge").chain(bad("register")).chain([none]) {
        let gateway = Gateway::new();
        gateway.provision();
        let (old, generation) = (gateway.hub_key(), gateway.emulator.hub_key_generation(ID));
        let before = gateway.asked().len();
        gateway.emulator.set_faults(ID, &[&format!("{place}: {blob} x3")]).unwrap();
        let (exit_code, message) = gateway.fails(&["provision", "--force"]);
        println!("{place}: {blob} x3: {exit_code} {message}");
        assert_eq!(exit_code, 76, "{message}");
        assert!(message.starts_with(begins), "{message}");
        let asked = gateway.asked().split_off(before);
        assert_eq!(asked.iter().filter(|line| **line == format!("> {place}")).count(), 3, "{asked:?}");
        assert_eq!(gateway.hub_key(), old);
        let is_same = gateway.emulator.hub_key_generation(ID) == generation;
        assert_eq!(is_same, place == "challenge");
        assert_eq!(gateway.works(), is_same, "{place}: {blob}");
        gateway.provision();
        assert!(gateway.works());
    }
}

#[test]
fn a_challenge_without_a_key_is_a_refusal() {
    let gateway = Gateway::new();
    gateway.provision();
    let (old, generation) = (gateway.hub_key(), gateway.emulator.hub_key_generation(ID));
    gateway.emulator.set_faults(ID, &["challenge: no-key"]).unwrap();
    let (exit_code, message) = gateway.fails(&["provision", "--force"]);
    assert_eq!(exit_code, 77, "{message}");
    assert!(message.starts_with("the service answered 401: Authorization required.; "), "{message}");
    assert_eq!((gateway.hub_key(), gateway.emulator.hub_key_generation(ID), gateway.works()), (old, generation, true));
    gateway.run(&["provision", "--force"]).well();
    assert!(gateway.works());
}

#[test]
fn a_service_that_goes_away_after_the_challenge_or_the_assignment_is_asked_again() {
    for fault in [
        "challenge: drop",
        "challenge: late-drop",
        "challenge: status 503",
        "register: drop",
        "register: late-drop",
        "register: status 503",
        "register: status 401",
    ] {
        let gateway = Gateway::new();
        gateway.provision();
        let old = gateway.hub_key();
        gateway.emulator.set_faults(ID, &[fault]).unwrap();
        gateway.run(&["provision", "--force", "--timeout", "60s"]).well();
        assert_ne!(gateway.hub_key(), old);
        assert!(gateway.works(), "{fault}");
    }
}

#[test]
fn a_service_that_never_comes_back_leaves_what_there_is() {
    for (fault, rotates) in [("register: drop x*", false), ("register: late-drop x*", true), ("challenge: late-drop x*", false)] {
        let gateway = Gateway::new();
        gateway.provision();
        let (old, generation) = (gateway.hub_key(), gateway.emulator.hub_key_generation(ID));
        gateway.emulator.set_faults(ID, &[fault]).unwrap();
        let (exit_code, message) = gateway.fails(&["provision", "--force", "--timeout", "5s"]);
        assert_eq!(exit_code, 75, "{fault}: {message}");
        assert_eq!(gateway.hub_key(), old, "{fault}");
        assert_eq!(gateway.emulator.hub_key_generation(ID) != generation, rotates, "{fault}");
        assert_eq!(gateway.works(), !rotates, "{fault}");
        gateway.emulator.set_faults(ID, &[]).unwrap();
        gateway.provision();
        assert!(gateway.works(), "{fault}");
    }
}
