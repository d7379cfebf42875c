//! A software TPM of one's own for each test: `swtpm` on two ports that nobody else uses, with its state in a scratch directory.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What to do where the programs are missing.
const CURE: &str = "these tests need a software TPM: apt-get install swtpm swtpm-tools tpm2-tools libtss2-tcti-swtpm0";

/// Below the ports that the system gives to clients, so that no connection takes one of them.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A TPM that is switched on, and gone when dropped. It serves one connection at a time, as any raw TPM.
pub struct Swtpm {
    ports: Ports,
    directory: PathBuf,
    process: Option<Child>,
}

/// What a TPM has in its non-volatile memory: seeds, persistent objects, NV indices, auth values.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, Vec<u8>>);

/// How a program of tpm2-tools ended.
#[derive(Debug)]
pub struct Tool {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A port for commands, the next for control, and the one after it, which is held for as long as the two are used: whoever has
/// it knows that no other fixture, of this or of another process, takes them.
struct Ports {
    data: u16,
    _held: TcpListener,
}

impl Swtpm {
    /// A new TPM, started up. Its endorsement seed is its own: no two have the same EK.
    pub fn start() -> Self {
        // Where a program that is none of ours has one of the ports, others are free.
        (0..9).find_map(|_| Self::try_start()).unwrap_or_else(|| panic!("swtpm starts on no port"))
    }

    /// The port for commands; the next is the one for control.
    pub fn port(&self) -> u16 {
        self.ports.data
    }

    /// How a client of libtss2 finds it.
    pub fn tcti(&self) -> String {
        tcti(self.port())
    }

    /// Takes its power away: sessions and transient objects are gone, and nobody listens.
    pub fn off(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Gives it power and starts it up (`TPM_SU_CLEAR`).
    pub fn on(&mut self) {
        assert!(self.process.is_none() && self.try_on(), "swtpm does not start on port {}", self.port());
    }

    /// What it remembers without power. It is off for a moment.
    pub fn snapshot(&mut self) -> Snapshot {
        self.off();
        let snapshot = self.remembered();
        self.on();
        snapshot
    }

    /// What it would remember without power, while it is at no command: it writes before it answers.
    pub fn remembered(&self) -> Snapshot {
        let files = fs::read_dir(self.state()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| is_state(path));
        Snapshot(files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect())
    }

    /// Makes it what it was, or what another TPM was, and switches it off and on.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        self.off();
        fs::remove_dir_all(self.state()).unwrap();
        fs::create_dir(self.state()).unwrap();
        for (name, content) in &snapshot.0 {
            fs::write(self.state().join(name), content).unwrap();
        }
        self.on();
    }

    /// `TPM2_Clear`: the owner's objects, the storage seed and the auth values go, the endorsement seed stays.
    pub fn clear(&self) {
        self.tool("tpm2_clear -c platform").success();
    }

    /// Another TPM in its place, as after a change of the board: another EK, and nothing in it.
    pub fn new_seed(&mut self) {
        self.restore(&Snapshot(BTreeMap::new()));
    }

    /// Runs a program of tpm2-tools on it, in its directory: `tpm2_readpublic -c 0x81010001`. The words have no blanks in them.
    pub fn tool(&self, line: &str) -> Tool {
        self.tool_over(&self.tcti(), line)
    }

    /// The same through whatever listens there instead of the TPM itself.
    pub fn tool_over(&self, tcti: &str, line: &str) -> Tool {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["-T", tcti]).current_dir(&self.directory).env("TSS2_LOG", "all+NONE").stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}; {CURE}"));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Tool { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// A file that its tools read or write.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn try_start() -> Option<Self> {
        let mut tpm = Self { ports: Ports::reserve(), directory: scratch("tpm"), process: None };
        tpm.try_on().then_some(tpm)
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Whether it runs now.
    fn try_on(&mut self) -> bool {
        fs::create_dir_all(self.state()).unwrap();
        let at = |port: u16| format!("type=tcp,port={port},bindaddr=127.0.0.1");
        let number = self.path("pid");
        let _leftover = fs::remove_file(&number);
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.arg("--pid").arg(format!("file={}", number.display()));
        command.arg("--tpmstate").arg(format!("dir={}", self.state().display()));
        command.args(["--server", &at(self.port()), "--ctrl", &at(self.port() + 1)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("swtpm: {error}; {CURE}"));
        let process = self.process.insert(process);
        // It writes its number when both ports are its own.
        while fs::read(&number).unwrap_or_default().is_empty() {
            if process.try_wait().unwrap().is_some() {
                self.process = None;
                return false;
            }
            pause();
        }
        true
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.off();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Tool {
    /// What it printed, if it ended well.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

impl Ports {
    fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let places = u32::from(PORTS.end - PORTS.start) / 3;
        loop {
            let place = std::process::id().wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % places;
            let data = PORTS.start + u16::try_from(place * 3).unwrap();
            if let Ok(held) = TcpListener::bind((Ipv4Addr::LOCALHOST, data + 2)) {
                return Self { data, _held: held };
            }
        }
    }
}

/// A TCTI of libtss2 for a TPM on this port, with control on the next.
pub fn tcti(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

/// An empty directory of this test process.
pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("dps-agent-{name}-{}-{number}", std::process::id()));
    let _leftover = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    directory
}

/// A file that only we can read, as the agent demands of its keys.
pub fn secret(path: &std::path::Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "another program's file, of which nothing tells when it is there")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// Its lock is no state.
fn is_state(path: &std::path::Path) -> bool {
    path.extension().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EK: &str = "tpm2_createprimary -Q -C e -g sha256 -G rsa2048 -c ek.ctx";
    const HANDLES: &str = "tpm2_getcap handles-persistent";

    fn endorsement_key(tpm: &Swtpm) -> Vec<u8> {
        tpm.tool("tpm2_createek -Q -G rsa -c ek.ctx -u ek.pub").success();
        tpm.tool("tpm2_flushcontext -t").success();
        fs::read(tpm.path("ek.pub")).unwrap()
    }

    fn persist(tpm: &Swtpm) {
        tpm.tool("tpm2_createprimary -Q -C o -G ecc -c primary.ctx").success();
        tpm.tool("tpm2_evictcontrol -Q -C o -c primary.ctx 0x81000001").success();
        tpm.tool("tpm2_flushcontext -t").success();
    }

    #[test]
    fn each_has_an_endorsement_key_of_its_own() {
        let tpms = [Swtpm::start(), Swtpm::start()];
        let keys: Vec<_> = tpms.iter().map(endorsement_key).collect();
        assert_eq!(keys.iter().map(Vec::len).collect::<Vec<_>>(), [316, 316]);
        assert_ne!(keys[0], keys[1]);
        assert_ne!(tpms[0].tcti(), tpms[1].tcti());
    }

    #[test]
    fn a_snapshot_brings_back_what_was_persistent_and_what_was_not_is_gone_with_the_power() {
        let mut tpm = Swtpm::start();
        let (empty, key) = (tpm.snapshot(), endorsement_key(&tpm));
        persist(&tpm);
        let full = tpm.snapshot();
        tpm.restore(&empty);
        assert_eq!(tpm.tool(HANDLES).success(), "");
        tpm.restore(&full);
        assert_eq!(tpm.tool(HANDLES).success(), "- 0x81000001\n");
        assert_eq!(endorsement_key(&tpm), key);
        tpm.tool(EK).success();
        assert_eq!(tpm.tool("tpm2_getcap handles-transient").success(), "- 0x80000000\n");
        tpm.off();
        assert_ne!(tpm.tool(HANDLES).code, Some(0));
        tpm.on();
        assert_eq!(tpm.tool("tpm2_getcap handles-transient").success(), "");
    }

    #[test]
    fn clearing_leaves_the_endorsement_key_and_a_new_seed_does_not() {
        let mut tpm = Swtpm::start();
        let key = endorsement_key(&tpm);
        persist(&tpm);
        tpm.clear();
        assert_eq!(tpm.tool(HANDLES).success(), "");
        assert_eq!(endorsement_key(&tpm), key);
        tpm.new_seed();
        assert_ne!(endorsement_key(&tpm), key);
    }

    #[test]
    fn memory_of_a_raw_tpm_fills_up_and_power_empties_it() {
        let mut tpm = Swtpm::start();
        let full = (0..9).find(|_| tpm.tool(EK).code != Some(0));
        assert_eq!(full, Some(3), "three transient objects, then TPM_RC_OBJECT_MEMORY");
        tpm.off();
        tpm.on();
        tpm.tool(EK).success();
    }
}
