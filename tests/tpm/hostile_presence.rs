//! TPMs that are not there, not yet, not for us, slow, or busy with themselves.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::hostile_gateway::{Gateway, code};
use crate::relay::{Act, When, rc};

#[test]
fn a_device_that_is_not_there_is_waited_for_and_then_named() {
    let mut gateway = Gateway::new();
    gateway.set("attestation.tcti = \"device:/nonexistent/tpmrm0\"");
    let absent =
        "no TPM at /nonexistent/tpmrm0; it may still be starting. If it stays away, enable it in the firmware, or correct tcti";
    for arguments in [&["provision", "--timeout", "1s"][..], &["identity"]] {
        assert_eq!(gateway.fails(arguments), (71, absent.to_owned()), "{arguments:?}");
    }
    gateway.set("attestation.tcti = \"swtpm:host=127.0.0.1,port=1\"");
    let (exit_code, message) = gateway.fails(&["provision", "--timeout", "1s"]);
    assert_eq!((exit_code, message), (71, absent.replace("/nonexistent/tpmrm0", "swtpm:host=127.0.0.1,port=1")));
}

/// Who is not let in by a mode; root is, so it becomes `nobody` for the purpose.
const NOBODY: u32 = 65_534;

#[test]
fn a_device_that_is_not_for_us_is_named_with_the_group_that_it_is_for() {
    let mut gateway = Gateway::new();
    let device = gateway.path("tpmrm0");
    fs::write(&device, "").unwrap();
    gateway.set(&format!("attestation.tcti = \"device:{}\"", device.display()));
    let mut command = if rustix::process::geteuid().is_root() {
        chown(&device, None, Some(6)).unwrap();
        fs::set_permissions(&device, fs::Permissions::from_mode(0o660)).unwrap();
        chown(gateway.path(""), Some(NOBODY), None).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_dps-agent")]);
        gateway.under(command, &["provision", "--json"])
    } else {
        fs::set_permissions(&device, fs::Permissions::from_mode(0o0)).unwrap();
        gateway.command(&["provision", "--json"])
    };
    let (exit_code, message) = crate::hostile_gateway::Ran::of(&mut command).failure().unwrap();
    let group = message.split("to the group ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(!rustix::process::geteuid().is_root() || group == "disk", "{message}");
    let expected = format!(
        "{} is not open to this user; add the agent's user to the group {group} (SupplementaryGroups={group} in the unit)",
        device.display()
    );
    assert_eq!((exit_code, message), (77, expected));
}

/// The daemon and its log.
struct Daemon(Child, BufReader<std::process::ChildStderr>);

impl Daemon {
    fn start(gateway: &Gateway) -> Self {
        let mut process = gateway.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        Self(process, log)
    }

    /// The next line of the log with this in it.
    fn says(&mut self, what: &str) -> String {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert_ne!(self.1.read_line(&mut line).unwrap(), 0, "it has ended, and not said {what}");
        }
        line
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a TPM that is not there for so long is what the test asks for")]
fn three_seconds() {
    thread::sleep(Duration::from_secs(3));
}

#[test]
fn a_tpm_that_appears_after_three_seconds_is_waited_for() {
    let mut gateway = Gateway::new();
    let tcti = gateway.tpm.tcti();
    gateway.set(&format!("attestation.tcti = \"{tcti}\""));
    gateway.tpm.off();
    let mut daemon = Daemon::start(&gateway);
    daemon.says(&format!("waiting for the TPM: no TPM at {tcti}; it may still be starting"));
    three_seconds();
    gateway.tpm.on();
    daemon.says("assigned to localhost as gw-tpm (proven)");
    drop(daemon);
    assert!(gateway.works());
}

/// A device in front of the TPM, at `line`. It would end with whoever opens it first, so we hold it open.
fn serial_line(gateway: &Gateway) -> (Child, File) {
    let path = gateway.path("line");
    let mut line = Command::new("socat");
    line.arg(format!("PTY,link={},raw,echo=0", path.display())).arg(format!("TCP:127.0.0.1:{}", gateway.tpm.port()));
    let mut line = line.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("socat: {error}; apt-get install socat"));
    loop {
        assert!(line.try_wait().unwrap().is_none(), "socat has ended");
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(held) => return (line, held),
            Err(_) => thread::yield_now(),
        }
    }
}

#[test]
fn a_device_node_that_appears_after_three_seconds_is_waited_for() {
    let mut gateway = Gateway::new();
    let device = gateway.path("tpm0");
    gateway.set(&format!("attestation.tcti = \"device:{}\"", device.display()));
    let mut daemon = Daemon::start(&gateway);
    daemon.says(&format!("waiting for the TPM: no TPM at {}; it may still be starting", device.display()));
    three_seconds();
    let (mut line, _held) = serial_line(&gateway);
    std::os::unix::fs::symlink(fs::read_link(gateway.path("line")).unwrap(), &device).unwrap();
    daemon.says("assigned to localhost as gw-tpm (proven)");
    drop(daemon);
    assert!(gateway.works(), "{:?}", gateway.token());
    line.kill().unwrap();
    line.wait().unwrap();
}

#[test]
fn a_slow_tpm_registers_all_the_same() {
    let gateway = Gateway::new();
    gateway.relay.rules(&[(When::Always, Act::Delay(Duration::from_millis(200)))]);
    let began = began();
    gateway.provision();
    let took = began.elapsed();
    println!("{} commands of 200 ms and more: {took:?}", gateway.relay.applied());
    assert!(took >= Duration::from_millis(200) * u32::try_from(gateway.relay.applied()).unwrap());
    assert_eq!(gateway.relay.applied(), 37);
    assert!(gateway.works());
}

#[expect(clippy::disallowed_methods, reason = "the test is about time that passes")]
fn began() -> std::time::Instant {
    std::time::Instant::now()
}

const COMMANDS: [&str; 10] = [
    "GetCapability",
    "ReadPublic",
    "CreatePrimary",
    "EvictControl",
    "StartAuthSession",
    "PolicySecret",
    "ActivateCredential",
    "Import",
    "Load",
    "HMAC",
];

#[test]
fn a_tpm_that_has_no_time_once_is_asked_again() {
    for busy in [rc::RETRY, rc::YIELDED, rc::TESTING] {
        let gateway = Gateway::new();
        let rules: Vec<_> = COMMANDS.map(|name| (When::NumberOf(code(name), 1), Act::Answer(busy))).into();
        gateway.relay.rules(&rules);
        assert_eq!(gateway.provision().stderr, "", "{busy:#x}");
        assert_eq!(gateway.relay.applied(), COMMANDS.len());
        assert_eq!(gateway.relay.codes().len(), 37 + COMMANDS.len(), "each was asked once more");
        assert!(gateway.works());
    }
}

#[test]
fn a_tpm_that_never_has_time_is_named() {
    let gateway = Gateway::new();
    gateway.provision();
    let key = gateway.hub_key();
    for busy in [rc::RETRY, rc::YIELDED, rc::TESTING] {
        for place in ["GetCapability", "ReadPublic", "ActivateCredential", "HMAC"] {
            gateway.relay.rules(&[(When::Each(code(place)), Act::Answer(busy))]);
            let (exit_code, message) = gateway.fails(&["provision", "--force"]);
            let expected = format!("the TPM is busy with itself (response code {busy:#x}); try again in a minute");
            assert_eq!((exit_code, message), (71, expected), "{place}");
            println!("{place} answered {busy:#x} for ever: asked {} times", gateway.relay.applied());
        }
    }
    gateway.relay.rules(&[]);
    assert_eq!((gateway.hub_key(), gateway.works()), (key, true));
}
