//! Years of a daemon in seconds: configurations and keys that change, operators, waits that outlive it, clocks that are wrong.
#![expect(clippy::disallowed_methods, reason = "it compares what the agent says with the time")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::daemon::{Daemon, PATIENCE, until};
use crate::gateway::{Gateway, KEY, emulator};

const ASSIGNED: &str = "assigned to localhost as gw-0001 (unverified)";

/// A second key of `gw-0001`.
const SECOND: &str = "dGhlIHNlY29uZCBrZXkgb2YgdGhlIHRlc3RzLCAzMmI=";

fn assignment(gateway: &Gateway) -> Value {
    serde_json::from_slice(&fs::read(gateway.assignment()).unwrap()).unwrap()
}

fn registrations(emulator: &dps_emulator::Emulator, id: &str) -> usize {
    emulator.transcript(id).iter().filter(|line| *line == "> register").count()
}

#[test]
fn sighup_takes_over_a_changed_configuration_and_the_old_assignment_serves_until_then() {
    let second = format!(
        "[[enrollment]]\nregistration_id = \"gw-0002\"\nprimary_key = \"{KEY}\"\nanswer = \"at-once\"\n\
         faults = [\"register: status 404 code=404201 x*\"]"
    );
    let emulator = emulator("", &second);
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(ASSIGNED);
    let gateway_2 = gateway.path("config.toml");
    let changed = fs::read_to_string(&gateway_2).unwrap().replace("gw-0001", "gw-0002");
    fs::write(&gateway_2, changed).unwrap();
    daemon.reload();
    daemon.wait_for("the configuration, key or certificate has changed; next try in ");
    assert_eq!(assignment(&gateway)["registrationId"], "gw-0001");
    emulator.set_faults("gw-0002", &[]).unwrap();
    // Reading the same configuration again is no reason to try at once; changing it is.
    let once_more = fs::read_to_string(&gateway_2).unwrap().replace("transport = \"mqtt\"\nmqtt", "transport = \"auto\"\nmqtt");
    fs::write(&gateway_2, once_more).unwrap();
    daemon.reload();
    daemon.wait_for("assigned to localhost as gw-0002 (unverified)");
    daemon.stop();
    assert_eq!(assignment(&gateway)["registrationId"], "gw-0002");
}

#[test]
fn sighup_with_a_configuration_that_is_wrong_changes_nothing() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(ASSIGNED);
    let right = fs::read(gateway.path("config.toml")).unwrap();
    fs::write(gateway.path("config.toml"), "[dps]\nhots = 1\n").unwrap();
    daemon.reload();
    daemon.wait_for("DIR/config.toml:2: [dps] hots: unknown key; did you mean `host`?");
    daemon.wait_for("this configuration is not used; the one before stays");
    fs::write(gateway.path("config.toml"), right).unwrap();
    fs::remove_file(gateway.path("device.key")).unwrap();
    daemon.reload();
    daemon.wait_for("cannot read DIR/device.key: No such file or directory (os error 2) (was it copied into the image?)");
    daemon.wait_for("what was opened before stays in use");
    daemon.stop();
    assert_eq!((assignment(&gateway)["generation"].clone(), registrations(&emulator, "gw-0001")), (1.into(), 1));
}

#[test]
fn a_key_file_that_was_replaced_is_noticed_registered_and_adopted() {
    let emulator = emulator("", &format!("secondary_key = \"{SECOND}\""));
    let mut gateway = Gateway::new(&emulator, "mqtt");
    let key = gateway.path("device.key");
    gateway.file("next.key", 0o600, SECOND);
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(ASSIGNED);
    fs::rename(gateway.path("next.key"), key).unwrap();
    // It looks once a minute.
    assert!(until_long(|| daemon.log().contains("a key or certificate file has changed")), "{}", daemon.log());
    assert!(until(|| assignment(&gateway)["generation"] == 2), "{}", daemon.log());
    daemon.stop();
    assert_eq!(registrations(&emulator, "gw-0001"), 2);
}

#[test]
fn what_an_operators_verb_has_changed_is_served_without_another_registration() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt").set("hub.transport = \"mqtt-ws\"");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(ASSIGNED);
    // Another transport makes another record, even within one second.
    let other = fs::read_to_string(gateway.path("config.toml")).unwrap().replace("\"mqtt\"", "\"https\"");
    fs::write(gateway.path("config.toml"), other).unwrap();
    assert_eq!(gateway.run(&["provision", "--force"]).code, Some(0));
    assert!(until_long(|| daemon.log().contains("the record was changed by another process")), "{}", daemon.log());
    daemon.stop();
    assert_eq!(registrations(&emulator, "gw-0001"), 2);
}

const UNKNOWN: &str = "faults = [\"register: status 404 code=404201 x*\"]";

#[test]
fn a_long_wait_outlives_the_daemon_and_ends_when_the_configuration_changes() {
    let second = format!("[[enrollment]]\nregistration_id = \"gw-0002\"\nprimary_key = \"{KEY}\"\nanswer = \"at-once\"\n");
    let emulator = emulator("", &format!("{UNKNOWN}\n{second}"));
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("there is no assignment yet; next try in ");
    daemon.stop();
    assert_eq!((registrations(&emulator, "gw-0001"), gateway.names()[0].clone()), (1, vec!["wait".to_owned()]));
    emulator.set_faults("gw-0001", &[]).unwrap();
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("the last registration failed (blame refused); next try in ");
    daemon.stop();
    assert_eq!(registrations(&emulator, "gw-0001"), 1);
    let gateway = gateway.set("attestation.registration_id = \"gw-0002\"");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("assigned to localhost as gw-0002 (unverified)");
    daemon.stop();
    assert_eq!(gateway.names()[0], ["record"]);
}

#[test]
fn a_wait_of_another_boot_is_what_was_left_of_it_whatever_the_clock_says() {
    let emulator = emulator("", UNKNOWN);
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("there is no assignment yet; next try in ");
    daemon.stop();
    let wait = gateway.record().with_file_name("wait");
    let mut kept: Value = serde_json::from_slice(&fs::read(&wait).unwrap()).unwrap();
    // Twelve hours were left when the power failed; the clock comes up at the date of the build.
    (kept["boot"], kept["left"], kept["dueAt"]) = ("another".into(), (12 * 3600).into(), 0.into());
    fs::write(&wait, kept.to_string()).unwrap();
    let mut daemon = Daemon::spawn(&gateway, at(&gateway, "@2020-01-01 00:00:00"));
    daemon.wait_for("the last registration failed (blame refused); next try in 720 min");
    daemon.stop();
    let mut damaged = Daemon::spawn(&gateway, {
        fs::write(&wait, "{\"left\":").unwrap();
        gateway.command(&["run"])
    });
    damaged.wait_for("there is no assignment yet; next try in ");
    damaged.stop();
    assert_eq!(registrations(&emulator, "gw-0001"), 2);
}

/// `run` on a machine whose clock says this: `@` a time at which it begins, or what is added to the time.
fn at(gateway: &Gateway, clock: &str) -> Command {
    fs::write(gateway.path("clock"), clock).unwrap();
    let mut command = gateway.command(&["run"]);
    command.env("LD_PRELOAD", faketime()).env("DONT_FAKE_MONOTONIC", "1");
    command.env("FAKETIME_TIMESTAMP_FILE", gateway.path("clock")).env("FAKETIME_NO_CACHE", "1");
    command
}

/// Sets that clock.
fn set(gateway: &Gateway, clock: &str) {
    fs::write(gateway.path("clock.new"), clock).unwrap();
    fs::rename(gateway.path("clock.new"), gateway.path("clock")).unwrap();
}

/// Debian's library between a program and the clock.
fn faketime() -> String {
    let found = Command::new("dpkg").args(["-L", "libfaketime"]).stderr(Stdio::null()).output().unwrap();
    let list = String::from_utf8(found.stdout).unwrap();
    let library = list.lines().find(|line| line.ends_with("/libfaketime.so.1"));
    library.expect("the package libfaketime is not installed").to_owned()
}

#[test]
fn a_clock_at_1970_is_waited_for_and_nothing_has_failed() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::spawn(&gateway, at(&gateway, "@1970-01-01 00:00:10"));
    daemon.wait_for("s behind the earliest time it can be; waiting for somebody to set it");
    assert_eq!(emulator.transcript_all().len(), 0);
    set(&gateway, "+0");
    daemon.wait_for(ASSIGNED);
    let log = daemon.stop();
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(registrations(&emulator, "gw-0001"), 1);
}

#[test]
fn a_clock_that_falls_back_behind_the_record_does_not_stop_what_is_served() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let said = emulator.transcript_all().len();
    for clock in ["@1970-01-01 00:00:10", "-1d", "@2038-01-19 03:14:00", "@2100-01-01 00:00:00"] {
        let mut daemon = Daemon::spawn(&gateway, at(&gateway, clock));
        daemon.wait_for(ASSIGNED);
        let log = daemon.stop();
        assert!(!log.contains("ERROR"), "{clock}: {log}");
    }
    assert_eq!(emulator.transcript_all().len(), said);
}

#[test]
fn a_clock_that_is_set_in_the_middle_of_a_registration_does_not_hold_it_up() {
    for step in ["+1y", "-3h", "@1970-01-01 00:00:10"] {
        let emulator = emulator("", "faults = [\"register: slow 2\"]");
        let gateway = Gateway::new(&emulator, "mqtt");
        let mut daemon = Daemon::spawn(&gateway, at(&gateway, "+0"));
        assert!(emulator.wait_for_line("gw-0001", "> register", PATIENCE), "{:#?}", emulator.transcript_all());
        set(&gateway, step);
        daemon.wait_for(ASSIGNED);
        daemon.stop();
        assert_eq!(registrations(&emulator, "gw-0001"), 1, "{step}");
        let assigned: String = assignment(&gateway)["assignedAt"].as_str().unwrap().into();
        let year = assigned.split('-').next().unwrap().parse::<u64>().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 31_556_952 + 1970;
        assert!(year <= now, "the floor of the clock must not be in the future: {assigned}");
    }
}

/// As `until`, for what is looked at once a minute.
fn until_long(mut condition: impl FnMut() -> bool) -> bool {
    (0..6).any(|_| until(&mut condition))
}

#[test]
fn the_patience_of_these_tests_is_longer_than_a_round() {
    assert!(PATIENCE * 6 > Duration::from_secs(60));
}
