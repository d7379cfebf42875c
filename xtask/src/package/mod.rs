//! `cargo xtask deb`: Debian's package of the agent, of what is in the checkout: binary, units, man pages, completions, documents.

pub mod crates;
mod sbom;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cross::{Arm, closure, toolchain};
use crate::machine::{self, Need};
use crate::workspace::{self, Profile, Scratch};
use crate::{Done, say};

/// What goes where: files with this ending in this directory of the checkout. A name that ends in `/` is a directory.
const PLACES: [(&str, &str, &str); 17] = [
    ("systemd", ".service", "usr/lib/systemd/system/"),
    ("systemd", ".path", "usr/lib/systemd/system/"),
    ("systemd", ".target", "usr/lib/systemd/system/"),
    ("systemd", ".preset", "usr/lib/systemd/system-preset/"),
    ("systemd", ".catalog", "usr/lib/systemd/catalog/"),
    ("systemd", ".sysusers", "usr/lib/sysusers.d/dps-agent.conf"),
    ("systemd", ".tmpfiles", "usr/lib/tmpfiles.d/dps-agent.conf"),
    ("systemd/254", ".conf", "usr/share/doc/dps-agent/examples/systemd-254/"),
    ("systemd/examples", "", "usr/share/doc/dps-agent/examples/systemd/"),
    ("systemd", "README.md", "usr/share/doc/dps-agent/examples/systemd/"),
    ("config", ".toml", "usr/share/doc/dps-agent/examples/"),
    ("config/examples", ".toml", "usr/share/doc/dps-agent/examples/"),
    ("docs", ".md", "usr/share/doc/dps-agent/"),
    (".", "README.md", "usr/share/doc/dps-agent/"),
    (".", "CHANGELOG.md", "usr/share/doc/dps-agent/"),
    (".", "LICENSE-MIT", "usr/share/doc/dps-agent/"),
    ("packaging/deb", "copyright", "usr/share/doc/dps-agent/"),
];

/// Where the pages that are made of the command line go.
const PAGES: [(&str, &str); 4] = [
    (".1", "usr/share/man/man1/"),
    (".bash", "usr/share/bash-completion/completions/dps-agent"),
    (".fish", "usr/share/fish/vendor_completions.d/"),
    ("_dps-agent", "usr/share/zsh/vendor-completions/"),
];

/// What is loaded where `method = "tpm"`, as Debian 12 calls it, and Debian 13; they bring the rest of tpm2-tss along.
const LIBTSS2: &str = "libtss2-esys-3.0.2-0 | libtss2-esys-3.0.2-0t64, libtss2-tctildr0 | libtss2-tctildr0t64";

/// An architecture as Debian calls it, and what builds for it.
#[derive(Debug, Clone, Copy)]
enum Target {
    This,
    Arm(Arm),
}

/// Which agent is packed.
#[derive(Debug, Clone, Copy)]
struct Build {
    target: Target,
    /// With TPM support, which loads libtss2.
    tpm: bool,
}

/// `cargo xtask deb [amd64|arm64|armhf] [--without-tpm]`.
///
/// # Errors
/// If the agent does not build or a file is missing.
pub fn run(arguments: &[String]) -> Done {
    let (options, names): (Vec<&str>, Vec<&str>) = arguments.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    let target = match names[..] {
        [] => Target::This,
        [name] if name == Target::This.debian() => Target::This,
        ["arm64"] => Target::Arm(Arm::Aarch64),
        ["armhf"] => Target::Arm(Arm::Armv7),
        _ => return Err("deb wants amd64, arm64 or armhf".into()),
    };
    let tpm = match options[..] {
        [] => true,
        ["--without-tpm"] => false,
        _ => return Err("deb knows one option: --without-tpm".into()),
    };
    let package = make(Build { target, tpm })?;
    say::heading(&format!("{} bytes: {}", std::fs::metadata(&package)?.len(), package.display()));
    Ok(())
}

/// The package for this machine, as it is shipped.
///
/// # Errors
/// If the agent does not build or a file is missing.
pub fn for_this_machine() -> Done<PathBuf> {
    make(Build { target: Target::This, tpm: true })
}

fn make(build: Build) -> Done<PathBuf> {
    let agent = build.agent()?;
    let scratch = Scratch::new("deb")?;
    let (pages, tree) = (scratch.path().join("pages"), scratch.path().join("tree"));
    make_pages(&pages)?;
    fill(&tree, &agent, &pages)?;
    let bill = sbom::write(&pages.join("dps-agent.cdx.json"), build.target.triple(), build.features())?;
    install(&bill, &tree, "usr/share/doc/dps-agent/")?;
    for script in ["postinst", "postrm", "prerm"] {
        install(&workspace::root().join("packaging/deb").join(script), &tree, &format!("DEBIAN/{script}"))?;
    }
    std::fs::write(tree.join("DEBIAN/control"), build.control(&closure::glibc(&agent)?, installed_size(&tree)?))?;
    build.pack(&tree)
}

fn make_pages(directory: &Path) -> Done {
    say::heading("Making man pages and completions");
    let mut pages = workspace::cargo();
    pages.args(["run", "--quiet", "--package", "dps-pages", "--"]).arg(directory);
    if pages.status()?.success() { Ok(()) } else { Err("the pages were not made".into()) }
}

fn fill(tree: &Path, agent: &Path, pages: &Path) -> Done {
    // For who writes a configuration: there is none that would be right for everybody.
    std::fs::create_dir_all(tree.join("etc/dps-agent/config.d"))?;
    install(agent, tree, "usr/bin/dps-agent")?;
    for (directory, ending, place) in PLACES {
        for file in files(&workspace::root().join(directory), ending) {
            install(&file, tree, place)?;
        }
    }
    for (ending, place) in PAGES {
        for file in files(pages, ending) {
            install(&file, tree, place)?;
        }
    }
    let mut gzip = Command::new("gzip");
    gzip.args(["-9n", "--recursive"]).arg(tree.join("usr/share/man"));
    if gzip.status()?.success() { Ok(()) } else { Err("gzip does not compress the man pages".into()) }
}

/// What is not there yet is left out: the package is of what the checkout has.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter(|file| file.is_file() && file.to_string_lossy().ends_with(ending)).collect()
}

fn install(file: &Path, tree: &Path, place: &str) -> Done {
    let name = if place.ends_with('/') { file.file_name().unwrap_or_default() } else { "".as_ref() };
    let to = if name.is_empty() { tree.join(place) } else { tree.join(place).join(name) };
    std::fs::create_dir_all(to.parent().unwrap_or(tree))?;
    std::fs::copy(file, &to).map_err(|error| format!("{}: {error}", file.display()))?;
    let mode = if place.starts_with("usr/bin") || place.starts_with("DEBIAN/p") { 0o755 } else { 0o644 };
    Ok(std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))?)
}

/// In KiB, each file rounded up.
fn installed_size(directory: &Path) -> Done<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { installed_size(&entry.path())? } else { entry.metadata()?.len().div_ceil(1024) };
    }
    Ok(sum)
}

impl Build {
    fn features(self) -> &'static [&'static str] {
        if self.tpm { &[] } else { &["--no-default-features"] }
    }

    fn agent(self) -> Done<PathBuf> {
        match self.target {
            Target::This => {
                machine::prepare(&[Need::Compiler])?;
                if self.tpm { workspace::binary("dps-agent", Profile::Release) } else { workspace::without_tpm() }
            }
            Target::Arm(arm) => {
                machine::prepare(&[Need::Compiler, arm.compiler()])?;
                toolchain::foreign(arm)?;
                toolchain::build(arm, self.features())
            }
        }
    }

    /// What dpkg is told, for an agent that needs this libc and fills so many KiB.
    fn control(self, libc: &str, size: u64) -> String {
        let (libtss2, ways) = match self.tpm {
            true => (format!(", {LIBTSS2}"), "symmetric key, X.509 certificate or TPM 2.0"),
            false => (String::new(), "symmetric key or X.509 certificate, not by TPM"),
        };
        format!(
            "Package: dps-agent\nVersion: {}\nArchitecture: {}\nMaintainer: the authors of dps-agent <dps-agent@localhost>\n\
             Section: net\nPriority: optional\nInstalled-Size: {size}\n\
             Depends: libc6 (>= {libc}), libgcc-s1{libtss2}\nRecommends: ca-certificates\n\
             Description: Azure IoT Hub Device Provisioning Service agent for gateways\n \
             Registers an embedded Linux gateway by {ways},\n \
             and hands its hub connection to the programs on it.\n",
            env!("CARGO_PKG_VERSION"),
            self.target.debian(),
        )
    }

    /// The two have one name, as only one of them can be on a gateway; so each has a directory.
    fn pack(self, tree: &Path) -> Done<PathBuf> {
        let directory = workspace::root().join(if self.tpm { "target/deb" } else { "target/deb/without-tpm" });
        std::fs::create_dir_all(&directory)?;
        let package = directory.join(format!("dps-agent_{}_{}.deb", env!("CARGO_PKG_VERSION"), self.target.debian()));
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args(["--root-owner-group", "-Zxz", "--build"]).arg(tree).arg(&package);
        if dpkg.status()?.success() { Ok(package) } else { Err("dpkg-deb does not make the package".into()) }
    }
}

impl Target {
    fn debian(self) -> &'static str {
        match self {
            Self::This if cfg!(target_arch = "aarch64") => Arm::Aarch64.debian(),
            Self::This => "amd64",
            Self::Arm(arm) => arm.debian(),
        }
    }

    fn triple(self) -> &'static str {
        match self {
            Self::This if cfg!(target_arch = "aarch64") => Arm::Aarch64.triple(),
            Self::This => "x86_64-unknown-linux-gnu",
            Self::Arm(arm) => arm.triple(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a TPM on any gateway the libraries must be there, however the package is installed; an agent that cannot load them asks for none.
    #[test]
    fn the_package_with_tpm_support_depends_on_libtss2_and_the_one_without_does_not() {
        let depends = |tpm| {
            let control = Build { target: Target::Arm(Arm::Armv7), tpm }.control("2.34", 1);
            assert!(control.contains("\nArchitecture: armhf\n") && control.contains("\nInstalled-Size: 1\n"), "{control}");
            control.lines().find_map(|line| line.strip_prefix("Depends: ").map(str::to_owned)).unwrap()
        };
        let libtss2 = "libtss2-esys-3.0.2-0 | libtss2-esys-3.0.2-0t64, libtss2-tctildr0 | libtss2-tctildr0t64";
        assert_eq!(depends(true), format!("libc6 (>= 2.34), libgcc-s1, {libtss2}"));
        assert_eq!(depends(false), "libc6 (>= 2.34), libgcc-s1");
    }

    /// What systemd reads is in the other packages too.
    #[test]
    fn yocto_and_buildroot_install_the_units_that_debian_s_package_has() {
        let recipes = ["yocto/recipes-iot/dps-agent/dps-agent_git.bb", "buildroot/package/dps-agent/dps-agent.mk"];
        let root = workspace::root();
        let recipes = recipes.map(|file| std::fs::read_to_string(root.join("packaging").join(file)).unwrap());
        let ours = PLACES.iter().filter(|(directory, ..)| *directory == "systemd" || *directory == "systemd/254");
        let files: Vec<_> = ours.flat_map(|(directory, ending, _)| files(&root.join(directory), ending)).collect();
        assert!(files.len() >= 8, "{files:?}");
        for file in files.iter().filter(|file| !file.ends_with("README.md")) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert!(recipes.iter().all(|recipe| recipe.contains(&name)), "{name} is not in all packages");
        }
    }
}
