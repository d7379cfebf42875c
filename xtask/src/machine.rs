//! Knows which programs the commands need and how Debian calls the packages that bring them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Done, say};

/// Something that must be on this machine.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// Makes programs for 64-bit ARM.
    Aarch64Compiler,
    /// Makes programs for 32-bit ARM with hard float.
    Armv7Compiler,
    Compiler,
    /// Packs a ramdisk.
    Cpio,
    /// Asks the agent's sockets as the manual does.
    Curl,
    /// What tells a program another time: a library, and the program that says where it is.
    Faketime,
    Iproute,
    /// The TPM software stack, which the agent loads.
    Libtss2,
    /// Makes root file systems.
    Mmdebstrap,
    Mosquitto,
    Node,
    /// Boots them.
    Nspawn,
    Openssl,
    Python,
    /// Runs programs for ARM.
    Qemu,
    /// Emulates a whole machine.
    QemuSystem,
    /// The same for ARM.
    QemuSystemArm,
    Strace,
    /// A software TPM.
    Swtpm,
    Systemd,
    /// Programs that talk to a TPM.
    TpmTools,
    Unshare,
    Valgrind,
}

impl Need {
    /// Debian's package, and what we need it for.
    pub fn package(self) -> (&'static str, &'static str) {
        match self {
            Self::Aarch64Compiler => ("gcc-aarch64-linux-gnu libc6-dev-arm64-cross", "links the agent for 64-bit ARM"),
            Self::Armv7Compiler => ("gcc-arm-linux-gnueabihf libc6-dev-armhf-cross", "links the agent for 32-bit ARM"),
            Self::Compiler => ("gcc libc6-dev", "links the programs and compiles ring"),
            Self::Cpio => ("cpio", "packs the ramdisk of an emulated machine"),
            Self::Curl => ("curl", "asks the agent's sockets as its manual does"),
            Self::Faketime => ("faketime libfaketime", "lets programs believe in another time, also past 2038"),
            Self::Iproute => ("iproute2", "brings up the private loopback"),
            Self::Libtss2 => ("libtss2-esys-3.0.2-0 libtss2-tctildr0", "lets the agent speak to a TPM"),
            Self::Mmdebstrap => ("mmdebstrap", "makes the machine that boots with the shipped units"),
            Self::Mosquitto => ("mosquitto mosquitto-clients", "is a bridge to the hub, with what the agent hands over"),
            Self::Nspawn => ("systemd-container", "boots it"),
            Self::Node => ("npm", "installs and runs the Node SDK"),
            Self::Openssl => ("openssl", "makes the gateways' keys and certificates"),
            Self::Python => ("python3 python3-venv", "installs and runs the Python SDK"),
            Self::Qemu => ("qemu-user-static", "runs what was built for ARM"),
            Self::QemuSystem => ("qemu-system-x86", "emulates a machine with a kernel and a TPM of its own"),
            Self::QemuSystemArm => ("qemu-system-arm", "emulates a machine with an ARM processor"),
            Self::Strace => ("strace", "kills the agent at each write, in the tests of its record"),
            Self::Swtpm => ("swtpm swtpm-tools libtss2-tcti-swtpm0 socat", "is the TPM of each test, and its device node"),
            Self::Systemd => ("systemd", "judges the units"),
            Self::TpmTools => (
                "tpm2-tools libtss2-tcti-device0 libtss2-tcti-mssim0",
                "looks into these TPMs and judges what the emulator makes for them",
            ),
            Self::Unshare => ("util-linux", "gives the SDKs, which know only ports 8883 and 443, a loopback of their own"),
            Self::Valgrind => ("valgrind", "counts instructions"),
        }
    }

    fn is_met(self) -> bool {
        match self {
            Self::Aarch64Compiler => on_path("aarch64-linux-gnu-gcc").is_some(),
            Self::Armv7Compiler => on_path("arm-linux-gnueabihf-gcc").is_some(),
            Self::Compiler => on_path("cc").is_some(),
            Self::Cpio => on_path("cpio").is_some(),
            Self::Curl => on_path("curl").is_some(),
            Self::Faketime => on_path("faketime").is_some() && Path::new(&faketime("x86_64-linux-gnu")).exists(),
            Self::Iproute => on_path("ip").is_some(),
            Self::Libtss2 => ["libtss2-esys.so.0", "libtss2-tctildr.so.0"].into_iter().all(is_loadable),
            Self::Mmdebstrap => on_path("mmdebstrap").is_some(),
            Self::Mosquitto => ["mosquitto", "mosquitto_pub"].into_iter().all(|program| on_path(program).is_some()),
            Self::Nspawn => on_path("systemd-nspawn").is_some(),
            Self::Node => on_path("node").is_some() && on_path("npm").is_some(),
            Self::Openssl => on_path("openssl").is_some(),
            Self::Python => succeeds("python3", &["-c", "import venv, ensurepip"]),
            Self::Qemu => on_path("qemu-aarch64-static").is_some(),
            Self::QemuSystem => on_path("qemu-system-x86_64").is_some(),
            Self::QemuSystemArm => on_path("qemu-system-aarch64").is_some(),
            Self::Strace => on_path("strace").is_some(),
            Self::Swtpm => ["swtpm", "swtpm_setup", "socat"].into_iter().all(|program| on_path(program).is_some()),
            Self::Systemd => on_path("systemd-analyze").is_some(),
            Self::TpmTools => on_path("tpm2_activatecredential").is_some(),
            Self::Unshare => on_path("unshare").is_some() && on_path("taskset").is_some(),
            Self::Valgrind => on_path("valgrind").is_some(),
        }
    }
}

/// Installs whatever of `needs` is missing, saying what and why; quick when nothing is.
///
/// # Errors
/// If apt-get fails, or what it installed does not meet the need.
pub fn prepare(needs: &[Need]) -> Done {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say::heading("This machine lacks");
    for need in &missing {
        let (package, reason) = need.package();
        say::step(&format!("{package}: {reason}"));
    }
    install(&missing)?;
    match missing.iter().find(|need| !need.is_met()) {
        None => Ok(()),
        Some(need) => Err(format!("{need:?} is still missing although apt-get installed {}", need.package().0).into()),
    }
}

fn install(missing: &[Need]) -> Done {
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.package().0.split(' ')).collect();
    say::step("apt-get update");
    // A third-party source that is down must not stop us: the packages we want are Debian's.
    if !as_root("apt-get")?.args(["-qq", "update"]).status()?.success() {
        say::step("apt-get update had errors, going on with the lists that are there");
    }
    say::step(&format!("apt-get install {}", packages.join(" ")));
    let mut install = as_root("apt-get")?;
    install.args(["-qq", "-y", "--no-install-recommends", "install"]).args(&packages).stdout(Stdio::null());
    if install.status()?.success() {
        return Ok(());
    }
    Err(format!(
        "apt-get could not install {}; install what brings the programs by other means and start again",
        packages.join(" ")
    )
    .into())
}

/// `program`, to be run by root: through sudo if we are not.
///
/// # Errors
/// If we are not root and there is no sudo.
pub fn as_root(program: &str) -> Done<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if on_path("sudo").is_none() {
        return Err(format!("{program} must be run by root, and there is no sudo here: run this command as root").into());
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Whether this process has root's user ID.
pub fn is_root() -> bool {
    let answer = Command::new("id").arg("-u").output();
    answer.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Whether `program` with `arguments` ends well; what it prints is dropped.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The library that gives a program another date, for an architecture by its GNU name.
pub fn faketime(gnu: &str) -> String {
    format!("/usr/lib/{gnu}/faketime/libfaketimeMT.so.1")
}

/// Whether the system's loader knows this library.
fn is_loadable(soname: &str) -> bool {
    let known = on_path("ldconfig").and_then(|ldconfig| Command::new(ldconfig).arg("-p").output().ok());
    known.is_some_and(|known| String::from_utf8_lossy(&known.stdout).contains(soname))
}

fn on_path(program: &str) -> Option<PathBuf> {
    // The system's own directories are not on every user's path.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs of packages that every Debian has, or that come with a compiler or with git, which the README asks for.
    const EVERYWHERE: &str = "apt-get cc chroot cp dpkg dpkg-deb env find git gzip id install kill ln mke2fs mkfifo mount nsenter \
                              readelf rm script setpriv sh sleep sudo timeout umount unshare";

    /// The others, each with its package.
    const PACKAGES: [(&str, &str); 17] = [
        ("/usr/sbin/mosquitto", "mosquitto"),
        ("aarch64-linux-gnu-ar", "gcc-aarch64-linux-gnu"),
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        ("faketime", "faketime"),
        ("mosquitto_pub", "mosquitto-clients"),
        ("mosquitto_rr", "mosquitto-clients"),
        ("npm", "npm"),
        ("openssl", "openssl"),
        ("python3", "python3"),
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("socat", "socat"),
        ("strace", "strace"),
        ("swtpm", "swtpm"),
        ("systemd-analyze", "systemd"),
        ("systemd-nspawn", "systemd-container"),
        ("tpm2_evictcontrol", "tpm2-tools"),
        ("valgrind", "valgrind"),
    ];

    fn sources(directory: &Path, found: &mut Vec<String>) {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }

    /// On a machine where somebody has installed more, nothing else would show that one is missing.
    #[test]
    fn what_the_commands_and_tests_run_is_in_a_package_that_a_need_names() {
        let (mut texts, root) = (Vec::new(), crate::workspace::root());
        ["xtask/src", "tests", "emulator/tests", "factory/tests"].iter().for_each(|name| sources(&root.join(name), &mut texts));
        let named = std::fs::read_to_string(root.join("xtask/src/machine.rs")).unwrap();
        let packages = named.split("pub fn package").nth(1).unwrap().split("fn is_met").next().unwrap();
        let named: Vec<&str> = packages.split(['"', ' ']).collect();
        // In two parts, so that this line is not found itself.
        let calls = texts.iter().flat_map(|text| text.split(concat!("Command::", "new(\"")).skip(1));
        let programs: Vec<&str> = calls.filter_map(|rest| rest.split('"').next()).collect();
        assert!(programs.len() > 40, "{programs:?}");
        for program in programs.into_iter().filter(|program| !EVERYWHERE.split_whitespace().any(|known| known == *program)) {
            let package = PACKAGES.iter().find(|(known, _)| *known == program).map(|(_, package)| *package);
            assert!(package.is_some_and(|package| named.contains(&package)), "{program}: which need brings it? {package:?}");
        }
    }
}
