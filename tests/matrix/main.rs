//! The matrix: every kind of device over every transport in every situation, the built agent against the emulator.
//!
//! `cargo test --test matrix` runs all cells; `cargo test --test matrix -- x509-ec/mqtt-ws/throttled` those whose names
//! contain the text. `--agent FILE` tries another build of the agent, `--threads N` sets how many cells run at a time,
//! `--list` prints their names, `--keep` leaves their files.
#![expect(clippy::disallowed_methods, reason = "it waits for processes and measures how long they took")]

mod cell;
mod conversation;
mod device;
mod scenario;
mod scenarios;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use cell::{Cell, Workshop};
use device::Materials;

/// Cells mostly wait: for polls, for pauses, for deadlines.
const THREADS: usize = 32;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(64);
        }
    };
    let cells: Vec<Cell> = cell::all().into_iter().filter(|cell| options.wants(&cell.name())).collect();
    if options.list {
        cells.iter().for_each(|cell| println!("{}: test", cell.name()));
        return ExitCode::SUCCESS;
    }
    match Materials::new() {
        Ok(materials) => report(cells, &options, materials),
        Err(error) => {
            eprintln!("no keys and certificates for the devices: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(cells: Vec<Cell>, options: &Options, materials: Materials) -> ExitCode {
    let began = Instant::now();
    let workshop = Workshop { agent: options.agent.clone(), materials, keep: options.keep };
    let number = cells.len();
    println!("\nrunning {number} cells");
    let mut failures = run(cells, options.threads, &workshop);
    failures.sort();
    for (name, problems) in &failures {
        println!("\n---- {name} ----\n{problems}");
    }
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    if !failures.is_empty() {
        println!("\nfailures:");
        failures.iter().for_each(|(name, _)| println!("    {name}"));
    }
    println!("\nmatrix: {number} cells");
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        number - failures.len(),
        failures.len(),
        began.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the cells on so many threads; returns the names of those that failed and why.
fn run(cells: Vec<Cell>, threads: usize, workshop: &Workshop) -> Vec<(String, String)> {
    let queue = Mutex::new(VecDeque::from(cells));
    let failures = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.pop_front();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(cell) = next() {
                    if let Err(problems) = cell.run(workshop) {
                        failures.lock().into_iter().for_each(|mut all| all.push((cell.name(), problems.clone())));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap_or_default()
}

/// What was typed.
struct Options {
    filters: Vec<String>,
    agent: PathBuf,
    threads: usize,
    list: bool,
    keep: bool,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { filters: Vec::new(), agent: env!("CARGO_BIN_EXE_dps-agent").into(), threads: THREADS, list: false, keep: false };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--agent" => options.agent = value()?.into(),
                "--threads" => options.threads = value()?.parse().map_err(|_| "--threads needs a number".to_owned())?,
                "--list" => options.list = true,
                "--keep" => options.keep = true,
                // Options of the usual harness, which `cargo test` gives to every target.
                other if other.starts_with('-') => {}
                _ => options.filters.push(word),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}
