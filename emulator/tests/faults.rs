//! Each fault, as a client sees it, on each transport that can play it.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::{
    End, FILTER, Mqtt, PATIENCE, REGISTER, WHILE, dps_token, emulator, https_register, hub_token, put, read_within, symmetric,
    tcp, tls, user_name,
};
use dps_emulator::Emulator;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// An emulator that assigns at once, where `gw` has this fault.
fn faulty(fault: &str) -> Emulator {
    emulator("", &symmetric(&format!("answer = \"at-once\"\nfaults = ['{fault}']")))
}

fn connect(emulator: &Emulator) -> Result<u8, End> {
    Mqtt::open(emulator, None).connect("gw", &user_name("gw"), Some(&dps_token("gw")))
}

/// What the register call gets over MQTT.
fn register(fault: &str) -> Result<(String, serde_json::Value), End> {
    Mqtt::ready(&faulty(fault)).register()
}

fn https(fault: &str) -> Result<client::Response, End> {
    https_register(&faulty(fault))
}

/// What was said with `gw` up to this misdeed, which the service writes down when it is about to do it.
fn said(emulator: &Emulator, misdeed: &str) -> Vec<String> {
    assert!(emulator.wait_for_line("gw", &format!("! {misdeed}"), PATIENCE));
    emulator.transcript("gw")
}

#[test]
fn before_tls() {
    for (fault, expected) in [("drop", Err(End::Closed)), ("silence", Err(End::Silent)), ("garbage", Ok(()))] {
        for stage in ["tcp", "tls"] {
            let emulator = emulator(&format!("faults = [\"{stage}: {fault}\"]"), "");
            for port in [emulator.mqtt_port(), emulator.https_port()] {
                let mut stream = tcp(port);
                stream.set_read_timeout(Some(if fault == "silence" { WHILE } else { PATIENCE })).unwrap();
                let connection = rustls::ClientConnection::new(
                    std::sync::Arc::new(client::tls_config(&emulator, None)),
                    "localhost".try_into().unwrap(),
                );
                let _ = connection.unwrap().write_tls(&mut stream);
                let mut byte = [0];
                let seen = match stream.read(&mut byte) {
                    Ok(0) => Err(End::Closed),
                    Ok(_) => Ok(()),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(End::Silent),
                    Err(_) => Err(End::Closed),
                };
                // Once only: the second listener answers with a ServerHello.
                let expected = if port == emulator.mqtt_port() { expected } else { Ok(()) };
                assert_eq!(seen, expected, "{stage}: {fault}");
            }
            assert!(emulator.wait_for_line("-", "! ", PATIENCE));
            assert_eq!(emulator.transcript("-")[0], format!("! {fault}"));
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a slow answer is no sooner than it says")]
fn at_connect() {
    assert_eq!(connect(&faulty("connect: drop")), Err(End::Closed));
    assert_eq!(connect(&faulty("connect: connack 3")), Ok(3));
    let slow = faulty("connect: slow 0.2");
    let start = Instant::now();
    assert_eq!(connect(&slow), Ok(0));
    assert!(start.elapsed() >= Duration::from_millis(200));
    for fault in ["silence", "garbage"] {
        let emulator = faulty(&format!("connect: {fault}"));
        let mut client = Mqtt::open(&emulator, None);
        client.send(&client::connect(4, 0xc2, "gw", &user_name("gw"), Some(&dps_token("gw"))));
        assert_eq!(client.next(WHILE), Err(End::Silent), "{fault}");
        assert_eq!(said(&emulator, fault), ["> connect mqtt".to_owned(), format!("! {fault}")]);
    }

    assert_eq!(https("connect: drop").unwrap_err(), End::Closed);
    assert_eq!(https("connect: status 503 retry-after=7").unwrap().header("retry-after"), Some("7"));
    assert_eq!(https("connect: connack 3").unwrap().status, 200, "CONNACK is a matter of MQTT");
    let page = https("connect: html 502").unwrap();
    assert_eq!((page.status, page.header("content-type")), (502, Some("text/html")));
}

#[test]
fn at_the_websocket_upgrade() {
    let emulator = emulator("faults = [\"connect: html 502\", \"connect: drop\"]", &symmetric("answer = \"at-once\""));
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "mqtt"),
    ];
    let ask = || {
        let mut stream = tls(&emulator, emulator.https_port(), None);
        client::exchange(&mut stream, "GET", "/$iothub/websocket", &upgrade, "").map(|response| response.status)
    };
    assert_eq!(ask(), Ok(502));
    assert_eq!(ask(), Err(End::Closed));
    let mut client = Mqtt::websocket(&emulator, None);
    assert_eq!(client.connect("gw", &user_name("gw"), Some(&dps_token("gw"))), Ok(0));
}

#[test]
fn at_subscribe() {
    for (fault, expected) in [("drop", End::Closed), ("silence", End::Silent)] {
        let emulator = faulty(&format!("subscribe: {fault}"));
        let mut client = Mqtt::open(&emulator, None);
        assert_eq!(client.connect("gw", &user_name("gw"), Some(&dps_token("gw"))), Ok(0));
        client.send(&client::subscribe(FILTER, 1));
        assert_eq!(client.next(if expected == End::Silent { WHILE } else { PATIENCE }), Err(expected));
        assert_eq!(said(&emulator, fault)[2..], ["> subscribe".to_owned(), format!("! {fault}")]);
    }
}

#[test]
fn connection_faults_at_a_request() {
    let emulator = faulty("register: silence");
    let mut client = Mqtt::ready(&emulator);
    client.publish(REGISTER, 1, "");
    assert_eq!(client.message(WHILE), Err(End::Silent));
    assert_eq!(said(&emulator, "silence")[4..], ["> register", "! silence"]);
    assert_eq!(register("register: drop"), Err(End::Closed));
    assert_eq!(https("register: drop").unwrap_err(), End::Closed);

    let emulator = faulty("register: garbage");
    let mut client = Mqtt::ready(&emulator);
    client.publish(REGISTER, 0, "");
    assert!(matches!(client.next(WHILE), Err(End::Silent)), "no packet ever completes");
    let emulator = faulty("register: garbage");
    let mut stream = tls(&emulator, emulator.https_port(), None);
    let target = format!("PUT /{}/registrations/gw/register HTTP/1.1\r\nHost: x\r\n\r\n", client::SCOPE);
    stream.write_all(target.as_bytes()).unwrap();
    assert_eq!(read_within(&mut stream, PATIENCE, 1), Ok(vec![0xff]));
}

#[test]
fn delivery_faults() {
    let right = "$dps/registrations/res/200/?$rid=1";
    let stale = "$dps/registrations/res/200/?$rid=10";
    let two = |fault: &str| {
        let emulator = faulty(fault);
        let mut client = Mqtt::ready(&emulator);
        let first = client.register().map(|(topic, _)| topic);
        (first, client.message(WHILE).map(|(topic, _)| topic))
    };
    assert_eq!(two("register: stale-rid"), (Ok(stale.to_owned()), Ok(right.to_owned())));
    assert_eq!(two("register: only-stale-rid"), (Ok(stale.to_owned()), Err(End::Silent)));
    assert_eq!(two("register: duplicate"), (Ok(right.to_owned()), Ok(right.to_owned())));
    assert_eq!(two("register: truncate"), (Err(End::Closed), Err(End::Closed)));
    assert_eq!(two("register: late-drop"), (Err(End::Closed), Err(End::Closed)));
    let emulator = faulty("register: late-drop");
    assert_eq!(https_register(&emulator).unwrap_err(), End::Closed);
    assert_eq!(emulator.assignment("gw"), Some(("localhost".to_owned(), "gw".to_owned())), "decided all the same");
    assert_eq!(https("register: truncate").unwrap_err(), End::Closed);
    assert_eq!(https("register: stale-rid").unwrap().status, 200, "HTTPS has no $rid");
    let emulator = faulty("register: duplicate");
    let mut stream = tls(&emulator, emulator.https_port(), None);
    assert_eq!(put(&mut stream, "gw", &dps_token("gw")).unwrap().status, 200);
    assert_eq!(client::response(&mut stream).unwrap().status, 200);
}

#[test]
fn answers_that_are_not_the_true_one() {
    let topic = |fault: &str| register(fault).unwrap().0;
    assert_eq!(topic("register: status 429 retry-after=2"), "$dps/registrations/res/429/?$rid=1&retry-after=2");
    assert_eq!(topic("register: status 503 retry-after=a b"), "$dps/registrations/res/503/?$rid=1&retry-after=a%20b");
    assert_eq!(topic("register: html 502"), "$dps/registrations/res/502/?$rid=1");
    assert_eq!(register("register: status 400 code=400207").unwrap().1["errorCode"], 400_207);
    let date = "Wed, 21 Oct 2026 07:28:00 GMT";
    let response = https(&format!("register: status 429 retry-after={date}")).unwrap();
    assert_eq!((response.status, response.header("retry-after")), (429, Some(date)));
    assert_eq!(response.json()["errorCode"], 429_001);
    let response = https("register: body {\"status\":").unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, b"{\"status\":".as_slice()));
    let response = https("register: status-body 500 oops").unwrap();
    assert_eq!((response.status, response.body.as_slice()), (500, b"oops".as_slice()));
    let response = https("register: redirect https://elsewhere.example/x").unwrap();
    assert_eq!((response.status, response.header("location")), (307, Some("https://elsewhere.example/x")));
    assert_eq!(https("register: big 200000").unwrap().body.len(), 200_000);
    assert_eq!(register("register: big 200000").unwrap().1["status"], "assigned", "padded with spaces");
}

#[test]
fn results_that_are_not_the_true_one() {
    let state = |fault: &str| register(fault).unwrap().1["registrationState"].clone();
    assert_eq!(state("register: wrong-registration-id")["registrationId"], "someone-else");
    assert_eq!(state("register: no-hub").get("assignedHub"), None);
    assert_eq!(state("register: hub-name evil.example/path")["assignedHub"], "evil.example/path");
    assert_eq!(state("register: hub-name a\\r\\nb")["assignedHub"], "a\r\nb");
    assert_eq!(register("register: unknown-status pending").unwrap().1["status"], "pending");
    assert_eq!(https("register: assigning-forever").unwrap().status, 202);
}

#[test]
fn a_result_is_distorted_wherever_it_comes() {
    let table = |fault: &str| symmetric(&format!("faults = ['{fault}']"));
    let result = |fault: &str| {
        let emulator = emulator("", &table(fault));
        let mut client = Mqtt::ready(&emulator);
        let operation = client.register().unwrap().1["operationId"].as_str().unwrap().to_owned();
        client.query(&operation).unwrap()
    };
    assert_eq!(result("register: no-hub").1["registrationState"].get("assignedHub"), None);
    assert_eq!(result("query: no-hub").1["registrationState"].get("assignedHub"), None);
    assert_eq!(result("query: lost-operation").1["errorCode"], 404_203);
    assert_eq!(result("query: assigning-forever x*").0, "$dps/registrations/res/202/?$rid=1");
    assert_eq!(result("register: assigning-forever").1["status"], "assigning");
}

#[test]
fn faults_are_used_up_and_can_be_set_anew() {
    let emulator = emulator(
        "faults = [\"register: status 500\"]",
        &symmetric("answer = \"at-once\"\nfaults = [\"register: status 429 x2\"]"),
    );
    let status = || https_register(&emulator).unwrap().status;
    assert_eq!([status(), status(), status(), status()], [429, 429, 500, 200], "the device's own come first");
    emulator.set_faults("gw", &["register: status 418"]).unwrap();
    assert_eq!([status(), status()], [418, 200]);
    emulator.set_service_faults(&["register: drop"]).unwrap();
    assert_eq!(https_register(&emulator).unwrap_err(), End::Closed);
    assert!(emulator.set_service_faults(&["tcp: status 500"]).is_err());
    assert!(emulator.set_faults("gw", &["register: explode"]).is_err());
    assert!(emulator.set_faults("nobody", &[]).is_err());
}

#[test]
fn faults_of_a_group_meet_each_member_from_its_first_word() {
    let group = "[[group]]\nname = \"fleet\"\nprimary_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n\
         answer = \"at-once\"\nfaults = [\"connect: connack 3\"]";
    let emulator = emulator("", group);
    let code = |id: &str| {
        let sr = format!("{}%2Fregistrations%2F{id}", client::SCOPE);
        let token = client::token(&dps_emulator::sas::derived_key(client::KEY, id), &sr, client::in_one_hour());
        Mqtt::open(&emulator, None).connect(id, &user_name(id), Some(&token))
    };
    assert_eq!([code("a"), code("b"), code("a"), code("b")], [Ok(3), Ok(3), Ok(0), Ok(0)]);
}

#[test]
fn at_the_hub() {
    for (fault, expected) in [("drop", Err(End::Closed)), ("connack 3", Ok(3)), ("slow 0.1", Ok(0))] {
        let emulator = faulty(&format!("hub: {fault}"));
        assert_eq!(https_register(&emulator).unwrap().status, 200);
        let mut client = Mqtt::open(&emulator, None);
        let user = "localhost/gw/?api-version=2021-04-12";
        assert_eq!(client.connect("gw", user, Some(&hub_token("localhost", "gw"))), expected, "{fault}");
    }
}
