//! Each call, right and wrong: what is answered, and what the daemon is asked.

use std::fs;
use std::time::Duration;

use dps_agent::api::{Limits, Rate};
use dps_agent::blame::Blame;
use dps_agent::desk::{Order, State, Trouble};
use dps_agent::failure::Failure;
use serde_json::json;

use crate::agent::Machine;
use crate::client::{Client, post};

#[test]
fn status_is_answered_before_there_is_an_assignment_and_after() {
    let machine = Machine::new();
    let agent = machine.start();
    let mut client = Client::to(&machine.client());
    let starting = client.get("/v1/status").json();
    assert_eq!((&starting["state"], &starting["provisioned"]), (&json!("starting"), &json!(false)));
    agent.desk.tell(|status| {
        status.state = State::Waiting;
        let failure = Failure { tracking_id: Some("3d8d".into()), code: Some(404_201), ..Failure::new(Blame::Refused, "no") };
        status.last_error = Some((failure, status.since));
        status.next_attempt = Some(status.since + Duration::from_secs(3600));
    });
    let waiting = client.get("/v1/status").json();
    assert_eq!(waiting["state"], "waiting");
    let error = &waiting["lastError"];
    assert_eq!(
        (&error["blame"], &error["trackingId"], &error["errorCode"]),
        (&json!("refused"), &json!("3d8d"), &json!(404_201))
    );
    agent.desk.serve(Some(machine.served(3)));
    let served = client.get("/v1/status").json();
    assert_eq!((&served["provisioned"], &served["generation"], &served["proof"]), (&json!(true), &json!(3), &json!("proven")));
}

#[test]
fn the_assignment_is_what_the_file_says() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let answer = Client::to(&machine.client()).get("/v1/assignment");
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("application/json")));
    let expected = json!({
        "generation": 3, "registrationId": "gw-0001", "assignedHub": "h.azure-devices.net", "deviceId": "gw-0001",
        "substatus": "initialAssignment", "proof": "proven", "attestation": "symmetric-key", "payload": {"site": "b7"},
        "assignedAt": "2026-11-23T10:00:00Z",
    });
    assert_eq!(answer.json(), expected);
}

#[test]
fn without_an_assignment_there_is_the_status_instead() {
    let machine = Machine::new();
    let agent = machine.start();
    let mut client = Client::to(&machine.client());
    let why = "the device is not provisioned yet; status tells why, and GET /v1/assignment?wait=SECONDS waits for it";
    for answer in [client.get("/v1/assignment"), client.get("/v1/assignment?after=3"), client.post("/v1/connection", "{}")] {
        assert_eq!(answer.refusal(), (503, why.to_owned()));
        assert_eq!(
            (&answer.json()["status"]["state"], &answer.json()["error"]["blame"]),
            (&json!("starting"), &json!("network"))
        );
    }
    assert_eq!(agent.desk.last_given(), None);
}

#[test]
fn a_connection_is_made_for_each_who_asks() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    let made = client.post("/v1/connection", r#"{"client":"device","expiresIn":600}"#).json();
    assert_eq!((&made["generation"], &made["host"], &made["port"]), (&json!(3), &json!("h.azure-devices.net"), &json!(8883)));
    assert_eq!(made["clientId"], "gw-0001");
    assert_eq!(made["username"], "h.azure-devices.net/gw-0001/?api-version=2021-04-12");
    assert_eq!(made["webSocket"], json!({"port": 443, "path": "/$iothub/websocket"}));
    assert_eq!((&made["certificateFile"], &made["privateKeyFile"]), (&json!(null), &json!(null)));
    let password = made["password"].as_str().unwrap();
    assert!(password.starts_with("SharedAccessSignature sr=h.azure-devices.net%2Fdevices%2Fgw-0001&sig="), "{password}");
    let expiry: u64 = password.rsplit_once("&se=").unwrap().1.parse().unwrap();
    let given = agent.desk.last_given().unwrap();
    assert!((given.at + 598..=given.at + 600).contains(&expiry), "{expiry} {given:?}");
    assert_eq!((given.uid, given.pid), (Some(rustix::process::getuid().as_raw()), i32::try_from(std::process::id()).ok()));
    assert_eq!((given.by.as_str(), given.generation), ("socket", 3));
    for body in ["", "{}", "{\"client\":\"device\"}"] {
        assert_eq!(client.post("/v1/connection", body).status, 200, "{body}");
    }
    assert_eq!(client.get("/v1/status").json()["lastConnection"]["uid"], json!(given.uid));
}

#[test]
fn a_report_is_laid_on_the_desk() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    let answer = client.post("/v1/report", r#"{"generation":2,"trouble":"refused"}"#);
    assert_eq!((answer.status, answer.json()), (202, json!({"accepted": true, "generation": 3})));
    assert_eq!(agent.order(), Some(Order::Report { generation: Some(2), trouble: Trouble::Refused }));
    assert_eq!(client.post("/v1/report", r#"{"trouble":"unreachable"}"#).status, 202);
    assert_eq!(agent.order(), Some(Order::Report { generation: None, trouble: Trouble::Unreachable }));
}

#[test]
fn a_new_registration_is_for_admins() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    for (path, method) in [("/v1/reprovision", "POST"), ("/metrics", "GET")] {
        let request = format!("{method} {path} HTTP/1.1\r\n\r\n");
        let refused = Client::to(&machine.client()).send(request).receive();
        assert_eq!(refused.refusal(), (403, format!("{path} is answered on the admin socket only")));
    }
    assert_eq!(agent.order(), None);
    assert_eq!(Client::to(&machine.admin()).post("/v1/reprovision", "").status, 202);
    assert_eq!(agent.order(), Some(Order::Reprovision));
    assert_eq!(Client::to(&machine.admin()).get("/v1/assignment").json()["generation"], 3);
}

#[test]
fn what_the_daemon_cannot_take_is_said() {
    let machine = Machine::new();
    let agent = machine.start();
    let mut admin = Client::to(&machine.admin());
    while admin.post("/v1/reprovision", "").status == 202 {}
    let full = admin.post("/v1/reprovision", "");
    assert_eq!(full.refusal(), (503, "too many orders are waiting; try again later".to_owned()));
    assert_eq!(full.field("Retry-After"), Some("10"));
    while agent.order().is_some() {}
    assert_eq!(admin.post("/v1/reprovision", "").status, 202);
}

#[test]
fn what_cannot_be_meant_is_refused_in_words() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    let wrong_type = "POST /v1/report HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}";
    for (request, status, why) in [
        (
            "GET / HTTP/1.1\r\n\r\n",
            404,
            "there is no \"/\"; there is /v1/status, /v1/assignment, /v1/connection, /v1/report, /v1/reprovision, /metrics",
        ),
        ("PUT /v1/status HTTP/1.1\r\n\r\n", 405, "/v1/status is not for PUT; it understands GET, HEAD"),
        ("GET /v1/connection HTTP/1.1\r\n\r\n", 405, "/v1/connection is not for GET; it understands POST"),
        ("GET /v1/status?verbose=1 HTTP/1.1\r\n\r\n", 400, "/v1/status knows no parameter \"verbose\""),
        ("GET /v1/assignment?after=x HTTP/1.1\r\n\r\n", 400, "after is one whole number, such as after=30"),
        ("GET /v1/assignment?wait=1&wait=2 HTTP/1.1\r\n\r\n", 400, "wait is one whole number, such as wait=30"),
        ("GET /v1/assignment?wait HTTP/1.1\r\n\r\n", 400, "wait is one whole number, such as wait=30"),
        ("GET /v1/assignment?wait=3601 HTTP/1.1\r\n\r\n", 400, "wait is 3600 seconds at most"),
        (
            wrong_type,
            415,
            "the body is \"application/x-www-form-urlencoded\"; send JSON, with Content-Type: application/json (curl: --json)",
        ),
        (&post("/v1/connection", "{"), 400, "the body is not understood: EOF while parsing an object at line 1 column 1"),
        (&post("/v1/connection", "[\"device\",600]"), 400, "the body is not understood: it is no JSON object"),
        (
            &post("/v1/connection", r#"{"client":"module"}"#),
            400,
            "the body is not understood: unknown variant `module`, expected `device` at line 1 column 18",
        ),
        (
            &post("/v1/connection", r#"{"expires":5}"#),
            400,
            "the body is not understood: unknown field `expires`, expected `client` or `expiresIn` at line 1 column 10",
        ),
        (&post("/v1/connection", r#"{"expiresIn":0}"#), 400, "expiresIn is a number of seconds from 1 to 86400"),
        (&post("/v1/connection", r#"{"expiresIn":86401}"#), 400, "expiresIn is a number of seconds from 1 to 86400"),
        (&post("/v1/connection?x=1", ""), 400, "/v1/connection knows no parameter \"x\""),
        (&post("/v1/report", "{}"), 400, "the body is not understood: missing field `trouble` at line 1 column 2"),
        (
            &post("/v1/report", r#"{"trouble":"slow"}"#),
            400,
            "the body is not understood: unknown variant `slow`, expected `refused` or `unreachable` at line 1 column 17",
        ),
    ] {
        let answer = client.send(request).receive();
        assert_eq!(answer.refusal(), (status, why.to_owned()));
        assert_eq!(answer.json()["error"]["blame"], "usage");
    }
    let reprovision = Client::to(&machine.admin()).post("/v1/reprovision", r#"{"now":true}"#);
    let why = "the body is not understood: unknown field `now`, there are no fields at line 1 column 6";
    assert_eq!(reprovision.refusal(), (400, why.to_owned()));
    assert_eq!((agent.order(), agent.desk.last_given()), (None, None));
}

#[test]
fn a_head_without_the_body_is_had_too() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    let whole = client.get("/v1/assignment");
    client.send("HEAD /v1/assignment HTTP/1.1\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.stream, &mut text).unwrap();
    assert!(text.ends_with("Connection: close\r\n\r\n"), "{text}");
    assert!(text.contains(&format!("Content-Length: {}\r\n", whole.body.len())), "{text}");
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again() {
    let machine = Machine::new();
    let rate = |at_once| Rate { at_once, pace: Duration::from_secs(3600) };
    let agent = machine.provisioned_with(Limits { connections: rate(3), reports: rate(2), ..Limits::USUAL });
    let uid = rustix::process::getuid().as_raw();
    let mut client = Client::to(&machine.client());
    let report = r#"{"trouble":"refused"}"#;
    for (path, body, allowed) in [("/v1/connection", "", 3), ("/v1/report", report, 2)] {
        for _ in 0..allowed {
            assert!(client.post(path, body).status < 300);
        }
        let refused = client.post(path, body);
        let (status, message) = refused.refusal();
        assert_eq!(status, 429);
        assert!(message.starts_with(&format!("uid {uid} asks too often; again in 3")), "{message}");
        assert!(refused.field("Retry-After").is_some_and(|seconds| message.ends_with(&format!("again in {seconds} s"))));
    }
    assert_eq!(client.get("/v1/assignment").status, 200, "what costs nothing is not counted");
    assert_eq!((agent.order().is_some(), agent.order().is_some(), agent.order()), (true, true, None));
}

#[test]
fn metrics_count_and_are_kept_in_a_file() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    assert_eq!(client.post("/v1/connection", "").status, 200);
    assert_eq!(client.get("/nowhere").status, 404);
    let answer = Client::to(&machine.admin()).get("/metrics");
    assert_eq!(answer.field("Content-Type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    for line in [
        "dps_agent_state{state=\"provisioned\"} 1",
        "dps_agent_state{state=\"waiting\"} 0",
        "dps_agent_provisioned 1",
        "dps_agent_assignment_generation{proof=\"proven\"} 3",
        "dps_agent_connections_total 1",
        "dps_agent_api_requests_total{path=\"/v1/connection\",status=\"200\"} 1",
        "dps_agent_api_requests_total{path=\"none\",status=\"404\"} 1",
        "dps_agent_api_connections{socket=\"client\"} 1",
        "dps_agent_clock{clock=\"good\"} 1",
        "# EOF",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "no {line} in\n{}", answer.body);
    }
    let kept = fs::read_to_string(machine.runtime().join("metrics.prom")).unwrap();
    assert!(kept.ends_with("# EOF\n") && kept.contains("# TYPE dps_agent_state gauge\n"), "{kept}");
}

#[test]
fn it_is_told_apart_when_the_machine_cannot_make_a_token() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let mut served = machine.served(4);
    served.clock = dps_agent::clock::Clock::with_floor(Some(u64::from(u32::MAX)));
    agent.desk.serve(Some(served));
    let answer = Client::to(&machine.client()).post("/v1/connection", "");
    assert_eq!((answer.status, &answer.json()["error"]["blame"]), (503, &json!("clock")));
}
