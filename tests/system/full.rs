//! The rest: credentials, a TPM, a read-only system, and what the sandbox really leaves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use crate::machine::{Booted, KEY, Machine, OTHER_HUB, emulator, enrolled, host};
use crate::swtpm::Swtpm;

const ASSIGNED: &str = "assigned to localhost as gw-0001 (proven)";

fn is_assigned(booted: &Booted<'_>) {
    booted.until("its status says that it is assigned", || booted.agent("StatusText") == ASSIGNED);
}

#[test]
fn keys_come_as_credentials_plain_encrypted_and_from_the_machine() {
    let emulator = emulator("");
    let machine = Machine::new();
    machine.configure(&emulator, "key_credential = \"dps-agent.key\"");

    // From the machine: the unit passes on what PID 1 was given.
    let booted = machine.boot_with(&[&format!("--set-credential=dps-agent.key:{KEY}")]);
    is_assigned(&booted);
    // A file that the agent itself cannot read.
    machine.file("etc/dps-agent/root.key", 0o600, KEY);
    machine.drop_in("[Service]\nLoadCredential=plain:/etc/dps-agent/root.key\n");
    machine.configure(&emulator, "key_credential = \"plain\"");
    booted.say("systemctl daemon-reload; systemctl restart dps-agent.service");
    is_assigned(&booted);
    assert_eq!(booted.run("setpriv --reuid dps-agent --clear-groups cat /etc/dps-agent/root.key").code, Some(1));
    // Encrypted with the machine's own key.
    booted.say("systemd-creds encrypt --with-key=host --name=sealed /etc/dps-agent/root.key /etc/dps-agent/sealed");
    booted.say("rm /etc/dps-agent/root.key");
    machine.drop_in("[Service]\nLoadCredentialEncrypted=sealed:/etc/dps-agent/sealed\n");
    machine.configure(&emulator, "key_credential = \"sealed\"");
    booted.say("systemctl daemon-reload; systemctl restart dps-agent.service");
    is_assigned(&booted);
    assert!(!fs::read_to_string(machine.path("etc/dps-agent/sealed")).unwrap().contains(KEY));
    assert!(!booted.say("journalctl --output export").contains(KEY));
}

#[test]
fn a_key_that_is_missing_is_waited_for_without_a_tight_loop() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    fs::remove_file(machine.path("etc/dps-agent/device.key")).unwrap();
    let booted = machine.boot();
    booted.until("it waits for its next start", || booted.agent("SubState") == "auto-restart");
    assert_eq!(["ExecMainStatus", "RestartUSec", "NRestarts"].map(|name| booted.agent(name)), ["77", "30s", "0"]);
    assert!(booted.agent("StatusText").contains("/etc/dps-agent/device.key"), "{}", booted.agent("StatusText"));
    machine.secret("etc/dps-agent/device.key", KEY);
    is_assigned(&booted);
}

#[test]
fn directories_outlive_the_service_and_stay_what_they_were() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let booted = machine.boot();
    is_assigned(&booted);
    let look = || {
        booted.say(
            "stat --format '%i %n %a %U %G' /run/dps-agent /run/dps-agent/client /run/dps-agent/admin /run/dps-agent/handoff",
        )
    };
    let before = look();
    let modes: Vec<&str> = before.lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| rest).collect();
    assert_eq!(
        modes,
        [
            "/run/dps-agent 755 dps-agent dps-agent",
            "/run/dps-agent/client 755 dps-agent dps-agent",
            "/run/dps-agent/admin 750 dps-agent dps-agent",
            "/run/dps-agent/handoff 755 dps-agent dps-agent",
        ]
    );
    booted.say("systemctl restart dps-agent.service");
    assert_eq!(look(), before);
    booted.say("systemctl stop dps-agent.service");
    assert_eq!(look(), before);
}

#[test]
fn a_system_that_is_read_only_provisions_from_a_configuration_of_the_vendor() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    machine
        .inside("mkdir -p /usr/lib/dps-agent/config.d; mv /etc/dps-agent/config.toml /usr/lib/dps-agent/config.d/50-vendor.toml");
    let booted = machine.boot_with(&["--read-only", "--tmpfs=/var", "--tmpfs=/tmp"]);
    is_assigned(&booted);
    assert!(booted.run("touch /etc/x").stderr.contains("Read-only file system"));
    assert_eq!(booted.state("dps-provisioned.target"), "active");
}

#[test]
fn the_sandbox_leaves_what_is_needed_and_no_more() {
    let machine = Machine::with_key(&emulator(""));
    machine.file("usr/bin/probe.pl", 0o755, include_str!("probe.pl"));
    let booted = machine.boot();
    let without = findings(&booted.say("setpriv --reuid dps-agent --regid dps-agent --init-groups perl /usr/bin/probe.pl"));
    machine.drop_in("[Service]\nType=oneshot\nExecStart=\nExecStart=/usr/bin/perl /usr/bin/probe.pl\nRestart=no\nStandardOutput=file:/found\n");
    booted.say("systemctl daemon-reload; systemctl stop dps-agent.service; systemctl start dps-agent.service");
    let within = findings(&fs::read_to_string(machine.path("found")).unwrap());

    // Its own directories, and what every program has: devices that hold nothing, a queue and temporary directories of its own, and
    // sockets, of which the first is what a TPM resource manager on D-Bus needs. DeviceAllow= closes more, but not in a container.
    let writable = "/dev/full /dev/mqueue /dev/net/tun /dev/null /dev/pts/ptmx /dev/random /dev/tty /dev/urandom /dev/zero \
                    /run/dbus/system_bus_socket /run/dps-agent /run/systemd/io.system.ManagedOOM /run/systemd/journal/dev-log \
                    /run/systemd/journal/socket /run/systemd/journal/stdout /run/systemd/notify \
                    /run/systemd/userdb/io.systemd.DynamicUser /tmp /var/lib/dps-agent /var/tmp";
    assert_eq!(kind(&within, "writable").join(" "), writable);
    assert_eq!(kind(&within, "family"), ["1", "10", "2"]);
    assert_eq!(kind(&within, "opened"), Vec::<&str>::new());
    assert_eq!(kind(&within, "call"), ["chown", "getpid", "memfd_create", "timer_create"]);
    // The probe would find more where there is more.
    for more in ["family 16", "call unshare", "call process_vm_readv", "call setns", "call add_key", "writable /run/lock"] {
        assert!(without.contains(more), "{more} is not found without the sandbox either: {without:?}");
    }
}

fn findings(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn kind<'f>(findings: &'f BTreeSet<String>, kind: &str) -> Vec<&'f str> {
    findings.iter().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).collect()
}

#[test]
fn a_tpm_is_reached_as_a_member_of_its_group() {
    let tpm = Swtpm::start();
    let probe = enrolled("registration_id = \"nobody\"\nprimary_key = \"AAAAAAAAAAAAAAAAAAAAAA==\"");
    let machine = Machine::new();
    machine.configure_attestation(&probe, "https", &format!("method = \"tpm\"\ntcti = \"{}\"", tpm.tcti()));
    let config = machine.path("etc/dps-agent/config.toml");
    let told = host(env!("CARGO_BIN_EXE_dps-agent"), &["identity", "--json", "--config", config.to_str().unwrap()]);
    let identity: serde_json::Value = serde_json::from_str(&told).unwrap();
    let (id, key) = (identity["registrationId"].as_str().unwrap(), identity["tpm"]["endorsementKey"].as_str().unwrap());
    drop(probe);

    let emulator = enrolled(&format!("registration_id = \"{id}\"\nendorsement_key = \"{key}\"\nanswer = \"at-once\""));
    machine.configure_attestation(&emulator, "https", "method = \"tpm\"");
    let node = Node::of(&tpm, &machine);
    let booted = machine.boot_with(&[&format!("--bind={}:/dev/tpmrm0", node.device)]);
    assert_eq!(booted.say("stat --format '%a %G' /dev/tpmrm0"), "660 tss");
    booted.until_state("dps-provisioned.target", "active");
    let assigned = format!("assigned to localhost as {id} (proven)");
    booted.until("its status says so", || booted.agent("StatusText") == assigned);
}

/// A device node in front of a software TPM: a terminal, which only the machine's group tss may open.
struct Node {
    socat: Child,
    device: String,
}

impl Node {
    fn of(tpm: &Swtpm, machine: &Machine) -> Self {
        let link = tpm.path("node");
        let [terminal, network] = [format!("PTY,link={},raw,echo=0", link.display()), format!("TCP:127.0.0.1:{}", tpm.port())];
        let socat = Command::new("socat").args([terminal, network]).stdin(Stdio::null()).spawn().expect("socat");
        assert!(crate::machine::wait_until(|| link.exists()), "socat makes no terminal");
        let device = fs::canonicalize(link).unwrap();
        let groups = fs::read_to_string(machine.path("etc/group")).unwrap();
        let tss = groups.lines().find_map(|line| line.strip_prefix("tss:x:")?.split(':').next()?.parse().ok()).unwrap();
        std::os::unix::fs::chown(&device, Some(0), Some(tss)).unwrap();
        fs::set_permissions(&device, fs::Permissions::from_mode(0o660)).unwrap();
        assert_eq!(fs::metadata(&device).unwrap().gid(), tss);
        Self { socat, device: device.display().to_string() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.socat.kill();
        let _ = self.socat.wait();
    }
}

#[test]
fn a_member_of_dps_clients_gets_a_connection_and_others_do_not() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    machine.inside("useradd --no-create-home --groups dps-clients member; useradd --no-create-home stranger");
    let booted = machine.boot();
    is_assigned(&booted);
    let socket = "/run/dps-agent/client/api.sock";
    assert_eq!(booted.say(&format!("stat --format '%a %U %G' {socket}")), "660 dps-agent dps-clients");
    let ask = |user: &str, socket: &str, path: &str| {
        let curl = format!("curl --silent --show-error --fail --unix-socket {socket} --request POST http://localhost{path}");
        booted.run(&format!("setpriv --reuid {user} --regid {user} --init-groups {curl}"))
    };
    let given: serde_json::Value = serde_json::from_str(&ask("member", socket, "/v1/connection").stdout).unwrap();
    assert_eq!((&given["host"], &given["clientId"]), (&"localhost".into(), &"gw-0001".into()));
    assert!(given["password"].as_str().unwrap().starts_with("SharedAccessSignature sr=localhost%2Fdevices%2Fgw-0001&"));
    // curl's 7: it could not connect.
    assert_eq!(ask("stranger", socket, "/v1/connection").code, Some(7));
    let admin = "/run/dps-agent/admin/api.sock";
    assert_eq!(ask("member", admin, "/v1/reprovision").code, Some(7));
    assert_eq!(ask("root", admin, "/v1/reprovision").code, Some(0));
    assert!(!booted.say("journalctl --output export").contains("SharedAccessSignature"));
}

#[test]
fn a_container_that_has_mounted_the_directory_outlives_a_restart_of_the_agent() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let booted = machine.boot();
    is_assigned(&booted);
    // What podman and docker do: a mount of the directory, in a mount namespace of the container's own.
    booted.say("systemd-run --unit container --property BindPaths=/run/dps-agent/client:/mnt --property PrivateMounts=yes sleep infinity");
    let ask = "nsenter --target $(systemctl show --value --property MainPID container) --mount \
               curl --silent --show-error --fail --unix-socket /mnt/api.sock http://localhost/v1/assignment";
    booted.until("it is answered", || booted.run(ask).code == Some(0));
    booted.say("systemctl restart dps-agent.service");
    is_assigned(&booted);
    booted.until("it is answered again", || booted.run(ask).stdout.contains("\"assignedHub\":\"localhost\""));
}

#[test]
fn a_reset_makes_the_next_boot_a_first_one() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let booted = machine.boot();
    is_assigned(&booted);
    let asked = || emulator.transcript("gw-0001").iter().filter(|line| line.starts_with("> register")).count();
    let before = asked();
    assert_eq!(booted.run("dps-agent reset --yes").code, Some(75));
    booted.say("systemctl stop dps-agent.service; dps-agent reset --yes");
    assert_eq!(booted.say("ls /var/lib/dps-agent"), "");
    assert_eq!(booted.run("cat /run/dps-agent/assignment.json").code, Some(1));
    booted.power_off();
    assert_eq!(asked(), before);
    let booted = machine.boot();
    is_assigned(&booted);
    assert_eq!(asked(), before + 1);
}

#[test]
fn a_unit_gets_its_connection_as_a_credential_and_one_that_is_not_allowed_does_not() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    let rule = "[handoff.credentials]\n\"hub.env\" = [\"allowed.service\"]\n";
    machine.file("etc/dps-agent/config.d/50-handoff.toml", 0o644, rule);
    for name in ["allowed", "denied"] {
        let service = format!(
            "DynamicUser=yes\nLoadCredential=hub.env:/run/dps-agent/credential.sock\nRuntimeDirectory={name}\n\
             ExecStart=/bin/sh -c 'cp \"$CREDENTIALS_DIRECTORY/hub.env\" /run/{name}/'"
        );
        machine.consumer(&format!("{name}.service"), &service);
    }
    let booted = machine.boot();
    booted.until_state("allowed.service", "active");
    let given = booted.say("cat /run/allowed/hub.env");
    assert!(
        given.contains("IOTHUB_HOSTNAME=\"localhost\"\n") && given.contains("IOTHUB_SAS=\"SharedAccessSignature sr="),
        "{given}"
    );
    booted.until_state("denied.service", "failed");
    // systemd's word for a credential that it did not get.
    assert_eq!(booted.say("systemctl show --value --property ExecMainStatus denied.service"), "243");
    let told = booted.say("journalctl --sync; journalctl --unit dps-agent.service --output cat");
    assert!(told.contains("denied.service") && !told.contains("SharedAccessSignature"), "{told}");
}

#[test]
fn a_path_unit_starts_a_bridge_again_when_its_hub_is_another_one() {
    let emulator = emulator("");
    let machine = Machine::with_key(&emulator);
    machine.file("etc/dps-agent/config.d/50-handoff.toml", 0o644, "[handoff.template.bridge]\nsource = \"hub.env\"\n");
    let bridge = "[Unit]\nAfter=dps-provisioned.target\n[Service]\nExecStart=/bin/sh -c 'cp /run/dps-agent/handoff/hub.env /run/bridge.env; \
                  exec sleep infinity'\n[Install]\nWantedBy=dps-provisioned.target\n";
    machine.file("etc/systemd/system/bridge.service", 0o644, bridge);
    for unit in ["dps-agent-restart@.path", "dps-agent-restart@.service"] {
        let example = format!("{}/systemd/examples/{unit}", env!("CARGO_MANIFEST_DIR"));
        machine.file(&format!("etc/systemd/system/{unit}"), 0o644, fs::read(example).unwrap());
    }
    machine.inside("systemctl enable bridge.service dps-agent-restart@bridge.path");
    let booted = machine.boot();
    let has = |hub: &str| booted.run(&format!("grep --quiet '^IOTHUB_HOSTNAME=\"{hub}\"$' /run/bridge.env")).code == Some(0);
    booted.until("the bridge has its hub", || has("localhost"));
    emulator.move_hub_now("gw-0001", OTHER_HUB).unwrap();
    booted.say("dps-agent reprovision");
    booted.until("the bridge has the other hub", || has(OTHER_HUB));
    assert_eq!(booted.state("bridge.service"), "active");
}
