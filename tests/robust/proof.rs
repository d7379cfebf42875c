//! When the hub is tried with a credential again, and when an earlier proof still holds.

use dps_emulator::Emulator;

use crate::gateway::{Gateway, emulator};

fn tries_of_the_hub(emulator: &Emulator) -> usize {
    emulator.transcript_all().iter().filter(|line| line.contains("> hub connect")).count()
}

/// The same gateway, with its record, asking another service.
fn moved_to(mut gateway: Gateway, emulator: &Emulator) -> Gateway {
    gateway.file("ca.pem", 0o644, emulator.ca_pem());
    for table in ["dps", "hub"] {
        gateway = gateway.set(&format!("{table}.mqtt_port = {}", emulator.mqtt_port()));
        gateway = gateway.set(&format!("{table}.https_port = {}", emulator.https_port()));
    }
    gateway
}

#[test]
fn a_proof_holds_for_the_same_hub_and_device_and_for_no_other() {
    let before = emulator("", "");
    let gateway = Gateway::new(&before, "mqtt").set("hub.verify = \"on-change\"");
    for _ in 0..2 {
        let ran = gateway.run(&["provision", "--force", "--json"]);
        assert_eq!((ran.code, ran.json()["proof"].as_str()), (Some(0), Some("proven")), "{ran:?}");
        assert_eq!(tries_of_the_hub(&before), 1);
    }
    let after = emulator("", "device_id = \"renamed\"");
    let gateway = moved_to(gateway, &after);
    let json = gateway.run(&["provision", "--force", "--json"]).json();
    assert_eq!((json["assignedHub"].as_str(), json["deviceId"].as_str()), (Some("localhost"), Some("renamed")));
    assert_eq!((json["proof"].as_str(), json["generation"].as_u64()), (Some("proven"), Some(2)));
    assert_eq!(tries_of_the_hub(&after), 1);
}
