//! A gateway in a scratch directory: its files, its configuration, and the agent's binary run on it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use dps_emulator::{Config, Emulator};
use serde_json::Value;

/// The key of `gw-0001`, 32 bytes.
pub const KEY: &str = "YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=";

/// An emulator that knows `gw-0001` by its key, assigns it at once, and whatever these lines add.
pub fn emulator(service: &str, enrollment: &str) -> Emulator {
    let text = format!(
        "[service]\nid_scope = \"0ne00000000\"\n{service}\n\
         [[enrollment]]\nregistration_id = \"gw-0001\"\nprimary_key = \"{KEY}\"\nanswer = \"at-once\"\n{enrollment}\n"
    );
    Emulator::start(Config::from_toml(&text).unwrap()).unwrap()
}

/// The files of one gateway. They are removed with it.
pub struct Gateway {
    directory: PathBuf,
    dps: Vec<String>,
    attestation: Vec<String>,
    hub: Vec<String>,
    state: PathBuf,
    runtime: PathBuf,
    tables: String,
}

/// How a run of the agent ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Gateway {
    /// `gw-0001` with its key, pointed at the emulator, over this transport. The hub is not tried.
    pub fn new(emulator: &Emulator, transport: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("dps-agent-robust-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (mqtt, https) = (emulator.mqtt_port(), emulator.https_port());
        let mut gateway = Self {
            dps: vec![
                "host = \"localhost\"".into(),
                "id_scope = \"0ne00000000\"".into(),
                format!("transport = \"{transport}\""),
                format!("mqtt_port = {mqtt}"),
                format!("https_port = {https}"),
                format!("ca_file = \"{}\"", directory.join("ca.pem").display()),
                "ca_only = true".into(),
            ],
            attestation: vec![
                "method = \"symmetric-key\"".into(),
                "registration_id = \"gw-0001\"".into(),
                format!("key_file = \"{}\"", directory.join("device.key").display()),
            ],
            hub: vec!["verify = \"never\"".into(), format!("mqtt_port = {mqtt}"), format!("https_port = {https}")],
            state: directory.join("state"),
            runtime: directory.join("run"),
            tables: String::new(),
            directory,
        };
        gateway.file("ca.pem", 0o644, emulator.ca_pem());
        gateway.file("device.key", 0o600, KEY);
        gateway.write();
        gateway
    }

    /// Without a key of `[attestation]`.
    pub fn unset(mut self, key: &str) -> Self {
        self.attestation.retain(|known| known.split(' ').next() != Some(key));
        self.write();
        self
    }

    /// Another value for a key of `[dps]`, `[hub]` or `[attestation]`: `dps.transport = "mqtt"`.
    pub fn set(mut self, line: &str) -> Self {
        let (table, line) = line.split_once('.').unwrap();
        let lines = match table {
            "dps" => &mut self.dps,
            "hub" => &mut self.hub,
            "attestation" => &mut self.attestation,
            other => panic!("{other}"),
        };
        let key = line.split(' ').next().unwrap();
        lines.retain(|known| known.split(' ').next() != Some(key));
        lines.push(line.to_owned());
        self.write();
        self
    }

    /// Further tables of the configuration, as they stand there.
    pub fn table(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self.write();
        self
    }

    /// Attestation by a certificate in `device.pem` and its key in `device-key.pem`.
    pub fn x509(mut self, chain: &str, key: &str) -> Self {
        self.file("device.pem", 0o644, chain);
        self.file("device-key.pem", 0o600, key);
        self.attestation = vec![
            "method = \"x509\"".into(),
            "registration_id = \"gw-0001\"".into(),
            format!("certificate_file = \"{}\"", self.path("device.pem").display()),
            format!("private_key_file = \"{}\"", self.path("device-key.pem").display()),
        ];
        self.write();
        self
    }

    /// Other directories than `state` and `run`.
    pub fn directories(mut self, state: &Path, runtime: &Path) -> Self {
        (self.state, self.runtime) = (state.to_owned(), runtime.to_owned());
        self.write();
        self
    }

    /// Writes a file with this mode.
    pub fn file(&mut self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    pub fn record(&self) -> PathBuf {
        self.state.join("record")
    }

    pub fn assignment(&self) -> PathBuf {
        self.runtime.join("assignment.json")
    }

    /// The names in the state directory and in the runtime directory, sorted, but for what the daemon's sockets bring.
    pub fn names(&self) -> [Vec<String>; 2] {
        [&self.state, &self.runtime].map(|directory| {
            let entries = fs::read_dir(directory).into_iter().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.retain(|name| !["admin", "client", "credential.sock", "metrics.prom"].contains(&name.as_str()));
            names.sort();
            names
        })
    }

    /// The agent with these arguments and this configuration; nothing of our own environment reaches it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.under(Command::new(env!("CARGO_BIN_EXE_dps-agent")), arguments)
    }

    /// The same, behind a command that runs another.
    pub fn under(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).arg("--config").arg(self.path("config.toml"));
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).current_dir("/");
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Replaces this gateway's directory in a text by `DIR`, so that tests can quote the whole.
    pub fn placed(&self, text: &str) -> String {
        text.replace(self.directory.to_str().unwrap(), "DIR")
    }

    /// Runs it to its end, and gives its exit code and the message of its JSON error, with `DIR` for this gateway's directory.
    pub fn error(&self, arguments: &[&str]) -> (i32, String) {
        let ran = self.run(&[arguments, &["--json"]].concat());
        let json = ran.json();
        let message = json["error"]["message"].as_str().unwrap_or_else(|| panic!("{ran:?}"));
        assert_eq!(json["error"]["exitCode"].as_i64(), ran.code.map(i64::from), "{ran:?}");
        (ran.code.unwrap(), self.placed(message))
    }

    fn write(&mut self) {
        let text = format!(
            "[dps]\n{}\n[attestation]\n{}\n[hub]\n{}\n[state]\ndirectory = \"{}\"\n[runtime]\ndirectory = \"{}\"\n{}",
            self.dps.join("\n"),
            self.attestation.join("\n"),
            self.hub.join("\n"),
            self.state.display(),
            self.runtime.display(),
            self.tables
        );
        self.file("config.toml", 0o644, text);
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
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
