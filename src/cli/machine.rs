//! `reset` and `migrate`: what the agent, or another program, has left on this machine.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{self, Cli};
use super::output;
use super::verbs::{Ended, load};
use crate::blame::Blame;
use crate::config::Problem;
use crate::failure::Failure;
use crate::migrate::Migration;
use crate::reset::Traces;

/// `reset`
pub fn reset(cli: &Cli, options: &args::Reset) -> Ended {
    let config = load(cli)?;
    let traces = Traces::of(&config)?;
    if options.yes {
        traces.remove(&config)?;
    }
    let done = if options.yes { "removed" } else { "would be removed" };
    if cli.json {
        let removed = if options.yes { traces.ours.as_slice() } else { &[] };
        output::print_json(&json!({ "removed": paths(removed), "found": paths(&traces.ours), "kept": paths(&traces.others) }))?;
    } else {
        output::print(&listed(done, &traces.ours))?;
        output::print(&listed("not the agent's, and kept", &traces.others))?;
    }
    match options.yes || traces.ours.is_empty() {
        true => Ok(0),
        // Of the two only one can be on stdout.
        false if cli.json => Ok(Blame::Usage.exit_code()),
        false => Err(Failure::new(Blame::Usage, "nothing was removed: --yes does it")),
    }
}

/// `migrate aziot`
pub fn migrate_aziot(cli: &Cli, options: &args::Aziot) -> Ended {
    let migration = Migration::from_aziot(&options.from, &options.to)?;
    migration.write()?;
    let written: Vec<PathBuf> = migration.secrets.iter().map(|(path, _)| path).chain([&migration.drop_in.0]).cloned().collect();
    let next = next_steps(&migration);
    if cli.json {
        let left: Vec<_> = migration.left.iter().map(Problem::to_json).collect();
        output::print_json(&json!({ "written": paths(&written), "left": left, "next": next }))?;
    } else {
        output::print(&listed("written", &written))?;
        migration.left.iter().try_for_each(|left| output::print(&format!("not taken over: {left}\n")))?;
        next.iter().try_for_each(|step| output::print(&format!("next: {step}\n")))?;
    }
    Ok(0)
}

fn next_steps(migration: &Migration) -> Vec<&'static str> {
    let mut steps = vec![
        "stop the other program for good, since two that provision one device undo each other's work: \
         systemctl disable --now aziot-identityd.socket aziot-identityd aziot-tpmd.socket aziot-tpmd",
        "see whether the agent's user can read all files that the configuration names: dps-agent check",
    ];
    if migration.has_tpm {
        steps.push("take over the hub key that is in the TPM, without a registration: dps-agent adopt");
    }
    steps
}

fn listed(what: &str, paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("{what}: {}\n", path.display())).collect()
}

fn paths(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| Path::display(path).to_string()).collect()
}
