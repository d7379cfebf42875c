//! `cargo xtask cross`: the agent for ARM, built without a container and run under qemu against an emulator of this machine.

pub mod closure;
mod memory;
mod musl;
pub mod toolchain;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{self, Need};
use crate::workspace::{self, Profile, Programs, Scratch};
use crate::{Done, demo, say};

/// The hidden command that registers.
pub const INSIDE: &str = "cross-inside";

/// Past 2038; waiting is done by a clock that is left alone.
const LATER: [(&str, &str); 2] = [("FAKETIME", "+15y"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];

/// What the agent is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// 64 bits.
    Aarch64,
    /// 32 bits, hard float.
    Armv7,
}

/// `cargo xtask cross [aarch64|armv7|aarch64-musl] [--build-only|--memory]`.
///
/// # Errors
/// If it does not build, is too large, or does not register over each transport and with a TPM.
pub fn run(arguments: &[String]) -> Done {
    let (mut arm, mut is_static, mut is_run, mut is_measured) = (Arm::Aarch64, false, true, false);
    for argument in arguments {
        match argument.as_str() {
            "aarch64" => arm = Arm::Aarch64,
            "aarch64-musl" => is_static = true,
            "armv7" => arm = Arm::Armv7,
            "--build-only" => is_run = false,
            "--memory" => is_measured = true,
            other => return Err(format!("cross knows no {other:?}; see cargo xtask help").into()),
        }
    }
    if is_static {
        return musl::run(is_run);
    }
    machine::prepare(&[Need::Compiler, arm.compiler(), Need::Qemu, Need::Faketime, Need::Openssl, Need::Swtpm, Need::TpmTools])?;
    let root = toolchain::foreign(arm)?;
    let agent = toolchain::build(arm, &[])?;
    if is_measured {
        return memory::measure(arm, &root, &agent);
    }
    let without_tpm = toolchain::build(arm, &["--no-default-features"])?;
    sizes(arm, &root, &agent, &without_tpm)?;
    if is_run { register(arm, &root, &agent) } else { Ok(()) }
}

/// The demo with the foreign agent in it: now, and in a year that 32 bits cannot count any more.
fn register(arm: Arm, root: &Path, agent: &Path) -> Done {
    let emulator = workspace::binary("dps-emulator", Profile::Dev)?;
    for (when, variables) in [("now", &[][..]), ("in fifteen years", &LATER)] {
        say::heading(&format!("The agent for {} in {}, {when}", arm.triple(), arm.qemu()));
        let mut ourselves = Command::new(std::env::current_exe()?);
        ourselves.args([INSIDE, arm.debian()]).args([root, agent, &emulator]).envs(variables.iter().copied());
        if !variables.is_empty() {
            ourselves.env("LD_PRELOAD", machine::faketime("x86_64-linux-gnu"));
        }
        if !ourselves.status()?.success() {
            return Err(format!("the agent for {} does not register {when}", arm.triple()).into());
        }
    }
    say::heading(
        "Registered over MQTT, MQTT on WebSocket and HTTPS, with a key, with certificates and with a TPM, before and after 2038",
    );
    Ok(())
}

/// The architecture, its root directory, the agent and the emulator.
///
/// # Errors
/// If the agent does not register.
pub fn run_inside(arguments: &[String]) -> Done {
    let [debian, root, agent, emulator] = arguments else { return Err("an architecture and three paths, please".into()) };
    let arm = if debian == Arm::Aarch64.debian() { Arm::Aarch64 } else { Arm::Armv7 };
    let scratch = Scratch::new("cross")?;
    let agent = wrapped(arm, root, agent, scratch.path())?;
    demo::show(&Programs { without_tpm: agent.clone(), agent, emulator: emulator.into() }, scratch.path(), true)
}

/// A program of this machine that runs the foreign one, with its own library for another date where there is one.
fn wrapped(arm: Arm, root: &str, agent: &str, directory: &Path) -> Done<PathBuf> {
    let preload = match std::env::var_os("FAKETIME") {
        Some(_) => format!("-E LD_PRELOAD='{}'", arm.later(directory)?.display()),
        None => String::new(),
    };
    let script = directory.join("dps-agent");
    write_program(&script, &format!("#!/bin/sh\nexec {} -L '{root}' {preload} '{agent}' \"$@\"\n", arm.qemu()))?;
    Ok(script)
}

fn write_program(file: &Path, text: &str) -> Done {
    std::fs::write(file, text)?;
    Ok(std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))?)
}

fn sizes(arm: Arm, root: &Path, agent: &Path, without_tpm: &Path) -> Done {
    say::heading(&format!("Stripped release binaries for {}", arm.triple()));
    let mut rows = Vec::new();
    for (name, program, limit) in [("with TPM support", agent, 4_194_304), ("without", without_tpm, 3_145_728)] {
        let bytes = std::fs::metadata(program)?.len();
        let needed = closure::of(&closure::needed(program)?, root)?;
        rows.push(vec![name.to_owned(), bytes.to_string(), limit.to_string(), closure::words(&needed)]);
        if bytes > limit {
            return Err(format!("{} has {bytes} bytes, and {limit} are the limit", program.display()).into());
        }
    }
    say::table(&["dps-agent", "bytes", "limit", "shared libraries at its start, bytes"], &rows);
    let loaded = closure::of(&closure::LOADED_FOR_A_TPM.map(str::to_owned), root)?;
    say::step(&format!("loaded where a TPM is used: {}", closure::words(&loaded)));
    Ok(())
}

impl Arm {
    /// Rust's name.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
            Self::Armv7 => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// Debian's name of the architecture.
    pub fn debian(self) -> &'static str {
        match self {
            Self::Aarch64 => "arm64",
            Self::Armv7 => "armhf",
        }
    }

    /// GNU's name.
    pub fn gnu(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-linux-gnu",
            Self::Armv7 => "arm-linux-gnueabihf",
        }
    }

    fn qemu(self) -> &'static str {
        match self {
            Self::Aarch64 => "qemu-aarch64-static",
            Self::Armv7 => "qemu-arm-static",
        }
    }

    /// A library that puts a program's clock forward.
    fn later(self, directory: &Path) -> Done<PathBuf> {
        if self == Self::Aarch64 {
            return Ok(machine::faketime(self.gnu()).into());
        }
        let (source, library) = (workspace::root().join("xtask/src/cross/later.c"), directory.join("later.so"));
        let mut compiler = Command::new(format!("{}-gcc", self.gnu()));
        compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared", "-o"]).arg(&library).arg(source);
        if compiler.status()?.success() { Ok(library) } else { Err("the clock of 32-bit ARM does not compile".into()) }
    }

    /// What links for it.
    pub fn compiler(self) -> Need {
        match self {
            Self::Aarch64 => Need::Aarch64Compiler,
            Self::Armv7 => Need::Armv7Compiler,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The image for users of `cross` is made of what this command installs.
    #[test]
    fn the_dockerfile_installs_the_packages_of_this_command() {
        let read = |name: &str| std::fs::read_to_string(workspace::root().join(name)).unwrap();
        let config = read("cross.toml");
        let dockerfile = read("packaging/cross/Dockerfile");
        for arm in [Arm::Aarch64, Arm::Armv7] {
            assert!(config.contains(&format!("[target.{}.dockerfile]\nfile = \"packaging/cross/Dockerfile\"\n", arm.triple())));
            let arguments = format!("build-args = {{ DEBIAN = \"{}\", GNU = \"{}\" }}", arm.debian(), arm.gnu());
            assert!(config.contains(&arguments), "{arguments}");
            let (_, installed) = dockerfile.split_once("--no-install-recommends install ").unwrap();
            let installed = installed.lines().next().unwrap().replace("$GNU", arm.gnu()).replace("$DEBIAN", arm.debian());
            let needed = [Need::Compiler, arm.compiler(), Need::Qemu].map(|need| need.package().0).join(" ");
            assert_eq!(installed.trim_end_matches([' ', '\\', ';']), needed);
        }
    }
}
