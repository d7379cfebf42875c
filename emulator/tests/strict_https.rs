//! What the provisioning service accepts and refuses over HTTPS.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::{KEY, PATIENCE, SCOPE, dps_token, emulator, exchange, in_one_hour, put, symmetric, tls, token};
use dps_emulator::Emulator;
use std::io::Write;

const JSON: (&str, &str) = ("Content-Type", "application/json; charset=utf-8");
const BODY: &str = r#"{"registrationId":"gw"}"#;

fn call(emulator: &Emulator, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> client::Response {
    exchange(&mut tls(emulator, emulator.https_port(), None), method, target, headers, body).unwrap()
}

fn target(rest: &str) -> String {
    format!("/{SCOPE}/registrations/gw{rest}?api-version=2021-06-01")
}

#[test]
fn register_poll_assigned_and_lookup_on_one_connection() {
    let emulator = emulator("", &symmetric("retry_after = \"3\""));
    let mut stream = tls(&emulator, emulator.https_port(), None);
    let token = dps_token("gw");
    let response = put(&mut stream, "gw", &token).unwrap();
    assert_eq!((response.status, response.header("retry-after")), (202, Some("3")));
    let location = format!("https://localhost/{SCOPE}/registrations/gw/register");
    assert_eq!(response.header("location"), Some(location.as_str()));
    assert_eq!(response.header("x-ms-request-id").map(str::len), Some(36));
    let date = httpdate::parse_http_date(response.header("date").unwrap()).unwrap();
    assert!(date.elapsed().unwrap_or_default() < PATIENCE);
    let operation = response.json()["operationId"].as_str().unwrap().to_owned();
    let mut ask = |method, target: &str, headers: &[(&str, &str)], body| {
        let headers = [&[("Authorization", token.as_str())], headers].concat();
        exchange(&mut stream, method, target, &headers, body).unwrap()
    };
    assert_eq!(ask("POST", &target(""), &[JSON], BODY).json()["errorCode"], 404_201, "nothing to look up yet");
    let response = ask("GET", &target(&format!("/operations/{operation}")), &[], "");
    assert_eq!((response.status, response.header("retry-after")), (200, None));
    assert_eq!(response.json()["registrationState"]["assignedHub"], "localhost");
    let looked_up = ask("POST", &target(""), &[JSON], BODY).json();
    assert_eq!((&looked_up["status"], &looked_up["operationId"]), (&"assigned".into(), &serde_json::Value::Null));
    let connects = emulator.transcript("gw").iter().filter(|line| *line == "> connect https").count();
    assert_eq!(connects, 1);
}

#[test]
fn refusals_have_their_codes() {
    let emulator = emulator("", &symmetric(""));
    let good = dps_token("gw");
    let refused = |method: &str, target: &str, headers: &[(&str, &str)], body: &str| {
        let response = call(&emulator, method, target, headers, body);
        let code = response.json()["errorCode"].as_u64().unwrap();
        assert_eq!(response.header("x-ms-error-code"), Some(code.to_string().as_str()));
        (response.status, code)
    };
    let auth = ("Authorization", good.as_str());
    let register = target("/register");
    let bearer = ("Authorization", "Bearer abc");
    assert_eq!(refused("PUT", &register, &[JSON], BODY), (401, 401_000));
    assert_eq!(refused("PUT", &register, &[bearer, JSON], BODY), (401, 401_000));
    for (key, sr, expiry) in [
        (b"fedcba9876543210".as_slice(), format!("{SCOPE}%2fregistrations%2fgw"), in_one_hour()),
        (KEY, format!("{SCOPE}%2fregistrations%2fgw2"), in_one_hour()),
        (KEY, format!("{SCOPE}%2fregistrations%2fgw"), in_one_hour() - 3601),
    ] {
        let token = token(key, &sr, expiry);
        assert_eq!(refused("PUT", &register, &[("Authorization", &token), JSON], BODY), (401, 401_000));
    }
    assert_eq!(refused("PUT", &register.replace("2021-06-01", "1999-01-01"), &[auth, JSON], BODY), (400, 400_000));
    assert_eq!(refused("PUT", &register.replace("?api-version=2021-06-01", ""), &[auth, JSON], BODY), (400, 400_000));
    assert_eq!(refused("PUT", &register, &[auth, ("Content-Type", "text/plain")], BODY), (415, 415_000));
    assert_eq!(refused("PUT", &register, &[auth, JSON], r#"{"registrationId":"gw2"}"#), (400, 400_000));
    assert_eq!(refused("POST", &register, &[auth, JSON], BODY), (405, 405_000));
    assert_eq!(refused("PUT", &format!("/{SCOPE}/registrations//register"), &[auth, JSON], BODY), (405, 405_000));
    assert_eq!(refused("GET", "/", &[auth], ""), (404, 404_000));
    assert_eq!(refused("GET", "/%ff", &[auth], ""), (400, 400_000));
    assert_eq!(refused("GET", &target("/operations/4.no.such"), &[auth], ""), (404, 404_203));
    let nobody = dps_token("nobody");
    let of_nobody = register.replace("/gw/", "/nobody/");
    let body = r#"{"registrationId":"nobody"}"#;
    assert_eq!(refused("PUT", &of_nobody, &[("Authorization", &nobody), JSON], body), (404, 404_201));
}

#[test]
fn ids_in_the_path_are_percent_decoded() {
    let table = symmetric("answer = \"at-once\"").replace("\"gw\"", "\"gw:1\"");
    let emulator = emulator("", &table);
    let token = token(KEY, &format!("{SCOPE}%2Fregistrations%2Fgw%3A1"), in_one_hour());
    let target = format!("/{SCOPE}/registrations/gw%3A1/register?api-version=2021-06-01");
    let response = call(&emulator, "PUT", &target, &[("Authorization", &token)], "");
    assert_eq!(response.json()["registrationState"]["registrationId"], "gw:1");
}

#[test]
fn chunked_bodies_and_expect_continue() {
    let emulator = emulator("", &symmetric("answer = \"at-once\""));
    let mut stream = tls(&emulator, emulator.https_port(), None);
    let request = format!(
        "PUT {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        target("/register"),
        dps_token("gw"),
        &BODY[..5],
        BODY.len() - 5,
        &BODY[5..],
    );
    stream.write_all(request.as_bytes()).unwrap();
    let response = client::response(&mut stream).unwrap();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!(client::read_within(&mut stream, PATIENCE, 1), Err(client::End::Closed));
}

#[test]
fn what_is_no_http_is_refused() {
    let emulator = emulator("", "");
    for bytes in ["\x10\x0c\x00\x04MQTT\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = tls(&emulator, emulator.https_port(), None);
        stream.write_all(bytes.as_bytes()).unwrap();
        assert_eq!(client::response(&mut stream).unwrap().status, 400, "{bytes:?}");
    }
}

#[test]
fn upgrades_to_anything_but_mqtt_are_refused() {
    let emulator = emulator("", "");
    let upgrade = |path: &str, protocol: &str| {
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", protocol),
        ];
        call(&emulator, "GET", path, &headers, "").status
    };
    assert_eq!(upgrade("/$iothub/websocket", "AMQPWSB10"), 400);
    assert_eq!(upgrade("/", "mqtt"), 404);
    assert_eq!(emulator.transcript("-"), ["> connect mqtt-ws", "< 400", "> connect mqtt-ws", "< 404"]);
}
