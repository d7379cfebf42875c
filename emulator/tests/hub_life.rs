//! What a hub goes through in years: tokens that expire, moves, identities and enrollments that go and come back.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::tpm::{self, Device, emulator_for};
use client::{
    End, KEY, Mqtt, PATIENCE, SCOPE, emulator, exchange, https_register, hub_token, in_one_hour, symmetric, tls, token,
};
use dps_emulator::pki::{Algorithm, Authority, VALID};
use dps_emulator::{Emulator, NotThere, Requests};
use serde_json::Value;

const TWO_HUBS: &str = "server_key = \"ecdsa\"\nhubs = [\"localhost\", \"127.0.0.1\"]";

/// An emulator whose only device is assigned to `localhost`.
fn assigned(more: &str) -> Emulator {
    let emulator = emulator(TWO_HUBS, &symmetric(&format!("answer = \"at-once\"\n{more}")));
    assert_eq!(status(&emulator), "assigned");
    emulator
}

fn status(emulator: &Emulator) -> Value {
    https_register(emulator).unwrap().json()["status"].clone()
}

fn connect(emulator: &Emulator, hub: &str, device: &str, password: &str) -> (Mqtt, u8) {
    let mut client = Mqtt::open(emulator, None);
    let user = format!("{hub}/{device}/?api-version=2021-04-12");
    let code = client.connect(device, &user, Some(password)).unwrap();
    (client, code)
}

fn try_hub(emulator: &Emulator, hub: &str) -> u8 {
    connect(emulator, hub, "gw", &hub_token(hub, "gw")).1
}

fn connected(emulator: &Emulator) -> Mqtt {
    let (client, code) = connect(emulator, "localhost", "gw", &hub_token("localhost", "gw"));
    assert_eq!(code, 0);
    client
}

fn look_up(emulator: &Emulator) -> Value {
    let mut stream = tls(emulator, emulator.https_port(), None);
    let target = format!("/{SCOPE}/registrations/gw?api-version=2021-06-01");
    let token = client::dps_token("gw");
    let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
    exchange(&mut stream, "POST", &target, &headers, "{\"registrationId\":\"gw\"}").unwrap().json()
}

#[test]
fn a_connection_ends_with_its_token() {
    let emulator = assigned("");
    let sr = "localhost%2Fdevices%2Fgw";
    // A machine that takes longer than that to connect gets a longer life.
    let lives = (0..8).map(|exponent| in_one_hour() - 3600 + (2 << exponent));
    let mut tries = lives.map(|expiry| (expiry, connect(&emulator, "localhost", "gw", &token(KEY, sr, expiry))));
    let (expiry, (mut client, _)) = tries.find(|(_, (_, code))| *code == 0).unwrap();
    client.publish("devices/gw/messages/events/", 1, "still in time");
    assert!(emulator.wait_for_telemetry(1, PATIENCE));
    assert_eq!(client.next(PATIENCE), Ok((0x40, vec![0, 1])));
    let patient = || in_one_hour() - 3600 < expiry + PATIENCE.as_secs();
    let end = std::iter::repeat_with(|| client.next(PATIENCE)).find(|end| *end != Err(End::Silent) || !patient()).unwrap();
    assert_eq!(end, Err(End::Closed));
    assert!(in_one_hour() - 3600 >= expiry, "not before its time");
    assert!(emulator.wait_for_line("gw", "! expired", PATIENCE));
    assert!(!emulator.devices()[0].is_connected);
    assert_eq!(try_hub(&emulator, "localhost"), 0, "a new token is another life");
}

#[test]
fn a_lenient_hub_does_not_look_at_the_clock() {
    let emulator = emulator("kinder = [\"skip-expiry\"]\nserver_key = \"ecdsa\"", &symmetric("answer = \"at-once\""));
    assert_eq!(status(&emulator), "assigned");
    let (mut client, code) = connect(&emulator, "localhost", "gw", &token(KEY, "localhost%2Fdevices%2Fgw", 1));
    assert_eq!((code, client.next(client::WHILE)), (0, Err(End::Silent)));
}

#[test]
fn a_device_that_is_moved_now_is_at_no_hub_until_it_registers() {
    let emulator = assigned("");
    let mut client = connected(&emulator);
    emulator.move_hub_now("gw", "127.0.0.1").unwrap();
    assert_eq!(client.next(PATIENCE), Err(End::Closed));
    assert!(emulator.wait_for_line("gw", "! removed", PATIENCE));
    assert_eq!([try_hub(&emulator, "localhost"), try_hub(&emulator, "127.0.0.1")], [5, 5]);
    assert_eq!(emulator.identities(), []);
    assert_eq!(look_up(&emulator)["assignedHub"], "localhost", "DPS tells the new one to who registers");
    let state = https_register(&emulator).unwrap().json()["registrationState"].clone();
    assert_eq!((&state["assignedHub"], &state["substatus"]), (&"127.0.0.1".into(), &"deviceDataMigrated".into()));
    assert_eq!([try_hub(&emulator, "localhost"), try_hub(&emulator, "127.0.0.1")], [5, 0]);
    assert_eq!(look_up(&emulator)["assignedHub"], "127.0.0.1");
    let states: Vec<_> = emulator.identities().into_iter().map(|at| (at.hub, at.device_id, at.connections)).collect();
    assert_eq!(states, [("127.0.0.1".to_owned(), "gw".to_owned(), 1)]);
    assert!(emulator.move_hub_now("nobody", "127.0.0.1").is_err());
}

#[test]
fn moving_to_the_same_hub_changes_nothing() {
    let emulator = assigned("");
    let mut client = connected(&emulator);
    emulator.move_hub_now("gw", "LOCALHOST").unwrap();
    client.publish("devices/gw/messages/events/", 1, "still here");
    assert!(emulator.wait_for_telemetry(1, PATIENCE));
}

#[test]
fn a_group_moves_with_all_its_members() {
    let group =
        "[[group]]\nname = \"fleet\"\nanswer = \"at-once\"\nprimary_key = \"ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\"";
    let emulator = emulator(TWO_HUBS, group);
    let key = dps_emulator::sas::derived_key(&(0x20..0x40).collect::<Vec<u8>>(), "gw");
    let dps = token(&key, &format!("{SCOPE}%2Fregistrations%2Fgw"), in_one_hour());
    let mut stream = tls(&emulator, emulator.https_port(), None);
    assert_eq!(client::put(&mut stream, "gw", &dps).unwrap().json()["status"], "assigned");
    let (mut client, code) = connect(&emulator, "localhost", "gw", &token(&key, "localhost%2Fdevices%2Fgw", in_one_hour()));
    assert_eq!(code, 0);
    emulator.move_hub_now("fleet", "127.0.0.1").unwrap();
    assert_eq!(client.next(PATIENCE), Err(End::Closed));
    let moved = client::put(&mut stream, "gw", &dps).unwrap().json();
    assert_eq!(moved["registrationState"]["assignedHub"], "127.0.0.1");
}

#[test]
fn an_identity_is_removed_and_made_anew() {
    let emulator = assigned("");
    let mut client = connected(&emulator);
    emulator.remove_from_hub("gw").unwrap();
    assert_eq!(client.next(PATIENCE), Err(End::Closed));
    assert_eq!(try_hub(&emulator, "localhost"), 5);
    emulator.add_to_hub("gw").unwrap();
    assert_eq!(try_hub(&emulator, "localhost"), 0);
    emulator.remove_from_hub("gw").unwrap();
    assert_eq!(status(&emulator), "assigned");
    assert_eq!(try_hub(&emulator, "localhost"), 0, "a registration makes it, too");
    assert_eq!(emulator.add_to_hub("nobody"), Err(NotThere::Identity("nobody".to_owned())));
}

#[test]
fn an_identity_of_a_tpm_comes_back_with_its_newest_key() {
    let emulator = emulator_for("", &tpm::enrollment(""));
    let (key, _) = Device::assigned(&emulator);
    let code = || connect(&emulator, "localhost", tpm::ID, &tpm::hub_token(&key, "localhost")).1;
    emulator.remove_from_hub(tpm::ID).unwrap();
    assert_eq!(code(), 5);
    emulator.add_to_hub(tpm::ID).unwrap();
    assert_eq!(code(), 0);
}

#[test]
fn a_disabled_identity_stays_disabled_when_the_device_registers() {
    let emulator = assigned("");
    let mut client = connected(&emulator);
    emulator.set_enabled_at_hub("gw", false).unwrap();
    assert_eq!(client.next(PATIENCE), Err(End::Closed));
    assert!(emulator.wait_for_line("gw", "! disabled", PATIENCE));
    assert_eq!(try_hub(&emulator, "localhost"), 5);
    assert!(!emulator.hub_accepts("gw", &hub_token("localhost", "gw")));
    assert_eq!(status(&emulator), "assigned");
    assert_eq!(try_hub(&emulator, "localhost"), 5);
    assert!(!emulator.identities()[0].is_enabled);
    emulator.set_enabled_at_hub("gw", true).unwrap();
    assert_eq!(try_hub(&emulator, "localhost"), 0);
    emulator.remove_from_hub("gw").unwrap();
    assert_eq!(emulator.set_enabled_at_hub("gw", true), Err(NotThere::Identity("gw".to_owned())));
}

#[test]
fn an_enrollment_is_disabled_or_removed_and_the_identity_stays() {
    let emulator = assigned("");
    let mut client = connected(&emulator);
    emulator.set_enabled("gw", false).unwrap();
    assert_eq!(status(&emulator), "disabled");
    assert_eq!(look_up(&emulator), serde_json::json!({"registrationId": "gw", "status": "disabled"}));
    emulator.set_enabled("gw", true).unwrap();
    assert_eq!(look_up(&emulator)["status"], "assigned");
    emulator.remove("gw").unwrap();
    assert_eq!(
        [https_register(&emulator).unwrap().json(), look_up(&emulator)].map(|json| json["errorCode"].clone()),
        [404_201; 2]
    );
    client.publish("devices/gw/messages/events/", 1, "still here");
    assert!(emulator.wait_for_telemetry(1, PATIENCE));
    emulator.enroll_again("gw").unwrap();
    assert_eq!(emulator.enroll_again("gw"), Err(NotThere::Removed("gw".to_owned())));
    assert_eq!(look_up(&emulator)["errorCode"], 404_201, "enrolled, and not registered");
    let state = https_register(&emulator).unwrap().json()["registrationState"].clone();
    assert_eq!(state["substatus"], "initialAssignment");
    assert_eq!(look_up(&emulator)["status"], "assigned");
    client.publish("devices/gw/messages/events/", 1, "and here");
    assert!(emulator.wait_for_telemetry(2, PATIENCE), "a registration at the same hub ends no connection");
}

#[test]
fn a_lookup_with_a_certificate() {
    let root = Authority::root("root", Algorithm::EcP256).unwrap();
    let group =
        format!("[[group]]\nname = \"g\"\nanswer = \"at-once\"\ncertificate_pem = \"\"\"{}\"\"\"", root.certificate_pem());
    let emulator = emulator("server_key = \"ecdsa\"", &group);
    let leaf = root.leaf("gw", Algorithm::EcP256, VALID).unwrap();
    let mut stream = tls(&emulator, emulator.https_port(), Some(&leaf));
    let mut call = |method: &str, rest: &str| {
        let target = format!("/{SCOPE}/registrations/gw{rest}?api-version=2021-06-01");
        exchange(&mut stream, method, &target, &[("Content-Type", "application/json")], "{\"registrationId\":\"gw\"}")
            .unwrap()
            .json()
    };
    assert_eq!(call("POST", "")["errorCode"], 404_201);
    assert_eq!(call("PUT", "/register")["status"], "assigned");
    let state = call("POST", "");
    assert_eq!((&state["status"], &state["x509"]["enrollmentGroupId"]), (&"assigned".into(), &"g".into()));
    emulator.set_enabled("g", false).unwrap();
    assert_eq!(call("POST", "")["status"], "disabled");
    emulator.set_enabled("g", true).unwrap();
    emulator.remove("gw").unwrap();
    assert_eq!(call("POST", "")["errorCode"], 404_201);
}

#[test]
fn a_lookup_of_a_tpm_that_is_disabled_or_gone() {
    let emulator = emulator_for("", &tpm::enrollment(""));
    Device::assigned(&emulator);
    let mut device = Device::challenged(&emulator);
    let token = device.token();
    let body = format!("{{\"registrationId\":\"{}\"}}", tpm::ID);
    let mut look_up = || device.call("POST", "", Some(&token), &body).unwrap().json();
    assert_eq!(look_up()["status"], "assigned");
    emulator.set_enabled(tpm::ID, false).unwrap();
    assert_eq!(look_up()["status"], "disabled");
    emulator.remove(tpm::ID).unwrap();
    assert_eq!(look_up()["errorCode"], 404_201);
}

#[test]
fn a_new_identity_is_refused_so_many_times() {
    let emulator = assigned("hub_refusals = 2");
    let wrong = token(b"fedcba9876543210", "localhost%2Fdevices%2Fgw", in_one_hour());
    assert_eq!(connect(&emulator, "localhost", "gw", &wrong).1, 5, "and this is none of them");
    assert!(!emulator.hub_accepts("gw", &hub_token("localhost", "gw")), "nor is asking");
    let code = || try_hub(&emulator, "localhost");
    assert_eq!([code(), code(), code()], [5, 5, 0]);
    let refused = "gw # refused: the identity has not reached the hub yet".to_owned();
    assert_eq!(emulator.transcript_all().iter().filter(|line| **line == refused).count(), 2);
    assert_eq!(status(&emulator), "assigned");
    assert_eq!(try_hub(&emulator, "localhost"), 0, "it is not new any more");
    emulator.move_hub_now("gw", "127.0.0.1").unwrap();
    assert_eq!(status(&emulator), "assigned");
    let code = || try_hub(&emulator, "127.0.0.1");
    assert_eq!([code(), code(), code()], [5, 5, 0]);
}

#[test]
fn a_new_identity_is_refused_for_so_many_seconds() {
    let hour = assigned("hub_delay = 3600");
    assert_eq!([try_hub(&hour, "localhost"), try_hub(&hour, "localhost")], [5, 5]);
    let second = assigned("hub_delay = 1");
    let end = in_one_hour() + PATIENCE.as_secs();
    while try_hub(&second, "localhost") == 5 {
        assert!(in_one_hour() < end);
    }
}

#[test]
fn requests_are_counted_for_each_device() {
    let emulator = emulator(
        "server_key = \"ecdsa\"",
        &symmetric("faults = [\"register: status 503\", \"lookup: status 429 retry-after=7\"]"),
    );
    assert_eq!(emulator.requests("gw"), Requests::default());
    assert_eq!(https_register(&emulator).unwrap().status, 503);
    let mut client = Mqtt::ready(&emulator);
    let operation = client.register().unwrap().1["operationId"].as_str().unwrap().to_owned();
    assert_eq!(client.query(&operation).unwrap().1["status"], "assigned");
    assert_eq!(look_up(&emulator)["errorCode"], 429_001);
    assert_eq!(look_up(&emulator)["status"], "assigned");
    let expected = Requests { connections: 4, challenges: 0, registrations: 2, queries: 1, lookups: 2 };
    assert_eq!(emulator.requests("GW"), expected);
    let mut stream = tls(&emulator, emulator.https_port(), None);
    assert_eq!(client::put(&mut stream, "nobody", &client::dps_token("nobody")).unwrap().status, 404);
    assert_eq!(emulator.requests("nobody"), Requests { connections: 1, registrations: 1, ..Requests::default() });
    assert_eq!(emulator.requests("gw"), expected);
}

#[test]
fn requests_of_a_tpm_are_counted() {
    let emulator = emulator_for("", &tpm::enrollment(""));
    Device::assigned(&emulator);
    let expected = Requests { connections: 1, challenges: 1, registrations: 1, queries: 1, lookups: 0 };
    assert_eq!(emulator.requests(tpm::ID), expected);
}
