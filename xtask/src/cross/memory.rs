//! `cargo xtask cross ARCH --memory`: what the agent takes on a real ARM kernel, in an emulated machine whose service is out here. Under
//! qemu-user the system counts qemu's memory and not the agent's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::toolchain::Apt;
use super::{Arm, closure, write_program};
use crate::credentials;
use crate::emulator::{Emulator, ID_SCOPE, Plan};
use crate::machine::{self, Need};
use crate::workspace::{self, Profile, Scratch};
use crate::{Done, say};

const DEVICE: &str = "gw-0001";
/// The drivers of the emulated network card, in the order in which they need each other.
const DRIVERS: [&str; 4] = ["virtio/virtio_mmio.ko", "core/failover.ko", "net/net_failover.ko", "net/virtio_net.ko"];

/// The agent registers at its start, is left alone for ten seconds, and is looked at. Its host's name is that of the machine that emulates.
const INIT: &str = r#"#!/bin/busybox sh
busybox mkdir -p /proc /sys /run /var/lib /tmp
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for driver in DRIVERS; do busybox insmod /$driver; done
for word in $(busybox cat /proc/cmdline); do case $word in now=*) busybox date -s "@${word#now=}" >/dev/null ;; esac; done
busybox ip link set lo up
busybox ip link set eth0 up
busybox ip addr add 10.0.2.15/24 dev eth0
dps-agent run --config /etc/agent.toml &
agent=$!
tries=0
until busybox test -s /run/agent/assignment.json || busybox test $tries = 300; do busybox sleep 1; tries=$((tries + 1)); done
busybox sleep 10
busybox uname -m
busybox sed -n 's/^\(VmHWM\|VmRSS\):[^0-9]*\([0-9]*\) kB/memory \1 \2/p' /proc/$agent/status
busybox sed -n 's/^\(Pss\):[^0-9]*\([0-9]*\) kB/memory \1 \2/p' /proc/$agent/smaps_rollup
busybox poweroff -f
"#;

/// # Errors
/// If the machine does not start, or the agent does not register in it.
pub fn measure(arm: Arm, root: &Path, agent: &Path) -> Done {
    machine::prepare(&[Need::QemuSystemArm, Need::Cpio])?;
    say::heading(&format!("The memory of the agent on a kernel for {} (some minutes)", arm.debian()));
    let scratch = Scratch::new("memory")?;
    let key = credentials::symmetric_key()?;
    let plan = Plan::on_ports(0, 0).symmetric_key(DEVICE, &key, "answer = \"at-once\"");
    let emulator = Emulator::start(&workspace::binary("dps-emulator", Profile::Dev)?, &plan, scratch.path())?;
    let kernel = kernel(arm)?;
    let tree = scratch.path().join("tree");
    fill(&tree, &kernel, root, agent)?;
    configure(&tree, &key, &emulator)?;
    let ramdisk = pack(&tree, scratch.path())?;
    let console = boot(arm, &kernel, &ramdisk)?;
    let told: Vec<_> = console.lines().filter_map(|line| line.trim().strip_prefix("memory ")?.split_once(' ')).collect();
    if told.len() != 3 {
        return Err(format!("the emulated machine tells no memory:\n{console}").into());
    }
    let rows: Vec<_> = told.iter().map(|(name, kib)| vec![(*name).to_owned(), format!("{kib} KiB")]).collect();
    say::table(&["provisioned, symmetric key over MQTT", "memory"], &rows);
    Ok(())
}

/// Debian's kernel with its modules, unpacked.
fn kernel(arm: Arm) -> Done<PathBuf> {
    let directory = workspace::root().join("target/cross").join(format!("{}-kernel", arm.debian()));
    let mark = directory.join("complete");
    if !mark.exists() {
        let apt = Apt::foreign(arm, &directory.join("apt"))?;
        let package = apt.depends(if arm == Arm::Aarch64 { "linux-image-arm64" } else { "linux-image-armmp" })?;
        apt.unpack(&[package, "busybox-static".to_owned()], &directory)?;
        std::fs::write(mark, "")?;
    }
    Ok(directory)
}

fn fill(tree: &Path, kernel: &Path, root: &Path, agent: &Path) -> Done {
    for directory in ["bin", "etc", "dev", "lib"] {
        std::fs::create_dir_all(tree.join(directory))?;
    }
    std::fs::copy(kernel.join("bin/busybox"), tree.join("bin/busybox"))?;
    std::fs::copy(agent, tree.join("bin/dps-agent"))?;
    for name in closure::of(&closure::needed(agent)?, root)?.keys() {
        std::fs::copy(closure::find(name, root).ok_or("a library is gone")?, tree.join("lib").join(name))?;
    }
    let mut names = Vec::new();
    for driver in DRIVERS {
        let name = driver.rsplit('/').next().unwrap_or(driver);
        std::fs::copy(module(kernel, driver)?, tree.join(name))?;
        names.push(name);
    }
    write_program(&tree.join("init"), &INIT.replace("DRIVERS", &names.join(" ")))
}

fn module(kernel: &Path, name: &str) -> Done<PathBuf> {
    let mut found = Command::new("find");
    found.arg(kernel.join("lib/modules")).args(["-path", &format!("*/{name}")]);
    let text = String::from_utf8(found.output()?.stdout)?;
    Ok(text.lines().next().ok_or_else(|| format!("this kernel has no {name}"))?.into())
}

fn configure(tree: &Path, key: &str, emulator: &Emulator) -> Done {
    let (mqtt, https) = (emulator.mqtt_port, emulator.https_port);
    std::fs::write(tree.join("etc/hosts"), "10.0.2.2 localhost\n")?;
    std::fs::copy(emulator.roots(), tree.join("etc/roots.pem"))?;
    credentials::write_secret(&tree.join("etc/device.key"), key)?;
    Ok(std::fs::write(
        tree.join("etc/agent.toml"),
        format!(
            "[dps]\nhost = \"localhost\"\nid_scope = \"{ID_SCOPE}\"\ntransport = \"mqtt\"\nmqtt_port = {mqtt}\nhttps_port = {https}\n\
             ca_file = \"/etc/roots.pem\"\nca_only = true\n[attestation]\nmethod = \"symmetric-key\"\nregistration_id = \"{DEVICE}\"\n\
             key_file = \"/etc/device.key\"\n[hub]\nmqtt_port = {mqtt}\nhttps_port = {https}\n[state]\ndirectory = \"/var/lib/agent\"\n\
             [runtime]\ndirectory = \"/run/agent\"\n"
        ),
    )?)
}

fn pack(tree: &Path, directory: &Path) -> Done<PathBuf> {
    let file = directory.join("ramdisk");
    let mut cpio = Command::new("sh");
    cpio.args(["-ec", "find . | cpio --quiet --create --format=newc --owner=0:0 >\"$1\"", "sh"]).arg(&file).current_dir(tree);
    if cpio.status()?.success() { Ok(file) } else { Err("cpio makes no ramdisk".into()) }
}

/// What it says on its console, until it switches itself off.
fn boot(arm: Arm, kernel: &Path, ramdisk: &Path) -> Done<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (program, cpu) =
        if arm == Arm::Aarch64 { ("qemu-system-aarch64", "cortex-a53") } else { ("qemu-system-arm", "cortex-a15") };
    let image = std::fs::read_dir(kernel.join("boot"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let image = image.into_iter().find(|path| path.to_string_lossy().contains("/vmlinuz-")).ok_or("there is no kernel")?;
    let mut machine = Command::new("timeout");
    machine.args([
        "900",
        program,
        "-M",
        "virt",
        "-cpu",
        cpu,
        "-m",
        "512",
        "-nographic",
        "-nodefaults",
        "-serial",
        "stdio",
        "-no-reboot",
    ]);
    machine.arg("-kernel").arg(image).arg("-initrd").arg(ramdisk);
    machine.arg("-append").arg(format!("console=ttyAMA0 quiet panic=-1 now={now}"));
    machine.args(["-netdev", "user,id=n", "-device", "virtio-net-device,netdev=n"]);
    let output = machine.stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
