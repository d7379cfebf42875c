//! A software TPM for clients that we did not write, with a count of the commands they send it.

mod simulator;
pub mod tools;
#[path = "../../../tests/tpm/wire.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the agent's tests use more of it"))]
mod wire;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Done;
use simulator::Simulator;
pub use wire::Code;

/// Where Microsoft's clients and the agent keep the endorsement key and the storage root key (DPS device API §9.2).
pub const EK_HANDLE: &str = "0x81010001";
pub const SRK_HANDLE: &str = "0x81000001";

/// A TPM of its own in a directory; gone when dropped. It serves one client at a time, and speaks to it as Microsoft's simulator
/// does, on a port for commands and the next one for the platform.
#[derive(Debug)]
pub struct Tpm {
    process: Child,
    directory: PathBuf,
    simulator: Simulator,
}

impl Tpm {
    /// # Errors
    /// If swtpm does not start.
    pub fn start(directory: &Path) -> Done<Self> {
        std::fs::create_dir_all(directory)?;
        let at = |name: &str| directory.join(name).display().to_string();
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.args(["--tpmstate", &format!("dir={}", at("")), "--pid", &format!("file={}", at("pid"))]);
        command.args(["--server", &format!("type=unixio,path={}", at("data"))]);
        command.args(["--ctrl", &format!("type=unixio,path={}", at("control"))]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(|error| format!("cannot start swtpm: {error}"))?;
        let mut tpm = Self { process, directory: directory.to_owned(), simulator: Simulator::start(directory.join("data"))? };
        tpm.wait()?;
        Ok(tpm)
    }

    /// The port for commands.
    pub fn port(&self) -> u16 {
        self.simulator.port()
    }

    /// How a client of libtss2 finds it.
    pub fn tcti(&self) -> String {
        format!("mssim:host=127.0.0.1,port={}", self.port())
    }

    /// The commands that came since this was asked last, without `Startup`, which only a simulator's clients send.
    pub fn commands(&self) -> Vec<Code> {
        self.simulator.take().into_iter().filter(|&code| Some(code) != Code::named("Startup")).collect()
    }

    /// Runs a program of tpm2-tools in the TPM's directory; the words of the line have no blanks in them.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn tool(&self, line: &str) -> Done {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(["-T", &self.tcti()]).current_dir(&self.directory).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("{line}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }

    /// A file that its tools read or write.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The TPM2B_PUBLIC of the key at a handle, as base64 text.
    ///
    /// # Errors
    /// If there is none.
    pub fn public(&self, handle: &str) -> Done<String> {
        self.tool(&format!("tpm2_readpublic -Q -c {handle} -o public"))?;
        Ok(STANDARD.encode(std::fs::read(self.path("public"))?))
    }

    /// As it came from the factory, with the endorsement seed that it has.
    ///
    /// # Errors
    /// If the TPM refuses.
    pub fn clear(&self) -> Done {
        self.tool("tpm2_clear -Q -c platform")
    }

    /// It writes its number when it listens.
    fn wait(&mut self) -> Done {
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read(self.directory.join("pid")).unwrap_or_default().is_empty() {
            if self.process.try_wait()?.is_some() || Instant::now() > deadline {
                return Err("swtpm did not start".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Commands with how often each came, in the order of their first appearance: `2 ReadPublic, HMAC`.
pub fn tally(commands: &[Code]) -> String {
    let mut counts: Vec<(Code, usize)> = Vec::new();
    for &command in commands {
        match counts.iter_mut().find(|(code, _)| *code == command) {
            Some((_, count)) => *count += 1,
            None => counts.push((command, 1)),
        }
    }
    let name = |&(code, count): &(Code, usize)| if count == 1 { code.to_string() } else { format!("{count} {code}") };
    counts.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_tallied_in_order() {
        let commands = ["ReadPublic", "HMAC", "ReadPublic"].map(|name| Code::named(name).unwrap());
        assert_eq!(tally(&commands), "2 ReadPublic, HMAC");
        assert_eq!(tally(&[]), "");
    }
}
