//! `status`: what the daemon says of itself, or without one what is recorded.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::{self, Cli};
use super::daemon::{Door, ask, wait_for};
use super::output;
use super::verbs::{Ended, in_words, load, recorded, told, with};
use crate::blame::Blame;
use crate::config::Config;
use crate::failure::Failure;

/// How long the daemon is asked to wait at a time, in seconds.
const WAIT: u64 = 600;
/// Where there is nobody to wait for us, we look so often.
const PACE: Duration = Duration::from_secs(1);

/// `status`
pub async fn status(cli: &Cli, options: &args::Status) -> Ended {
    let config = load(cli)?;
    if let Some(patience) = options.wait {
        // If the time runs out, how far it has come is told below.
        if let Ok(waited) = tokio::time::timeout(patience, provisioned(&config)).await {
            waited?;
        }
    }
    match told_by_daemon(&config).await? {
        Some(status) => tell(cli, &status),
        None => tell_recorded(cli, &config),
    }
}

/// Waits until there is an assignment.
async fn provisioned(config: &Config) -> Result<(), Failure> {
    loop {
        let target = format!("/v1/assignment?wait={WAIT}");
        match wait_for(config, &target, Duration::from_secs(WAIT)).await {
            Ok(Some(reply)) if reply.status == 200 => return Ok(()),
            Ok(None) if recorded(config)?.is_some() => return Ok(()),
            Err(failure) if failure.blame != Blame::Network => return Err(failure),
            // It has not come yet, or the daemon has, or went away in between.
            Ok(_) | Err(_) => tokio::time::sleep(PACE).await,
        }
    }
}

/// Status and assignment of the daemon in one object.
async fn told_by_daemon(config: &Config) -> Result<Option<Map<String, Value>>, Failure> {
    let Some(reply) = ask(config, Door::Client, "GET", "/v1/status", &Value::Null).await? else { return Ok(None) };
    let mut all = object(reply.success()?.json()?);
    let assignment = ask(config, Door::Client, "GET", "/v1/assignment", &Value::Null).await?;
    if let Some(reply) = assignment.filter(|reply| reply.status == 200) {
        all.extend(object(reply.json()?));
        all.insert("provisioned".to_owned(), json!(true));
    }
    Ok(Some(all))
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(members) = value { members } else { Map::new() }
}

fn tell(cli: &Cli, status: &Map<String, Value>) -> Ended {
    if cli.json {
        output::print_json(&Value::Object(status.clone()))?;
    } else {
        output::print(&lines(status))?;
    }
    Ok(exit_code(status.get("provisioned") == Some(&json!(true))))
}

fn tell_recorded(cli: &Cli, config: &Config) -> Ended {
    let record = recorded(config)?;
    match (&record, cli.json) {
        (Some(record), true) => output::print_json(&with(told(record), "provisioned", json!(true)))?,
        (Some(record), false) => output::print(&in_words(record))?,
        (None, true) => output::print_json(&json!({ "provisioned": false }))?,
        (None, false) => output::print("not provisioned yet: no assignment is recorded for this device\n")?,
    }
    Ok(exit_code(record.is_some()))
}

fn exit_code(is_provisioned: bool) -> u8 {
    if is_provisioned { 0 } else { Blame::Network.exit_code() }
}

/// The members of a status, and where a line of it has more than one value, how they stand in it.
const LINES: [(&str, &[&str]); 14] = [
    ("state", &["{state} since {since}"]),
    ("doing", &["{doing}"]),
    ("registration ID", &["{registrationId}"]),
    ("assigned hub", &["{assignedHub}"]),
    ("device ID", &["{deviceId}"]),
    ("assigned", &["{assignedAt} over {transport} by {attestation}", "{assignedAt} by {attestation}"]),
    ("proof", &["{proof}"]),
    ("substatus", &["{substatus}"]),
    ("payload", &["{payload}"]),
    ("enrollment", &["{enrollment}"]),
    ("certificate", &["until {certificate.notAfter}, {certificate.daysLeft} days left"]),
    ("clock", &["{clock.verdict}"]),
    (
        "last connection",
        &[
            "by {lastConnection.by} to uid {lastConnection.uid} pid {lastConnection.pid} at {lastConnection.at}",
            "by {lastConnection.by} at {lastConnection.at}",
        ],
    ),
    ("last error", &["{lastError.at}: {lastError.message}"]),
];

fn lines(status: &Map<String, Value>) -> String {
    let status = Value::Object(status.clone());
    let mut text = String::new();
    for (name, forms) in LINES {
        if let Some(line) = forms.iter().find_map(|form| filled(form, &status)) {
            text.push_str(&format!("{name:<16} {line}\n"));
        }
    }
    if let Some(seconds) = status["clock"]["offsetSeconds"].as_i64().filter(|seconds| *seconds != 0) {
        let which = if seconds > 0 { "ahead" } else { "behind" };
        text.push_str(&format!("{:<16} {} s {which}\n", "service's clock", seconds.unsigned_abs()));
    }
    if let Some(seconds) = status["nextAttemptInSeconds"].as_u64() {
        text.push_str(&format!("{:<16} in {seconds} s\n", "next attempt"));
    }
    text
}

/// The form with its values; nothing where one of them is not there.
fn filled(form: &str, status: &Value) -> Option<String> {
    let mut parts = form.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (path, rest) = part.split_once('}')?;
        match path.split('.').fold(status, |value, name| &value[name]) {
            Value::Null => return None,
            Value::String(value) => text.push_str(value),
            value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => text.push_str(&value.to_string()),
        }
        text.push_str(rest);
    }
    Some(text)
}
