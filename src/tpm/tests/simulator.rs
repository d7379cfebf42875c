//! A TPM in software for one test: swtpm, with the commands that it was sent.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::config::EkUnique;

/// A running swtpm; ended and removed when dropped.
pub(super) struct Simulator {
    directory: PathBuf,
    port: u16,
    process: Option<Child>,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Simulator {
    pub(super) fn start() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("dps-agent-tpm-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut simulator = Self { directory, port: 0, process: None };
        simulator.power_on();
        simulator
    }

    /// Starts it with the state it has.
    pub(super) fn power_on(&mut self) {
        for _ in 0..20 {
            // The same port as before, for those who remember it.
            self.port = if self.port == 0 { free_ports() } else { self.port };
            let mut process = self.launch();
            let log = self.directory.join("log");
            // Its control port opens last.
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", self.port + 1)).is_ok() && log.exists() {
                    self.process = Some(process);
                    return;
                }
                std::thread::yield_now();
            }
            self.port = 0;
        }
        panic!("swtpm does not start; is the package swtpm installed?");
    }

    pub(super) fn power_off(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(super) fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn settings(&self) -> TpmSettings {
        TpmSettings { tcti: self.tcti(), ..Self::nowhere() }
    }

    /// The default settings, for no TPM at all.
    pub(super) fn nowhere() -> TpmSettings {
        TpmSettings {
            tcti: String::new(),
            owner_auth: None,
            endorsement_auth: None,
            ek_handle: EK,
            srk_handle: SRK,
            identity_handle: Some(IDENTITY),
            ek_unique: EkUnique::Tcg,
        }
    }

    pub(super) fn tpm(&self) -> Tpm {
        Tpm::new(self.settings(), Auths::default())
    }

    /// With these passwords of owner and endorsement hierarchy.
    pub(super) fn tpm_with(&self, owner: &str, endorsement: &str) -> Tpm {
        Tpm::new(self.settings(), Auths { owner: password(owner), endorsement: password(endorsement) })
    }

    /// Runs a program of tpm2-tools on it, in its directory; the words are parted by spaces.
    pub(super) fn tool(&self, line: &str) -> String {
        let output = self.attempt(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs one that may fail; whether it did not.
    pub(super) fn tries(&self, line: &str) -> bool {
        self.attempt(line).status.success()
    }

    fn attempt(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let mut program = Command::new(words.next().unwrap());
        program.args(words).env("TPM2TOOLS_TCTI", self.tcti()).current_dir(&self.directory).output().unwrap()
    }

    /// The codes of the commands that were sent while `work` was done.
    pub(super) fn commands<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<u32>) {
        let before = self.log().len();
        let done = work();
        (done, parse(&self.log()[before..]))
    }

    /// Sends commands as they are over one connection, which then ends without a word; the answers.
    pub(super) fn raw(&self, commands: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        commands.iter().map(|command| exchange(&mut stream, command)).collect()
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn launch(&self) -> Child {
        let state = format!("dir={}", self.directory.display());
        let log = format!("file={},level=20", self.directory.join("log").display());
        let [server, control] = [self.port, self.port + 1].map(|port| format!("type=tcp,port={port},bindaddr=127.0.0.1"));
        Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", &state, "--log", &log, "--server", &server, "--ctrl", &control])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.power_off();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// One command, as its head and what follows it.
pub(super) fn command(tag: u16, code: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(10 + rest.len()).unwrap();
    [&tag.to_be_bytes()[..], &length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
}

fn exchange(stream: &mut TcpStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(command).unwrap();
    let mut answer = vec![0; 10];
    stream.read_exact(&mut answer).unwrap();
    let length = u32::from_be_bytes(answer[2..6].try_into().unwrap());
    answer.resize(length as usize, 0);
    stream.read_exact(&mut answer[10..]).unwrap();
    answer
}

/// The log has each command as ` SWTPM_IO_Read: length 22` and then its bytes, sixteen a line; the code is bytes 6 to 9.
fn parse(log: &str) -> Vec<u32> {
    let mut commands = Vec::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        if !line.contains("SWTPM_IO_Read: length") {
            continue;
        }
        let bytes: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
        commands.push(u32::from_str_radix(&bytes[6..10].concat(), 16).unwrap());
    }
    commands
}

/// A free port whose successor is free too, and that no other test of this process has had.
pub(super) fn free_ports() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap();
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let is_new = port < u16::MAX && [port, port + 1].iter().all(|port| !taken.contains(port));
        if is_new && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            taken.extend([port, port + 1]);
            return port;
        }
    }
}
