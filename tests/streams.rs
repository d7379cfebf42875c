//! Runs the built agent where nobody can hear it: what it cannot say changes neither its exit code nor its course.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn exit_code(arguments: &[&str]) -> Option<i32> {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_dps-agent"));
    agent.args(arguments).env_clear().env("RUST_LOG", "nonsense=nonsense");
    agent.stdout(full()).stderr(full()).status().unwrap().code()
}

#[test]
fn a_stderr_that_takes_nothing_does_not_hide_the_exit_code() {
    assert_eq!(exit_code(&["nonsense"]), Some(64));
    assert_eq!(exit_code(&["--config", "/nowhere/at-all.toml", "status"]), Some(78));
    assert_eq!(exit_code(&["--json", "--config", "/nowhere/at-all.toml", "run"]), Some(78));
}
