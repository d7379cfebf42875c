//! The package itself: what it installs, upgrades and removes, on a running machine and in an image that is being built.

use std::fs;
use std::path::Path;

use crate::machine::{Booted, Machine, Ran, emulator};

const ASSIGNED: &str = "assigned to localhost as gw-0001 (proven)";
const UNITS: [&str; 2] = ["dps-agent.service", "dps-provisioned.path"];

/// What systemd reads of ours, and where it is in the checkout.
const READ_BY_SYSTEMD: [(&str, &str); 7] = [
    ("usr/lib/systemd/system/dps-agent.service", "systemd/dps-agent.service"),
    ("usr/lib/systemd/system/dps-provisioned.path", "systemd/dps-provisioned.path"),
    ("usr/lib/systemd/system/dps-provisioned.target", "systemd/dps-provisioned.target"),
    ("usr/lib/systemd/system-preset/80-dps-agent.preset", "systemd/80-dps-agent.preset"),
    ("usr/lib/sysusers.d/dps-agent.conf", "systemd/dps-agent.sysusers"),
    ("usr/lib/tmpfiles.d/dps-agent.conf", "systemd/dps-agent.tmpfiles"),
    ("usr/lib/systemd/catalog/dps-agent.catalog", "systemd/dps-agent.catalog"),
];

/// Names of units that are wanted by others, with the directories in which that is written.
fn enabled(machine: &Machine) -> Vec<String> {
    let wants = fs::read_dir(machine.path("etc/systemd/system")).unwrap().map(|entry| entry.unwrap().path());
    let links = wants.filter(|path| path.extension().is_some_and(|ending| ending == "wants"));
    let ours = links.flat_map(|directory| fs::read_dir(directory).unwrap()).map(|entry| entry.unwrap().path());
    let ours = ours.filter(|link| link.file_name().unwrap().to_string_lossy().starts_with("dps-"));
    let name = |link: &Path| link.strip_prefix(machine.path("etc/systemd/system")).unwrap().display().to_string();
    let mut names: Vec<_> = ours.map(|link| name(&link)).collect();
    names.sort();
    names
}

/// Installs the package again.
fn install_again(booted: &Booted<'_>) {
    booted.say("dpkg --install /dps-agent.deb 2>&1");
}

/// Installs the same with a later version's number.
fn upgrade(booted: &Booted<'_>) {
    booted.say("dpkg-deb --raw-extract /dps-agent.deb /opt/next && sed -i 's/^Version: .*/&+next/' /opt/next/DEBIAN/control");
    booted.say("dpkg-deb -Znone --root-owner-group --build /opt/next /opt/next.deb && dpkg --install /opt/next.deb 2>&1");
    assert!(
        booted.say("dpkg-query --show --showformat '${Version} ${Status}' dps-agent").ends_with("+next install ok installed")
    );
}

fn is_assigned(booted: &Booted<'_>) {
    booted.until("its status says that it is assigned", || booted.agent("StatusText") == ASSIGNED);
}

#[test]
fn it_installs_the_units_of_the_checkout_byte_for_byte_and_enables_them() {
    let machine = Machine::new();
    for (installed, shipped) in READ_BY_SYSTEMD {
        let shipped = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(shipped)).unwrap();
        assert!(fs::read(machine.path(installed)).unwrap() == shipped, "{installed} is another one");
    }
    assert_eq!(enabled(&machine), ["multi-user.target.wants/dps-agent.service", "paths.target.wants/dps-provisioned.path"]);
    machine.inside("test -z \"$(dpkg --verify dps-agent)\"; id -nG dps-agent | tr ' ' '\\n' | grep -qx tss");
    machine.inside("man -w dps-agent >/dev/null 2>&1 || test -s /usr/share/man/man1/dps-agent.1.gz");
}

#[test]
fn an_upgrade_keeps_the_configuration_and_the_state_and_starts_the_agent_again() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let booted = machine.boot();
    is_assigned(&booted);
    let kept =
        || booted.say("cat /etc/dps-agent/config.toml /etc/dps-agent/device.key; stat --format '%i' /run/dps-agent/client");
    let (before, process) = (kept(), booted.agent("MainPID"));
    upgrade(&booted);
    is_assigned(&booted);
    assert_ne!(booted.agent("MainPID"), process);
    assert_eq!((kept(), booted.agent("NRestarts").as_str(), booted.state(UNITS[1]).as_str()), (before, "0", "active"));
    let registrations = emulator.transcript("gw-0001").iter().filter(|line| *line == "> register").count();
    assert_eq!(registrations, 1, "the state was not kept");
}

#[test]
fn an_upgrade_neither_enables_nor_starts_what_somebody_has_switched_off() {
    let machine = Machine::with_key(&emulator(""));
    let booted = machine.boot();
    booted.say("systemctl disable --now dps-agent.service dps-provisioned.path");
    upgrade(&booted);
    assert_eq!(UNITS.map(|unit| booted.state(unit)), ["inactive", "inactive"]);
    assert_eq!(enabled(&machine), Vec::<String>::new());
}

#[test]
fn a_removal_leaves_the_identity_of_the_device_and_nothing_that_is_enabled() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let booted = machine.boot();
    is_assigned(&booted);
    let record = booted.say("cat /var/lib/dps-agent/record");
    booted.say("dpkg --purge dps-agent");
    assert_eq!(UNITS.map(|unit| booted.state(unit)), ["inactive", "inactive"]);
    assert_eq!(booted.run("systemctl cat dps-agent.service").code, Some(1));
    assert_eq!(enabled(&machine), Vec::<String>::new());
    assert_eq!(booted.say("cat /var/lib/dps-agent/record"), record);
    // Whoever comes back is who it was.
    install_again(&booted);
    is_assigned(&booted);
    assert_eq!(booted.state("dps-provisioned.path"), "active");
    let registrations = emulator.transcript("gw-0001").iter().filter(|line| *line == "> register").count();
    assert_eq!(registrations, 1);
}

#[test]
fn an_image_from_which_it_is_removed_has_nothing_enabled_either() {
    let machine = Machine::new();
    machine.inside("dpkg --remove dps-agent");
    assert_eq!(enabled(&machine), Vec::<String>::new());
}

#[test]
fn its_scripts_end_well_where_nothing_can_be_written_and_where_there_is_no_systemd() {
    let machine = Machine::new();
    let scripts = ["postinst configure ''", "postinst configure 0.0.1", "prerm remove", "postrm remove", "postrm purge"];
    let booted = machine.boot_with(&["--read-only", "--tmpfs=/var/log"]);
    for script in scripts {
        let Ran { code, stderr, .. } = booted.run(&format!("/var/lib/dpkg/info/dps-agent.{script}"));
        assert_eq!(code, Some(0), "{script}: {stderr}");
    }
    drop(booted);
    for script in scripts {
        machine.inside(&format!("PATH=/nowhere /bin/sh /var/lib/dpkg/info/dps-agent.{script} 2>/dev/null"));
    }
}

/// By Debian's programs and by BusyBox's, with the real agent.
#[test]
fn the_script_for_other_inits_starts_reloads_and_ends_it() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let script = include_bytes!("../../packaging/buildroot/package/dps-agent/S85dps-agent");
    machine.file("etc/init.d/S85dps-agent", 0o755, script);
    machine.inside("systemctl mask dps-agent.service dps-provisioned.path; mkdir /opt/bb");
    machine.inside("for applet in $(busybox --list); do ln -s \"$(command -v busybox)\" /opt/bb/$applet; done");
    let good = fs::read(machine.path("etc/dps-agent/config.toml")).unwrap();
    let booted = machine.boot();
    for (round, path) in ["/usr/sbin:/usr/bin:/sbin:/bin", "/opt/bb"].into_iter().enumerate() {
        let script = |verb: &str| booted.say(&format!("PATH={path} sh /etc/init.d/S85dps-agent {verb}"));
        let log = || booted.say("journalctl --sync; journalctl --boot --output cat SYSLOG_IDENTIFIER=dps-agent");
        let process = || booted.say("cat /run/dps-agent.pid");
        let lives = || booted.run(&format!("kill -0 {}", process())).code == Some(0);
        assert_eq!(script("start"), "Starting dps-agent: OK");
        booted.until("it is assigned", || booted.run("dps-agent status").stdout.contains("localhost"));
        assert_eq!(script("start"), "Starting dps-agent: OK");
        // Only a member of both groups can have made these.
        let sockets = booted.say("stat --format '%a %U %G' /run/dps-agent/client/api.sock /run/dps-agent/admin/api.sock");
        assert_eq!(sockets, "660 dps-agent dps-clients\n600 dps-agent dps-agent");
        machine.file("etc/dps-agent/config.toml", 0o644, "[dps]\ncolour = \"red\"\n");
        assert_eq!(script("reload"), "Reloading dps-agent: OK");
        let refused = || log().matches("[dps] colour: unknown key").count();
        booted.until("it has told that it refuses this", || refused() == 2 * round + 1);
        assert_eq!(script("restart"), "Stopping dps-agent: OK\nStarting dps-agent: OK");
        booted.until("it has ended for good", || refused() == 2 * round + 2 && !lives());
        machine.file("etc/dps-agent/config.toml", 0o644, &good);
        assert_eq!(script("start"), "Starting dps-agent: OK");
        booted.until("it is assigned", || booted.run("dps-agent status").stdout.contains("localhost"));
        assert_eq!(script("stop"), "Stopping dps-agent: OK");
        booted.until("it is gone", || booted.run("curl --unix-socket /run/dps-agent/client/api.sock http://x/").code == Some(7));
    }
}
