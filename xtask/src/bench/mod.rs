//! `cargo xtask bench`: the agent next to Microsoft's Python and Node SDK clients, in the same run on the same CPU against the same
//! emulator, on a private loopback.

mod api;
mod contestant;
mod idle;
mod instructions;
mod process;
mod relay;
mod report;
mod round_trips;
mod speed;
mod tpm_commands;

use std::path::Path;

use crate::judges::sdk;
use crate::machine::{self, Need};
use crate::workspace::{self, Profile, Programs, Scratch};
use crate::{Done, loopback, say};
use report::{Report, Table};

/// The hidden command that measures, on a private loopback.
pub const INSIDE: &str = "bench-inside";

/// What follows this in docs/performance.md is kept.
const BY_HAND: &str = "<!-- By hand from here on";

const PARTS: [&str; 7] = ["speed", "round-trips", "instructions", "tpm", "api", "idle", "size"];

/// What the command line asks for.
#[derive(Debug)]
struct Wish {
    write: bool,
    pairs: usize,
    parts: Vec<String>,
}

/// `cargo xtask bench [--write] [--pairs N] [--only PART…]`.
pub fn run(arguments: &[String]) -> Done<std::process::ExitCode> {
    Wish::parse(arguments)?;
    machine::prepare(&[
        Need::Compiler,
        Need::Iproute,
        Need::Libtss2,
        Need::Node,
        Need::Openssl,
        Need::Python,
        Need::Strace,
        Need::Swtpm,
        Need::TpmTools,
        Need::Unshare,
        Need::Valgrind,
    ])?;
    sdk::install()?;
    let programs = workspace::build(Profile::Release)?;
    let mut inside = vec![INSIDE.to_owned()];
    inside.extend(
        [&programs.agent, &programs.without_tpm, &programs.emulator].map(|program| program.to_string_lossy().into_owned()),
    );
    inside.extend_from_slice(arguments);
    let status = loopback::ourselves(&inside)?.status()?;
    Ok(if status.success() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
}

/// The measurements themselves: the paths of the agent, of the agent without TPM support and of the emulator, then the arguments
/// of `bench`.
pub fn run_inside(arguments: &[String]) -> Done {
    let [agent, without_tpm, emulator, rest @ ..] = arguments else { return Err("two agents and an emulator, please".into()) };
    let wish = Wish::parse(rest)?;
    let programs = Programs { agent: agent.into(), without_tpm: without_tpm.into(), emulator: emulator.into() };
    let scratch = Scratch::new("bench")?;
    let mut report = Report::new(rest);
    for part in &wish.parts {
        let table = measure(part, &wish, &programs, scratch.path())?;
        table.print();
        report.add(table);
    }
    if wish.write {
        let file = workspace::root().join("docs/performance.md");
        let by_hand = std::fs::read_to_string(&file).ok().and_then(|text| Some(text[text.find(BY_HAND)?..].to_owned()));
        std::fs::write(&file, report.markdown() + "\n" + &by_hand.unwrap_or_default())?;
        say::heading(&format!("Written to {}", file.display()));
    }
    Ok(())
}

fn measure(part: &str, wish: &Wish, programs: &Programs, directory: &Path) -> Done<Table> {
    match part {
        "speed" => speed::measure(programs, wish.pairs, directory),
        "round-trips" => round_trips::measure(programs, directory),
        "instructions" => instructions::measure(programs, directory),
        "tpm" => tpm_commands::measure(programs, directory),
        "api" => api::measure(programs, directory),
        "idle" => idle::measure(programs, directory),
        _ => size(programs),
    }
}

fn size(programs: &Programs) -> Done<Table> {
    let row = |name: &str, program: &Path, limit: u32| -> Done<Vec<String>> {
        let bytes = std::fs::metadata(program)?.len();
        Ok(vec![format!("dps-agent, x86-64, {name} TPM support"), bytes.to_string(), limit.to_string()])
    };
    let rows = vec![row("with", &programs.agent, 4_194_304)?, row("without", &programs.without_tpm, 3_145_728)?];
    Ok(Table { title: "Size of the stripped release binary", note: "", headings: &["binary", "bytes", "limit"], rows })
}

impl Wish {
    fn parse(arguments: &[String]) -> Done<Self> {
        let mut wish = Self { write: false, pairs: 20, parts: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--write" => wish.write = true,
                "--pairs" => wish.pairs = rest.next().and_then(|count| count.parse().ok()).ok_or("--pairs wants a number")?,
                "--only" => wish.parts = rest.by_ref().cloned().collect(),
                other => return Err(format!("bench knows no {other:?}; see cargo xtask help").into()),
            }
        }
        if let Some(unknown) = wish.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            return Err(format!("there is no part {unknown:?}; there are: {}", PARTS.join(" ")).into());
        }
        if wish.parts.is_empty() {
            wish.parts = PARTS.map(str::to_owned).to_vec();
        }
        Ok(wish)
    }
}
