//! Runs `dps-emulator serve` as a process of its own, as any user of it would, and reads what it recorded.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Done;

/// The ID scope of every emulated service here.
pub const ID_SCOPE: &str = "0ne00000000";

/// What an emulator is to be like: its configuration, as it grows.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    service: String,
    devices: String,
}

impl Plan {
    /// The service on fixed ports; 0 lets the system choose.
    pub fn on_ports(mqtt: u16, https: u16) -> Self {
        Self { service: format!("mqtt_port = {mqtt}\nhttps_port = {https}\n"), devices: String::new() }
    }

    /// Adds a line to `[service]`.
    pub fn service(mut self, line: &str) -> Self {
        let _infallible = writeln!(self.service, "{line}");
        self
    }

    /// Enrolls one device by its key; `settings` are further lines of the enrollment.
    pub fn symmetric_key(mut self, registration_id: &str, key: &str, settings: &str) -> Self {
        let _infallible =
            writeln!(self.devices, "[[enrollment]]\nregistration_id = {registration_id:?}\nprimary_key = {key:?}\n{settings}\n");
        self
    }

    /// Adds tables as they are.
    pub fn table(mut self, text: &str) -> Self {
        let _infallible = writeln!(self.devices, "{text}");
        self
    }

    /// Enrolls one device by its TPM's endorsement key, a TPM2B_PUBLIC as base64 text.
    pub fn tpm(mut self, registration_id: &str, endorsement_key: &str, settings: &str) -> Self {
        let _infallible = writeln!(
            self.devices,
            "[[enrollment]]\nregistration_id = {registration_id:?}\nendorsement_key = {endorsement_key:?}\n{settings}\n"
        );
        self
    }

    /// Enrolls every device whose certificate `authority` (a PEM file) issued.
    pub fn x509_group(mut self, name: &str, authority: &Path, settings: &str) -> Self {
        let _infallible = writeln!(self.devices, "[[group]]\nname = {name:?}\ncertificate_file = {authority:?}\n{settings}\n");
        self
    }
}

/// A running emulator; dropping it ends it.
#[derive(Debug)]
pub struct Emulator {
    process: Child,
    /// Held open: the emulator must be able to go on writing to it.
    _output: ChildStdout,
    directory: PathBuf,
    pub mqtt_port: u16,
    pub https_port: u16,
}

impl Emulator {
    /// Starts `program` with its files in `directory` and waits until it listens.
    ///
    /// # Errors
    /// If it does not start; what it said is on the terminal.
    pub fn start(program: &Path, plan: &Plan, directory: &Path) -> Done<Self> {
        let directory = directory.to_owned();
        let config = directory.join("emulator.toml");
        std::fs::write(&config, configuration(plan, &directory))?;
        let mut process = Command::new(program)
            .args(["serve", "--config"])
            .arg(&config)
            .arg("--control")
            .arg(directory.join("control"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let Some(mut output) = process.stdout.take() else { return Err("the emulator has no stdout".into()) };
        let announced = serde_json::Deserializer::from_reader(&mut output).into_iter::<Value>().next().transpose()?;
        let mut emulator = Self { process, _output: output, directory, mqtt_port: 0, https_port: 0 };
        let announced =
            announced.ok_or_else(|| format!("the emulator ended at once; its configuration is {}", config.display()))?;
        let port = |name: &str| announced[name].as_u64().and_then(|port| u16::try_from(port).ok());
        let ports = port("mqttPort").zip(port("httpsPort"));
        (emulator.mqtt_port, emulator.https_port) = ports.ok_or_else(|| format!("no ports in {announced}"))?;
        Ok(emulator)
    }

    /// The certificate of the CA that issued the emulator's server certificate.
    pub fn roots(&self) -> PathBuf {
        self.directory.join("roots.pem")
    }

    /// Tells the emulator to do something (emulator/README.md, Years of a hub); its answer.
    ///
    /// # Errors
    /// If it does not, or cannot.
    pub fn command(&self, line: &str) -> Done<Value> {
        let mut stream = UnixStream::connect(self.directory.join("control"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer)?;
        match answer["error"].as_str() {
            None => Ok(answer),
            Some(error) => Err(format!("{line}: {error}").into()),
        }
    }

    /// What the emulator recorded of one device so far, without the device's name before each line.
    ///
    /// # Errors
    /// If the transcript cannot be read.
    pub fn transcript(&self, device: &str) -> Done<Vec<String>> {
        let text = std::fs::read_to_string(self.directory.join("transcript"))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(of, _)| *of == device)
            .map(|(_, line)| line.to_owned())
            .collect())
    }

    /// Everything it recorded.
    ///
    /// # Errors
    /// If the transcript cannot be read.
    pub fn whole_transcript(&self) -> Done<String> {
        Ok(std::fs::read_to_string(self.directory.join("transcript"))?)
    }

    /// Waits until a line of `device` begins with `beginning`; whether it came within two seconds.
    ///
    /// # Errors
    /// If the transcript cannot be read.
    pub fn recorded(&self, device: &str, beginning: &str) -> Done<bool> {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            if self.transcript(device)?.iter().any(|line| line.starts_with(beginning)) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn configuration(plan: &Plan, directory: &Path) -> String {
    format!(
        "[service]\nid_scope = {ID_SCOPE:?}\n{}ca_out = {:?}\ntranscript_file = {:?}\n\n{}",
        plan.service,
        directory.join("roots.pem"),
        directory.join("transcript"),
        plan.devices
    )
}
