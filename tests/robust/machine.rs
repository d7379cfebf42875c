//! `reset` and `migrate aziot`: what is left of a device, and what another program has left of one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use sha2::Digest;

use crate::daemon::Daemon;
use crate::gateway::{Gateway, KEY, emulator};

#[test]
fn a_reset_leaves_what_was_there_before_the_first_registration() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "mqtt");
    assert_eq!(gateway.run(&["reset"]).code, Some(0));
    let blank = gateway.names();
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    gateway.file("state/mine", 0o600, "a person's");
    gateway.file("state/record.damaged-1", 0o600, "set aside");

    let asked = gateway.run(&["reset"]);
    assert_eq!(asked.code, Some(64));
    let listed = "would be removed: DIR/run/assignment.json\nwould be removed: DIR/state/record\n\
                  would be removed: DIR/state/record.damaged-1\nnot the agent's, and kept: DIR/state/mine\n";
    assert_eq!(gateway.placed(&asked.stdout), listed);
    assert_eq!(asked.stderr, "dps-agent: nothing was removed: --yes does it\n");
    assert!(gateway.record().exists());

    let done = gateway.run(&["reset", "--yes", "--json"]);
    assert_eq!(done.code, Some(0));
    let path = |name: &str| gateway.path(name).display().to_string();
    let removed = json!([path("run/assignment.json"), path("state/record"), path("state/record.damaged-1")]);
    assert_eq!(done.json(), json!({"removed": removed, "found": removed, "kept": [path("state/mine")]}));
    fs::remove_file(gateway.path("state/mine")).unwrap();
    assert_eq!(gateway.names().concat(), blank.concat());
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    assert_eq!(emulator.transcript("gw-0001").iter().filter(|line| line.contains("assigned")).count(), 2);
}

#[test]
fn a_running_daemon_is_not_reset() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let mut daemon = Daemon::start(&gateway);
    daemon.wait_for("assigned to localhost as gw-0001");
    let (code, message) = gateway.error(&["reset", "--yes"]);
    assert_eq!((code, &*message), (75, "a dps-agent is at work with DIR/run/admin; stop it first (systemctl stop dps-agent)"));
    assert!(gateway.record().exists() && gateway.assignment().exists());
    daemon.stop();
    assert_eq!(gateway.run(&["reset", "--yes"]).code, Some(0));
    assert!(gateway.names().concat().is_empty() && gateway.path("run/client").is_dir(), "{:?}", gateway.names());
}

/// `/etc/aziot/config.toml` for a device with this attestation.
fn aziot(gateway: &mut Gateway, attestation: &str) {
    let text = format!(
        "hostname = \"gateway\"\n[provisioning]\nsource = \"dps\"\n\
         global_endpoint = \"https://global.azure-devices-provisioning.net/\"\nid_scope = \"0ne00000000\"\n\
         [provisioning.attestation]\n{attestation}\n"
    );
    gateway.file("aziot.toml", 0o600, text);
}

fn migrate(gateway: &Gateway) -> crate::gateway::Ran {
    let (from, to) = (gateway.path("aziot.toml"), gateway.path("ours"));
    gateway.run(&["migrate", "aziot", "--from", from.to_str().unwrap(), "--to", to.to_str().unwrap()])
}

#[test]
fn a_symmetric_key_moves_into_a_file_and_nowhere_else() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "mqtt");
    aziot(
        &mut gateway,
        &format!("method = \"symmetric_key\"\nregistration_id = \"gw-0001\"\nsymmetric_key = {{ value = \"{KEY}\" }}"),
    );
    let ran = migrate(&gateway);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let said = gateway.placed(&ran.stdout);
    assert!(said.starts_with(
        "written: DIR/ours/device.key\nwritten: DIR/ours/config.d/50-aziot.toml\n\
         not taken over: DIR/aziot.toml:1: hostname: names the host of IoT Edge's modules; the agent needs no name\nnext: stop "
    ));
    let drop_in = fs::read_to_string(gateway.path("ours/config.d/50-aziot.toml")).unwrap();
    assert_eq!(
        gateway.placed(&drop_in),
        "# From DIR/aziot.toml, by `dps-agent migrate aziot`.\n\n[dps]\nhost = \"global.azure-devices-provisioning.net\"\n\
         id_scope = \"0ne00000000\"\n\n[attestation]\nmethod = \"symmetric-key\"\nregistration_id = \"gw-0001\"\n\
         key_file = \"DIR/ours/device.key\"\n"
    );
    let key = gateway.path("ours/device.key");
    assert_eq!(fs::read_to_string(&key).unwrap(), KEY);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o007, 0);
    assert!(![ran.stdout, ran.stderr, drop_in].concat().contains(KEY));

    let again = migrate(&gateway);
    assert_eq!(again.code, Some(73));
    let message = "dps-agent: DIR/ours/device.key is there already; move it away, or name another directory with --to\n";
    assert_eq!(gateway.placed(&again.stderr), message);
}

#[test]
fn a_key_in_a_file_of_bytes_becomes_base64() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "mqtt");
    let file = gateway.file("raw.key", 0o600, b"a key of the tests, thirty-two b");
    let uri = format!("symmetric_key = {{ uri = \"file://{}\" }}", file.display());
    aziot(&mut gateway, &format!("method = \"symmetric_key\"\nregistration_id = \"gw-0001\"\n{uri}"));
    assert_eq!(migrate(&gateway).code, Some(0));
    assert_eq!(fs::read_to_string(gateway.path("ours/device.key")).unwrap(), KEY);
}

#[cfg(feature = "tpm")]
#[test]
fn the_handle_of_a_tpm_and_its_passwords_are_taken_over() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "mqtt");
    let tpm = "[tpm]\nauth_key_index = \"0x00_02_00\"\n[tpm.hierarchy_authorization]\nowner = \"hunter2\"";
    aziot(&mut gateway, &format!("method = \"tpm\"\nregistration_id = \"gw-0001\"\n{tpm}"));
    let ran = migrate(&gateway);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.ends_with("next: take over the hub key that is in the TPM, without a registration: dps-agent adopt\n"));
    let drop_in = gateway.placed(&fs::read_to_string(gateway.path("ours/config.d/50-aziot.toml")).unwrap());
    assert!(drop_in.ends_with(
        "method = \"tpm\"\nregistration_id = \"gw-0001\"\nidentity_handle = \"0x81000200\"\n\
         owner_auth_file = \"DIR/ours/owner_auth\"\n"
    ));
    assert_eq!(fs::read_to_string(gateway.path("ours/owner_auth")).unwrap(), "hunter2");
    assert!(!ran.stdout.contains("hunter2"));
}

#[test]
fn what_cannot_be_taken_over_writes_nothing() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "mqtt");
    for (attestation, line) in [
        ("method = \"x509\"\nidentity_cert = { method = \"est\" }", "8: [provisioning.attestation.identity_cert] method: "),
        ("method = \"symmetric_key\"\nregistration_id = \"gw\"", ": does not make a valid configuration: "),
        ("method = \"x509\"\nidentity_pk = \"pkcs11:pin-value=1234\"", "8: [provisioning.attestation] identity_pk: "),
    ] {
        aziot(&mut gateway, attestation);
        let ran = migrate(&gateway);
        assert_eq!(ran.code, Some(78), "{attestation}");
        assert!(ran.stderr.contains(line) && !ran.stderr.contains("1234"), "{}", ran.stderr);
        assert!(!gateway.path("ours").exists());
    }
    fs::remove_file(gateway.path("aziot.toml")).unwrap();
    let message = "dps-agent: DIR/aziot.toml: cannot be read: No such file or directory (os error 2); run this as root\n";
    assert_eq!(gateway.placed(&migrate(&gateway).stderr), message);
}

/// What the version after this one has left, on a machine that has gone back to this one.
#[test]
fn the_record_of_a_later_version_serves_and_keeps_what_is_new_in_it() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let line = fs::read_to_string(gateway.record()).unwrap().lines().next().unwrap().to_owned();
    let line = line.replacen('{', r#"{"renewal":{"after":7},"#, 1);
    let checksum: String = sha2::Sha256::digest(&line).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(gateway.record(), format!("{line}\nsha256 {checksum}\n")).unwrap();

    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    assert_eq!(emulator.requests("gw-0001").registrations, 1);
    assert_eq!(gateway.run(&["provision", "--force"]).code, Some(0));
    assert_eq!(emulator.requests("gw-0001").registrations, 2);
    let record = fs::read_to_string(gateway.record()).unwrap();
    assert!(record.contains(r#""renewal":{"after":7}"#), "{record}");
    assert_eq!(gateway.names()[0], ["record"]);
}
