//! Debian's Rust 1.85 and its standard library for ARM, unpacked without being installed: rustup is not asked, and this machine's own
//! list of architectures stays as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Arm;
use crate::{Done, say, workspace};

/// The oldest compiler that we promise to build with, and the newest that Debian 12 has for all architectures.
const RUST: &str = "1.85";

/// What the foreign agent is linked with and runs with. The libraries of tpm2-tss it loads only where it has a TPM.
const FOREIGN: [&str; 11] = [
    "libc6",
    "libfaketime",
    "libgcc-s1",
    "libssl3",
    "libtss2-esys-3.0.2-0",
    "libtss2-mu0",
    "libtss2-sys1",
    "libtss2-tcti-device0",
    "libtss2-tcti-mssim0",
    "libtss2-tcti-swtpm0",
    "libtss2-tctildr0",
];

/// The compiler of this machine's architecture: a program that stands for `rustc`.
///
/// # Errors
/// If apt-get does not bring it.
pub fn compiler() -> Done<PathBuf> {
    let directory = workspace::root().join("target/rust-1.85");
    let program = directory.join("rustc");
    if !program.exists() {
        say::heading(&format!("Unpacking Debian's Rust {RUST}"));
        let apt = Apt::of_this_machine();
        let version = apt.version("rustc-web")?;
        let packages = [format!("rustc-web={version}"), format!("libstd-rust-web-dev={version}")];
        apt.unpack(&[&packages[..], &["libstd-rust-web-1.85", "libllvm19", "libz3-4"].map(str::to_owned)].concat(), &directory)?;
        let text = "#!/bin/sh\nR=${0%/*}\nLD_LIBRARY_PATH=$(echo \"$R\"/usr/lib/*-linux-gnu) exec \"$R/usr/bin/rustc\" \"$@\"\n";
        super::write_program(&program, text)?;
    }
    Ok(program)
}

/// A root directory with the standard library for `arm`, and with the libraries that the agent runs with.
///
/// # Errors
/// If apt-get does not bring them.
pub fn foreign(arm: Arm) -> Done<PathBuf> {
    compiler()?;
    let directory = workspace::root().join("target/cross").join(arm.debian());
    let mark = directory.join("complete");
    if !mark.exists() {
        say::heading(&format!("Unpacking Debian's libraries for {}", arm.debian()));
        let apt = Apt::foreign(arm, &directory.join("apt"))?;
        let std = format!("libstd-rust-web-dev={}", apt.version("libstd-rust-web-dev")?);
        let packages = [&FOREIGN[..], &["libstd-rust-web-1.85", &std]].concat().into_iter().map(str::to_owned);
        apt.unpack(&packages.collect::<Vec<_>>(), &directory)?;
        std::fs::write(mark, "")?;
    }
    Ok(directory)
}

/// Builds the agent for release; the stripped binary.
///
/// # Errors
/// If it does not compile.
pub fn build(arm: Arm, features: &[&str]) -> Done<PathBuf> {
    say::heading(&format!("Building the agent for {} {}(takes minutes the first time)", arm.triple(), features.concat()));
    let root = workspace::root().join("target/cross").join(arm.debian());
    let target = workspace::root().join("target/cross").join(if features.is_empty() { "build" } else { "build-without-tpm" });
    let name = arm.triple().replace('-', "_");
    let upper = name.to_uppercase();
    let linker = format!("{}-gcc", arm.gnu());
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "dps-agent", "--target", arm.triple()]).args(features);
    cargo.env("RUSTC", compiler()?).env("CARGO_TARGET_DIR", &target);
    cargo.env(format!("CARGO_TARGET_{upper}_LINKER"), &linker).env(format!("CC_{name}"), &linker);
    cargo.env(format!("CARGO_TARGET_{upper}_RUSTFLAGS"), format!("--sysroot={}/usr", root.display()));
    if !cargo.status()?.success() {
        return Err(format!("dps-agent does not build for {}", arm.triple()).into());
    }
    Ok(target.join(arm.triple()).join("release/dps-agent"))
}

/// apt-get for one architecture, and where it keeps its lists.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    pub(super) fn of_this_machine() -> Self {
        Self { options: Vec::new() }
    }

    /// With lists of its own in `directory`, from this machine's mirror of Debian; the main suite has everything.
    pub(super) fn foreign(arm: Arm, directory: &Path) -> Done<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(directory.join(name))?;
        }
        let at = |name: &str| directory.join(name).display().to_string();
        std::fs::write(at("status"), "")?;
        std::fs::write(at("sources.list"), format!("deb {} main\n", main_suite()?))?;
        let options = [
            format!("APT::Architecture={}", arm.debian()),
            format!("APT::Architectures={}", arm.debian()),
            format!("Dir::State={}", at("")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "APT::Sandbox::User=".to_owned(),
        ];
        let apt = Self { options: options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect() };
        if apt.command("apt-get").args(["-qq", "update"]).status()?.success() {
            return Ok(apt);
        }
        Err(format!("apt-get cannot update its lists for {}", arm.debian()).into())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// The newest version of `package` that belongs to Rust 1.85.
    pub(super) fn version(&self, package: &str) -> Done<String> {
        let output = self.command("apt-cache").args(["madison", package]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let versions = text.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
        let newest = versions.filter(|version| version.starts_with(RUST)).max().map(str::to_owned);
        newest.ok_or_else(|| format!("no {package} {RUST} among Debian's packages; apt-get update may bring it").into())
    }

    /// The package that another one stands for.
    pub(super) fn depends(&self, package: &str) -> Done<String> {
        let output = self.command("apt-cache").args(["depends", package]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let first = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        first.map(str::to_owned).ok_or_else(|| format!("{package} depends on nothing").into())
    }

    pub(super) fn unpack(&self, packages: &[String], directory: &Path) -> Done {
        let archives = directory.join("packages");
        std::fs::create_dir_all(&archives)?;
        if !self.command("apt-get").args(["-qq", "download"]).args(packages).current_dir(&archives).status()?.success() {
            return Err(format!("apt-get cannot download {}", packages.join(" ")).into());
        }
        for archive in std::fs::read_dir(&archives)? {
            let archive = archive?.path();
            say::step(&archive.file_name().unwrap_or_default().to_string_lossy());
            if !Command::new("dpkg").arg("-x").arg(&archive).arg(directory).status()?.success() {
                return Err(format!("dpkg cannot unpack {}", archive.display()).into());
            }
        }
        Ok(std::fs::remove_dir_all(archives)?)
    }
}

/// Where this machine gets its release of Debian from: address and suite.
fn main_suite() -> Done<String> {
    let release = std::fs::read_to_string("/etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).ok_or("this is no Debian")?;
    let targets = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"];
    let targets = Command::new("apt-get").args(targets).output()?;
    let text = String::from_utf8_lossy(&targets.stdout);
    let suite = text.lines().find(|line| line.ends_with(&format!(" {name}")));
    Ok(suite.ok_or("apt has no list of Debian's packages; run apt-get update")?.to_owned())
}
