//! A private loopback: a network namespace in which ports 8883 and 443, which the SDKs have wired in, are ours.

use std::process::Command;

use crate::machine::{self, is_root};
use crate::{Done, workspace};

/// This program again, with `arguments`, on a loopback of its own.
///
/// # Errors
/// If neither a user namespace nor root is to be had.
pub fn ourselves(arguments: &[String]) -> Done<Command> {
    let mut command = unshare()?;
    command.args(["sh", "-c", r#"PATH="$PATH:/usr/sbin:/sbin" ip link set lo up && exec "$@""#, "sh"]);
    command.arg(std::env::current_exe()?).args(arguments).current_dir(workspace::root());
    Ok(command)
}

fn unshare() -> Done<Command> {
    if !is_root() && machine::succeeds("unshare", &["-rn", "true"]) {
        let mut command = Command::new("unshare");
        command.arg("-rn");
        return Ok(command);
    }
    let mut command = machine::as_root("unshare")?;
    command.arg("-n");
    Ok(command)
}
