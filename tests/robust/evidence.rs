//! What makes the daemon ask DPS again, and what does not: reports, moves, enrollments that are gone, a clock that is wrong.
#![expect(clippy::disallowed_methods, reason = "it compares what the agent says with the time")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;

use dps_emulator::Emulator;
use serde_json::{Value, json};

use crate::daemon::{Daemon, until};
use crate::gateway::{Gateway, emulator};

const PROVEN: &str = "assigned to localhost as gw-0001 (proven)";
const HUBS: &str = "hubs = [\"localhost\", \"127.0.0.1\"]";

fn gateway(emulator: &Emulator) -> Gateway {
    Gateway::new(emulator, "mqtt").set("hub.verify = \"on-change\"")
}

/// What a program on the gateway asks, and the status and body of the answer.
pub fn ask(gateway: &Gateway, target: &str, body: Option<Value>) -> (u16, Value) {
    exchange(&gateway.runtime().join("client/api.sock"), target, body)
}

pub fn exchange(socket: &Path, target: &str, body: Option<Value>) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let body = body.map_or_else(String::new, |body| body.to_string());
    let verb = if body.is_empty() { "GET" } else { "POST" };
    let length = body.len();
    write!(
        stream,
        "{verb} {target} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or(Value::Null))
}

fn status(gateway: &Gateway) -> Value {
    ask(gateway, "/v1/status", None).1
}

fn report(gateway: &Gateway, problem: &str) {
    let (code, said) = ask(gateway, "/v1/report", Some(json!({ "trouble": problem })));
    assert_eq!(code, 202, "{said}");
}

fn registrations(emulator: &Emulator) -> u64 {
    emulator.requests("gw-0001").registrations
}

#[test]
fn a_report_is_confirmed_by_our_own_try_before_dps_is_asked() {
    let emulator = emulator("", "");
    let gateway = gateway(&emulator);
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(PROVEN);
    report(&gateway, "refused");
    daemon.wait_for("tried the hub localhost as gw-0001: it accepts this device");
    // The second one has to wait: consumers cannot make the agent connect without end.
    report(&gateway, "refused");
    assert_eq!(status(&gateway)["hub"], "reachable");
    let log = daemon.stop();
    assert_eq!((log.matches("tried the hub").count(), registrations(&emulator)), (1, 1), "{log}");
}

#[test]
fn a_hub_that_a_consumer_does_not_reach_is_looked_at_and_is_no_reason_to_register_yet() {
    let emulator = emulator("", "");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ways = [format!("hub.mqtt_port = {nobody}"), format!("hub.https_port = {nobody}")];
    let gateway = ways.iter().fold(Gateway::new(&emulator, "mqtt"), |gateway, way| gateway.set(way));
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("assigned to localhost as gw-0001 (");
    assert_eq!(status(&gateway)["hub"], "not-asked");
    report(&gateway, "unreachable");
    daemon.wait_for(&format!("the hub localhost is not reached: localhost:{nobody} cannot be reached: Connection refused"));
    assert!(until(|| status(&gateway)["hub"] == "unreachable"), "{}", status(&gateway));
    daemon.stop();
    assert_eq!(registrations(&emulator), 1);
}

#[test]
fn a_hub_move_changes_the_generation_once_and_everybody_hears_of_it() {
    let emulator = emulator(HUBS, "");
    let table = "[handoff.template.env]\nsource = \"hub.env\"\nfile = \"hub.env\"\nmode = \"0640\"\n";
    let gateway = gateway(&emulator).table(table);
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(PROVEN);
    let env = gateway.runtime().join("handoff/hub.env");
    let holds = |line: &str| until(|| fs::read_to_string(&env).is_ok_and(|text| text.lines().any(|found| found == line)));
    assert!(holds("IOTHUB_HOSTNAME=\"localhost\""), "{}", daemon.log());
    emulator.move_hub_now("gw-0001", "127.0.0.1").unwrap();
    let heard = std::thread::scope(|scope| {
        let heard = scope.spawn(|| ask(&gateway, "/v1/assignment?after=1&wait=60", None));
        report(&gateway, "refused");
        heard.join().unwrap()
    });
    assert_eq!(heard.0, 200);
    assert_eq!((&heard.1["generation"], &heard.1["assignedHub"]), (&json!(2), &json!("127.0.0.1")));
    assert_eq!(heard.1["proof"], "proven");
    assert!(holds("IOTHUB_HOSTNAME=\"127.0.0.1\""), "{}", daemon.log());
    let (_, connection) = ask(&gateway, "/v1/connection", Some(json!({"client": "device"})));
    assert_eq!((&connection["host"], &connection["generation"]), (&json!("127.0.0.1"), &json!(2)));
    daemon.stop();
    assert_eq!(registrations(&emulator), 2);
}

/// The enrollment is gone and the identity at the hub with it: what there is serves on, and everybody can see why it fails.
fn gone(take: impl FnOnce(&Emulator), word: &str, code: Value, checked: &str) {
    let emulator = emulator("", "");
    // What `check` asks over HTTPS says the most.
    let gateway = gateway(&emulator).set("dps.transport = \"https\"");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(PROVEN);
    emulator.remove_from_hub("gw-0001").unwrap();
    take(&emulator);
    report(&gateway, "refused");
    daemon.wait_for("the hub refuses this device; next try in ");
    let said = status(&gateway);
    assert_eq!((&said["state"], &said["provisioned"]), (&json!("waiting"), &json!(true)), "{said}");
    assert_eq!((&said["enrollment"], &said["hub"]), (&json!(word), &json!("refused")), "{said}");
    assert_eq!((&said["lastError"]["blame"], &said["lastError"]["errorCode"]), (&json!("refused"), &code), "{said}");
    let wait = said["nextAttemptInSeconds"].as_u64().unwrap();
    assert!((400..=3600).contains(&wait), "an eighth of an hour at least, and an hour at most: {wait}");
    assert_eq!(ask(&gateway, "/v1/assignment", None).1["assignedHub"], "localhost");
    let check = gateway.run(&["check", "--json"]).json();
    let dps = check["checks"].as_array().unwrap().iter().find(|check| check["id"] == "dps").unwrap();
    assert_eq!(dps["result"], checked, "{dps}");
    daemon.stop();
    // A restart changes nothing of it, and asks nobody.
    let before = registrations(&emulator);
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(PROVEN);
    daemon.stop();
    assert_eq!(registrations(&emulator), before);
}

#[test]
fn a_deleted_enrollment_leaves_the_assignment_and_is_told() {
    gone(|emulator| emulator.remove("gw-0001").unwrap(), "missing", json!(404_201), "warning");
}

#[test]
fn a_disabled_enrollment_leaves_the_assignment_and_is_told() {
    gone(|emulator| emulator.set_enabled("gw-0001", false).unwrap(), "disabled", json!(null), "failed");
}

#[test]
fn an_operator_registers_the_device_anew_through_the_socket_of_admins() {
    let emulator = emulator("", "");
    let gateway = gateway(&emulator);
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(PROVEN);
    let ran = gateway.run(&["reprovision"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(until(|| registrations(&emulator) == 2 && status(&gateway)["state"] == "provisioned"), "{}", daemon.log());
    assert_eq!(status(&gateway)["generation"], 1);
    daemon.stop();
}

#[test]
fn a_busy_hub_is_a_reason_for_a_lookup_and_not_for_a_registration() {
    let emulator = emulator("", "");
    let gateway = gateway(&emulator);
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(PROVEN);
    emulator.set_faults("gw-0001", &["hub: connack 3 x*"]).unwrap();
    report(&gateway, "refused");
    daemon.wait_for("tried the hub localhost as gw-0001: it is busy");
    assert!(until(|| emulator.requests("gw-0001").lookups == 1), "{}", daemon.log());
    daemon.stop();
    assert_eq!(registrations(&emulator), 1);
}

/// DPS refuses the first token, and its own time is two hours later than ours.
const SKEWED: &str = "faults = [\"register: status 401\", \"lookup: dated 7200\"]";

#[test]
fn a_clock_that_the_service_proves_wrong_is_told_and_waited_for() {
    let emulator = emulator("", SKEWED);
    let gateway = gateway(&emulator);
    let (code, message) = gateway.error(&["provision", "--timeout", "20s"]);
    assert_eq!(code, 75);
    assert!(message.starts_with("the service answered 401, error code 401000"), "{message}");
    let cure = "set this machine's clock, or write trust_service_date = true in [clock]";
    assert!(message.contains(": the token was made by a wrong clock: it is ") && message.ends_with(cure), "{message}");
    emulator.set_faults("gw-0001", &["register: status 401", "lookup: dated 7200"]).unwrap();
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("this machine's clock is 7200 s behind that of localhost: set the clock");
    daemon.wait_for("there is no assignment yet; next try in ");
    let said = status(&gateway);
    assert_eq!(said["clock"], json!({"verdict": "skewed", "offsetSeconds": 7200, "serviceTimeTrusted": false}), "{said}");
    assert_eq!(said["lastError"]["blame"], "clock", "{said}");
    daemon.stop();
}

#[test]
fn the_question_for_the_time_is_in_the_transcript() {
    let emulator = emulator("", SKEWED);
    let gateway = gateway(&emulator).table("[clock]\ntrust_service_date = true\n");
    let file = gateway.path("transcript");
    let ran = gateway.run(&["provision", "--transcript", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, after) = text.split_once("= gave-up unauthorized\n").expect(&text);
    let asked: Vec<&str> = after.lines().map(|line| line.split(" {").next().unwrap()).take(5).collect();
    assert_eq!(asked, ["> connect https", "> lookup", "< 404", "> disconnect", "> connect mqtt"], "{text}");
}

#[test]
fn the_service_s_time_is_used_for_tokens_where_the_configuration_trusts_it() {
    let emulator = emulator("", SKEWED);
    let gateway = gateway(&emulator).table("[clock]\ntrust_service_date = true\n");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("this machine's clock is 7200 s behind that of localhost: its time is used for tokens");
    daemon.wait_for(PROVEN);
    let said = status(&gateway);
    assert_eq!(said["clock"], json!({"verdict": "skewed", "offsetSeconds": 7200, "serviceTimeTrusted": true}), "{said}");
    let (_, connection) = ask(&gateway, "/v1/connection", Some(json!({"client": "device"})));
    let password = connection["password"].as_str().unwrap();
    let expiry: u64 = password.split("&se=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // An hour of life, two hours of skew, and what this test takes.
    assert!((10_700..=10_900).contains(&(expiry - now)), "{}", expiry - now);
    daemon.stop();
}
