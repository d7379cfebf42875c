//! What the provisioning service accepts and refuses over MQTT.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::{
    End, FILTER, KEY, Mqtt, PATIENCE, REGISTER, SCOPE, WHILE, dps_token, emulator, in_one_hour, publish, subscribe, symmetric,
    token, user_name,
};
use dps_emulator::sas::derived_key;

#[test]
fn register_poll_assigned() {
    let emulator = emulator("", &symmetric("polls = 1\nretry_after = 3\npayload = { a = 1 }\ndevice_id = \"Gw\""));
    let mut client = Mqtt::ready(&emulator);
    let (topic, body) = client.register().unwrap();
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=1&retry-after=3");
    assert_eq!(body["status"], "assigning");
    let operation = body["operationId"].as_str().unwrap();
    assert_eq!(client.query(operation).unwrap().0, "$dps/registrations/res/202/?$rid=1&retry-after=3");
    let (topic, body) = client.query(operation).unwrap();
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=1");
    let state = &body["registrationState"];
    assert_eq!((&body["status"], &state["status"]), (&"assigned".into(), &"assigned".into()));
    assert_eq!((&state["assignedHub"], &state["deviceId"]), (&"localhost".into(), &"Gw".into()));
    assert_eq!((&state["registrationId"], &state["payload"]["a"]), (&"gw".into(), &1.into()));
    assert_eq!(state["substatus"], "initialAssignment");
    client.send(&[0xe0, 0]);
    assert_eq!(client.next(PATIENCE), Err(End::Closed));
    let lines = emulator.transcript("GW");
    let steps: Vec<&str> = lines.iter().map(|line| line.split(" {").next().unwrap()).collect();
    let query = format!("> query {operation}");
    assert_eq!(
        steps,
        [
            "> connect mqtt",
            "< connack 0",
            "> subscribe",
            "< suback",
            "> register",
            "< 202 retry-after=3",
            &query,
            "< 202 retry-after=3",
            &query,
            "< 200",
            "> disconnect"
        ]
    );
    assert!(!lines.concat().contains("\"a\""), "the payload is scrubbed");
}

#[test]
fn the_same_over_websocket_and_assigned_at_once() {
    let emulator = emulator("", &symmetric("answer = \"at-once\""));
    let mut client = Mqtt::websocket(&emulator, None);
    assert_eq!(client.connect("gw", &user_name("gw"), Some(&dps_token("gw"))), Ok(0));
    assert_eq!(client.subscribe(FILTER, 2), Ok(1), "QoS 2 is granted as 1");
    assert_eq!(client.register().unwrap().1["status"], "assigned");
    assert_eq!(emulator.transcript("gw")[0], "> connect mqtt-ws");
}

/// The return code for a CONNECT with this client ID, user name and password.
fn connack(kinder: &str, client_id: &str, user: &str, password: Option<&str>) -> Result<u8, End> {
    let emulator = emulator(&format!("kinder = [{kinder}]"), &symmetric(""));
    Mqtt::open(&emulator, None).connect(client_id, user, password)
}

#[test]
fn connect_is_refused_for_form_audience_and_expiry() {
    let good = dps_token("gw");
    let sr = format!("{SCOPE}%2Fregistrations%2Fgw");
    let user = user_name("gw");
    assert_eq!(connack("", "gw", &user, Some(&good)), Ok(0));
    assert_eq!(connack("", "gw", &user, Some(&format!("{good}&skn=registration"))), Ok(0));
    let plain = token(KEY, &format!("{SCOPE}/registrations/gw"), in_one_hour());
    assert_eq!(connack("", "gw", &user, Some(&plain)), Ok(0), "what was received is what was signed");

    assert_eq!(connack("", "gw", &user, None), Ok(5));
    assert_eq!(connack("", "gw", &user, Some("secret")), Ok(5));
    assert_eq!(connack("", "gw", &user, Some(&format!("{good}&skn=owner"))), Ok(5));
    assert_eq!(connack("", "other", &user, Some(&good)), Ok(2));
    assert_eq!(connack("", "gw", "gw", Some(&good)), Ok(5));
    assert_eq!(connack("", "gw", &user.replace("2021-06-01", "2021-06-02"), Some(&good)), Ok(5));
    assert_eq!(connack("\"skip-api-version\"", "gw", &user.replace("2021-06-01", "2021-06-02"), Some(&good)), Ok(0));
    let expired = token(KEY, &sr, in_one_hour() - 3601);
    assert_eq!(connack("", "gw", &user, Some(&expired)), Ok(5));
    assert_eq!(connack("\"skip-expiry\"", "gw", &user, Some(&expired)), Ok(0));
    let other = token(KEY, &format!("{SCOPE}%2Fregistrations%2Fgw2"), in_one_hour());
    assert_eq!(connack("", "gw", &user, Some(&other)), Ok(5));
    assert_eq!(connack("\"skip-audience\"", "gw", &user, Some(&other)), Ok(0));
}

#[test]
fn connect_is_refused_for_what_mqtt_offers_and_dps_does_not() {
    let emulator = emulator("", &symmetric(""));
    let connect =
        |level, flags, user: &str| Mqtt::open(&emulator, None).connect_raw(level, flags, "gw", user, Some(&dps_token("gw")));
    assert_eq!(connect(4, 0xc0, &user_name("gw")), Ok(0), "clean session off, as the Python client sends it");
    assert_eq!(connect(5, 0xc2, &user_name("gw")), Ok(1));
    assert_eq!(connect(4, 0xc6, &user_name("gw")), Ok(5), "a will");
}

/// The first answer to a client that connects with this token.
fn refusal(service: &str, id: &str, scope: &str, password: &str) -> (String, u64) {
    let emulator = emulator(service, &symmetric(""));
    let mut client = Mqtt::open(&emulator, None);
    let user = user_name(id).replace(SCOPE, scope);
    assert_eq!(client.connect(id, &user, Some(password)), Ok(0));
    assert_eq!(client.subscribe(FILTER, 1), Ok(1));
    let (topic, body) = client.register().unwrap();
    assert!(body["trackingId"].is_string() && body["timestampUtc"].is_string(), "{body}");
    (topic, body["errorCode"].as_u64().unwrap())
}

#[test]
fn a_wrong_key_and_an_unknown_device_show_in_the_answer() {
    let wrong = token(b"fedcba9876543210", &format!("{SCOPE}%2Fregistrations%2Fgw"), in_one_hour());
    let unauthorized = ("$dps/registrations/res/401/?$rid=1".to_owned(), 401_000);
    let not_found = ("$dps/registrations/res/404/?$rid=1".to_owned(), 404_201);
    assert_eq!(refusal("", "gw", SCOPE, &wrong), unauthorized);
    assert_eq!(refusal("", "nobody", SCOPE, &dps_token("nobody")), not_found);
    let elsewhere = token(KEY, "0neFFFFFFFF%2Fregistrations%2Fgw", in_one_hour());
    assert_eq!(refusal("", "gw", "0neFFFFFFFF", &elsewhere), not_found);

    assert_eq!(connack("\"skip-signature\"", "gw", &user_name("gw"), Some(&wrong)), Ok(0));
    let explained = emulator("", &symmetric(""));
    Mqtt::open(&explained, None).connect("gw", &user_name("gw"), None).unwrap();
    let lines = ["gw > connect mqtt", "gw # refused: neither a token nor a certificate", "gw < connack 5"];
    assert_eq!(explained.transcript_all(), lines);
    let early = emulator("wrong_key_on_mqtt = \"connack\"", &symmetric(""));
    assert_eq!(Mqtt::open(&early, None).connect("gw", &user_name("gw"), Some(&wrong)), Ok(5));
}

#[test]
fn the_secondary_key_and_a_derived_key_are_good_too() {
    let keys = "[[enrollment]]\nregistration_id = \"gw\"\nprimary_key = \"ZmVkY2JhOTg3NjU0MzIxMA==\"\n\
         secondary_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\n\
         [[group]]\nname = \"fleet\"\nprimary_key = \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"\nanswer = \"at-once\"";
    let emulator = emulator("", keys);
    Mqtt::ready(&emulator);
    let mut member = Mqtt::open(&emulator, None);
    let sr = format!("{SCOPE}%2Fregistrations%2FMember-1");
    let derived = token(&derived_key(KEY, "Member-1"), &sr, in_one_hour());
    assert_eq!(member.connect("Member-1", &user_name("Member-1"), Some(&derived)), Ok(0));
    assert_eq!(member.subscribe(FILTER, 1), Ok(1));
    let state = member.register().unwrap().1["registrationState"].clone();
    assert_eq!((&state["deviceId"], &state["symmetricKey"]["enrollmentGroupId"]), (&"Member-1".into(), &"fleet".into()));

    let other_case = token(&derived_key(KEY, "member-1"), &sr, in_one_hour());
    let mut stranger = Mqtt::open(&emulator, None);
    assert_eq!(stranger.connect("Member-1", &user_name("Member-1"), Some(&other_case)), Ok(0));
    assert_eq!(stranger.subscribe(FILTER, 1), Ok(1));
    assert_eq!(stranger.register().unwrap().1["errorCode"], 401_000, "the spelling on the wire is what is derived from");
    let group_key = token(KEY, &sr, in_one_hour());
    let mut cheat = Mqtt::open(&emulator, None);
    assert_eq!(cheat.connect("Member-1", &user_name("Member-1"), Some(&group_key)), Ok(0));
    assert_eq!(cheat.subscribe(FILTER, 1), Ok(1));
    assert_eq!(cheat.register().unwrap().1["errorCode"], 401_000, "the group's own key attests nobody");
}

/// Sends packets to a session of `gw` that has not subscribed; the last line of the transcript when it was closed.
fn closed(kinder: &str, packets: &[Vec<u8>]) -> Option<String> {
    let emulator = emulator(&format!("kinder = [{kinder}]"), &symmetric("answer = \"at-once\""));
    let mut client = Mqtt::open(&emulator, None);
    assert_eq!(client.connect("gw", &user_name("gw"), Some(&dps_token("gw"))), Ok(0));
    client.send(&packets.concat());
    let last = loop {
        match client.next(if kinder.is_empty() { PATIENCE } else { WHILE }) {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    (last == End::Closed).then(|| emulator.transcript("gw").pop().unwrap())
}

#[test]
fn breaches_of_the_rules_close_the_connection() {
    let closes = |packets: &[Vec<u8>], why: &str| assert_eq!(closed("", packets).as_deref(), Some(why));
    let good = subscribe(FILTER, 1);
    let request = || publish(REGISTER, 1, 1, "");
    closes(&[request()], "! closed: a request before SUBACK");
    closes(&[good.clone(), request()], "! closed: a request before SUBACK");
    closes(&[subscribe("#", 1)], "! closed: a filter other than $dps/registrations/res/#");
    closes(&[subscribe("$dps/registrations/res/200/#", 1)], "! closed: a filter other than $dps/registrations/res/#");
    closes(&[publish("devices/gw/messages/events/", 0, 0, "")], "! closed: a topic that is none of the two requests");
    closes(
        &[publish("$dps/registrations/PUT/iotdps-register/?x=1", 0, 0, "")],
        "! closed: a topic with parameters that the request does not have",
    );
    closes(&[publish("$dps/registrations/PUT/iotdps-register/?$rid=", 0, 0, "")], "! closed: a request without $rid");
    closes(&[publish(REGISTER, 2, 1, "")], "! closed: QoS 2 or a retained message");
    closes(&[vec![0xf0, 0]], "! closed: packet type or flags that a client may not send");
    assert_eq!(closed("\"skip-order\"", &[good, request(), request()]), None);
}

#[test]
fn a_second_request_has_to_wait_for_the_first_answer() {
    let emulator = emulator("", &symmetric(""));
    let mut client = Mqtt::ready(&emulator);
    client.send(&[publish(REGISTER, 1, 1, ""), publish(REGISTER, 1, 2, "")].concat());
    while client.next(PATIENCE).is_ok() {}
    assert_eq!(emulator.transcript("gw").pop().unwrap(), "! closed: a second request before the answer to the first");
}

#[test]
fn bodies_are_checked() {
    let emulator = emulator("", &symmetric("answer = \"at-once\""));
    let status = |body: &str| {
        let mut client = Mqtt::ready(&emulator);
        client.publish(REGISTER, 0, body);
        let (topic, _) = client.answer().unwrap();
        topic
    };
    let (good, bad) = ("$dps/registrations/res/200/?$rid=1", "$dps/registrations/res/400/?$rid=1");
    assert_eq!(status(""), good);
    assert_eq!(status(r#"{"registrationId":"gw","payload":{"modelId":"dtmi:a;1"},"x":1}"#), good);
    assert_eq!(emulator.received_payload("gw").unwrap()["modelId"], "dtmi:a;1");
    assert_eq!(status("{"), bad);
    assert_eq!(status("[]"), bad);
    assert_eq!(status("{}"), bad);
    assert_eq!(status(r#"{"registrationId":"gw2"}"#), bad);
    assert_eq!(status(r#"{"registrationId":"gw","csr":"AAAA"}"#), bad);
    let kinder = self::emulator("kinder = [\"skip-body\", \"skip-rid\"]", &symmetric("answer = \"at-once\""));
    let mut client = Mqtt::ready(&kinder);
    client.publish("$dps/registrations/PUT/iotdps-register/?$rid=", 0, "{");
    assert_eq!(client.answer().unwrap().1["status"], "assigned");
}

#[test]
fn disabled_and_failed_come_with_status_200() {
    let off = emulator("", &symmetric("enabled = false"));
    let (topic, body) = Mqtt::ready(&off).register().unwrap();
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=1");
    assert_eq!(
        body,
        serde_json::json!({"operationId": "", "status": "disabled",
            "registrationState": {"registrationId": "gw", "status": "disabled"}})
    );
    off.set_enabled("gw", true).unwrap();
    assert_eq!(Mqtt::ready(&off).register().unwrap().1["status"], "assigning");

    let failing = emulator("", &symmetric("fail = { code = 400207, message = \"no\" }"));
    let mut client = Mqtt::ready(&failing);
    let operation = client.register().unwrap().1["operationId"].as_str().unwrap().to_owned();
    let (topic, body) = client.query(&operation).unwrap();
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=1");
    let state = &body["registrationState"];
    assert_eq!((&body["status"], &state["errorCode"]), (&"failed".into(), &400_207.into()));
    assert_eq!((&state["errorMessage"], &state["assignedHub"]), (&"no".into(), &serde_json::Value::Null));
    assert_eq!(failing.assignment("gw"), None);
}

#[test]
fn unknown_operations_and_polls_too_fast() {
    let emulator = emulator("", &symmetric("polls = 100"));
    let mut client = Mqtt::ready(&emulator);
    let (topic, body) = client.query("4.no.such").unwrap();
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$dps/registrations/res/404/?$rid=1", &404_203.into()));
    let operation = client.register().unwrap().1["operationId"].as_str().unwrap().to_owned();
    let topics: Vec<String> = (0..6).map(|_| client.query(&operation).unwrap().0).collect();
    assert!(topics[..5].iter().all(|topic| topic.starts_with("$dps/registrations/res/202/")), "{topics:?}");
    assert_eq!(topics[5], "$dps/registrations/res/429/?$rid=1");
}

#[test]
fn removed_enrollments_are_unknown() {
    let emulator = emulator("", &symmetric(""));
    emulator.remove("gw").unwrap();
    assert_eq!(Mqtt::ready(&emulator).register().unwrap().1["errorCode"], 404_201);
    assert!(emulator.remove("gw").is_err() && emulator.move_hub("gw", "x").is_err());
}
