//! The shipped units as systemd itself judges them, without starting any.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dps_agent::blame::Blame;

/// What a verification looks for beside our units.
const TARGETS: [&str; 12] = [
    "basic",
    "local-fs",
    "multi-user",
    "network",
    "paths",
    "shutdown",
    "slices",
    "sockets",
    "swap",
    "sysinit",
    "timers",
    "umount",
];
const SERVICE: &str = "dps-agent.service";
const UNITS: [&str; 3] = [SERVICE, "dps-provisioned.path", "dps-provisioned.target"];

/// A root directory with our units, their program, and systemd's targets. It is gone when dropped.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("units-{name}-{}", std::process::id())));
        for unit in UNITS {
            root.unit(unit, &shipped(unit));
        }
        for target in TARGETS {
            root.unit(&format!("{target}.target"), "[Unit]\n");
        }
        for program in ["usr/bin/dps-agent", "bin/sh"] {
            root.file(program, "");
            fs::set_permissions(root.0.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    fn unit(&self, name: &str, content: &str) {
        self.file(&format!("usr/lib/systemd/system/{name}"), content);
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }

    /// What systemd says of the units. It ends well with unknown keys, so this is what counts.
    fn verified(&self) -> String {
        let root = format!("--root={}", self.0.display());
        let said = analyze(&[&["verify", "--man=no", &root], &UNITS[..]].concat());
        said.replace(self.0.to_str().unwrap(), "")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shipped(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn path(name: &str) -> String {
    format!("{}/systemd/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(arguments).env("LC_ALL", "C.UTF-8").output();
    let output = output.unwrap_or_else(|error| panic!("systemd-analyze: {error}; it is in Debian's package systemd"));
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn systemd_has_nothing_to_say_of_the_units() {
    assert_eq!(Root::new("good").verified(), "");
}

#[test]
fn what_is_wrong_would_be_said() {
    let root = Root::new("wrong");
    root.unit(SERVICE, &shipped(SERVICE).replace("UMask=", "Umask="));
    let said = root.verified();
    assert!(said.contains("Unknown key 'Umask' in section [Service], ignoring."), "{said}");
    fs::remove_file(root.0.join("usr/bin/dps-agent")).unwrap();
    assert!(root.verified().contains("Command /usr/bin/dps-agent is not executable: No such file or directory"));
}

/// Everything in it is of a later systemd than Debian 12 has, which names each key and goes on. A later one has nothing to say.
#[test]
fn the_drop_in_for_a_later_systemd_holds_three_keys() {
    let root = Root::new("later");
    root.unit("dps-agent.service.d/50-dps-agent.conf", &shipped("254/50-dps-agent.conf"));
    let said = root.verified();
    let unknown: Vec<&str> = said.lines().filter_map(|line| line.split('\'').nth(1)).collect();
    assert!(unknown.is_empty() || unknown == ["ImportCredential", "RestartSteps", "RestartMaxDelaySec"], "{said}");
    assert_eq!(said.lines().count(), unknown.len(), "{said}");
}

#[test]
fn the_sandbox_is_tight_and_each_gap_is_explained() {
    let said = analyze(&["security", "--offline=true", "--no-pager", &path(SERVICE)]);
    let (_, level) = said.split_once("Overall exposure level for dps-agent.service: ").unwrap_or_else(|| panic!("{said}"));
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= 1.5, "{said}");
    let unit = shipped(SERVICE);
    let gaps: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("\u{2717} ")?.split('=').next()).collect();
    assert!(gaps.len() > 5, "{said}");
    for gap in gaps {
        assert!(unit.lines().any(|line| line.starts_with("#   ") && line.contains(&format!("{gap}="))), "{gap}: {said}");
    }
}

#[test]
fn what_keeps_it_from_starting_for_good_is_what_the_manual_says() {
    let unit = shipped(SERVICE);
    let prevented = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
    assert_eq!(prevented, format!("{} {}", Blame::Usage.exit_code(), Blame::Configuration.exit_code()));
}
