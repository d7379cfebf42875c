//! Installs the SDKs with pip and npm into `.judges/`, at the versions that `tests/judges/` names, and runs scripts with them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Done, say, workspace};

/// A language that Microsoft has a device SDK for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    Python,
    Node,
}

impl Sdk {
    /// The language's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// A command that runs `script` of `tests/judges/` on the case in the file `subject`.
    pub fn script(self, script: &str, subject: &Path, roots: &Path) -> Command {
        let scripts = workspace::root().join("tests/judges").join(self.name());
        let mut command = Command::new(self.interpreter());
        if self == Self::Node {
            // Node trusts nothing but its built-in roots unless it is told before it starts.
            command.env("NODE_PATH", home().join("node/node_modules")).env("NODE_EXTRA_CA_CERTS", roots);
        }
        command.arg(scripts.join(script)).arg(subject).stdin(Stdio::null());
        command
    }

    /// The program that runs its scripts.
    pub fn interpreter(self) -> PathBuf {
        match self {
            Self::Python => home().join("python/bin/python"),
            Self::Node => "node".into(),
        }
    }
}

/// Runs a script's command for at most a minute and a half and reads the JSON line that it prints.
///
/// # Errors
/// If it prints none.
pub fn outcome(command: &Command) -> Done<Value> {
    let mut bounded = Command::new("timeout");
    bounded.arg("90").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    bounded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = bounded.output()?;
    let line = output.stdout.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"{"));
    let Some(line) = line else {
        return Err(format!("no outcome, {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into());
    };
    Ok(serde_json::from_slice(line)?)
}

/// Installs both SDKs; nothing happens if the right versions are there.
///
/// # Errors
/// If pip or npm fails.
pub fn install() -> Done {
    let (python, node) = (home().join("python"), home().join("node"));
    let wanted = workspace::root().join("tests/judges");
    once(&python, &wanted.join("python/requirements.txt"), "Python SDK with pip", || {
        finish(Command::new("python3").args(["-m", "venv"]).arg(&python))?;
        let pip = ["install", "--quiet", "--disable-pip-version-check", "--requirement"];
        finish(Command::new(python.join("bin/pip")).args(pip).arg(wanted.join("python/requirements.txt")))
    })?;
    once(&node, &wanted.join("node/package-lock.json"), "Node SDK with npm", || {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(wanted.join("node").join(file), node.join(file))?;
        }
        // ffi-napi, for a simulator that nobody starts here, does not compile with Node 20: no scripts.
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        finish(Command::new("npm").args(arguments).current_dir(&node))
    })
}

/// Does `work` unless `directory` was made from the same `list` before.
fn once(directory: &Path, list: &Path, what: &str, work: impl FnOnce() -> Done) -> Done {
    let (stamp, wanted) = (directory.join("installed"), std::fs::read(list)?);
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    say::heading(&format!("Installing the {what} into {}", directory.display()));
    let _not_there = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(directory)?;
    work()?;
    Ok(std::fs::write(&stamp, wanted)?)
}

fn finish(command: &mut Command) -> Done {
    let status = command.status().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{:?} failed: {status}", command.get_program()).into()) }
}

fn home() -> PathBuf {
    workspace::root().join(".judges")
}
