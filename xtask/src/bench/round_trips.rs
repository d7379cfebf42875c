//! Round trips from TCP connect to the assigned answer.

use std::path::Path;
use std::sync::Arc;

use super::contestant::{Contestant, DEVICE, Task};
use super::process;
use super::relay::Relay;
use super::report::Table;
use crate::emulator::{Emulator, Plan};
use crate::workspace::Programs;
use crate::{Done, credentials, say};

const TRANSPORTS: [&str; 3] = ["mqtt", "mqtt-ws", "https"];
const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// Each client over each transport with each TLS version, once: the count does not depend on time.
///
/// # Errors
/// If one does not register.
pub fn measure(programs: &Programs, directory: &Path) -> Done<Table> {
    say::heading("Counting round trips");
    let mut rows = Vec::new();
    for contestant in Contestant::all(&programs.agent) {
        let mut row = vec![contestant.name().to_owned()];
        for (transport, version) in combinations() {
            row.push(if contestant.speaks(transport, version) {
                count(&contestant, transport, version, programs, directory)?.to_string()
            } else {
                "-".to_owned()
            });
        }
        say::step(&row.join("  "));
        rows.push(row);
    }
    rows.push(["limit for dps-agent", "7", "6", "8", "7", "5", "4"].map(str::to_owned).to_vec());
    Ok(Table {
        title: "Round trips from TCP connect to assigned, with one poll",
        note: "Counted by a relay that holds everything back for 50 ms each way: an answer that reaches a client which has sent \
               something since the answer before is one round trip, and so is the TCP handshake. What follows the assigned answer \
               does not count. The Python client has no HTTPS and no TLS 1.3.",
        headings: &["client", "MQTT, TLS 1.2", "MQTT, 1.3", "WebSocket, 1.2", "WebSocket, 1.3", "HTTPS, 1.2", "HTTPS, 1.3"],
        rows,
    })
}

fn combinations() -> impl Iterator<Item = (&'static str, &'static str)> {
    TRANSPORTS.into_iter().flat_map(|transport| VERSIONS.map(|version| (transport, version)))
}

fn count(contestant: &Contestant, transport: &str, version: &str, programs: &Programs, directory: &Path) -> Done<usize> {
    let key = credentials::symmetric_key()?;
    let directory = directory.join(format!("trips-{}-{transport}-{version}", contestant.name().replace(' ', "-")));
    std::fs::create_dir_all(&directory)?;
    let plan = Plan::on_ports(0, 0).service(&format!("tls = [{version:?}]")).symmetric_key(DEVICE, &key, "");
    let emulator = Emulator::start(&programs.emulator, &plan, &directory)?;
    let (port, upstream) = if transport == "mqtt" { (8883, emulator.mqtt_port) } else { (443, emulator.https_port) };
    let transcript = directory.join("transcript");
    let assigned = move || std::fs::read_to_string(&transcript).is_ok_and(|text| text.contains(r#""assignedHub":"#));
    let relay = Relay::start(port, upstream, Arc::new(assigned))?;
    let roots = emulator.roots();
    let task = Task { transport, key: &key, roots: &roots, directory: &directory };
    process::run(&mut contestant.command(&task)?, |said| contestant.is_answer(said))
        .map_err(|error| format!("{} over {transport} with TLS {version}: {error}", contestant.name()))?;
    let queries = emulator.transcript(DEVICE)?.iter().filter(|line| line.starts_with("> query")).count();
    if queries == 1 { Ok(relay.trips()) } else { Err(format!("{} polled {queries} times, not once", contestant.name()).into()) }
}
