//! An emulated machine with a kernel of its own and a TPM behind it: `guest/guest.sh` runs in it, and this reads what it tells.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::machine::wait_until;

/// In the order in which they are made; the last three after a restart of the machine.
const TESTS: [&str; 13] = [
    "there_is_a_service_to_register_with",
    "a_tpm_of_the_kernel_registers_under_the_shipped_unit",
    "the_node_is_the_kernels_and_the_unit_the_packages",
    "kills_leave_nothing_in_the_tpm_that_hinders",
    "a_unit_without_device_allow_is_refused_and_says_so",
    "a_user_outside_the_group_is_refused_and_says_so",
    "and_back_in_it_is_served",
    "no_other_device_is_open_to_the_unit",
    "a_key_that_the_tpm_has_sealed_registers",
    "a_sealed_credential_and_the_agent_share_the_tpm",
    "a_restart_without_network_finds_the_identity_again",
    "and_the_tpm_signs_for_it",
    "the_machine_is_well",
];

#[test]
fn an_emulated_machine_with_a_tpm_of_its_own() {
    let guest = std::env::var("DPS_AGENT_GUEST").expect("this test is run by `cargo xtask system-test --full`");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("guest-{}", std::process::id()));
    fs::create_dir_all(scratch.join("tpm")).unwrap();
    let tpm = tpm(&scratch);
    let console = fs::File::create(scratch.join("console")).unwrap();
    let mut machine = machine(Path::new(&guest), &scratch).stdout(console).spawn().map(Ended).expect("qemu-system-x86_64");
    // Two starts and the tests between, without the processor's help: some minutes.
    let ended = (0..5).any(|_| wait_until(|| machine.0.try_wait().unwrap().is_some()));
    drop(machine);
    drop(tpm);
    let console = String::from_utf8_lossy(&fs::read(scratch.join("console")).unwrap()).replace('\r', "");
    let told: Vec<&str> = console.lines().filter(|line| line.starts_with("ok ") || line.starts_with("not ok ")).collect();
    println!("{}", told.join("\n"));
    assert_eq!(told, TESTS.map(|name| format!("ok {name}")), "{console}");
    assert!(ended, "it does not switch itself off:\n{console}");
    fs::remove_dir_all(&scratch).unwrap();
}

/// It goes with the machine.
fn tpm(scratch: &Path) -> Ended {
    let (state, control) = (format!("dir={}/tpm", scratch.display()), format!("type=unixio,path={}/control", scratch.display()));
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--terminate", "--tpmstate", &state, "--ctrl", &control]);
    let child = command.stdin(Stdio::null()).spawn().expect("swtpm");
    assert!(wait_until(|| scratch.join("control").exists()), "swtpm does not listen");
    Ended(child)
}

/// No KVM: what it is for are not its times. What it writes to its disk is gone with it.
fn machine(guest: &Path, scratch: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-m",
        "1024",
        "-smp",
        "2",
        "-nographic",
        "-nodefaults",
        "-serial",
        "stdio",
    ]);
    command.arg("-kernel").arg(guest.join("vmlinuz")).arg("-initrd").arg(guest.join("initrd.img"));
    command.args(["-append", "root=/dev/vda rw console=ttyS0 quiet"]);
    command.arg("-drive").arg(format!("file={}/disk.img,if=virtio,format=raw,snapshot=on", guest.display()));
    command.arg("-chardev").arg(format!("socket,id=c,path={}/control", scratch.display()));
    command.args(["-tpmdev", "emulator,id=t,chardev=c", "-device", "tpm-tis,tpmdev=t"]);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
