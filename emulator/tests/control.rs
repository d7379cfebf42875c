//! The control socket: what each command does and answers.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::{End, Mqtt, PATIENCE, emulator, https_register, hub_token, symmetric};
use dps_emulator::{Control, Emulator};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dps-emulator-{}-{name}.sock", std::process::id()))
}

/// An emulator with two hubs and a control socket.
struct Bench {
    emulator: Arc<Emulator>,
    _control: Control,
    commands: Commands,
}

struct Commands(BufReader<UnixStream>);

impl Bench {
    fn new(name: &str) -> Self {
        let service = "server_key = \"ecdsa\"\nhubs = [\"localhost\", \"127.0.0.1\"]";
        let emulator = Arc::new(emulator(service, &symmetric("answer = \"at-once\"")));
        let control = Control::open(&path(name), &emulator).unwrap();
        Self { emulator, _control: control, commands: Commands::open(path(name)) }
    }

    fn register(&self) -> Value {
        https_register(&self.emulator).unwrap().json()["status"].clone()
    }

    fn hub(&self, hub: &str) -> (Mqtt, u8) {
        let mut client = Mqtt::open(&self.emulator, None);
        let code = client.connect("gw", &format!("{hub}/gw/?api-version=2021-04-12"), Some(&hub_token(hub, "gw"))).unwrap();
        (client, code)
    }

    fn said(&mut self, line: &str) -> Value {
        self.commands.said(line)
    }
}

impl Commands {
    fn open(path: PathBuf) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn said(&mut self, line: &str) -> Value {
        writeln!(self.0.get_mut(), "{line}").unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

fn ok() -> Value {
    json!({"ok": true})
}

#[test]
fn a_device_is_moved() {
    let mut bench = Bench::new("move");
    assert_eq!(bench.register(), "assigned");
    let (mut client, code) = bench.hub("localhost");
    assert_eq!(code, 0);
    client.publish("devices/gw/messages/events/a=b", 1, "one");
    assert!(bench.emulator.wait_for_telemetry(1, PATIENCE));
    let message = json!({"hub": "localhost", "deviceId": "gw", "topic": "devices/gw/messages/events/a=b", "payload": "one"});
    assert_eq!(bench.said("telemetry"), json!([message]));
    let session = json!({
        "hub": "localhost", "deviceId": "gw", "registrationId": "gw",
        "enabled": true, "connected": true, "connections": 1, "messages": 1,
    });
    assert_eq!(bench.said("sessions"), json!([session]));
    assert_eq!(bench.said("move gw 127.0.0.1"), ok());
    assert_eq!(client.next(PATIENCE), Ok((0x40, vec![0, 1])));
    assert_eq!(client.next(PATIENCE), Err(End::Closed));
    assert_eq!((bench.said("sessions"), bench.said("identities")), (json!([]), json!([])));
    assert_eq!(bench.register(), "assigned");
    assert_eq!(bench.said("identities")[0]["hub"], "127.0.0.1");
    assert_eq!(bench.said("assign gw localhost"), ok());
    assert_eq!(bench.hub("127.0.0.1").1, 0, "until the next registration");
    assert_eq!(bench.register(), "assigned");
    assert_eq!(bench.hub("localhost").1, 0);
    let requests = json!({"connections": 3, "challenges": 0, "registrations": 3, "queries": 0, "lookups": 0});
    assert_eq!(bench.said("requests gw"), requests);
    assert_eq!(bench.said("devices")[0]["hub"], "localhost");
    assert_eq!(bench.said("transcript gw")[0], "> connect https");
}

#[test]
fn enrollments_and_identities_go_and_come_back() {
    let mut bench = Bench::new("back");
    assert_eq!(bench.said("disable gw"), ok());
    assert_eq!(bench.register(), "disabled");
    assert_eq!(bench.said("enable gw"), ok());
    assert_eq!(bench.register(), "assigned");
    let codes = |bench: &mut Bench, command: &str| (bench.said(command), bench.hub("localhost").1);
    assert_eq!(codes(&mut bench, "disable-identity gw"), (ok(), 5));
    assert_eq!(codes(&mut bench, "enable-identity gw"), (ok(), 0));
    assert_eq!(codes(&mut bench, "delete-identity gw"), (ok(), 5));
    assert_eq!(codes(&mut bench, "restore-identity gw"), (ok(), 0));
    assert_eq!(bench.said("delete-enrollment gw"), ok());
    assert_eq!(https_register(&bench.emulator).unwrap().status, 404);
    assert_eq!(bench.said("restore-enrollment gw"), ok());
    assert_eq!(bench.register(), "assigned");
    assert_eq!(bench.said("faults gw hub: connack 3; register: status 503"), ok());
    assert_eq!((bench.hub("localhost").1, https_register(&bench.emulator).unwrap().status), (3, 503));
    assert_eq!(bench.said("faults - hub: connack 5 x*"), ok());
    assert_eq!(bench.hub("localhost").1, 5);
    assert_eq!(bench.said("faults -"), ok());
    assert_eq!(bench.hub("localhost").1, 0);
}

#[test]
fn what_is_no_command_is_told_so() {
    let mut bench = Bench::new("wrong");
    for line in ["", "explode", "explode gw", "move gw", "move", "disable", "disable gw now", "devices gw", "faults"] {
        let error = format!("{line:?} is no command; dps-emulator's README lists them");
        assert_eq!(bench.said(line), json!({"error": error}), "{line}");
    }
    assert_eq!(bench.said("disable gw2"), json!({"error": "no device or group is called gw2"}));
    assert_eq!(bench.said("move gw2 localhost"), json!({"error": "no device or group is called gw2"}));
    assert_eq!(bench.said("enable-identity gw"), json!({"error": "gw has no identity at a hub"}));
    assert_eq!(bench.said("restore-enrollment gw"), json!({"error": "no enrollment of gw was removed"}));
    assert_eq!(bench.said("faults gw drop"), json!({"error": "fault \"drop\" has no \"WHERE: WHAT\""}));
}

#[test]
fn an_idle_client_is_in_nobodys_way() {
    let bench = Bench::new("idle");
    let mut another = Commands::open(path("idle"));
    assert_eq!(another.said("sessions"), json!([]));
    drop(bench);
}

#[test]
fn the_socket_is_for_this_user_and_replaces_only_a_dead_one() {
    let emulator = Arc::new(emulator("server_key = \"ecdsa\"", ""));
    let place = path("place");
    drop(UnixListener::bind(&place).unwrap());
    let control = Control::open(&place, &emulator).unwrap();
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = Control::open(&place, &emulator).unwrap_err();
    assert_eq!(taken.to_string(), format!("cannot listen on {}", place.display()));
    assert_eq!(Commands::open(place.clone()).said("devices"), json!([]), "the first one still answers");
    drop(control);
    assert!(!place.exists());
    std::fs::write(&place, "a file").unwrap();
    assert!(Control::open(&place, &emulator).is_err());
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "a file");
    std::fs::remove_file(place).unwrap();
}

#[test]
fn the_program_has_one_on_request() {
    let file = std::env::temp_dir().join(format!("dps-emulator-{}-control.toml", std::process::id()));
    std::fs::write(&file, format!("[service]\nid_scope = \"0ne\"\nserver_key = \"ecdsa\"\n{}", symmetric(""))).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_dps-emulator"));
    program.args(["serve", "--config"]).arg(&file).arg("--control").arg(path("program"));
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(Commands::open(path("program")).said("devices")[0]["registrationId"], "gw");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!path("program").exists());
    std::fs::remove_file(file).unwrap();
}
