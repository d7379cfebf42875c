//! Where things are in the checkout, and how its programs are built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Done, say};

/// The programs that the commands run.
#[derive(Debug, Clone)]
pub struct Programs {
    pub agent: PathBuf,
    /// The agent of those who have no TPM; the same as `agent` in the development profile.
    pub without_tpm: PathBuf,
    pub emulator: PathBuf,
}

/// Which of Cargo's profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// The top of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Builds agent and emulator with progress on the terminal.
///
/// # Errors
/// If one does not compile.
pub fn build(profile: Profile) -> Done<Programs> {
    say::heading(match profile {
        Profile::Dev => "Building agent and emulator",
        Profile::Release => "Building agent and emulator for release (takes minutes the first time)",
    });
    let agent = binary("dps-agent", profile)?;
    let without_tpm = match profile {
        Profile::Dev => agent.clone(),
        Profile::Release => without_tpm()?,
    };
    Ok(Programs { agent, without_tpm, emulator: binary("dps-emulator", profile)? })
}

/// Builds one program and returns the path that Cargo reports for it.
pub fn binary(package: &str, profile: Profile) -> Done<PathBuf> {
    built(package, profile, &[])
}

/// The release agent of those who have no TPM, beside the other, so that neither is built anew after the other.
///
/// # Errors
/// If it does not compile.
pub fn without_tpm() -> Done<PathBuf> {
    let directory = root().join("target/without-tpm").display().to_string();
    built("dps-agent", Profile::Release, &["--no-default-features", "--target-dir", &directory])
}

/// Builds one test target of a package and returns the path of its program.
///
/// # Errors
/// If it does not compile.
pub fn test(package: &str, target: &str) -> Done<PathBuf> {
    executable(target, cargo().args(["test", "--no-run", "--package", package, "--test", target]))
}

fn built(package: &str, profile: Profile, more: &[&str]) -> Done<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", package, "--bin", package]).args(more);
    if profile == Profile::Release {
        build.arg("--release");
    }
    executable(package, &mut build)
}

/// Runs a build and returns the path that Cargo reports for this target.
fn executable(target: &str, build: &mut Command) -> Done<PathBuf> {
    let output = build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{target} does not build").into());
    }
    let messages =
        output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let built = messages.filter(|message| message["target"]["name"] == target);
    let executable = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    executable.ok_or_else(|| format!("Cargo does not say where it put {target}").into())
}

/// The Cargo that started us, at the top of the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo described this program to us in variables. Build scripts look at them too: ring would be compiled anew each time.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// An empty directory of ours under the system's temporary directory, removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// If it cannot be created.
    pub fn new(name: &str) -> Done<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("dps-{name}-{}", std::process::id()));
        let _leftover = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _nothing_to_do_about_it = std::fs::remove_dir_all(&self.0);
    }
}
