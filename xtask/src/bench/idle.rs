//! What the daemon costs while nothing happens: memory, wakeups, and what it writes to flash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::contestant::DEVICE;
use super::report::Table;
use crate::credentials::{self, write_secret};
use crate::emulator::{Emulator, ID_SCOPE, Plan};
use crate::workspace::Programs;
use crate::{Done, say};

/// How long nothing is to happen.
const WINDOW: Duration = Duration::from_secs(180);
/// How long it may take until nothing happens.
const SETTLING: Duration = Duration::from_secs(20);
/// Where nobody listens: the discard port.
const NOWHERE: u16 = 9;

/// A daemon in one of its states. It is killed when dropped.
struct Daemon {
    state: &'static str,
    process: Child,
    runtime: PathBuf,
}

/// What is counted from the start of a process on.
struct Counters {
    wakeups: u64,
    written: u64,
}

/// A provisioned daemon, one that is refused for good, and one without a network, side by side.
///
/// # Errors
/// If one does not come into its state.
pub fn measure(programs: &Programs, directory: &Path) -> Done<Table> {
    let key = credentials::symmetric_key()?;
    let plan = Plan::on_ports(8883, 443).symmetric_key(DEVICE, &key, "answer = \"at-once\"");
    let emulator = Emulator::start(&programs.emulator, &plan, directory)?;
    let start =
        |state, device: &str, port| Daemon::start(&programs.agent, state, device, port, &key, &emulator.roots(), directory);
    let daemons = [
        start("provisioned, the hub is there", DEVICE, 8883)?,
        start("refused for good: not enrolled", "gw-unknown", 8883)?,
        start("no way to DPS", "gw-alone", NOWHERE)?,
    ];
    say::heading(&format!("Watching three daemons for {} s", WINDOW.as_secs()));
    sleep(SETTLING);
    let before = daemons.iter().map(Daemon::counters).collect::<Done<Vec<_>>>()?;
    sleep(WINDOW);
    let rows = daemons.iter().zip(before).map(|(daemon, before)| daemon.row(&before)).collect::<Done<Vec<_>>>()?;
    Ok(Table {
        title: "The daemon while nothing happens",
        note: "One process each, 20 s after its start; wakeups are voluntary context switches of all its threads, bytes are `write_bytes` of \
               `/proc/PID/io`, both over three minutes and multiplied. The runtime directory is in memory, as `/run` is; the log goes nowhere. A \
               daemon that is refused writes one file of about 200 bytes at each refusal, less than twice a day, and a few times while it \
               waits (docs/lifecycle.md).",
        headings: &["state", "resident", "proportional", "wakeups an hour", "bytes to flash a day"],
        rows,
    })
}

impl Daemon {
    fn start(
        agent: &Path,
        state: &'static str,
        device: &str,
        port: u16,
        key: &str,
        roots: &Path,
        directory: &Path,
    ) -> Done<Self> {
        let home = directory.join(device);
        // What a gateway has in memory must not count as written.
        let runtime = Path::new("/dev/shm").join(format!("dps-agent-bench-{}-{device}", std::process::id()));
        fs::create_dir_all(&home)?;
        write_secret(&home.join("device.key"), key)?;
        let (home_text, runtime_text, roots) = (home.display(), runtime.display(), roots.display());
        let config = format!(
            "[dps]\nhost = \"localhost\"\nid_scope = \"{ID_SCOPE}\"\ntransport = \"mqtt\"\nmqtt_port = {port}\nca_file = \"{roots}\"\nca_only = true\n\
             [attestation]\nmethod = \"symmetric-key\"\nregistration_id = \"{device}\"\nkey_file = \"{home_text}/device.key\"\n\
             [state]\ndirectory = \"{home_text}/state\"\n[runtime]\ndirectory = \"{runtime_text}\"\n"
        );
        fs::write(home.join("agent.toml"), config)?;
        let mut command = Command::new(agent);
        command.arg("run").arg("--config").arg(home.join("agent.toml"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { state, process, runtime })
    }

    fn counters(&self) -> Done<Counters> {
        let mut wakeups = 0;
        for task in fs::read_dir(self.proc("task"))? {
            wakeups += number(&fs::read_to_string(task?.path().join("status"))?, "voluntary_ctxt_switches:")?;
        }
        let written = number(&fs::read_to_string(self.proc("io"))?, "write_bytes:")?;
        Ok(Counters { wakeups, written })
    }

    fn row(&self, before: &Counters) -> Done<Vec<String>> {
        let now = self.counters()?;
        let rollup = fs::read_to_string(self.proc("smaps_rollup"))?;
        let (resident, proportional) = (number(&rollup, "Rss:")?, number(&rollup, "Pss:")?);
        let (an_hour, a_day) = (3600 / WINDOW.as_secs(), 24 * 3600 / WINDOW.as_secs());
        Ok(vec![
            self.state.to_owned(),
            format!("{resident} KiB"),
            format!("{proportional} KiB"),
            (now.wakeups.saturating_sub(before.wakeups) * an_hour).to_string(),
            (now.written.saturating_sub(before.written) * a_day).to_string(),
        ])
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.id()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
        let _removed = fs::remove_dir_all(&self.runtime);
    }
}

/// The number behind `name` at the beginning of a line.
fn number(text: &str, name: &str) -> Done<u64> {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    found.ok_or_else(|| format!("/proc tells no {name}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_whole_name() {
        let text = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t12\n";
        assert_eq!(number(text, "voluntary_ctxt_switches:").ok(), Some(12));
        assert!(number(text, "Rss:").is_err());
    }
}
