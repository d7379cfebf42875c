//! Runs the built agent where nobody can hear it: what it cannot say changes neither its exit code nor its course.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
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

#[test]
fn an_answer_that_stdout_does_not_take_is_no_success() {
    let mut help = Command::new(env!("CARGO_BIN_EXE_dps-agent"));
    assert_eq!(help.arg("--version").stdout(full()).stderr(Stdio::null()).status().unwrap().code(), Some(74));
}

#[test]
fn a_terminal_is_written_to_like_a_file() {
    let agent = env!("CARGO_BIN_EXE_dps-agent");
    let line = format!("{agent} --config /nowhere/at-all.toml status");
    // script(1) of util-linux gives the command a terminal and passes its exit code on.
    let output = Command::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim_end(), "dps-agent: /nowhere/at-all.toml: there is no such file; create it or name another");
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_person_at_a_terminal_sees_what_goes_on_and_a_log_file_does_not() {
    let directory = std::env::temp_dir().join(format!("dps-agent-streams-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let place = directory.display();
    fs::write(directory.join("key"), "hTUUURcibF5BNRAhZjMcrLQ6mpSM4d767jtb+Sxxax0=\n").unwrap();
    fs::set_permissions(directory.join("key"), Permissions::from_mode(0o600)).unwrap();
    // Nobody listens on port 1.
    let config = format!(
        "[dps]\nhost = \"127.0.0.1\"\nid_scope = \"0ne00000000\"\ntransport = \"mqtt\"\nmqtt_port = 1\n\
         [attestation]\nmethod = \"symmetric-key\"\nregistration_id = \"gw-0001\"\nkey_file = \"{place}/key\"\n\
         [state]\ndirectory = \"{place}/state\"\n[runtime]\ndirectory = \"{place}/run\"\n"
    );
    fs::write(directory.join("config.toml"), config).unwrap();
    let line = format!("{} provision --timeout 3s --config {place}/config.toml", env!("CARGO_BIN_EXE_dps-agent"));
    let seen = Command::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]).output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    let refused = "127.0.0.1:1 cannot be reached: Connection refused (os error 111)";
    assert!(seen.starts_with("\r\u{1b}[2Kasking 127.0.0.1 for gw-0001 over mqtt\r\u{1b}[2K"), "{seen:?}");
    assert!(seen.contains(&format!("\r\u{1b}[2K{refused}; next try in ")), "{seen:?}");
    assert!(seen.ends_with(&format!("\r\u{1b}[2Kdps-agent: {refused}\r\n")), "{seen:?}");
    let quiet = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8(quiet.stderr).unwrap(), format!("dps-agent: {refused}\n"));
    assert_eq!(quiet.status.code(), Some(75));
}
