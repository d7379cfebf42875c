//! The disk of the emulated machine of `cargo xtask system-test --full`: a Debian with kernel, the package, and its tests.

use std::path::{Path, PathBuf};

use super::{SUITE, root_file_system, run_as_root};
use crate::workspace::{self, Profile};
use crate::{Done, say};

const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,passwd,libtss2-esys-3.0.2-0,libtss2-tctildr0,libtss2-mu0,libtss2-tcti-device0,\
                        libtss2-rc0,tpm-udev,ca-certificates,linux-image-amd64,initramfs-tools";

/// A directory with kernel, initial ramdisk and disk.
///
/// # Errors
/// If a program that makes them fails.
pub fn make(package: &Path) -> Done<PathBuf> {
    let system = root_file_system("guest", SUITE, PACKAGES)?;
    let directory = workspace::root().join("target/system/machine");
    let (tree, disk) = (directory.join("tree"), directory.join("disk.img"));
    say::step("making the disk of the emulated machine");
    run_as_root("rm", &["-rf".as_ref(), directory.as_os_str()])?;
    std::fs::create_dir_all(&directory)?;
    run_as_root("cp", &["-a".as_ref(), system.as_os_str(), tree.as_os_str()])?;
    run_as_root("cp", &[package.as_os_str(), tree.join("dps-agent.deb").as_os_str()])?;
    run_as_root("chroot", &[tree.as_os_str(), "dpkg".as_ref(), "--install".as_ref(), "/dps-agent.deb".as_ref()])?;
    add_tests(&tree)?;
    for (name, pattern) in [("vmlinuz", "vmlinuz-"), ("initrd.img", "initrd.img-")] {
        run_as_root("install", &["-m644".as_ref(), in_boot(&tree, pattern)?.as_os_str(), directory.join(name).as_os_str()])?;
    }
    let options = ["-q", "-t", "ext4", "-d"].map(AsRef::as_ref);
    run_as_root("mke2fs", &[&options[..], &[tree.as_os_str(), disk.as_os_str(), "1800M".as_ref()]].concat())?;
    run_as_root("rm", &["-rf".as_ref(), tree.as_os_str()])?;
    Ok(directory)
}

fn add_tests(tree: &Path) -> Done {
    let ours = workspace::root().join("tests/system/guest");
    let emulator = workspace::binary("dps-emulator", Profile::Dev)?;
    for (mode, from, to) in [
        ("-m755", ours.join("guest.sh"), "guest.sh"),
        ("-m644", ours.join("guest.service"), "etc/systemd/system/guest.service"),
        ("-m755", emulator, "usr/bin/dps-emulator"),
    ] {
        run_as_root("install", &[mode.as_ref(), from.as_os_str(), tree.join(to).as_os_str()])?;
    }
    let systemctl =
        |verb: &str, unit: &str| run_as_root("chroot", &[tree.as_os_str(), "systemctl".as_ref(), verb.as_ref(), unit.as_ref()]);
    // The console is ours.
    systemctl("mask", "serial-getty@ttyS0.service")?;
    systemctl("enable", "guest.service")
}

fn in_boot(tree: &Path, beginning: &str) -> Done<PathBuf> {
    let entries = std::fs::read_dir(tree.join("boot"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    entries.into_iter().find(is_it).ok_or_else(|| format!("there is no {beginning}… in its /boot").into())
}
