//! Time from process start to the printed assignment, processor time and peak memory.

use std::path::Path;
use std::time::Duration;

use super::contestant::{Contestant, DEVICE, Task};
use super::process::{self, Cost};
use super::report::Table;
use crate::emulator::{Emulator, Plan};
use crate::workspace::Programs;
use crate::{Done, credentials, say};

/// Runs agent, Python and Node by turns, `pairs` times each; memory is measured apart, three times.
///
/// # Errors
/// If a contestant does not register.
pub fn measure(programs: &Programs, pairs: usize, directory: &Path) -> Done<Table> {
    let key = credentials::symmetric_key()?;
    let plan = Plan::on_ports(8883, 443).symmetric_key(DEVICE, &key, "answer = \"at-once\"");
    // The emulator has a CPU of its own where there are two.
    process::pin(1).or_else(|_| process::pin(0))?;
    let emulator = Emulator::start(&programs.emulator, &plan, directory)?;
    process::pin(0)?;
    let roots = emulator.roots();
    let task = Task { transport: "mqtt", key: &key, roots: &roots, directory };
    let contestants = [&Contestant::all(&programs.agent)[..], &[Contestant::Start(programs.agent.clone())]].concat();
    let costs = by_turns(&contestants, pairs, &task)?;
    let mut rows = Vec::new();
    for (contestant, costs) in contestants.iter().zip(costs) {
        let peak = |_| process::peak_memory(&contestant.command(&task)?, |said| contestant.is_answer(said));
        let memory = (0..3).map(peak).collect::<Done<Vec<_>>>()?;
        rows.push(row(contestant, &costs, &memory));
    }
    rows.push(["limit for dps-agent", "≤ 30 ms", "", "≤ 15 ms", "≤ 6 MiB"].map(str::to_owned).to_vec());
    Ok(Table {
        title: "Process start to printed assignment",
        note: "Symmetric key over MQTT with TLS 1.2; the register call is answered with 200 at once, `verify = \"never\"`; the emulator's CA is \
               the only root (`ca_only = true`; reading the system's store instead costs the agent about as much time again). Medians; \
               processor time is user and system time of the whole process; peak memory is `VmHWM`, read while strace holds the \
               process at its exit.",
        headings: &["client", "time to answer", "fastest … slowest", "processor time", "peak memory"],
        rows,
    })
}

fn by_turns(contestants: &[Contestant], pairs: usize, task: &Task<'_>) -> Done<Vec<Vec<Cost>>> {
    let mut costs = vec![Vec::new(); contestants.len()];
    say::heading(&format!("{pairs} rounds of {} registrations", contestants.len()));
    for round in 0..=pairs {
        for (contestant, costs) in contestants.iter().zip(&mut costs) {
            let cost = process::run(&mut contestant.command(task)?, |said| contestant.is_answer(said));
            let cost = cost.map_err(|error| format!("{}: {error}", contestant.name()))?;
            // The first round only warms the caches.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    Ok(costs)
}

fn row(contestant: &Contestant, costs: &[Cost], memory: &[u64]) -> Vec<String> {
    let answers: Vec<Duration> = costs.iter().map(|cost| cost.answer).collect();
    let (fastest, slowest) = (answers.iter().min().copied(), answers.iter().max().copied());
    let kib = median(memory).unwrap_or_default();
    vec![
        contestant.name().to_owned(),
        milliseconds(median(&answers)),
        format!("{} … {}", milliseconds(fastest), milliseconds(slowest)),
        milliseconds(median(&costs.iter().map(|cost| cost.processor).collect::<Vec<_>>())),
        format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024),
    ]
}

fn median<T: Ord + Copy>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0))
}
