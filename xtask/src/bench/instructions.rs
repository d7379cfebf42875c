//! Instructions executed for one registration, counted by callgrind: the figure that does not depend on the machine's load.

use std::path::Path;
use std::process::{Command, Stdio};

use super::contestant::{Contestant, DEVICE, Task};
use super::report::Table;
use crate::emulator::{Emulator, Plan};
use crate::workspace::Programs;
use crate::{Done, credentials, say};

/// Counts for the agent over each transport, and for the SDK clients over MQTT.
///
/// # Errors
/// If one does not register under callgrind.
pub fn measure(programs: &Programs, directory: &Path) -> Done<Table> {
    say::heading("Counting instructions under callgrind");
    let key = credentials::symmetric_key()?;
    let plan = Plan::on_ports(8883, 443).symmetric_key(DEVICE, &key, "answer = \"at-once\"");
    let emulator = Emulator::start(&programs.emulator, &plan, directory)?;
    let roots = emulator.roots();
    let [agent, python, node] = Contestant::all(&programs.agent);
    let mut rows = Vec::new();
    let runs = [(&agent, "mqtt"), (&agent, "mqtt-ws"), (&agent, "https"), (&python, "mqtt"), (&node, "mqtt")];
    for (contestant, transport) in runs {
        let task = Task { transport, key: &key, roots: &roots, directory };
        let count = count(&contestant.command(&task)?).map_err(|error| format!("{}: {error}", contestant.name()))?;
        rows.push(vec![contestant.name().to_owned(), transport.to_owned(), format!("{:.1}", count as f64 / 1e6)]);
    }
    Ok(Table {
        title: "Instructions for one registration",
        note: "Symmetric key, TLS 1.2, answered at once, the whole process under callgrind.",
        headings: &["client", "transport", "million instructions"],
        rows,
    })
}

fn count(command: &Command) -> Done<u64> {
    let mut counted = Command::new("valgrind");
    counted.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(command.get_program()).args(command.get_args());
    counted.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = counted.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !String::from_utf8_lossy(&output.stdout).contains("\"assignedHub\"") {
        return Err(format!("no assignment under callgrind: {said}").into());
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("callgrind says no count: {said}").into())
}
