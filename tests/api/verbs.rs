//! The verbs that ask the daemon: `status`, `connection`, `token`, `reprovision`, `diag`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dps_agent::blame::Blame;
use dps_agent::desk::{ClockVerdict, Order, State};
use dps_agent::failure::Failure;
use serde_json::{Value, json};

use crate::access::is_root;
use crate::agent::{KEY, Machine};
use crate::client::until;

fn command(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dps-agent"));
    command.args(arguments).arg("--config").arg(machine.directory.join("config.toml"));
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn run(machine: &Machine, arguments: &[&str]) -> (Option<i32>, String) {
    told(command(machine, arguments).output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String) {
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn json_of(machine: &Machine, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, text) = run(machine, &[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[test]
fn status_tells_what_the_daemon_is_at() {
    let machine = Machine::new();
    assert_eq!(json_of(&machine, &["status"]), (Some(75), json!({"provisioned": false})));
    let agent = machine.start();
    agent.desk.tell(|status| {
        status.state = State::Waiting;
        status.doing = "there is no assignment yet".to_owned();
        status.last_error = Some((Failure::new(Blame::Refused, "no such enrollment"), status.since));
        status.next_attempt = Some(status.since + Duration::from_secs(3600));
        status.clock = ClockVerdict::Skewed { by: -90, trusted: false };
    });
    let (code, words) = run(&machine, &["status"]);
    assert_eq!(code, Some(75));
    assert!(words.starts_with("state            waiting since 20"), "{words}");
    assert!(words.contains("\ndoing            there is no assignment yet\n"), "{words}");
    let end = ": no such enrollment\nservice's clock  90 s behind\nnext attempt     in 3";
    assert!(words.contains("\nclock            skewed\n") && words.contains(end), "{words}");
    agent.desk.serve(Some(machine.served(3)));
    let (code, all) = json_of(&machine, &["status"]);
    assert_eq!((code, &all["provisioned"], &all["assignedHub"]), (Some(0), &json!(true), &json!("h.azure-devices.net")));
    assert_eq!((&all["transport"], &all["payload"], &all["state"]), (&json!("mqtt"), &json!({"site": "b7"}), &json!("waiting")));
    let (_, words) = run(&machine, &["status"]);
    assert!(words.contains("\nassigned         2026-11-23T10:00:00Z over mqtt by symmetric-key\n"), "{words}");
}

#[test]
fn status_waits_for_an_assignment_and_for_a_daemon() {
    let machine = Machine::new();
    assert_eq!(json_of(&machine, &["status", "--wait=1s"]), (Some(75), json!({"provisioned": false})));
    let waiting =
        command(&machine, &["status", "--wait", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let agent = machine.start();
    // One is who keeps the metrics.
    until("the verb waits", || agent.desk.watchers() == 2);
    assert_eq!(json_of(&machine, &["status", "--wait=1s"]).0, Some(75));
    agent.desk.serve(Some(machine.served(1)));
    let (code, text) = told(waiting.wait_with_output().unwrap());
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &all["generation"]), (Some(0), &json!(1)));
}

#[test]
fn connection_and_token_come_from_the_daemon() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    // The daemon has it open; whoever asks need not be able to read it.
    fs::remove_file(machine.directory.join("device.key")).unwrap();
    let (code, made) = json_of(&machine, &["connection", "--expiry-in", "10m"]);
    assert_eq!((code, &made["host"], &made["clientId"]), (Some(0), &json!("h.azure-devices.net"), &json!("gw-0001")));
    let (code, words) = run(&machine, &["connection"]);
    assert_eq!(code, Some(0));
    let names: Vec<_> = words.lines().map(|line| line[..12].trim_end()).collect();
    assert_eq!(names, ["host", "port", "client ID", "user name", "password", "expires at", "trusted CAs"]);
    let (code, token) = json_of(&machine, &["token", "--expiry-in", "10m"]);
    assert_eq!((code, &token["assignedHub"], &token["deviceId"]), (Some(0), &json!("h.azure-devices.net"), &json!("gw-0001")));
    assert!(token["token"].as_str().unwrap().starts_with("SharedAccessSignature sr="));
    let (code, text) = run(&machine, &["token"]);
    assert!(code == Some(0) && text.starts_with("SharedAccessSignature sr=") && text.ends_with('\n'), "{text}");
    assert!(agent.desk.last_given().unwrap().pid.is_some_and(|pid| pid != std::process::id() as i32));
}

#[test]
fn what_the_daemon_refuses_is_told_as_it_says_it() {
    let machine = Machine::new();
    let _agent = machine.start();
    for verb in ["connection", "token"] {
        let (code, failed) = json_of(&machine, &[verb]);
        assert_eq!((code, &failed["error"]["blame"]), (Some(75), &json!("network")), "{verb}");
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("the device is not provisioned yet; "), "{message}");
    }
}

#[test]
fn reprovision_is_an_order_to_the_daemon() {
    let machine = Machine::new();
    let socket = machine.admin();
    let none = format!(
        "no dps-agent runs here: nobody listens at {}; start it (dps-agent run), or `dps-agent provision --force` registers without one",
        socket.display()
    );
    let (code, failed) = json_of(&machine, &["reprovision"]);
    assert_eq!((code, &failed["error"]["message"]), (Some(75), &json!(none)));
    let agent = machine.provisioned();
    assert_eq!(json_of(&machine, &["reprovision"]), (Some(0), json!({"accepted": true, "generation": 3})));
    assert_eq!(agent.order(), Some(Order::Reprovision));
}

#[test]
fn who_may_not_ask_is_told_who_may() {
    if !is_root("verbs::who_may_not_ask_is_told_who_may") {
        return;
    }
    let machine = Machine::new();
    let _agent = machine.provisioned();
    // The binary may lie where only we can reach it.
    let copy = machine.directory.join("dps-agent");
    fs::copy(env!("CARGO_BIN_EXE_dps-agent"), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut other = Command::new("setpriv");
    other.args(["--reuid=4712", "--regid=4712", "--clear-groups"]).arg(copy);
    other
        .args(["status", "--json", "--config"])
        .arg(machine.directory.join("config.toml"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    let (code, text) = told(other.output().unwrap());
    let failed: Value = serde_json::from_str(&text).unwrap();
    let expected = format!(
        "cannot ask the daemon at {}: Permission denied (os error 13) (this takes root, or for the client socket a member of the group dps-clients)",
        machine.client().display()
    );
    assert_eq!((code, &failed["error"]["message"]), (Some(73), &json!(expected)));
}

#[test]
fn diag_tells_all_but_the_secrets() {
    let machine = Machine::new();
    let config = machine.directory.join("config.toml");
    let payload = "payload = '{\"canary\": \"canary-in-the-payload\"}'\n[attestation]";
    let text = fs::read_to_string(&config).unwrap().replacen("[attestation]", payload, 1);
    fs::write(&config, text).unwrap();
    let agent = machine.provisioned();
    let signature = "SharedAccessSignature sr=h&sig=canary-in-an-error&se=5";
    agent.desk.tell(|status| status.last_error = Some((Failure::new(Blame::Peer, signature), status.since)));
    let (code, text) = run(&machine, &["diag"]);
    assert_eq!(code, Some(0));
    let sections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("== ")).collect();
    assert_eq!(sections, ["version", "machine", "configuration", "files", "daemon", "metrics", "record", "check"]);
    for found in [
        "dps-agent 0.1.0, ",
        "id_scope = \"0ne00000000\"  # ",
        "# payload (left out)",
        "\"state\": \"provisioned\"",
        "dps_agent_provisioned 1",
        "/device.key",
        "/run/client/api.sock",
        "there is none",
        "config",
        "sig=(left out)",
    ] {
        assert!(text.contains(found), "no {found:?} in\n{text}");
    }
    let report = machine.directory.join("report");
    let (code, _) = run(&machine, &["diag", report.to_str().unwrap(), "--json"]);
    assert_eq!((code, fs::metadata(&report).unwrap().permissions().mode() & 0o777), (Some(0), 0o600));
    let json: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(json.as_object().unwrap().len(), sections.len());
    for canary in ["canary-in-the-payload", "canary-in-an-error", KEY] {
        assert!(!text.contains(canary) && !json.to_string().contains(canary), "{canary} in\n{text}");
    }
    let again = command(&machine, &["diag", report.to_str().unwrap()]).output().unwrap();
    assert_eq!(again.status.code(), Some(73));
    let said = String::from_utf8(again.stderr).unwrap();
    let expected = format!("dps-agent: cannot write the report {}: File exists (os error 17)\n", report.display());
    assert_eq!(said, expected);
}

#[test]
fn diag_helps_where_nothing_works() {
    let machine = Machine::new();
    fs::write(machine.directory.join("config.toml"), "[dps]\nid_scope = 5\n").unwrap();
    let (code, text) = run(&machine, &["diag"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("== configuration\n") && text.contains("config.toml:2"), "{text}");
}
