//! `cargo xtask system-test`: the shipped units on a booted systemd, in containers. tests/system/README.md says what runs where.

mod guest;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::judges::Totals;
use crate::machine::{self, Need};
use crate::{Done, package, say, workspace};

/// What the root file system is made of. Another list makes another one.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libtss2-esys-3.0.2-0,libtss2-tctildr0,libtss2-mu0,libtss2-tcti-device0,tpm-udev,ca-certificates,curl,busybox";
/// The same for a later systemd.
const LATER_PACKAGES: &str = "systemd,systemd-sysv,dbus,libtss2-esys-3.0.2-0t64,libtss2-tctildr0t64,ca-certificates";
const SUITE: &str = "bookworm";
const LATER_SUITE: &str = "trixie";
const QUICK: [&str; 2] = ["quick::", "package::"];

/// Runs all that a container can show, with `--full` the emulated machine, with `--quick` the few that each change is tried with, or those whose names contain one of these words.
pub fn run(arguments: &[String]) -> Done<ExitCode> {
    let named: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let totals = match named[..] {
        [] => judge(&["quick::", "package::", "full::", "later::"])?,
        ["--quick"] => quick()?,
        ["--full"] => full()?,
        _ => judge(&named)?,
    };
    println!("\n{} passed, {} failed", totals.passed, totals.failed);
    Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same for `cargo xtask test`.
///
/// # Errors
/// If there is no root file system to be had, or the tests do not compile.
pub fn quick() -> Done<Totals> {
    judge(&QUICK)
}

/// The machine that qemu emulates, with a kernel of its own and a TPM.
fn full() -> Done<Totals> {
    machine::prepare(&[Need::Compiler, Need::Mmdebstrap, Need::QemuSystem, Need::Swtpm])?;
    say::heading("Tests in an emulated machine");
    let (package, program) = (package::for_this_machine()?, workspace::test("dps-agent", "system")?);
    let guest = guest::make(&package)?;
    let mut tests = machine::as_root("env")?;
    tests.arg(format!("DPS_AGENT_GUEST={}", guest.display())).arg(program).args(["--nocapture", "kernel::"]);
    crate::test::counted(&mut tests)
}

fn judge(which: &[&str]) -> Done<Totals> {
    machine::prepare(&[Need::Compiler, Need::Libtss2, Need::Mmdebstrap, Need::Nspawn, Need::Swtpm, Need::TpmTools])?;
    say::heading("Tests on a booted systemd");
    let (package, program) = (package::for_this_machine()?, workspace::test("dps-agent", "system")?);
    let system = installed(&root_file_system("rootfs", SUITE, PACKAGES)?, &package)?;
    let mut tests = machine::as_root("env")?;
    tests.arg(format!("DPS_AGENT_ROOTFS={}", system.display()));
    if which != QUICK {
        let later = installed(&root_file_system("later", LATER_SUITE, LATER_PACKAGES)?, &package)?;
        tests.arg(format!("DPS_AGENT_LATER_ROOTFS={}", later.display()));
    }
    tests.arg(program).arg("--test-threads=2");
    // The fixtures have tests of their own, which run elsewhere.
    tests.args(which);
    crate::test::counted(&mut tests)
}

/// A copy of it in which the package is installed, as an image build does it: systemd does not run there.
fn installed(system: &Path, package: &Path) -> Done<PathBuf> {
    let copy = system.with_extension("installed");
    run_as_root("rm", &["-rf".as_ref(), copy.as_os_str()])?;
    run_as_root("cp", &["-a".as_ref(), system.as_os_str(), copy.as_os_str()])?;
    run_as_root("cp", &[package.as_os_str(), copy.join("dps-agent.deb").as_os_str()])?;
    run_as_root("chroot", &[copy.as_os_str(), "dpkg".as_ref(), "--install".as_ref(), "/dps-agent.deb".as_ref()])?;
    Ok(copy)
}

/// Debian with systemd and these packages, made once and shared by all tests, which write elsewhere.
fn root_file_system(name: &str, suite: &str, packages: &str) -> Done<PathBuf> {
    let directory = workspace::root().join("target/system");
    let (system, stamp) = (directory.join(name), directory.join(format!("{name}-made-of")));
    let made_of = format!("{suite} {packages}\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == made_of) {
        return Ok(system);
    }
    say::step(&format!("making a Debian {suite} in {}, which takes a minute or two", system.display()));
    std::fs::create_dir_all(&directory)?;
    run_as_root("rm", &["-rf".as_ref(), system.as_os_str()])?;
    let include = format!("--include={packages}");
    run_as_root(
        "mmdebstrap",
        &["--mode=root".as_ref(), "--variant=minbase".as_ref(), include.as_ref(), suite.as_ref(), system.as_os_str()],
    )?;
    // It asks questions at a first boot, and nobody is at the console.
    let firstboot = system.join("etc/systemd/system/systemd-firstboot.service");
    run_as_root("ln", &["-s".as_ref(), "/dev/null".as_ref(), firstboot.as_os_str()])?;
    std::fs::write(stamp, made_of)?;
    Ok(system)
}

fn run_as_root(program: &str, arguments: &[&std::ffi::OsStr]) -> Done {
    let mut command: Command = machine::as_root(program)?;
    match command.args(arguments).stdout(Stdio::null()).status()?.success() {
        true => Ok(()),
        false => Err(format!("{program} has failed: see above").into()),
    }
}
