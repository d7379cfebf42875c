//! What an IoT Hub accepts and refuses.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::{End, KEY, Mqtt, PATIENCE, SCOPE, emulator, https_register, hub_token, in_one_hour, symmetric, token, user_name};
use dps_emulator::pki::{Algorithm, Authority, Leaf, VALID};
use dps_emulator::{Emulator, Telemetry};
use std::time::Duration;

fn user(hub: &str, device: &str) -> String {
    format!("{hub}/{device}/?api-version=2021-04-12")
}

fn assigned(more: &str) -> Emulator {
    let emulator = emulator("", &symmetric(&format!("answer = \"at-once\"\n{more}")));
    assert_eq!(https_register(&emulator).unwrap().json()["status"], "assigned");
    emulator
}

fn connect(emulator: &Emulator, hub: &str, device: &str, password: &str) -> (Mqtt, Result<u8, End>) {
    let mut client = Mqtt::open(emulator, None);
    let code = client.connect(device, &user(hub, device), Some(password));
    (client, code)
}

#[test]
fn an_assigned_device_sends_messages() {
    let emulator = assigned("device_id = \"Dev\"");
    let (mut client, code) = connect(&emulator, "localhost", "Dev", &hub_token("localhost", "Dev"));
    assert_eq!(code, Ok(0));
    assert!(emulator.wait_for_hub_connection("gw", PATIENCE));
    for filter in ["devices/Dev/messages/devicebound/#", "$iothub/methods/POST/#", "$iothub/twin/res/#"] {
        assert_eq!(client.subscribe(filter, 1), Ok(1), "{filter}");
    }
    client.publish("$iothub/twin/GET/?$rid=7", 0, "");
    let twin = br#"{"desired":{"$version":1},"reported":{"$version":1}}"#.to_vec();
    assert_eq!(client.message(PATIENCE), Ok(("$iothub/twin/res/200/?$rid=7".to_owned(), twin)));
    client.publish("devices/Dev/messages/events/", 0, "one");
    client.publish("devices/Dev/messages/events/a=b", 1, "two");
    assert!(emulator.wait_for_telemetry(2, PATIENCE));
    let message = |topic: &str, payload: &str| Telemetry {
        device: "Dev".to_owned(),
        hub: "localhost".to_owned(),
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
    };
    let expected = [message("devices/Dev/messages/events/", "one"), message("devices/Dev/messages/events/a=b", "two")];
    assert_eq!(emulator.telemetry(), expected);
    assert!(!emulator.wait_for_hub_disconnection("gw", Duration::ZERO), "it is connected");
    client.send(&[0xe0, 0]);
    assert!(emulator.wait_for_hub_disconnection("gw", PATIENCE));
    let lines = emulator.transcript("gw");
    assert_eq!(
        lines[3..],
        [
            "> hub connect mqtt localhost Dev",
            "< connack 0",
            "> hub publish devices/Dev/messages/events/",
            "> hub publish devices/Dev/messages/events/a=b",
            "> disconnect"
        ]
    );
    let device = &emulator.devices()[0];
    assert_eq!((device.messages, device.hub.as_deref(), device.transport), (2, Some("localhost"), Some("https")));
}

#[test]
fn only_with_the_credential_of_the_enrollment() {
    let emulator = assigned("");
    let code = |hub: &str, device: &str, password: &str| connect(&emulator, hub, device, password).1;
    let sr = "localhost%2Fdevices%2Fgw";
    assert_eq!(code("localhost", "gw", &hub_token("localhost", "gw")), Ok(0));
    assert_eq!(code("LOCALHOST", "gw", &hub_token("localhost", "gw")), Ok(0), "host names have no case");
    assert_eq!(code("localhost", "gw", &token(b"fedcba9876543210", sr, in_one_hour())), Ok(5));
    assert_eq!(code("localhost", "gw", &token(KEY, sr, in_one_hour() - 3601)), Ok(5));
    assert_eq!(code("localhost", "gw", &hub_token("localhost", "gw2")), Ok(5));
    assert_eq!(code("localhost", "gw", &client::dps_token("gw")), Ok(5));
    assert_eq!(code("localhost", "gw", &format!("{}&skn=registration", hub_token("localhost", "gw"))), Ok(5));
    assert_eq!(code("localhost", "gw2", &hub_token("localhost", "gw2")), Ok(5));
    assert_eq!(code("127.0.0.1", "gw", &hub_token("127.0.0.1", "gw")), Ok(5), "another hub");
    let mut client = Mqtt::open(&emulator, None);
    assert_eq!(client.connect("other", &user("localhost", "gw"), Some(&hub_token("localhost", "gw"))), Ok(2));
    let mut client = Mqtt::open(&emulator, None);
    assert_eq!(client.connect("gw", &user("localhost", "gw"), None), Ok(5));
}

#[test]
fn nobody_before_the_assignment() {
    let emulator = emulator("", &symmetric(""));
    assert_eq!(https_register(&emulator).unwrap().status, 202);
    assert_eq!(connect(&emulator, "localhost", "gw", &hub_token("localhost", "gw")).1, Ok(5));
}

#[test]
fn certificates_at_the_hub() {
    let root = Authority::root("root", Algorithm::EcP256).unwrap();
    let group =
        format!("[[group]]\nname = \"g\"\nanswer = \"at-once\"\ncertificate_pem = \"\"\"{}\"\"\"", root.certificate_pem());
    let emulator = emulator("", &group);
    let leaf = root.leaf("gw", Algorithm::EcP256, VALID).unwrap();
    let mut dps = Mqtt::open(&emulator, Some(&leaf));
    assert_eq!(dps.connect("gw", &user_name("gw"), None), Ok(0));
    assert_eq!(dps.subscribe(client::FILTER, 1), Ok(1));
    assert_eq!(dps.register().unwrap().1["status"], "assigned");
    let code = |leaf: &Leaf| Mqtt::open(&emulator, Some(leaf)).connect("gw", &user("localhost", "gw"), None);
    assert_eq!(code(&leaf), Ok(0));
    assert_eq!(code(&root.leaf("gw2", Algorithm::EcP256, VALID).unwrap()), Ok(5));
    assert_eq!(code(&Leaf::self_signed("gw", Algorithm::EcP256, VALID).unwrap()), Ok(5));
}

#[test]
fn one_connection_for_each_device() {
    let emulator = assigned("");
    let (mut old, code) = connect(&emulator, "localhost", "gw", &hub_token("localhost", "gw"));
    assert_eq!(code, Ok(0));
    let (mut new, code) = connect(&emulator, "localhost", "gw", &hub_token("localhost", "gw"));
    assert_eq!(code, Ok(0));
    assert_eq!(old.next(PATIENCE), Err(End::Closed));
    assert!(emulator.wait_for_line("gw", "! evicted", PATIENCE));
    assert!(emulator.devices()[0].is_connected);
    new.publish("devices/gw/messages/events/", 1, "still here");
    assert!(emulator.wait_for_telemetry(1, PATIENCE));
}

#[test]
fn a_move_removes_the_old_identity_with_the_register_call() {
    let emulator = assigned("");
    let old = || connect(&emulator, "localhost", "gw", &hub_token("localhost", "gw"));
    let (mut connected, code) = old();
    assert_eq!(code, Ok(0));
    emulator.set_faults("gw", &["register: assigning-forever"]).unwrap();
    emulator.move_hub("gw", "127.0.0.1").unwrap();
    assert_eq!(https_register(&emulator).unwrap().status, 202);
    assert_eq!(connected.next(PATIENCE), Err(End::Closed));
    assert_eq!(old().1, Ok(5), "gone before the answer");
    let state = https_register(&emulator).unwrap().json()["registrationState"].clone();
    assert_eq!((&state["assignedHub"], &state["substatus"]), (&"127.0.0.1".into(), &"deviceDataMigrated".into()));
    assert_eq!(connect(&emulator, "127.0.0.1", "gw", &hub_token("127.0.0.1", "gw")).1, Ok(0));
    assert_eq!(emulator.assignment("gw"), Some(("127.0.0.1".to_owned(), "gw".to_owned())));
}

#[test]
fn other_topics_and_qos_2_close_the_connection() {
    let emulator = assigned("");
    let closes = |topic: &str, qos: u8| {
        let (mut client, code) = connect(&emulator, "localhost", "gw", &hub_token("localhost", "gw"));
        assert_eq!(code, Ok(0));
        client.publish(topic, qos, "x");
        assert_eq!(client.next(PATIENCE), Err(End::Closed), "{topic}");
    };
    closes("devices/gw2/messages/events/", 1);
    closes("$SYS/x", 1);
    closes("devices/gw/messages/events/", 2);
    let (mut client, _) = connect(&emulator, "localhost", "gw", &hub_token("localhost", "gw"));
    assert_eq!(client.subscribe("#", 0), Err(End::Closed));
    assert!(emulator.telemetry().is_empty());
}

#[test]
fn refusals_on_request_and_removal() {
    let emulator = assigned("faults = [\"hub: connack 5 x2\"]");
    let code = || connect(&emulator, "localhost", "gw", &hub_token("localhost", "gw")).1;
    assert_eq!([code(), code(), code()], [Ok(5), Ok(5), Ok(0)]);
    emulator.remove_from_hub("gw").unwrap();
    assert_eq!(code(), Ok(5));
    assert!(emulator.remove_from_hub("gw").is_err());
    let kinder = self::emulator("kinder = [\"skip-hub-credential\"]", &symmetric("answer = \"at-once\""));
    https_register(&kinder).unwrap();
    assert_eq!(connect(&kinder, "localhost", "gw", "anything").1, Ok(0));
    assert_eq!(SCOPE, kinder.id_scope());
}
