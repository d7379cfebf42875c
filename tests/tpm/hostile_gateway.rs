//! A gateway with a TPM of its own, an emulator that has this TPM enrolled, and a machine in the middle on the way to the TPM.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::{Config, Emulator};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cutter::Cutter;
use crate::relay::{Act, TpmRelay, When};
use crate::swtpm::{Swtpm, scratch, secret};
use crate::wire::Code;

/// The name under which the TPM is enrolled.
pub const ID: &str = "gw-tpm";

/// The files of one gateway, its TPM and the service that knows it. All is gone when it is dropped.
pub struct Gateway {
    pub tpm: Swtpm,
    pub relay: TpmRelay,
    pub emulator: Emulator,
    directory: PathBuf,
    settings: BTreeMap<(&'static str, String), String>,
}

/// How a run of the agent ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Gateway {
    /// A new TPM whose first registration is answered at once.
    pub fn new() -> Self {
        Self::answered("answer = \"at-once\"")
    }

    /// A new TPM that is enrolled with these lines.
    pub fn answered(enrollment: &str) -> Self {
        let tpm = Swtpm::start();
        let key = endorsement_key(&tpm);
        Self::of(tpm, &emulator("", ID, &key, enrollment))
    }

    /// This TPM, and an emulator with this configuration.
    pub fn of(tpm: Swtpm, config: &str) -> Self {
        let relay = TpmRelay::start(&tpm, &Cutter::default());
        let emulator = Emulator::start(Config::from_toml(config).unwrap()).unwrap();
        let directory = scratch("gateway");
        let mut gateway = Self { tpm, relay, emulator, directory, settings: BTreeMap::new() };
        let text = |text: String| format!("{text:?}");
        gateway.settings = [
            (("dps", "host"), text("localhost".into())),
            (("dps", "id_scope"), text("0ne00000000".into())),
            (("dps", "ca_file"), text(gateway.path("ca.pem").display().to_string())),
            (("dps", "ca_only"), "true".into()),
            (("attestation", "method"), text("tpm".into())),
            (("attestation", "registration_id"), text(ID.into())),
            (("attestation", "tcti"), text(gateway.relay.tcti())),
            (("state", "directory"), text(gateway.path("state").display().to_string())),
            (("runtime", "directory"), text(gateway.path("run").display().to_string())),
        ]
        .map(|((table, key), value)| ((table, key.to_owned()), value))
        .into();
        gateway.at_emulator();
        gateway
    }

    /// Another service in place of the one before.
    pub fn meets(&mut self, config: &str) {
        self.emulator = Emulator::start(Config::from_toml(config).unwrap()).unwrap();
        self.at_emulator();
    }

    /// Another value for a key: `attestation.identity_handle = "0x81000100"`.
    pub fn set(&mut self, line: &str) {
        let (name, value) = line.split_once(" = ").unwrap();
        let (table, key) = name.split_once('.').unwrap();
        let table = ["dps", "attestation", "hub", "state", "runtime"].into_iter().find(|known| *known == table).unwrap();
        self.settings.insert((table, key.to_owned()), value.to_owned());
        self.write();
    }

    /// A file that only its owner can read, named by a key of `[attestation]`.
    pub fn set_secret(&mut self, key: &str, content: &str) {
        let path = self.path(key);
        secret(&path, content);
        self.set(&format!("attestation.{key} = \"{}\"", path.display()));
    }

    pub fn unset(&mut self, key: &str) {
        self.settings.retain(|(_, known), _| known != key);
        self.write();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The agent with these arguments; nothing of our own environment reaches it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.under(Command::new(env!("CARGO_BIN_EXE_dps-agent")), arguments)
    }

    /// The same, behind a command that runs another.
    pub fn under(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).arg("--config").arg(self.path("config.toml"));
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).current_dir("/");
        command
    }

    /// Runs it to its end. Whatever happens to the TPM, it does not panic.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Registers if it has to, and ends well.
    pub fn provision(&self) -> Ran {
        self.run(&["provision", "--timeout", "60s"]).well()
    }

    /// Runs it to its bad end: its exit code and its message.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let ran = self.run(&[arguments, &["--json"]].concat());
        ran.failure().unwrap_or_else(|| panic!("{ran:?}"))
    }

    /// What `token` prints.
    pub fn token(&self) -> Result<String, (i32, String)> {
        let ran = self.run(&["token", "--json"]);
        ran.failure().map_or_else(|| Ok(ran.json()["token"].as_str().unwrap().to_owned()), Err)
    }

    /// Whether the hub lets in who has the token that the agent mints now.
    pub fn works(&self) -> bool {
        self.token().is_ok_and(|token| self.emulator.hub_accepts(ID, &token))
    }

    /// The record, without its checksum.
    pub fn record(&self) -> Value {
        let text = fs::read_to_string(self.path("state/record")).unwrap();
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    }

    /// The name of the hub key that signs: that of the record, or of its predecessor while the record is untried.
    pub fn hub_key(&self) -> String {
        let record = self.record();
        let adopted = if record["proof"] == "untried" { &record["predecessor"] } else { &record };
        let key = &adopted["tpm"]["hubKey"];
        let public = key["wrapped"]["public"].as_str().or(key["kept"]["public"].as_str()).unwrap();
        name(&STANDARD.decode(public).unwrap())
    }

    /// The name of what is at a handle, if there is anything.
    pub fn at(&self, handle: &str) -> Option<String> {
        let said = self.tpm.tool(&format!("tpm2_readpublic -c {handle} -f tss -o found.pub"));
        (said.code == Some(0)).then(|| name(&fs::read(self.tpm.path("found.pub")).unwrap()))
    }

    /// The commands that reached the relay since its last rules, with how many there were of each.
    pub fn commands(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for code in self.relay.codes() {
            *counts.entry(code.to_string()).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// What the service was asked. That an agent has left the hub is read after the agent has ended.
    pub fn asked(&self) -> Vec<String> {
        assert!(self.emulator.wait_for_hub_disconnection(ID, Duration::from_secs(60)));
        let transcript = self.emulator.transcript(ID);
        transcript.into_iter().filter(|line| line.starts_with("> ")).collect()
    }

    fn at_emulator(&mut self) {
        fs::write(self.path("ca.pem"), self.emulator.ca_pem()).unwrap();
        for table in ["dps", "hub"] {
            self.settings.insert((table, "mqtt_port".into()), self.emulator.mqtt_port().to_string());
            self.settings.insert((table, "https_port".into()), self.emulator.https_port().to_string());
        }
        self.write();
    }

    fn write(&self) {
        let mut text = String::new();
        let mut last = "";
        for ((table, key), value) in &self.settings {
            if *table != last {
                text += &format!("[{table}]\n");
                last = table;
            }
            text += &format!("{key} = {value}\n");
        }
        fs::write(self.path("config.toml"), text).unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Ran {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(ran.code.is_some() && !ran.stderr.contains("panicked"), "{ran:?}");
        ran
    }

    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The exit code and the message of its JSON error.
    pub fn failure(&self) -> Option<(i32, String)> {
        let error = &self.json()["error"];
        let message = error["message"].as_str()?.to_owned();
        assert_eq!(error["exitCode"].as_i64(), self.code.map(i64::from), "{self:?}");
        Some((self.code?, message))
    }
}

/// The configuration of an emulator that knows one TPM, or two.
pub fn emulator(service: &str, id: &str, endorsement_key: &str, enrollment: &str) -> String {
    format!(
        "[service]\nid_scope = \"0ne00000000\"\n{service}\n\
         [[enrollment]]\nregistration_id = \"{id}\"\nendorsement_key = \"{endorsement_key}\"\n{enrollment}\n"
    )
}

/// What an operator enrolls, read without the agent: base64 of the TPM2B_PUBLIC.
pub fn endorsement_key(tpm: &Swtpm) -> String {
    tpm.tool("tpm2_createek -Q -G rsa -c ek.ctx -u ek.pub").success();
    tpm.tool("tpm2_flushcontext -t").success();
    STANDARD.encode(fs::read(tpm.path("ek.pub")).unwrap())
}

/// A rule for each command of this name.
pub fn each(name: &str, act: Act) -> (When, Act) {
    (When::Each(code(name)), act)
}

pub fn code(name: &str) -> Code {
    Code::named(name).unwrap_or_else(|| panic!("{name} is no command"))
}

/// The name of an object, from its TPM2B_PUBLIC.
fn name(sized: &[u8]) -> String {
    let digest = Sha256::digest(&sized[2..]);
    format!("000b{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
