//! `cargo xtask power-cut`: cuts the power at every moment of every registration with a TPM; the tests take a part of them.

use std::process::ExitCode;

use crate::machine::{self, Need};
use crate::{Done, workspace};

/// Runs the whole test and shows its table; minutes.
pub fn run() -> Done<ExitCode> {
    machine::prepare(&[Need::Compiler, Need::Libtss2, Need::Strace, Need::Swtpm, Need::TpmTools])?;
    let mut command = workspace::cargo();
    command.args(["test", "--package", "dps-agent", "--test", "tpm", "power_cut", "--", "--nocapture"]);
    let status = command.env("DPS_AGENT_POWER_CUTS", "all").status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
