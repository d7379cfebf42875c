//! One cell: an emulator of its own, the built agent in a directory of its own, and a look at everything afterwards.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use dps_emulator::{Config, Emulator};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::conversation::{Device, Expected, last_tracking_id, shortened};
use crate::device::{self, Attestation, Materials, Means};
use crate::scenario::{Act, Adopted, End, Failed, On, Port, Scenario, Step, Transport};
use crate::scenarios;
use crate::seen;

/// The tenant of all cells.
pub const ID_SCOPE: &str = "0ne00MATRIX";

/// How long the emulator may take to notice what the agent did last.
const SETTLED: Duration = Duration::from_secs(10);

/// So long after its own patience an agent is taken to hang.
const HANGS: Duration = Duration::from_secs(90);

/// The error is text for people.
pub type Checked<T = ()> = Result<T, String>;

/// What all cells share.
#[derive(Debug)]
pub struct Workshop {
    pub agent: PathBuf,
    pub materials: Materials,
    pub keep: bool,
}

/// One cell of the matrix.
#[derive(Debug, Clone)]
pub struct Cell {
    pub attestation: Attestation,
    pub transport: Transport,
    pub scenario: Scenario,
}

/// Every cell in which the agent runs.
pub fn all() -> Vec<Cell> {
    let of = |scenario: Scenario| {
        let On { attestations, transports } = scenario.on;
        let pairs = attestations.iter().flat_map(move |attestation| transports.iter().map(move |via| (*attestation, *via)));
        pairs.map(move |(attestation, transport)| Cell { attestation, transport, scenario: scenario.clone() })
    };
    scenarios::all().into_iter().flat_map(of).collect()
}

impl Cell {
    /// `attestation/transport/scenario`
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.attestation.name(), self.transport.name(), self.scenario.name)
    }

    /// Runs it, perhaps with a check of the emulator switched off; the error is what was not as expected.
    pub fn run(&self, workshop: &Workshop, kinder: Option<&str>) -> Checked {
        let name = format!("{}{}", self.name(), kinder.map_or_else(String::new, |switch| format!(" {switch}")));
        let stage = Stage::set(self, workshop, kinder, directory(&name)?)?;
        let mut problems = Vec::new();
        for (number, step) in self.scenario.steps.iter().enumerate() {
            let ran = stage.run(step, number);
            problems.extend(ran.err().map(|what| format!("run {}: {what}", number + 1)));
        }
        if problems.is_empty() {
            if !workshop.keep {
                let _ = fs::remove_dir_all(&stage.directory);
            }
            return Ok(());
        }
        Err(format!("{}files: {}\n", problems.join(""), stage.directory.display()))
    }
}

/// A cell that is set up.
struct Stage<'a> {
    cell: &'a Cell,
    agent: &'a Path,
    directory: PathBuf,
    emulator: Emulator,
    means: Means,
    /// The date in the emulator's `Retry-After`, where it is one.
    date: SystemTime,
    /// Bound and not listening: nobody answers there, and nobody else can take it meanwhile.
    _closed: TcpSocket,
}

impl<'a> Stage<'a> {
    fn set(cell: &'a Cell, workshop: &'a Workshop, kinder: Option<&str>, directory: PathBuf) -> Checked<Self> {
        let Cell { attestation, scenario, .. } = cell;
        let date = SystemTime::now() + Duration::from_secs(8);
        let toml = emulator_toml(cell, &workshop.materials, kinder).replace("{soon}", &httpdate::fmt_http_date(date));
        let config = Config::from_toml(&toml).map_err(|error| format!("{error}\n{toml}"))?;
        let emulator = Emulator::start(config).map_err(words)?;
        let means = workshop.materials.means(*attestation, scenario.credential).map_err(words)?;
        let (closed, closed_port) = closed_port().map_err(words)?;
        let mut files = means.files.clone();
        files.push(("ca.pem", emulator.ca_pem().to_owned()));
        files.push(("config.toml", agent_toml(cell, &emulator, &means, &directory, closed_port)));
        for (name, content) in files {
            let path = directory.join(name);
            fs::write(&path, content)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
                .map_err(words)?;
        }
        Ok(Self { cell, agent: &workshop.agent, directory, emulator, means, date, _closed: closed })
    }

    fn run(&self, step: &Step, number: usize) -> Checked {
        for act in step.acts {
            self.act(*act)?;
        }
        let (heard, stored) = (self.emulator.transcript_all().len(), seen::stored(&self.directory));
        let began = Instant::now();
        let output = self.provision(step, number)?;
        let took = began.elapsed();
        let mut report = Report::default();
        report.conversation(self.said(step, heard), self.expected(step));
        let transcript = self.emulator.transcript_all();
        report.same("exit code", &output.code, &Some(exit_code(&step.end)));
        report.same("JSON", &seen::answer(&output.stdout), &self.answer(&step.end, &transcript[heard..], &output.stdout));
        report.same("files", &seen::stored(&self.directory), &self.files(&step.end, stored));
        report.holds(took >= Duration::from_secs(step.at_least), || format!("it took only {took:?}"));
        let patience = seconds(step.timeout);
        report.holds(!step.at_once || took < patience * 3 / 4, || format!("it took {took:?} of {patience:?}"));
        if self.cell.scenario.device.iter().any(|line| line.contains("{soon}")) {
            // A date counts whole seconds.
            report.holds(SystemTime::now() + Duration::from_secs(1) >= self.date, || "it did not wait for the date".to_owned());
        }
        if let Some(payload) = step.received {
            let received = self.emulator.received_payload(self.id());
            report.same("received payload", &received, &serde_json::from_str(payload).ok());
        }
        for secret in self.means.secrets.iter().map(String::as_str).chain(["SharedAccessSignature", "sig="]) {
            report.holds(!output.everything.contains(secret), || format!("{secret:?} is in its output"));
        }
        report.end(&output)
    }

    fn act(&self, act: Act) -> Checked {
        let name = self.cell.attestation.enrollment_name();
        match act {
            Act::MoveHub(hub) => self.emulator.move_hub(name, hub).map_err(words),
            Act::Disable => self.emulator.set_enabled(name, false).map_err(words),
            Act::Enable => self.emulator.set_enabled(name, true).map_err(words),
            Act::Faults(faults) => self.emulator.set_faults(name, faults).map_err(words),
        }
    }

    /// Runs the agent to its end.
    fn provision(&self, step: &Step, number: usize) -> Checked<Output> {
        let at = |name: &str| self.directory.join(format!("{name}-{}", number + 1));
        let (stdout, stderr, transcript) = (at("stdout"), at("stderr"), at("transcript"));
        let mut command = Command::new(self.agent);
        command.env_clear().env("RUST_LOG", "trace").current_dir(&self.directory).stdin(Stdio::null());
        command.args(["provision", "--json", "--config"]).arg(self.directory.join("config.toml"));
        command.args(["--timeout", step.timeout, "--transcript"]).arg(&transcript);
        command.args(step.force.then_some("--force"));
        command.stdout(File::create(&stdout).map_err(words)?).stderr(File::create(&stderr).map_err(words)?);
        let code = wait(&mut command, seconds(step.timeout) + HANGS)?;
        let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let stdout = read(&stdout);
        let everything = format!("{stdout}{}{}", read(&stderr), read(&transcript));
        Ok(Output { code, stdout, everything, transcript: read(&transcript) })
    }

    /// The conversation since `heard` lines were there: as soon as it is the expected one, or when nothing comes any more.
    fn said(&self, step: &Step, heard: usize) -> Vec<String> {
        let end = Instant::now() + SETTLED;
        loop {
            let transcript = self.emulator.transcript_all();
            let said = shortened(&transcript[heard..], self.id());
            if self.expected(step).matches(&said) || Instant::now() >= end {
                return said;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn expected(&self, step: &Step) -> Expected {
        Expected::read(step.said, Device { attestation: self.cell.attestation, transport: self.cell.transport })
    }

    fn id(&self) -> &'static str {
        self.cell.attestation.registration_id()
    }

    /// The object on stdout. `seen` is what was printed, for the texts that differ from run to run.
    fn answer(&self, end: &End, transcript: &[String], seen: &str) -> Value {
        match end {
            End::Adopted(adopted) => {
                let mut object = self.public(adopted);
                object["transport"] = self.transport(adopted).into();
                object
            }
            End::Failed(Failed { blame, code, message }) => {
                let seen = seen::answer(seen)["error"]["message"].as_str().unwrap_or_default().to_owned();
                let (code, message) = (code.number(self.cell.attestation), message.replace("{id}", self.id()));
                json!({"error": {
                    "exitCode": blame.exit_code(),
                    "blame": blame.word(),
                    "message": if seen::is_like(&seen, &message) { seen } else { message },
                    "errorCode": code,
                    "trackingId": code.and_then(|_| last_tracking_id(transcript)),
                }})
            }
        }
    }

    /// What has to be there after a run.
    fn files(&self, end: &End, before: Vec<String>) -> Vec<String> {
        match end {
            End::Adopted(adopted) => vec![
                format!("run/assignment.json 640 {}\n", self.public(adopted)),
                format!("state/record 600 {}\nsha256 RIGHT\n", self.record(adopted)),
            ],
            End::Failed(_) => before,
        }
    }

    fn public(&self, adopted: &Adopted) -> Value {
        json!({
            "generation": adopted.generation,
            "registrationId": self.id(),
            "assignedHub": adopted.hub,
            "deviceId": adopted.device_id.unwrap_or(self.id()),
            "substatus": adopted.substatus,
            "proof": adopted.proof,
            "attestation": self.method(),
            "payload": serde_json::from_str::<Value>(adopted.payload).unwrap_or_default(),
            "assignedAt": "TIME",
        })
    }

    fn record(&self, adopted: &Adopted) -> Value {
        let mut record = self.public(adopted);
        record["version"] = 1.into();
        record["idScope"] = ID_SCOPE.into();
        record["identity"] = self.means.identity.as_str().into();
        record["transport"] = self.transport(adopted).into();
        record["key"] = adopted.key.into();
        record
    }

    fn method(&self) -> &'static str {
        if self.cell.attestation.is_x509() { "x509" } else { "symmetric-key" }
    }

    fn transport(&self, adopted: &Adopted) -> &'static str {
        adopted.transport.unwrap_or(self.cell.transport.name())
    }
}

/// What the agent left behind at its end.
struct Output {
    code: Option<i32>,
    stdout: String,
    everything: String,
    transcript: String,
}

/// What was not as expected.
#[derive(Default)]
struct Report(String);

impl Report {
    fn same<T: std::fmt::Debug + PartialEq>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            let _ = write!(self.0, "\n  {what}\n    expected {expected:?}\n    found    {found:?}");
        }
    }

    fn holds(&mut self, true_for: bool, otherwise: impl Fn() -> String) {
        if !true_for {
            let _ = write!(self.0, "\n  {}", otherwise());
        }
    }

    fn conversation(&mut self, said: Vec<String>, expected: Expected) {
        if !expected.matches(&said) {
            let (expected, said) = (expected.lines().join("\n      "), said.join("\n      "));
            let _ = write!(self.0, "\n  conversation\n    expected\n      {expected}\n    found\n      {said}");
        }
    }

    fn end(self, output: &Output) -> Checked {
        if self.0.is_empty() {
            return Ok(());
        }
        let transcript = output.transcript.trim_end().replace('\n', "\n      ");
        Err(format!("{}\n  the agent's transcript\n      {transcript}\n", self.0))
    }
}

fn exit_code(end: &End) -> i32 {
    match end {
        End::Adopted(_) => 0,
        End::Failed(failed) => failed.blame.exit_code(),
    }
}

fn directory(name: &str) -> Checked<PathBuf> {
    let path = run_directory().join(name.replace('/', "+"));
    fs::create_dir_all(&path).map_err(words)?;
    Ok(path)
}

fn run_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("matrix-{}", std::process::id()))
}

/// Removes what earlier runs have left to be looked at.
pub fn clear_leftovers() {
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("matrix-").is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn emulator_toml(cell: &Cell, materials: &Materials, kinder: Option<&str>) -> String {
    let scenario = &cell.scenario;
    let kinder = kinder.map_or_else(String::new, |switch| format!("kinder = [\"{switch}\"]"));
    let enrollment = if scenario.enrolled {
        let lines = scenario.device.join("\n");
        format!("{}{}\n", materials.enrollment(cell.attestation, scenario.credential), lines)
    } else {
        "[[enrollment]]\nregistration_id = \"somebody-else\"\nprimary_key = \"c29tZWJvZHkgZWxzZSdzIGtleQ==\"\n".to_owned()
    };
    format!("[service]\nid_scope = \"{ID_SCOPE}\"\n{}\n{kinder}\n{enrollment}", scenario.service.join("\n"))
}

fn agent_toml(cell: &Cell, emulator: &Emulator, means: &Means, directory: &Path, closed: u16) -> String {
    let Cell { attestation, transport, scenario } = cell;
    let here = directory.display();
    let port = |port: Port, open| if scenario.closed.contains(&port) { closed } else { open };
    let (mqtt, https) = (emulator.mqtt_port(), emulator.https_port());
    let usual = [("host", "localhost"), ("id_scope", ID_SCOPE)].into_iter();
    let usual = usual.filter(|(key, _)| !scenario.dps.iter().any(|line| line.starts_with(key)));
    let usual: String = usual.map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
    format!(
        "[dps]\n{usual}transport = \"{}\"\nmqtt_port = {}\nhttps_port = {https}\n\
         ca_file = \"{here}/ca.pem\"\nca_only = true\n{}\n{}\
         [hub]\ntransport = \"{}\"\nmqtt_port = {}\nhttps_port = {}\n{}\n\
         [state]\ndirectory = \"{here}/state\"\n[runtime]\ndirectory = \"{here}/run\"\n",
        transport.name(),
        port(Port::DpsMqtt, mqtt),
        scenario.dps.join("\n"),
        device::attestation_table(*attestation, means, &here.to_string()),
        transport.hub(),
        port(Port::HubMqtt, mqtt),
        port(Port::HubHttps, https),
        scenario.hub.join("\n"),
    )
}

fn closed_port() -> io::Result<(TcpSocket, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse().map_err(io::Error::other)?)?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// The exit code, if it ends by itself in time.
fn wait(command: &mut Command, limit: Duration) -> Checked<Option<i32>> {
    let mut child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().map_err(words)? {
            return Ok(status.code());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().and_then(|()| child.wait()).map_err(words)?;
    Err(format!("it was still running after {limit:?}"))
}

fn seconds(timeout: &str) -> Duration {
    Duration::from_secs(timeout.trim_end_matches('s').parse().unwrap_or_default())
}

/// The error and its causes.
pub fn words(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}
