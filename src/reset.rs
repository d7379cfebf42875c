//! Gives an image back its blank state: what this agent has written on the machine goes, and nothing else.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::blame::Blame;
use crate::config::Config;
use crate::failure::Failure;
use crate::files::{self, FileError};

/// The names that are ours in each directory under the runtime directory. The directories stay: containers have mounted them.
const RUNTIME: [(&str, &[&str]); 3] = [
    ("", &["assignment.json", "ca.pem", "credential.sock", "metrics.prom", ".probe"]),
    ("client", &["api.sock", "api.new"]),
    ("admin", &["api.sock", "api.new"]),
];
/// The same in the state directory.
const STATE: &[&str] = &["record", "wait", ".probe"];

/// The files that make this device one that was registered. What others read comes first, so that nobody is told of an assignment
/// that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// What is removed.
    pub ours: Vec<PathBuf>,
    /// What else is in these directories, and stays.
    pub others: Vec<PathBuf>,
}

impl Traces {
    /// Looks for them.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn of(config: &Config) -> Result<Self, Failure> {
        let (state, runtime) = (&config.state_directory, &config.runtime_directory);
        let mut traces = Self::default();
        for (directory, ours) in RUNTIME {
            traces.look(&runtime.join(directory), |name| ours.contains(&name))?;
        }
        // Whatever is in it a template has made, or the agent will remove.
        traces.look(&runtime.join("handoff"), |_| true)?;
        traces.look(state, |name| STATE.contains(&name))?;
        Ok(traces)
    }

    /// Removes what is ours, while nobody else is at work here.
    ///
    /// # Errors
    /// If a daemon runs, another agent registers, or a file cannot be removed: those before it are gone.
    pub fn remove(&self, config: &Config) -> Result<(), Failure> {
        let directories = [config.runtime_directory.join("admin"), config.state_directory.clone()];
        let locked = directories.iter().filter(|directory| directory.is_dir()).map(|directory| alone(directory));
        let _alone = locked.collect::<Result<Vec<_>, _>>()?;
        self.ours.iter().try_for_each(|path| Ok(files::remove(path)?))
    }

    fn look(&mut self, directory: &Path, is_ours: impl Fn(&str) -> bool) -> Result<(), Failure> {
        for path in files_in(directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let list = if is_ours(files::whole(&name)) { &mut self.ours } else { &mut self.others };
            list.push(path);
        }
        Ok(())
    }
}

fn alone(directory: &Path) -> Result<files::Lock, Failure> {
    let busy = || {
        let what = format!("a dps-agent is at work with {}; stop it first (systemctl stop dps-agent)", directory.display());
        Failure::new(Blame::Busy, what)
    };
    files::try_lock(directory)?.ok_or_else(busy)
}

/// By name; none where there is no such directory.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let unreadable = |source| FileError::Failed { action: "read", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(unreadable)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable));
    let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| !path.is_dir());
    paths.sort();
    Ok(paths)
}
