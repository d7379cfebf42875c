//! `cargo xtask test`: everything that says whether the programs are right.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use crate::judges::{self, Totals};
use crate::machine::{self, Need};
use crate::{Done, factory, say, system_test, workspace};

/// Runs `cargo test`, the agent's own tests without TPM support, the judges and a small factory, and adds up what passed and failed.
pub fn run() -> Done<ExitCode> {
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
        Need::Strace,
        Need::Swtpm,
        Need::Systemd,
        Need::TpmTools,
        Need::Unshare,
    ])?;
    let tests = cargo_test(&["--workspace"])?;
    let without_tpm = cargo_test(&["--package", "dps-agent", "--lib", "--no-default-features"])?;
    let systemd = or_failed(system_test::quick());
    let judges = or_failed(judges::judge(&[]));
    let factory = factory::demonstrate(factory::Scale::SMALL).map(|()| Totals { passed: 1, failed: 0 });
    let factory = or_failed(factory);
    say::heading("Totals");
    say::step(&format!("cargo test   {} passed, {} failed", tests.passed, tests.failed));
    say::step(&format!("without TPM  {} passed, {} failed", without_tpm.passed, without_tpm.failed));
    say::step(&format!("on systemd   {} passed, {} failed", systemd.passed, systemd.failed));
    say::step(&format!("judges       {} passed, {} failed", judges.passed, judges.failed));
    say::step(&format!("factory      {} passed, {} failed", factory.passed, factory.failed));
    let all = [tests, without_tpm, systemd, judges, factory];
    let failed: usize = all.iter().map(|totals| totals.failed).sum();
    println!("\n{} passed, {failed} failed", all.iter().map(|totals| totals.passed).sum::<usize>());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What could not run has failed.
fn or_failed(totals: Done<Totals>) -> Totals {
    totals.unwrap_or_else(|error| {
        say::trouble(&error.to_string());
        Totals { passed: 0, failed: 1 }
    })
}

fn cargo_test(what: &[&str]) -> Done<Totals> {
    say::heading(&format!("cargo test {}", what.join(" ")));
    let mut command = workspace::cargo();
    counted(command.args(["test", "--no-fail-fast"]).args(what))
}

/// Runs tests, shows what they print, and counts.
///
/// # Errors
/// If the command does not start.
pub fn counted(command: &mut Command) -> Done<Totals> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut totals = Totals::default();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line?;
        println!("{line}");
        if let Some(result) = parse(&line) {
            totals = Totals { passed: totals.passed + result.passed, failed: totals.failed + result.failed };
        }
    }
    // What does not compile fails without a result line.
    if !child.wait()?.success() && totals.failed == 0 {
        totals.failed = 1;
    }
    Ok(totals)
}

/// Reads libtest's `test result: ok. 5 passed; 0 failed; …`.
fn parse(line: &str) -> Option<Totals> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word| counts.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
    Some(Totals { passed: count(" passed")?, failed: count(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn result_lines_of_libtest_are_counted_and_others_are_not() {
        let counts = |line| parse(line).map(|totals| (totals.passed, totals.failed));
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.01s";
        assert_eq!(counts(line), Some((12, 3)));
        assert_eq!(counts("test result_lines ... ok"), None);
    }
}
