//! How many commands a TPM gets, from the agent and from clients that others wrote.

use std::path::Path;
use std::process::Command;

use super::contestant::DEVICE;
use super::report::Table;
use crate::emulator::{Emulator, ID_SCOPE, Plan};
use crate::judges::tpm::{self, Client};
use crate::tpm::{Code, EK_HANDLE, Tpm, tally};
use crate::workspace::Programs;
use crate::{Done, say};

const NOTE: &str = "\
Counted in front of a software TPM (swtpm); the count does not depend on time. First: the TPM has no keys; again: it has. A \
registration ends with the hub's key in the TPM, the agent's with the proof that the hub takes it, which is a token more. The \
Node client is azure-iot-security-tpm with azure-iot-provisioning-device; tpm2-tools are the programs of that name, one for each \
step, in the order of the device API. The agent alone keeps more than one key, so that the old one is good until the new one is.";

/// Each client once.
///
/// # Errors
/// If one does not register.
pub fn measure(programs: &Programs, directory: &Path) -> Done<Table> {
    say::heading("Counting TPM commands");
    let agent = agent(programs, &directory.join("tpm-agent"))?;
    let mut rows: Vec<_> = agent.into_iter().map(|(what, commands)| row("dps-agent", what, &commands)).collect();
    for (name, client) in [("Node SDK", Client::Node), ("tpm2-tools", Client::Tools)] {
        let home = directory.join(format!("tpm-{}", name.replace(' ', "-")));
        std::fs::create_dir_all(&home)?;
        let commands = tpm::commands(client, &programs.emulator, &home)?.map_err(|said| format!("{name}: {said}"))?;
        rows.push(row(name, "first registration", &commands.first));
        rows.push(row(name, "registration again", &commands.again));
        rows.push(row(name, "token", &commands.token));
    }
    Ok(Table { title: "TPM commands", note: NOTE, headings: &["client", "what", "commands", "which"], rows })
}

fn row(client: &str, what: &str, commands: &[Code]) -> Vec<String> {
    vec![client.to_owned(), what.to_owned(), commands.len().to_string(), tally(commands)]
}

fn agent(programs: &Programs, directory: &Path) -> Done<Vec<(&'static str, Vec<Code>)>> {
    std::fs::create_dir_all(directory)?;
    let tpm = Tpm::start(&directory.join("tpm"))?;
    tpm.tool(&format!("tpm2_createek -c {EK_HANDLE} -G rsa -u ek.pub"))?;
    let key = tpm.public(EK_HANDLE)?;
    tpm.clear()?;
    tpm.tool("tpm2_flushcontext -t")?;
    let emulator = Emulator::start(&programs.emulator, &Plan::on_ports(0, 0).tpm(DEVICE, &key, ""), directory)?;
    let config = directory.join("config.toml");
    std::fs::write(&config, configuration(&tpm, &emulator, directory))?;
    let runs: [(&str, &[&str]); 4] = [
        ("first registration", &["provision"]),
        ("start with a valid record", &["provision"]),
        ("token", &["token"]),
        ("registration again", &["provision", "--force"]),
    ];
    let mut counts = Vec::new();
    for (what, arguments) in runs {
        let _before = tpm.commands();
        let output = Command::new(&programs.agent).args(arguments).arg("--config").arg(&config).output()?;
        if !output.status.success() {
            return Err(format!("dps-agent {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into());
        }
        counts.push((what, tpm.commands()));
    }
    Ok(counts)
}

fn configuration(tpm: &Tpm, emulator: &Emulator, directory: &Path) -> String {
    let ports = format!("mqtt_port = {}\nhttps_port = {}\n", emulator.mqtt_port, emulator.https_port);
    format!(
        "[dps]\nhost = \"localhost\"\nid_scope = {ID_SCOPE:?}\nca_file = {:?}\nca_only = true\n{ports}\
         [attestation]\nmethod = \"tpm\"\nregistration_id = {DEVICE:?}\ntcti = {:?}\n\
         [hub]\n{ports}[state]\ndirectory = {:?}\n[runtime]\ndirectory = {:?}\n",
        emulator.roots(),
        tpm.tcti(),
        directory.join("state"),
        directory.join("run")
    )
}
