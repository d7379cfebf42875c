//! What each change is tried with: a first start and the next, no network, a power cut, a hang, a wrong configuration.

use dps_agent::event;

use crate::machine::{KEY, Machine, emulator};

const ASSIGNED: &str = "assigned to localhost as gw-0001 (proven)";

#[test]
fn a_first_boot_reaches_the_target_and_a_reboot_without_network_does_too() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    machine.consumer("consumer.service", "ExecStart=/bin/cp /run/dps-agent/assignment.json /run/consumed");
    machine.file(
        "etc/systemd/system/first.service",
        0o644,
        "[Unit]\nConditionFirstBoot=yes\n[Service]\nExecStart=/bin/touch /etc/first\n[Install]\nWantedBy=multi-user.target\n",
    );
    machine.inside("systemctl enable first.service");
    let booted = machine.boot();
    booted.until_state("consumer.service", "active");
    assert_eq!(booted.state("dps-provisioned.target"), "active");
    assert!(machine.path("etc/first").exists(), "this was no first boot");
    booted.until("its status says so", || booted.agent("StatusText") == ASSIGNED);
    let consumed: serde_json::Value = serde_json::from_str(&booted.say("cat /run/consumed")).unwrap();
    assert_eq!((&consumed["assignedHub"], &consumed["deviceId"]), (&"localhost".into(), &"gw-0001".into()));
    the_journal_knows_it(&booted);
    booted.power_off();

    let asked = emulator.transcript("gw-0001").len();
    std::fs::remove_file(machine.path("etc/first")).unwrap();
    drop(emulator);
    let booted = machine.boot();
    booted.until_state("consumer.service", "active");
    booted.until("its status says so", || booted.agent("StatusText") == ASSIGNED);
    assert_eq!(booted.say("systemctl is-system-running"), "running");
    assert!(asked > 0 && !machine.path("etc/first").exists());
    booted.power_off();
}

/// Fields, numbers that are explained, and no secret.
fn the_journal_knows_it(booted: &crate::machine::Booted<'_>) {
    let entries = booted.entries(&format!("MESSAGE_ID={}", event::ASSIGNED));
    assert_eq!(entries.len(), 1, "{entries:?}");
    for (field, value) in [
        ("MESSAGE", ASSIGNED),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "dps-agent"),
        ("REGISTRATION_ID", "gw-0001"),
        ("ASSIGNED_HUB", "localhost"),
        ("STATE", "provisioned"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(entries[0][field], value, "{field}");
    }
    let explained = booted.say(&format!("journalctl --catalog --no-pager MESSAGE_ID={}", event::ASSIGNED));
    assert!(explained.contains("The device gw-0001 is assigned to the IoT Hub localhost as"), "{explained}");
    let all = booted.say("journalctl --output export");
    assert!(!all.contains(KEY) && all.contains("REGISTRATION_ID=gw-0001"));
}

#[test]
fn without_a_network_the_boot_is_complete_and_the_target_waits() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    drop(emulator);
    // What an updater waits for before it believes in a new image.
    machine.inside("systemctl add-wants multi-user.target boot-complete.target");
    let booted = machine.boot();
    assert_eq!(booted.say("systemctl is-system-running"), "running");
    let reached = ["multi-user.target", "boot-complete.target", "dps-agent.service", "dps-provisioned.path"];
    assert_eq!(reached.map(|unit| booted.state(unit)), ["active"; 4]);
    assert_eq!(booted.state("dps-provisioned.target"), "inactive");
    booted.until("its status says why", || booted.agent("StatusText").contains("cannot be reached"));
}

#[test]
fn a_power_cut_in_the_middle_of_a_registration_is_made_good_by_the_next_start() {
    let emulator = emulator("faults = [\"register: assigning-forever\"]");
    let machine = Machine::with_key(&emulator);
    let booted = machine.boot();
    booted.until("DPS is at it", || emulator.transcript("gw-0001").iter().any(|line| line.starts_with("< 202")));
    assert_eq!(booted.state("dps-provisioned.target"), "inactive");
    booted.cut();
    emulator.set_faults("gw-0001", &[]).unwrap();
    let booted = machine.boot();
    booted.until_state("dps-provisioned.target", "active");
    booted.until("its status says so", || booted.agent("StatusText") == ASSIGNED);
}

#[test]
fn a_hang_ends_it_and_it_is_started_again() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    machine.drop_in("[Service]\nWatchdogSec=20s\nTimeoutAbortSec=1s\nRestartSec=1s\n");
    let booted = machine.boot();
    booted.until("its status says so", || booted.agent("StatusText") == ASSIGNED);
    let hung = booted.agent("MainPID");
    booted.say(&format!("kill -STOP {hung}"));
    booted.until("it is started again", || booted.agent("NRestarts") == "1" && booted.agent("StatusText") == ASSIGNED);
    let said = booted.say("journalctl --sync; journalctl --unit dps-agent.service --output cat");
    assert!(said.contains("Watchdog timeout (limit 20s)!"), "{said}");
    assert_ne!(booted.agent("MainPID"), hung);
}

#[test]
fn a_wrong_configuration_is_not_tried_again_and_a_reload_of_it_changes_nothing() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let booted = machine.boot();
    booted.until("its status says so", || booted.agent("StatusText") == ASSIGNED);
    let (process, good) = (booted.agent("MainPID"), std::fs::read(machine.path("etc/dps-agent/config.toml")).unwrap());
    machine.file("etc/dps-agent/config.toml", 0o644, "[dps]\ncolour = \"red\"\n");
    booted.say("systemctl reload dps-agent.service");
    booted.until("it is told", || !booted.entries(&format!("MESSAGE_ID={}", event::CONFIGURATION_REFUSED)).is_empty());
    assert_eq!((booted.state("dps-agent.service").as_str(), booted.agent("MainPID")), ("active", process));

    assert_eq!(booted.run("systemctl restart dps-agent.service").code, Some(1));
    assert_eq!(
        ["ActiveState", "Result", "ExecMainStatus", "NRestarts"].map(|name| booted.agent(name)),
        ["failed", "exit-code", "78", "0"]
    );
    assert!(booted.agent("StatusText").starts_with("/etc/dps-agent/config.toml:2: [dps] colour: unknown key"));
    machine.file("etc/dps-agent/config.toml", 0o644, good);
    booted.say("systemctl start dps-agent.service");
    booted.until("its status says so", || booted.agent("StatusText") == ASSIGNED);
}
