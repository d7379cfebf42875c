//! The matrix: every kind of device over every transport in every situation, the built agent against the emulator.
//!
//! `cargo test --test matrix` runs all cells; `cargo test --test matrix -- x509-ec/mqtt-ws/throttled` those whose names
//! contain the text, and only that one if it is a whole name. `--agent FILE` tries another build of the agent, `--threads N` sets how many cells run at a time,
//! `--list` prints their names, `--keep` leaves their files.
#![expect(clippy::disallowed_methods, reason = "it waits for processes and measures how long they took")]

mod cell;
mod conversation;
mod device;
mod mutations;
mod rogue;
mod scenario;
mod scenarios;
mod seen;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use cell::{Cell, Checked, Workshop};
use device::Materials;
use mutations::Mutation;
use rogue::Rogue;

/// Cells mostly wait: for polls, for pauses, for deadlines.
const THREADS: usize = 48;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(64);
        }
    };
    let jobs = options.wanted(jobs());
    if options.list {
        jobs.iter().for_each(|job| println!("{}: test", job.name()));
        return ExitCode::SUCCESS;
    }
    cell::clear_leftovers();
    match Materials::new() {
        Ok(materials) => report(jobs, &options, materials),
        Err(error) => {
            eprintln!("no keys and certificates for the devices: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What a thread takes from the queue.
#[derive(Debug, Clone)]
enum Job {
    Cell(Box<Cell>),
    Rogue(&'static Rogue),
    /// A cell that must fail without this check of the emulator.
    Mutated(&'static Mutation, Box<Job>),
    /// A mutation names a cell that there is not.
    Unknown(&'static str),
}

impl Job {
    fn name(&self) -> String {
        match self {
            Self::Cell(cell) => cell.name(),
            Self::Rogue(rogue) => rogue.name(),
            Self::Mutated(mutation, job) => format!("{} with {}", job.name(), mutation.switch),
            Self::Unknown(name) => (*name).to_owned(),
        }
    }

    fn run(&self, workshop: &Workshop, kinder: Option<&str>) -> Checked {
        match self {
            Self::Cell(cell) => cell.run(workshop, kinder),
            Self::Rogue(rogue) => rogue.run(workshop, kinder),
            Self::Mutated(mutation, job) => match job.run(workshop, Some(mutation.switch)) {
                Ok(()) => Err("it passes all the same: the mutation is not caught".to_owned()),
                Err(_) => Ok(()),
            },
            Self::Unknown(_) => Err("a mutation names it, and there is no such cell".to_owned()),
        }
    }
}

/// Every cell, and every mutation's cells once more.
fn jobs() -> Vec<Job> {
    let cells = cell::all().into_iter().map(|cell| Job::Cell(Box::new(cell)));
    let mut jobs: Vec<Job> = cells.chain(rogue::ALL.iter().map(Job::Rogue)).collect();
    for mutation in mutations::ALL {
        for name in mutation.cells {
            let found = jobs.iter().find(|job| job.name() == *name).cloned();
            jobs.push(found.map_or(Job::Unknown(name), |job| Job::Mutated(mutation, Box::new(job))));
        }
    }
    jobs
}

fn report(jobs: Vec<Job>, options: &Options, materials: Materials) -> ExitCode {
    let began = Instant::now();
    let workshop = Workshop { agent: options.agent.clone(), materials, keep: options.keep };
    let (mutated, cells): (Vec<Job>, Vec<Job>) = jobs.iter().cloned().partition(|job| matches!(job, Job::Mutated(..)));
    println!("\nrunning {} cells, and {} of them with a mutation", cells.len(), mutated.len());
    let mut failures = run(jobs, options.threads, &workshop);
    failures.sort();
    for (name, problems) in &failures {
        println!("\n---- {name} ----\n{problems}");
    }
    print_mutations(&mutated, &failures);
    if !failures.is_empty() {
        println!("\nfailures:");
        failures.iter().for_each(|(name, _)| println!("    {name}"));
    }
    println!("\nmatrix: {} cells", cells.len());
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        if failures.is_empty() { "ok" } else { "FAILED" },
        cells.len() + mutated.len() - failures.len(),
        failures.len(),
        began.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Which cell catches which mutation.
fn print_mutations(mutated: &[Job], failures: &[(String, String)]) {
    if !mutated.is_empty() {
        println!("\nmutations of the emulator, and the cells that catch them:");
    }
    for job in mutated {
        if let Job::Mutated(mutation, cell) = job {
            let missed = failures.iter().any(|(name, _)| *name == job.name());
            let word = if missed { "MISSED BY" } else { "caught by" };
            println!("    {:<20} {word} {}", mutation.switch, cell.name());
        }
    }
}

/// Runs them on so many threads; returns the names of those that failed and why.
fn run(jobs: Vec<Job>, threads: usize, workshop: &Workshop) -> Vec<(String, String)> {
    let queue = Mutex::new(VecDeque::from(jobs));
    let failures = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.pop_front();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = next() {
                    if let Err(problems) = job.run(workshop, None) {
                        failures.lock().into_iter().for_each(|mut all| all.push((job.name(), problems.clone())));
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
        let mut options = Self {
            filters: Vec::new(),
            agent: env!("CARGO_BIN_EXE_dps-agent").into(),
            threads: THREADS,
            list: false,
            keep: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--agent" => options.agent = value()?.into(),
                "--threads" | "--test-threads" => {
                    options.threads = value()?.parse().map_err(|_| "--threads needs a number".to_owned())?
                }
                "--list" => options.list = true,
                "--keep" => options.keep = true,
                // Options of the usual harness, which `cargo test` gives to every target.
                other if other.starts_with('-') => {}
                _ => options.filters.push(word),
            }
        }
        Ok(options)
    }

    /// Those whose names contain a filter; a whole name means that one only.
    fn wanted(&self, jobs: Vec<Job>) -> Vec<Job> {
        let whole: Vec<String> = jobs.iter().map(Job::name).filter(|name| self.filters.contains(name)).collect();
        let fits = |name: &str, filter: &String| name == filter || (!whole.contains(filter) && name.contains(filter.as_str()));
        let wants = |job: &Job| self.filters.is_empty() || self.filters.iter().any(|filter| fits(&job.name(), filter));
        jobs.into_iter().filter(wants).collect()
    }
}
