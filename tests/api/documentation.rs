//! The examples of docs/api.md, run as they stand there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dps_agent::blame::Blame;
use dps_agent::desk::{Enrollment, State};
use dps_agent::failure::Failure;
use serde_json::Value;

use crate::agent::{Agent, Machine};

const MANUAL: &str = include_str!("../../docs/api.md");

/// A command of the manual, what it is said to print, and in which state of the daemon.
struct Example<'m> {
    is_provisioned: bool,
    command: &'m str,
    output: &'m str,
}

fn examples() -> Vec<Example<'static>> {
    let blocks = MANUAL.split("```console\n$ ").collect::<Vec<_>>();
    let pairs = blocks.windows(2).map(|pair| {
        let (command, output) = pair[1].split_once("\n```").unwrap().0.split_once('\n').unwrap();
        Example { is_provisioned: !pair[0].ends_with("<!-- while unprovisioned -->\n"), command, output }
    });
    pairs.collect()
}

/// The daemon as the examples have it.
fn agent(machine: &Machine, is_provisioned: bool) -> Agent {
    let agent = if is_provisioned { machine.provisioned() } else { machine.start() };
    agent.desk.tell(|status| {
        status.attestation = Some("symmetric-key");
        status.registration_id = Some("gw-0001".to_owned());
        if is_provisioned {
            status.enrollment = Enrollment::Accepted;
        } else {
            let refused = Failure::new(Blame::Refused, "no such enrollment");
            let refused = Failure { code: Some(404_201), tracking_id: Some("3d8d3be2-5e40".to_owned()), ..refused };
            (status.state, status.attempts, status.enrollment) = (State::Waiting, 3, Enrollment::Missing);
            status.doing = "the service refuses this device; waiting for the next try".to_owned();
            status.last_error = Some((refused, status.since));
            status.next_attempt = Some(status.since + Duration::from_secs(3600));
        }
    });
    agent
}

fn run(machine: &Machine, command: &str) -> String {
    let command = command.replace("/run/dps-agent", machine.runtime().to_str().unwrap());
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_example_prints_what_the_manual_says() {
    let examples = examples();
    for path in ["/v1/status", "/v1/assignment", "/v1/connection", "/v1/report", "/v1/reprovision", "/metrics"] {
        assert!(examples.iter().any(|example| example.command.contains(path)), "{path} has no example");
    }
    for Example { is_provisioned, command, output } in examples {
        let machine = Machine::new();
        let _agent = agent(&machine, is_provisioned);
        let printed = run(&machine, command);
        match (serde_json::from_str(output), serde_json::from_str(&printed)) {
            (Ok(said), Ok(found)) => same(&said, &found, command),
            (Err(_), Err(_)) => {
                let missing = output.lines().find(|said| !printed.lines().any(|found| alike(said, found)));
                assert_eq!(missing, None, "{command}\n{printed}");
            }
            _ => panic!("{command}\n{printed}\nand not\n{output}"),
        }
    }
}

#[test]
fn each_member_of_an_example_is_explained() {
    for example in examples() {
        let mut names = Vec::new();
        collect(&serde_json::from_str(example.output).unwrap_or(Value::Null), &mut names);
        // Errors and assignments are explained in the other manual.
        if example.output.starts_with("{\"error\"") || example.output.starts_with("{\"assignedAt\"") {
            continue;
        }
        for name in names {
            let is_explained = MANUAL.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{name}`")));
            assert!(is_explained, "{name} of {}", example.command);
        }
    }
}

#[test]
fn each_metric_is_explained() {
    let machine = Machine::new();
    let _agent = agent(&machine, false);
    let _ = run(&machine, "curl --silent --unix-socket /run/dps-agent/client/api.sock http://localhost/v1/status");
    let text = run(&machine, "curl --silent --unix-socket /run/dps-agent/admin/api.sock http://localhost/metrics");
    let names = text.lines().filter_map(|line| line.strip_prefix("dps_agent_")?.split(['{', ' ']).next());
    for name in names.collect::<Vec<_>>() {
        assert!(MANUAL.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{name}`"))), "{name}");
    }
}

/// The same members of the same kinds; texts are alike.
fn same(said: &Value, found: &Value, place: &str) {
    match (said, found) {
        (Value::Object(said), Value::Object(found)) => {
            assert_eq!(said.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{place}");
            said.iter().for_each(|(name, value)| same(value, &found[name], &format!("{place}: {name}")));
        }
        (Value::Array(said), Value::Array(found)) => {
            assert_eq!(said.len(), found.len(), "{place}");
            said.iter().zip(found).for_each(|(said, found)| same(said, found, place));
        }
        (Value::Number(_), Value::Number(_)) => {}
        (Value::String(said), Value::String(found)) => assert!(alike(said, found), "{place}: {found:?} and not {said:?}"),
        (said, found) => assert_eq!(said, found, "{place}"),
    }
}

/// Digits are any digits, and `…` is anything.
fn alike(said: &str, found: &str) -> bool {
    let [said, found] = [said, found].map(|text| text.replace(|c: char| c.is_ascii_digit(), "0"));
    match said.split_once('…') {
        None => said == found,
        Some((begin, end)) => found.len() >= begin.len() + end.len() && found.starts_with(begin) && found.ends_with(end),
    }
}

fn collect(value: &Value, names: &mut Vec<String>) {
    if let Value::Object(members) = value {
        for (name, value) in members {
            names.push(name.clone());
            collect(value, names);
        }
    }
}

#[test]
fn the_manual_tells_of_the_limits_that_there_are() {
    let limits = dps_agent::api::Limits::USUAL;
    let rooms = format!(
        "Of {} connections ({} at the admin socket), and {} of one user",
        limits.clients.connections, limits.admins.connections, limits.clients.per_user
    );
    assert!(MANUAL.contains(&rooms), "{rooms}");
    assert_eq!((limits.connections.at_once, limits.connections.pace), (100, Duration::from_millis(200)));
    assert_eq!((limits.reports.at_once, limits.reports.pace), (5, Duration::from_secs(60)));
    assert!(MANUAL.contains("Each user may ask for 100 connections at once and then for five a second; and report five times at once and then once a minute."));
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md").exists());
}
