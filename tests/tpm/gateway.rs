//! A gateway with a TPM: its files, the service it is enrolled at, and relays on each of its ways to the outside.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::{Config, Emulator};
use serde_json::Value;

use crate::cutter::{Cut, Cutter};
use crate::relay::TpmRelay;
use crate::swtpm::{Swtpm, scratch};
use crate::tls_relay::TlsRelay;

/// Its registration ID.
pub const ID: &str = "gw-0001";

/// All of it goes when it is dropped.
pub struct Gateway {
    pub tpm: Swtpm,
    pub emulator: Emulator,
    pub cutter: Cutter,
    pub to_tpm: TpmRelay,
    pub to_dps: TlsRelay,
    pub to_hub: TlsRelay,
    directory: PathBuf,
}

/// How a run of the agent ended; no code if it was killed.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Gateway {
    /// Enrolled by its endorsement key and assigned at once, with these lines more in `[service]` and in the enrollment.
    pub fn new(service: &str, enrollment: &str) -> Self {
        Self::of(Swtpm::start(), service, &format!("answer = \"at-once\"\n{enrollment}"))
    }

    /// With this TPM, and assigned when it polls if nothing else is said.
    pub fn of(tpm: Swtpm, service: &str, enrollment: &str) -> Self {
        let key = endorsement_key(&tpm);
        let text = format!(
            "[service]\nid_scope = \"0ne00000000\"\n{service}\n\
             [[enrollment]]\nregistration_id = \"{ID}\"\nendorsement_key = \"{key}\"\n{enrollment}\n"
        );
        let emulator = Emulator::start(Config::from_toml(&text).unwrap()).unwrap();
        let cutter = Cutter::default();
        let to_tpm = TpmRelay::start(&tpm, &cutter);
        let to_dps = TlsRelay::start("DPS", emulator.https_port(), &cutter);
        let to_hub = TlsRelay::to_one_exchange("hub", emulator.mqtt_port(), &cutter);
        let gateway = Self { tpm, emulator, cutter, to_tpm, to_dps, to_hub, directory: scratch("gateway") };
        fs::write(gateway.path("ca.pem"), gateway.emulator.ca_pem()).unwrap();
        gateway.configure("", "");
        gateway
    }

    /// Writes its configuration, with these lines more in `[attestation]` and in `[hub]`.
    pub fn configure(&self, attestation: &str, hub: &str) {
        let place = self.directory.display();
        let config = format!(
            "[dps]\nhost = \"localhost\"\nid_scope = \"0ne00000000\"\nhttps_port = {}\nca_file = \"{place}/ca.pem\"\nca_only = true\n\
             [attestation]\nmethod = \"tpm\"\nregistration_id = \"{ID}\"\ntcti = \"{}\"\n{attestation}\n\
             [hub]\nmqtt_port = {}\n{hub}\n\
             [state]\ndirectory = \"{place}/state\"\n[runtime]\ndirectory = \"{place}/run\"\n",
            self.to_dps.port(),
            self.to_tpm.tcti(),
            self.to_hub.port()
        );
        fs::write(self.path("config.toml"), config).unwrap();
    }

    /// The agent with these arguments and this gateway's configuration; nothing of our own environment reaches it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.under(Command::new(env!("CARGO_BIN_EXE_dps-agent")), arguments)
    }

    /// The same, behind a command that runs another.
    pub fn under(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).arg("--config").arg(self.path("config.toml"));
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end, or to the cut, and until the service has dealt with what it received.
    pub fn run(&self, arguments: &[&str], cut: Option<Cut>) -> Ran {
        self.run_command(&mut self.command(arguments), cut)
    }

    /// Runs this to its end, or to the cut.
    pub fn run_command(&self, command: &mut Command, cut: Option<Cut>) -> Ran {
        let mut child = self.cutter.spawn(command, cut);
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        let mut stdout = String::new();
        out.read_to_string(&mut stdout).unwrap();
        let (code, stderr) = (child.wait().unwrap().code(), err.join().unwrap());
        self.to_dps.settle();
        self.to_hub.settle();
        Ran { code, stdout, stderr }
    }

    /// A file of its directory: `state/record`, `run/assignment.json`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Ran {
    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What the TPM is enrolled by; the key is not kept in it.
pub fn endorsement_key(tpm: &Swtpm) -> String {
    tpm.tool("tpm2_createek -Q -G rsa -c ek.ctx -u ek.pub").success();
    tpm.tool("tpm2_flushcontext -t").success();
    STANDARD.encode(fs::read(tpm.path("ek.pub")).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVISION: [&str; 2] = ["provision", "--json"];

    fn count(events: &[String], beginning: &str) -> usize {
        events.iter().filter(|event| event.starts_with(beginning)).count()
    }

    #[test]
    fn a_first_registration_is_two_exchanges_with_dps_and_one_with_the_hub() {
        let gateway = Gateway::new("", "");
        let ran = gateway.run(&PROVISION, None);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ran.json()["assignedHub"], "localhost");
        let events = gateway.cutter.events();
        assert_eq!((count(&events, "DPS request"), count(&events, "DPS answer")), (2, 2), "{events:?}");
        assert_eq!((count(&events, "hub request"), count(&events, "hub answer")), (1, 1), "a goodbye is none: {events:?}");
        assert_eq!(count(&events, "TPM ActivateCredential"), 2, "{events:?}");
    }

    #[test]
    fn a_start_after_a_cut_in_the_middle_is_a_registration() {
        let gateway = Gateway::new("", "");
        gateway.run(&PROVISION, None);
        let events = gateway.cutter.events();
        let number = events.iter().rposition(|event| event == "TPM ActivateCredential").unwrap() + 1;
        for cut in [Cut::Before(number), Cut::After(number)] {
            let mut gateway = Gateway::new("", "");
            assert_eq!(gateway.run(&PROVISION, Some(cut)).code, None, "{cut:?}");
            assert_eq!(gateway.cutter.events(), events[..number], "{cut:?}");
            gateway.tpm.off();
            gateway.tpm.on();
            let ran = gateway.run(&PROVISION, None);
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{cut:?}: {}", ran.stdout);
        }
    }
}
