//! Clients that we did not write judge the emulator: Microsoft's Python and Node device SDKs must register with it unmodified, with a
//! TPM too, tpm2-tools must take in what it makes for a TPM, and Microsoft's Node service SDK must enroll devices; and they must be
//! refused where the service would refuse them. And they judge the agent: a program on the Python SDK, mosquitto and curl must live from
//! what it hands over.

mod backend;
mod bridge;
mod case;
mod consumer;
mod gateway;
pub mod sdk;
mod shell;
mod story;
pub mod tpm;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use crate::machine::{self, Need};
use crate::workspace::{self, Profile, Programs, Scratch};
use crate::{Done, loopback, say};

/// The hidden command that runs one case on a private loopback.
pub const INSIDE: &str = "judge-inside";

/// One registration by one of them.
#[derive(Debug, Clone, Copy)]
enum Case {
    Sdk(case::Case),
    Tpm(tpm::Case),
    Backend(backend::Case),
    Consumer(consumer::Case),
    Story(story::Case),
}

/// How many cases passed and failed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub passed: usize,
    pub failed: usize,
}

/// `cargo xtask judges [NAME…]`.
pub fn run(names: &[String]) -> Done<ExitCode> {
    let totals = judge(names)?;
    println!("\n{} passed, {} failed", totals.passed, totals.failed);
    Ok(if totals.failed == 0 && totals.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the cases whose names contain one of `names`, or all; each on a loopback of its own, two at a time.
///
/// # Errors
/// If the cases cannot be run at all.
pub fn judge(names: &[String]) -> Done<Totals> {
    machine::prepare(&[
        Need::Compiler,
        Need::Curl,
        Need::Faketime,
        Need::Iproute,
        Need::Libtss2,
        Need::Mosquitto,
        Need::Node,
        Need::Openssl,
        Need::Python,
        Need::Swtpm,
        Need::TpmTools,
        Need::Unshare,
    ])?;
    sdk::install()?;
    let programs = workspace::build(Profile::Dev)?;
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| case.is_called(names)).collect();
    say::heading(&format!("{} cases, each on a private loopback", cases.len()));
    let rows = in_parallel(&cases, &programs);
    say::heading("SDK clients and TPM tools against the emulator, programs and bridges behind the agent");
    say::table(&["result", "client", "transport", "attestation", "case", "time", "what happened"], &rows);
    let passed = rows.iter().filter(|row| row.first().is_some_and(|result| result == "pass")).count();
    Ok(Totals { passed, failed: rows.len() - passed })
}

/// One case, already on its private loopback: prints what happened.
pub fn run_inside(arguments: &[String]) -> Done<ExitCode> {
    let [agent, emulator, name] = arguments else { return Err("an agent, an emulator and a case, please".into()) };
    let case = Case::all().into_iter().find(|case| case.name() == *name).ok_or_else(|| format!("no case {name:?}"))?;
    let scratch = Scratch::new("judge")?;
    let verdict = match case {
        Case::Sdk(case) => case.judge(emulator.as_ref(), scratch.path())?,
        Case::Tpm(case) => case.judge(emulator.as_ref(), scratch.path())?,
        Case::Backend(case) => case.judge(emulator.as_ref(), scratch.path())?,
        Case::Consumer(case) => case.judge(&behind(agent, emulator), scratch.path())?,
        Case::Story(case) => case.judge(&behind(agent, emulator), scratch.path())?,
    };
    println!("{}", verdict.as_ref().unwrap_or_else(|failure| failure));
    Ok(if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Case {
    fn all() -> Vec<Self> {
        let sdks = case::all().into_iter().map(Self::Sdk);
        let consumers = consumer::all().into_iter().map(Self::Consumer);
        let tpms = tpm::all().into_iter().map(Self::Tpm);
        let backends = backend::all().into_iter().map(Self::Backend);
        let stories = story::all().into_iter().map(Self::Story);
        sdks.chain(tpms).chain(backends).chain(consumers).chain(stories).collect()
    }

    /// Client, transport, attestation and what is special.
    fn columns(&self) -> [String; 4] {
        match self {
            Self::Sdk(case) => case.columns(),
            Self::Tpm(case) => case.columns(),
            Self::Backend(case) => case.columns(),
            Self::Consumer(case) => case.columns(),
            Self::Story(case) => case.columns(),
        }
    }

    fn name(&self) -> String {
        self.columns().join("/")
    }

    /// Whether its name contains one of `names`, or there are none.
    fn is_called(&self, names: &[String]) -> bool {
        names.is_empty() || names.iter().any(|name| self.name().contains(name.as_str()))
    }
}

fn behind(agent: &str, emulator: &str) -> gateway::Programs {
    gateway::Programs { agent: agent.into(), emulator: emulator.into() }
}

fn in_parallel(cases: &[Case], programs: &Programs) -> Vec<Vec<String>> {
    let next = Mutex::new(cases.iter().enumerate());
    let rows = Mutex::new(vec![Vec::new(); cases.len()]);
    let take = || next.lock().ok().and_then(|mut cases| cases.next());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((index, case)) = take() {
                    let row = row(case, programs);
                    say::step(&format!("{} {}", row[0], case.name()));
                    if let Some(slot) = rows.lock().ok().as_mut().and_then(|rows| rows.get_mut(index)) {
                        *slot = row;
                    }
                }
            });
        }
    });
    rows.into_inner().unwrap_or_default()
}

fn row(case: &Case, programs: &Programs) -> Vec<String> {
    let began = Instant::now();
    let [agent, emulator] = [&programs.agent, &programs.emulator].map(|program| program.to_string_lossy().into_owned());
    let arguments = [INSIDE.to_owned(), agent, emulator, case.name()];
    let output =
        loopback::ourselves(&arguments).and_then(|mut command| Ok(command.stderr(std::process::Stdio::inherit()).output()?));
    let (passed, said) = match output {
        Ok(output) => (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(error) => (false, error.to_string()),
    };
    let result = if passed { "pass" } else { "FAIL" };
    let mut row = vec![result.to_owned()];
    row.extend(case.columns());
    row.extend([format!("{:.1} s", began.elapsed().as_secs_f64()), said]);
    row
}
