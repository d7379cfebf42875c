//! `run`: registers and stays, needs DPS once, and goes when it is told to, whatever it is doing.
#![expect(clippy::disallowed_methods, reason = "it waits for processes and measures how long they took")]

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use dps_emulator::{Config, Emulator};
use rustix::process::{Pid, Signal, kill_process};

use crate::gateway::{Gateway, KEY, emulator};
use crate::strace;

/// Long for a machine that is busy; what is tested for takes far less.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon. It is killed if a test ends before it does.
pub struct Daemon<'g> {
    gateway: &'g Gateway,
    child: Child,
}

impl<'g> Daemon<'g> {
    pub fn start(gateway: &'g Gateway) -> Self {
        Self::spawn(gateway, gateway.command(&["run"]))
    }

    pub fn spawn(gateway: &'g Gateway, mut command: std::process::Command) -> Self {
        let log = fs::File::create(gateway.path("log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { gateway, child }
    }

    pub fn log(&self) -> String {
        self.gateway.placed(&fs::read_to_string(self.gateway.path("log")).unwrap())
    }

    pub fn wait_for(&mut self, what: &str) {
        let logged = until(|| self.log().contains(what) || self.child.try_wait().unwrap().is_some());
        assert!(logged && self.log().contains(what), "no {what:?} in:\n{}", self.log());
    }

    /// SIGHUP: it reads its configuration again.
    pub fn reload(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// SIGTERM; it ends with 0, soon, and leaves nothing half written.
    pub fn stop(self) -> String {
        let process = Pid::from_child(&self.child);
        self.stop_process(process)
    }

    fn stop_process(mut self, process: Pid) -> String {
        kill_process(process, Signal::TERM).unwrap();
        let told = Instant::now();
        self.ends();
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
        self.log()
    }

    /// It ends with 0 by itself and leaves nothing half written.
    fn ends(&mut self) {
        assert!(until(|| self.child.try_wait().unwrap().is_some()), "it does not end:\n{}", self.log());
        let code = self.child.wait().unwrap().code();
        assert_eq!(code, Some(0), "{}", self.log());
        assert!(self.log().ends_with("stopped\n"), "{}", self.log());
        let names = self.gateway.names().concat();
        assert!(!names.iter().any(|name| name.ends_with(".new") || name == ".probe"), "{names:?}");
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn until(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

const ASSIGNED: &str = "assigned to localhost as gw-0001 (unverified)";

#[test]
fn it_registers_once_and_stays() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(ASSIGNED);
    assert_eq!(gateway.names(), [["record"], ["assignment.json"]]);
    daemon.stop();
    let said = emulator.transcript_all();
    let (record, assignment) = (fs::read(gateway.record()).unwrap(), fs::read(gateway.assignment()).unwrap());
    // A reboot empties the runtime directory.
    fs::remove_dir_all(gateway.assignment().parent().unwrap()).unwrap();
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(ASSIGNED);
    daemon.stop();
    assert_eq!(fs::read(gateway.record()).unwrap(), record);
    assert_eq!(fs::read(gateway.assignment()).unwrap(), assignment);
    assert_eq!(emulator.transcript_all(), said);
}

#[test]
fn sigterm_ends_it_whatever_it_waits_for() {
    for (service, enrollment, heard) in [
        ("faults = [\"tls: silence x*\"]", "", ("-", "! silence")),
        ("", "faults = [\"connect: silence x*\"]", ("gw-0001", "! silence")),
        ("", "faults = [\"subscribe: silence x*\"]", ("gw-0001", "! silence")),
        ("", "faults = [\"register: silence x*\"]", ("gw-0001", "! silence")),
        ("", "faults = [\"register: status 429 retry-after=600 x*\"]", ("gw-0001", "< 429")),
        ("", "faults = [\"register: assigning-forever\"]", ("gw-0001", "< 202")),
        ("", "faults = [\"hub: silence x*\"]", ("gw-0001", "! silence")),
        ("", "faults = [\"hub: connack 5 x*\"]", ("gw-0001", "< connack 5")),
    ] {
        let emulator = emulator(service, enrollment);
        let gateway = Gateway::new(&emulator, "mqtt").set("hub.verify = \"on-change\"");
        let daemon = Daemon::start(&gateway);
        let (device, line) = heard;
        assert!(emulator.wait_for_line(device, line, PATIENCE), "{enrollment}: {:#?}", emulator.transcript_all());
        daemon.stop();
        let mut left = gateway.names().concat();
        // Ten minutes are longer than a registration's patience: if it has come to wait for them, what is left is kept.
        left.retain(|name| name != "wait" || !enrollment.contains("retry-after=600"));
        assert_eq!(left, Vec::<String>::new(), "{service}{enrollment}");
    }
}

#[test]
fn sigterm_ends_it_between_two_registrations() {
    let emulator = emulator("", "faults = [\"register: status 404 code=404201 x*\"]");
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("there is no assignment yet; next try in ");
    let log = daemon.stop();
    assert!(log.contains("enroll the device, or correct id_scope or registration_id"), "{log}");
}

#[test]
fn sigterm_at_each_call_on_its_files_ends_it_cleanly() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::spawn(&gateway, strace::command(&gateway, None, &["run"]));
    daemon.wait_for(ASSIGNED);
    daemon.stop_process(Pid::from_raw(strace::process(&gateway)).unwrap());
    for call in strace::calls(&gateway) {
        for file in [gateway.record(), gateway.assignment()] {
            fs::remove_dir_all(file.parent().unwrap()).unwrap_or_default();
        }
        let inject = format!("{}:signal=SIGTERM:when={}", call.name, call.number);
        Daemon::spawn(&gateway, strace::command(&gateway, Some(&inject), &["run"])).ends();
    }
}

/// A disk may come to itself again, and somebody has to be there then.
#[test]
fn a_record_that_cannot_be_read_does_not_end_it() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let mut daemon = Daemon::spawn(&gateway, strace::command(&gateway, Some("openat:error=EIO:when=2"), &["run"]));
    daemon.wait_for("cannot read DIR/state/record: Input/output error (os error 5)");
    daemon.wait_for("there is no assignment yet; next try in ");
    daemon.stop_process(Pid::from_raw(strace::process(&gateway)).unwrap());
}

#[test]
fn a_damaged_record_is_set_aside_and_it_registers_anew() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    fs::create_dir(gateway.path("state")).unwrap();
    fs::write(gateway.record(), "{}\n").unwrap();
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for(ASSIGNED);
    let log = daemon.stop();
    let warning = "the record DIR/state/record is damaged: it has no checksum; it is kept as DIR/state/record.damaged-1, \
                   and the device registers anew";
    assert!(log.contains(warning), "{log}");
    assert_eq!(gateway.names(), [vec!["record", "record.damaged-1"], vec!["assignment.json"]]);
}

/// Provisions, changes the gateway, and lets DPS be busy for a while: until it answers, the old record stays.
fn registers_anew(emulator: &Emulator, answers: &Emulator, id: &str, change: impl FnOnce(Gateway) -> Gateway) {
    let gateway = Gateway::new(emulator, "mqtt");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let before = [gateway.record(), gateway.assignment()].map(|file| fs::read(file).unwrap());
    let gateway = change(gateway);
    answers.set_faults(id, &["register: status 503 x*"]).unwrap();
    let mut daemon = Daemon::start(&gateway);
    assert!(answers.wait_for_line(id, "< 503", PATIENCE), "{}", daemon.log());
    assert_eq!([gateway.record(), gateway.assignment()].map(|file| fs::read(file).unwrap()), before);
    answers.set_faults(id, &[]).unwrap();
    daemon.wait_for(&format!("assigned to localhost as {id} (unverified)"));
    daemon.stop();
    assert_ne!(fs::read(gateway.record()).unwrap(), before[0]);
    assert_eq!(gateway.run(&["status", "--json"]).json()["registrationId"], id);
}

#[test]
fn another_registration_id_registers_anew() {
    let second = format!("[[enrollment]]\nregistration_id = \"gw-0002\"\nprimary_key = \"{KEY}\"\nanswer = \"at-once\"");
    let emulator = emulator("", &second);
    registers_anew(&emulator, &emulator, "gw-0002", |gateway| gateway.set("attestation.registration_id = \"gw-0002\""));
}

#[test]
fn another_key_registers_anew() {
    const SECOND: &str = "dGhlIHNlY29uZCBrZXkgb2YgdGhlIHRlc3RzLCAzMmI=";
    let emulator = emulator("", &format!("secondary_key = \"{SECOND}\""));
    registers_anew(&emulator, &emulator, "gw-0001", |mut gateway| {
        gateway.file("device.key", 0o600, SECOND);
        gateway
    });
}

#[test]
fn another_id_scope_registers_anew() {
    let first = emulator("", "");
    let text = format!(
        "[service]\nid_scope = \"0ne00000001\"\n[[enrollment]]\nregistration_id = \"gw-0001\"\nprimary_key = \"{KEY}\"\nanswer = \"at-once\"\n"
    );
    let second = Emulator::start(Config::from_toml(&text).unwrap()).unwrap();
    registers_anew(&first, &second, "gw-0001", |mut gateway| {
        gateway.file("ca.pem", 0o644, second.ca_pem());
        gateway.set("dps.id_scope = \"0ne00000001\"").set(&format!("dps.mqtt_port = {}", second.mqtt_port()))
    });
}
