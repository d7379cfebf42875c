//! A gateway for a test: a small Debian in a container, booted with systemd as PID 1, on which the agent's package is installed. What it writes is in memory, on top of a root file system that all tests share.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dps_emulator::{Config, Emulator};
use serde_json::Value;

/// Ends a hang, and tunes nothing: what is waited for takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);
/// The key of `gw-0001`, 32 bytes.
pub const KEY: &str = "YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=";
/// Where a device can be moved to.
pub const OTHER_HUB: &str = "other-hub.test";
/// An emulator that knows `gw-0001` by its key, assigns it at once, and whatever these lines add.
pub fn emulator(enrollment: &str) -> Emulator {
    enrolled(&format!("registration_id = \"gw-0001\"\nprimary_key = \"{KEY}\"\nanswer = \"at-once\"\n{enrollment}"))
}

/// An emulator with this one enrollment.
pub fn enrolled(enrollment: &str) -> Emulator {
    let text =
        format!("[service]\nid_scope = \"0ne00000000\"\nhubs = [\"localhost\", \"{OTHER_HUB}\"]\n[[enrollment]]\n{enrollment}\n");
    Emulator::start(Config::from_toml(&text).unwrap()).unwrap()
}

/// A machine that is switched off. It is gone when dropped.
pub struct Machine {
    scratch: PathBuf,
    root: PathBuf,
    is_later: bool,
}

/// The same, running. Dropping it cuts its power.
pub struct Booted<'m> {
    machine: &'m Machine,
    container: Child,
    /// Its PID 1, as we see it.
    leader: u32,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Machine {
    /// With the agent's package installed, and not configured.
    pub fn new() -> Self {
        Self::on("DPS_AGENT_ROOTFS", false)
    }

    /// The same with a later systemd, which starts with nothing but the newer kind of control groups.
    pub fn later() -> Self {
        Self::on("DPS_AGENT_LATER_ROOTFS", true)
    }

    fn on(variable: &str, is_later: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let lower = std::env::var(variable).expect("these tests are run by `cargo xtask system-test`");
        let name = format!("system-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&scratch).unwrap();
        host("mount", &["-t", "tmpfs", "tmpfs", scratch.to_str().unwrap()]);
        for name in ["upper", "work", "root"] {
            fs::create_dir(scratch.join(name)).unwrap();
        }
        let root = scratch.join("root");
        let layers = format!("lowerdir={lower},upperdir={0}/upper,workdir={0}/work", scratch.display());
        host("mount", &["-t", "overlay", "overlay", "-o", &layers, root.to_str().unwrap()]);
        let machine = Self { scratch, root, is_later };
        machine.finish();
        machine
    }

    /// The same, which will register `gw-0001` with this emulator by its key.
    pub fn with_key(emulator: &Emulator) -> Self {
        let machine = Self::new();
        machine.configure(emulator, "key_file = \"/etc/dps-agent/device.key\"");
        machine.secret("etc/dps-agent/device.key", KEY);
        machine
    }

    /// Registers `gw-0001` with this emulator by a symmetric key, which these lines name.
    pub fn configure(&self, emulator: &Emulator, key: &str) {
        let attestation = format!("method = \"symmetric-key\"\nregistration_id = \"gw-0001\"\n{key}");
        self.configure_attestation(emulator, "mqtt", &attestation);
    }

    /// Registers with this emulator, in this way.
    pub fn configure_attestation(&self, emulator: &Emulator, transport: &str, attestation: &str) {
        let (mqtt, https) = (emulator.mqtt_port(), emulator.https_port());
        self.file("etc/dps-agent/ca.pem", 0o644, emulator.ca_pem());
        let text = format!(
            "[dps]\nhost = \"localhost\"\nid_scope = \"0ne00000000\"\ntransport = \"{transport}\"\nmqtt_port = {mqtt}\n\
             https_port = {https}\nca_file = \"/etc/dps-agent/ca.pem\"\nca_only = true\n[attestation]\n{attestation}\n\
             [hub]\nmqtt_port = {mqtt}\nhttps_port = {https}\n"
        );
        self.file("etc/dps-agent/config.toml", 0o644, text);
    }

    /// Writes a file with this mode.
    pub fn file(&self, path: &str, mode: u32, content: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    /// A file that the agent's group may read, and nobody else.
    pub fn secret(&self, path: &str, content: &str) {
        self.file(path, 0o640, content);
        self.inside(&format!("chgrp dps-agent /{path}"));
    }

    /// A drop-in for the agent's unit.
    pub fn drop_in(&self, lines: &str) {
        self.file("etc/systemd/system/dps-agent.service.d/test.conf", 0o644, lines);
    }

    /// A unit that is started with `dps-provisioned.target`, and lives on.
    pub fn consumer(&self, name: &str, service: &str) {
        let text = format!(
            "[Unit]\nAfter=dps-provisioned.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\n{service}\n\
             [Install]\nWantedBy=dps-provisioned.target\n"
        );
        self.file(&format!("etc/systemd/system/{name}"), 0o644, text);
        self.inside(&format!("systemctl enable {name}"));
    }

    /// Where a file of it is on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Runs a shell's line in it while it is off.
    pub fn inside(&self, line: &str) {
        host("chroot", &[self.root.to_str().unwrap(), "/bin/sh", "-ec", line]);
    }

    /// Switches it on and waits until systemd has done what it does at a start, whatever came of it.
    pub fn boot(&self) -> Booted<'_> {
        self.boot_with(&[])
    }

    /// The same, with more for systemd-nspawn.
    pub fn boot_with(&self, more: &[&str]) -> Booted<'_> {
        let console = fs::File::create(self.scratch.join("console")).unwrap();
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe", "--link-journal=no"]);
        command.args(["--kill-signal=SIGRTMIN+3", "--hostname=gateway", "--directory"]).arg(&self.root).args(more);
        command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        if self.is_later {
            command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        }
        let container = command.spawn().expect("systemd-nspawn, of the package systemd-container");
        let mut booted = Booted { machine: self, container, leader: 0 };
        booted.wait_for_start();
        booted
    }

    /// What an image build does beside the package.
    fn finish(&self) {
        self.file("etc/hosts", 0o644, format!("127.0.0.1 localhost {OTHER_HUB}\n"));
        self.file("etc/machine-id", 0o444, "uninitialized\n");
    }

    fn console(&self) -> String {
        fs::read_to_string(self.scratch.join("console")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for mounted in [&self.root, &self.scratch] {
            let _ = Command::new("umount").arg("--lazy").arg(mounted).status();
        }
        let _ = fs::remove_dir(&self.scratch);
    }
}

impl Booted<'_> {
    /// Runs a shell's line as root.
    pub fn run(&self, line: &str) -> Ran {
        let leader = self.leader.to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &leader, "--all", "/bin/sh", "-c", line])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ran::of(command.stdin(Stdio::null()))
    }

    /// What such a line prints, if it ends well.
    pub fn say(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}\n{}", self.journal());
        ran.stdout.trim_end().to_owned()
    }

    /// A property of the agent's unit.
    pub fn agent(&self, property: &str) -> String {
        self.say(&format!("systemctl show --value --property {property} dps-agent.service"))
    }

    /// Whether a unit is active, in systemd's word.
    pub fn state(&self, unit: &str) -> String {
        self.run(&format!("systemctl is-active {unit}")).stdout.trim_end().to_owned()
    }

    /// Waits until it is so.
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        assert!(wait_until(is_so), "this never came about: {what}\n{}", self.journal());
    }

    /// Waits until a unit is in this state.
    pub fn until_state(&self, unit: &str, state: &str) {
        self.until(&format!("{unit} is {state}"), || self.state(unit) == state);
    }

    /// All entries of the agent that match, as objects.
    pub fn entries(&self, matching: &str) -> Vec<Value> {
        let lines = self.say(&format!("journalctl --sync; journalctl --output json --unit dps-agent.service {matching}"));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Everything that was logged at this start.
    pub fn journal(&self) -> String {
        let journal = self.run("journalctl --boot --no-pager --lines 200").stdout;
        format!("console:\n{}\njournal:\n{journal}", self.machine.console())
    }

    /// Shuts it down as a person would.
    pub fn power_off(mut self) {
        self.run("systemctl poweroff");
        let gone = wait_until(|| self.container.try_wait().unwrap().is_some());
        assert!(gone, "it does not shut down:\n{}", self.machine.console());
    }

    /// Takes its power away.
    pub fn cut(self) {
        drop(self);
    }

    fn wait_for_start(&mut self) {
        let mut ended = false;
        let settled = wait_until(|| {
            // Its first child is not PID 1 yet: that is a child of this one.
            self.leader = self.child().unwrap_or_default();
            ended = self.container.try_wait().unwrap().is_some();
            ended || matches!(self.run("systemctl is-system-running").stdout.trim_end(), "running" | "degraded")
        });
        assert!(settled && !ended, "systemd-nspawn cannot boot a machine here:\n{}", self.machine.console());
    }

    fn child(&self) -> Option<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.container.id());
        fs::read_to_string(children).ok()?.split(' ').next()?.parse().ok()
    }
}

impl Drop for Booted<'_> {
    fn drop(&mut self) {
        if matches!(self.container.try_wait(), Ok(Some(_))) {
            return;
        }
        // With its PID 1 the kernel ends all that runs in it, at once; what starts it goes with it, or by our hand.
        let all = self.child().into_iter().chain([self.container.id()]).map(|process| process.to_string());
        let _ = Command::new("kill").arg("-KILL").args(all).stderr(Stdio::null()).status();
        let _ = self.container.wait();
    }
}

impl Ran {
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs a program of this machine to its end.
pub fn host(program: &str, arguments: &[&str]) -> String {
    let ran = Ran::of(Command::new(program).args(arguments).stdin(Stdio::null()));
    assert_eq!(ran.code, Some(0), "{program} {arguments:?}: {ran:?}");
    ran.stdout
}

/// Whether it came about before the patience ended.
pub fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}
