//! A gateway of the judges: a service with two hubs, an agent that runs as a daemon, and a clock that can be put forward.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Done;
use crate::credentials::{self, Authority};
use crate::emulator::{Emulator, ID_SCOPE, Plan};
use crate::tpm::Tpm;

/// The registration ID, and so the device ID.
pub const DEVICE: &str = "judged-gateway";
/// The hub that the device is assigned to first, and the one that it is moved to. On a loopback of its own both names are its.
pub const HUBS: [&str; 2] = ["localhost", "127.0.0.1"];
/// Ends what hangs; nothing takes this long on a machine that still works.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);

/// How the gateway proves its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attestation {
    SymmetricKey,
    X509,
    Tpm,
}

impl Attestation {
    pub const ALL: [Self; 3] = [Self::SymmetricKey, Self::X509, Self::Tpm];

    pub fn name(self) -> &'static str {
        match self {
            Self::SymmetricKey => "symmetric-key",
            Self::X509 => "x509",
            Self::Tpm => "tpm",
        }
    }
}

/// The programs that make a gateway.
#[derive(Debug)]
pub struct Programs {
    pub agent: PathBuf,
    pub emulator: PathBuf,
}

/// A running gateway with its service; both end when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    pub emulator: Emulator,
    agent: PathBuf,
    home: PathBuf,
    daemon: Process,
    /// Held: without it the key is gone.
    _tpm: Option<Tpm>,
}

/// A child process, ended when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: RefCell<Child>,
    log: PathBuf,
}

impl Gateway {
    /// Enrolls a device, starts the agent and waits until it has told its first assignment. `handoff` are further tables of the
    /// agent's configuration.
    ///
    /// # Errors
    /// If a program does not start, or there is no assignment.
    pub fn start(programs: &Programs, attestation: Attestation, handoff: &str, directory: &Path) -> Done<Self> {
        let home = directory.join("gateway");
        std::fs::create_dir_all(&home)?;
        let tpm = (attestation == Attestation::Tpm).then(|| Tpm::start(&home.join("tpm"))).transpose()?;
        let (plan, identity) = enrolled(programs, attestation, tpm.as_ref(), &home)?;
        let emulator = Emulator::start(&programs.emulator, &plan, directory)?;
        std::fs::write(home.join("config.toml"), format!("{}{identity}\n{handoff}", service(&home, &emulator.roots())))?;
        std::fs::write(home.join("clock"), "+0")?;
        let mut run = Command::new(&programs.agent);
        run.args(["run", "--config"]).arg(home.join("config.toml"));
        let daemon = Process::start(on_a_clock(&mut run, &home)?, &home.join("agent.log"))?;
        let gateway = Self { emulator, agent: programs.agent.clone(), home, daemon, _tpm: tpm };
        gateway.wait("an assignment", || Ok(gateway.assignment()?.is_some()))?;
        Ok(gateway)
    }

    /// The socket for clients.
    pub fn socket(&self) -> PathBuf {
        self.runtime().join("client/api.sock")
    }

    /// The directory of this gateway: `run` in it is the agent's runtime directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs a verb of the agent beside the daemon.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn agent(&self, verb: &str) -> Done {
        let mut command = Command::new(&self.agent);
        let output = quiet(command.arg(verb).arg("--config").arg(self.home.join("config.toml"))).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("dps-agent {verb}: {said}").into()) }
    }

    /// So many hours pass for the agent, and for nobody else.
    ///
    /// # Errors
    /// If the file that says so cannot be written.
    pub fn pass(&self, hours: u32) -> Done {
        let (new, file) = (self.home.join("clock.new"), self.home.join("clock"));
        std::fs::write(&new, format!("+{hours}h"))?;
        Ok(std::fs::rename(new, file)?)
    }

    /// The content of a rendered file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn rendered(&self, file: &str) -> Done<Vec<u8>> {
        Ok(std::fs::read(self.runtime().join("handoff").join(file))?)
    }

    /// Waits until a rendered file is another one than `before`. The kernel counts the agent's sleep by its own clock, so that the
    /// agent must be woken to see that hours have passed.
    ///
    /// # Errors
    /// If it stays as it is.
    pub fn await_other(&self, file: &str, before: &[u8]) -> Done {
        self.wait(&format!("another {file}"), || self.agent("status").and_then(|()| Ok(self.rendered(file)? != before)))
    }

    /// What the agent tells everybody; none yet.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn assignment(&self) -> Done<Option<Value>> {
        match std::fs::read(self.runtime().join("assignment.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(_) => Ok(None),
        }
    }

    /// How many messages have arrived at a hub.
    ///
    /// # Errors
    /// If the emulator does not answer.
    pub fn messages(&self, hub: &str) -> Done<usize> {
        let all = self.emulator.command("telemetry")?;
        let of_hub = |message: &&Value| message["hub"] == hub && message["deviceId"] == DEVICE;
        Ok(all.as_array().map_or(0, |all| all.iter().filter(of_hub).count()))
    }

    /// Waits until so many more messages of a program have come to a hub than now.
    ///
    /// # Errors
    /// If they do not come, or the program ends.
    pub fn await_messages(&self, hub: &str, more: usize, program: &Process) -> Done {
        let before = self.messages(hub)?;
        self.wait(&format!("{more} messages at {hub} after {before}"), || {
            program.lives()?;
            Ok(self.messages(hub)? >= before + more)
        })
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// If it does not become so; the error has the end of the agent's log.
    pub fn wait(&self, what: &str, so: impl Fn() -> Done<bool>) -> Done {
        let deadline = Instant::now() + PATIENCE;
        while !so()? {
            self.daemon.lives()?;
            if Instant::now() > deadline {
                return Err(format!("waited in vain for {what}\n{}", self.daemon.last_words()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn runtime(&self) -> PathBuf {
        self.home.join("run")
    }
}

impl Process {
    /// Starts a program; what it says goes into `log`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(command: &mut Command, log: &Path) -> Done<Self> {
        let file = std::fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        Ok(Self { child: RefCell::new(child), log: log.to_owned() })
    }

    /// # Errors
    /// If it has ended; the error has its last words.
    pub fn lives(&self) -> Done {
        match self.child.borrow_mut().try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("it ended, {status}\n{}", self.last_words()).into()),
        }
    }

    /// The end of what it has said.
    pub fn last_words(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        format!("---- {}\n{}\n----", self.log.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _already_gone = child.kill();
        let _reaped = child.wait();
    }
}

/// The emulator's configuration, and the agent's of the same device.
fn enrolled(programs: &Programs, attestation: Attestation, tpm: Option<&Tpm>, home: &Path) -> Done<(Plan, String)> {
    let plan = Plan::on_ports(8883, 443).service(&format!("hubs = {HUBS:?}"));
    let identity = format!("[attestation]\nregistration_id = {DEVICE:?}\n");
    Ok(match (attestation, tpm) {
        (Attestation::SymmetricKey, _) => {
            let (key, file) = (credentials::symmetric_key()?, home.join("device.key"));
            credentials::write_secret(&file, &key)?;
            (plan.symmetric_key(DEVICE, &key, ""), format!("{identity}method = \"symmetric-key\"\nkey_file = {file:?}\n"))
        }
        (Attestation::X509, _) => {
            let authority = Authority::new(&home.join("authority"))?;
            let issued = authority.issue(DEVICE, 1)?;
            let files = format!("certificate_file = {:?}\nprivate_key_file = {:?}\n", issued.certificate, issued.private_key);
            (plan.x509_group("gateways", &authority.certificate(), ""), format!("{identity}method = \"x509\"\n{files}"))
        }
        (Attestation::Tpm, None) => return Err("no TPM".into()),
        (Attestation::Tpm, Some(tpm)) => {
            let identity = format!("{identity}method = \"tpm\"\ntcti = {:?}\n", tpm.tcti());
            let key = endorsement_key(&programs.agent, &identity, home)?;
            (plan.tpm(DEVICE, &key, ""), identity)
        }
    })
}

/// As an operator gets it.
fn endorsement_key(agent: &Path, identity: &str, home: &Path) -> Done<String> {
    let config = home.join("identity.toml");
    std::fs::write(&config, format!("{}{identity}", service(home, Path::new("/dev/null"))))?;
    let output = quiet(Command::new(agent).args(["identity", "--json", "--config"]).arg(&config)).output()?;
    let identity: Value = serde_json::from_slice(&output.stdout)?;
    let key = identity["tpm"]["endorsementKey"].as_str();
    Ok(key.ok_or_else(|| format!("no endorsement key: {}", String::from_utf8_lossy(&output.stderr)))?.to_owned())
}

/// On the ports that everybody knows. A device with a TPM registers over HTTPS, whatever is written here.
fn service(home: &Path, roots: &Path) -> String {
    format!(
        "[dps]\nhost = \"localhost\"\nid_scope = {ID_SCOPE:?}\nca_file = {roots:?}\nca_only = true\n\
         [state]\ndirectory = {:?}\n[runtime]\ndirectory = {:?}\n",
        home.join("state"),
        home.join("run")
    )
}

fn quiet(command: &mut Command) -> &mut Command {
    command.env("NO_PROXY", "localhost,127.0.0.1").env("TSS2_LOG", "all+NONE").stdin(Stdio::null())
}

/// The program's clocks follow a file.
fn on_a_clock<'c>(command: &'c mut Command, home: &Path) -> Done<&'c mut Command> {
    let asked = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let library = asked.map_err(|error| format!("cannot start faketime: {error}"))?.stdout;
    let library = String::from_utf8_lossy(&library).trim().to_owned();
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", home.join("clock"));
    Ok(quiet(command.env("FAKETIME_NO_CACHE", "1")))
}
