//! A TPM in the configuration: what is understood, and what is refused.

use serde_json::json;

use super::Place::{After, AfterTpm, AfterX509, Instead};
use super::{DROP_IN, KEY, MAIN, TPM, assert_wrong, errors, load};
use crate::config::{Config, EkUnique, Encoding, IdentitySource, KeySource, Profile, RegistrationIdSource, TpmSettings};
use crate::protocol::Via;

fn config(text: &str) -> Config {
    load(&[(MAIN, text)], &[]).unwrap_or_else(|errors| panic!("{text}\n{errors}")).config
}

fn usual() -> TpmSettings {
    TpmSettings {
        tcti: "device:/dev/tpmrm0".to_owned(),
        owner_auth: None,
        endorsement_auth: None,
        ek_handle: 0x8101_0001,
        srk_handle: 0x8100_0001,
        identity_handle: None,
        ek_unique: EkUnique::Tcg,
    }
}

fn from(source: IdentitySource, prefix: &str) -> RegistrationIdSource {
    RegistrationIdSource::From { source, prefix: prefix.to_owned() }
}

#[test]
fn the_least_that_works_has_every_default() {
    let config = config(TPM);
    let registration_id = from(IdentitySource::TpmEk(Encoding::Hex), "");
    assert_eq!(config.attestation, Profile::Tpm { registration_id, tpm: usual() });
    assert_eq!(config.dps.routes, [Via::Https]);
    assert_eq!(config.hub.routes, [Via::Mqtt, Via::MqttWs]);
}

#[test]
fn everything_that_can_be_written_arrives() {
    let text = format!(
        "{TPM}{}",
        r#"
        registration_id = "gw-1"
        tcti = "swtpm:host=127.0.0.1,port=2321"
        owner_auth_file = "/owner"
        endorsement_auth_credential = "endorsement"
        ek_handle = "0x81810001"
        srk_handle = "0X8100000A"
        identity_handle = "0x81000100"
        ek_unique = "empty"
        "#
    );
    let tpm = TpmSettings {
        tcti: "swtpm:host=127.0.0.1,port=2321".to_owned(),
        owner_auth: Some(KeySource::File("/owner".into())),
        endorsement_auth: Some(KeySource::Credential("endorsement".to_owned())),
        ek_handle: 0x8181_0001,
        srk_handle: 0x8100_000a,
        identity_handle: Some(0x8100_0100),
        ek_unique: EkUnique::Empty,
    };
    let registration_id = RegistrationIdSource::Written("gw-1".parse().unwrap());
    assert_eq!(config(&text).attestation, Profile::Tpm { registration_id, tpm });
}

#[test]
fn the_id_comes_from_the_endorsement_key_unless_told_otherwise() {
    let hex = || IdentitySource::TpmEk(Encoding::Hex);
    let base32 = || IdentitySource::TpmEk(Encoding::Base32);
    for (lines, expected) in [
        ("registration_id_from = 'tpm-ek:hex'", from(hex(), "")),
        ("registration_id_from = 'tpm-ek'", from(hex(), "")),
        ("registration_id_from = 'tpm-ek:base32'\nregistration_id_prefix = 'gw-'", from(base32(), "gw-")),
        ("registration_id_prefix = 'gw-'", from(hex(), "gw-")),
        ("registration_id_from = 'mac:eth0'", from(IdentitySource::Mac("eth0".to_owned()), "")),
        ("registration_id = { from = 'tpm-ek', encoding = 'hex' }", from(hex(), "")),
        ("registration_id = { from = 'tpm-ek', encoding = 'base32' }", from(base32(), "")),
        ("registration_id = { from = 'tpm-ek' }\nregistration_id_prefix = 'gw-'", from(hex(), "gw-")),
        ("registration_id = { from = 'machine-id' }", from(IdentitySource::MachineId, "")),
        ("registration_id.from = 'tpm-ek'\nregistration_id.encoding = 'base32'", from(base32(), "")),
        ("[attestation.registration_id]\nfrom = 'tpm-ek'", from(hex(), "")),
    ] {
        assert_eq!(*config(&format!("{TPM}{lines}")).attestation.registration_id(), expected, "{lines}");
    }
}

#[test]
fn a_table_in_place_of_an_id_is_checked_to_its_members() {
    let unknown_source = "unknown source; write certificate-cn (with x509), tpm-ek:hex or tpm-ek:base32 (with tpm), device-tree-serial, dmi-serial, mac:INTERFACE, machine-id or file:/PATH";
    assert_wrong(&[
        (
            AfterTpm,
            "registration_id = { from = 'tpm-ek', encodign = 'hex' }",
            "F:5: [attestation] registration_id.encodign: unknown member; did you mean `encoding`?",
        ),
        (
            AfterTpm,
            "[attestation.registration_id]\nx = 1\nfrom = 'tpm-ek'\n\na = 2",
            "F:6: [attestation] registration_id.x: unknown member; there are from and encoding\nF:9: [attestation] registration_id.a: unknown member; there are from and encoding",
        ),
        (
            AfterTpm,
            "registration_id = { from = 5 }",
            "F:5: [attestation] registration_id.from: is a number where a text should be; write one text in quotes",
        ),
        (
            AfterTpm,
            "registration_id = { from = 'tpm-ek', encoding = 'base64' }",
            "F:5: [attestation] registration_id.encoding: unknown value; write one of \"hex\", \"base32\"",
        ),
        (
            AfterTpm,
            "registration_id = { from = 'machine-id', encoding = 'hex' }",
            "F:5: [attestation] registration_id.encoding: goes with from = \"tpm-ek\" only; remove it",
        ),
        (
            AfterTpm,
            "registration_id = {}",
            "F:5: [attestation] registration_id: has no member from; write { from = \"tpm-ek\", encoding = \"hex\" }",
        ),
        (AfterTpm, "registration_id = { from = 'bios' }", &format!("F:5: [attestation] registration_id: {unknown_source}")),
        (
            AfterTpm,
            "registration_id_from = 'tpm-ek:base64'",
            "F:5: [attestation] registration_id_from: names no encoding; write \"tpm-ek:hex\" or \"tpm-ek:base32\"",
        ),
        (
            AfterTpm,
            "registration_id_from = 'tpmek:hex'",
            &format!("F:5: [attestation] registration_id_from: {unknown_source}; did you mean \"tpm-ek:hex\"?"),
        ),
        (
            AfterTpm,
            "registration_id_from = 'machine-id'\nregistration_id = { from = 'tpm-ek' }",
            "F:6: [attestation] registration_id: cannot stand beside registration_id_from of F:5; keep one of them",
        ),
    ]);
}

#[test]
fn an_endorsement_key_is_there_with_a_tpm_only() {
    assert_wrong(&[
        (
            Instead("registration_id = 'gw-1'"),
            "registration_id_from = 'tpm-ek:hex'",
            "F:5: [attestation] registration_id_from: there is no TPM with method = \"symmetric-key\" of F:4; use another source, or write registration_id",
        ),
        (
            AfterX509,
            "registration_id = { from = 'tpm-ek' }",
            "F:7: [attestation] registration_id: there is no TPM with method = \"x509\" of F:4; use another source, or write registration_id",
        ),
        (
            AfterTpm,
            "registration_id_from = 'certificate-cn'",
            "F:5: [attestation] registration_id_from: there is no certificate with method = \"tpm\" of F:4; use another source, or write registration_id",
        ),
    ]);
}

#[test]
fn what_belongs_to_another_method_names_both_places() {
    let belongs = |line: usize, key: &str, owner: &str, method: &str| {
        format!(
            "F:{line}: [attestation] {key}: belongs to method \"{owner}\", but F:4 says method = \"{method}\"; remove one of the two"
        )
    };
    let written = [
        ("tcti", "device:/dev/tpm0"),
        ("owner_auth_file", "/o"),
        ("owner_auth_credential", "o"),
        ("endorsement_auth_file", "/e"),
        ("endorsement_auth_credential", "e"),
        ("ek_handle", "0x81010002"),
        ("srk_handle", "0x81000002"),
        ("identity_handle", "none"),
        ("ek_unique", "tcg"),
    ];
    let lines: Vec<String> = written.iter().map(|(key, value)| format!("{key} = '{value}'")).collect();
    let all = |first: usize, method: &str| {
        let keys = written.iter().enumerate().map(|(n, (key, _))| belongs(first + n, key, "tpm", method));
        keys.collect::<Vec<_>>().join("\n")
    };
    assert_wrong(&[
        (After, &lines.join("\n"), &all(7, "symmetric-key")),
        (AfterX509, &lines.join("\n"), &all(7, "x509")),
        (
            AfterTpm,
            "key_file = '/k'\nprivate_key_file = '/p'",
            &[belongs(5, "key_file", "symmetric-key", "tpm"), belongs(6, "private_key_file", "x509", "tpm")].join("\n"),
        ),
    ]);
}

#[test]
fn dps_takes_a_tpm_over_https_only() {
    for transport in ["mqtt", "mqtt-ws"] {
        let text = TPM.replace("[attestation]", &format!("transport = '{transport}'\n[attestation]"));
        let expected =
            "F:3: [dps] transport: DPS takes a TPM over HTTPS only, and F:5 says method = \"tpm\"; write \"https\" or \"auto\"";
        assert_eq!(errors(&[("F", &text)], &[]), expected);
    }
    for transport in ["auto", "https"] {
        let text = TPM.replace("[attestation]", &format!("transport = '{transport}'\n[attestation]"));
        assert_eq!(config(&text).dps.routes, [Via::Https], "{transport}");
    }
    let main = KEY.replace("[attestation]", "transport = 'mqtt'\n[attestation]");
    let drop_in = "[attestation]\nmethod = 'tpm'\nkey_file = ''\nregistration_id = ''\n";
    assert_eq!(
        errors(&[("/F", &main), (DROP_IN, drop_in)], &[]),
        "/F:3: [dps] transport: DPS takes a TPM over HTTPS only, and /etc/dps-agent/config.d/50-site.toml:2 says method = \"tpm\"; write \"https\" or \"auto\"; transport = \"\" in /etc/dps-agent/config.d/50-site.toml takes the other back"
    );
}

#[test]
fn a_tcti_is_one_that_is_understood_to_its_last_parameter() {
    for known in [
        "device:/dev/tpm0",
        "swtpm",
        "swtpm:port=2321",
        "mssim:host=tpm.example.net,port=2321",
        "tabrmd",
        "tabrmd:",
        "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=session",
    ] {
        let Profile::Tpm { tpm, .. } = config(&format!("{TPM}tcti = '{known}'")).attestation else { panic!("{known}") };
        assert_eq!(tpm.tcti, known);
    }
    let unknown = "F:5: [attestation] tcti: begins with no known way to a TPM; write one of device:/dev/tpmrm0, swtpm:host=HOST,port=PORT, mssim:host=HOST,port=PORT or tabrmd:";
    let network = |name| format!("F:5: [attestation] tcti: has a parameter that is not understood; write {name}:host=…,port=…");
    assert_wrong(&[
        (AfterTpm, "tcti = ''", "F:5: [attestation] tcti: is empty; write a value or remove the line"),
        (AfterTpm, "tcti = '/dev/tpmrm0'", unknown),
        (AfterTpm, "tcti = 'pcap:x'", unknown),
        // libtss2 would run a program.
        (AfterTpm, "tcti = 'cmd:nc -U /run/tpm'", unknown),
        (AfterTpm, "tcti = 'devise:/dev/tpm0'", &format!("{unknown}; did you mean \"device:\"?")),
        (AfterTpm, "tcti = 'device'", "F:5: [attestation] tcti: names no device; write for instance \"device:/dev/tpmrm0\""),
        (AfterTpm, "tcti = 'device:tpm0'", "F:5: [attestation] tcti: names no device; write for instance \"device:/dev/tpmrm0\""),
        (AfterTpm, "tcti = 'swtpm:path=/run/swtpm'", &network("swtpm")),
        (AfterTpm, "tcti = 'mssim:host=,port=1'", &network("mssim")),
        (AfterTpm, "tcti = 'swtpm:port=0'", &network("swtpm")),
        (
            AfterTpm,
            "tcti = 'tabrmd:port=1'",
            "F:5: [attestation] tcti: has a parameter that is not understood; write tabrmd:bus_name=…,bus_type=…",
        ),
    ]);
}

#[test]
fn a_handle_is_one_that_its_owner_can_use() {
    let none = "not a persistent handle; write one from \"0x81000000\" to \"0x81ffffff\"";
    let platform =
        "is a handle of the platform, where the owner can keep nothing; write one from \"0x81000000\" to \"0x817fffff\"";
    assert_wrong(&[
        (AfterTpm, "ek_handle = '81010001'", &format!("F:5: [attestation] ek_handle: {none}")),
        (AfterTpm, "ek_handle = '0x8101'", &format!("F:5: [attestation] ek_handle: {none}")),
        (AfterTpm, "ek_handle = '0x+8100001'", &format!("F:5: [attestation] ek_handle: {none}")),
        (AfterTpm, "srk_handle = '0x80000001'", &format!("F:5: [attestation] srk_handle: {none}")),
        (AfterTpm, "srk_handle = 'none'", &format!("F:5: [attestation] srk_handle: {none}")),
        (AfterTpm, "srk_handle = '0x81800001'", &format!("F:5: [attestation] srk_handle: {platform}")),
        (AfterTpm, "identity_handle = 'off'", &format!("F:5: [attestation] identity_handle: {none}, or \"none\"")),
        (AfterTpm, "identity_handle = '0x82000000'", &format!("F:5: [attestation] identity_handle: {none}, or \"none\"")),
        (AfterTpm, "identity_handle = '0x81ffffff'", &format!("F:5: [attestation] identity_handle: {platform}")),
        (
            AfterTpm,
            "ek_handle = 0x81010001",
            "F:5: [attestation] ek_handle: is a number where a text should be; put it in quotes",
        ),
        (AfterTpm, "ek_unique = 'zero'", "F:5: [attestation] ek_unique: unknown value; write one of \"tcg\", \"empty\""),
    ]);
}

#[test]
fn each_key_has_a_handle_of_its_own() {
    assert_wrong(&[
        (
            AfterTpm,
            "identity_handle = '0x81000001'",
            "F:5: [attestation] identity_handle: is also the default of srk_handle, and each key needs a handle of its own; write another",
        ),
        (
            AfterTpm,
            "srk_handle = '0x81010001'",
            "F:5: [attestation] srk_handle: is also the default of ek_handle, and each key needs a handle of its own; write another",
        ),
        (
            AfterTpm,
            "identity_handle = '0x81000100'\nek_handle = '0x81000100'",
            "F:6: [attestation] ek_handle: is also the identity_handle of F:5, and each key needs a handle of its own; write another",
        ),
    ]);
}

#[test]
fn a_password_comes_from_one_place() {
    assert_wrong(&[
        (
            AfterTpm,
            "owner_auth_file = '/o'\nowner_auth_credential = 'o'",
            "F:6: [attestation] owner_auth_credential: cannot stand beside owner_auth_file of F:5; keep one of them",
        ),
        (
            AfterTpm,
            "endorsement_auth_file = '/o'\nendorsement_auth_credential = 'o'",
            "F:6: [attestation] endorsement_auth_credential: cannot stand beside endorsement_auth_file of F:5; keep one of them",
        ),
        (
            AfterTpm,
            "owner_auth_credential = '../o'",
            "F:5: [attestation] owner_auth_credential: not a credential's name; write the NAME of LoadCredential=NAME:PATH, of letters, digits, '-', '_', '.'",
        ),
    ]);
}

#[test]
fn drop_ins_win_and_take_back() {
    let main = format!("{TPM}identity_handle = '0x81000100'\nregistration_id = 'gw-1'\ntcti = 'swtpm'\n");
    let drop_in = "[attestation]\nidentity_handle = ''\nregistration_id = { from = 'tpm-ek', encoding = 'base32' }\ntcti = ''";
    let loaded = load(&[(MAIN, &main), (DROP_IN, drop_in)], &[]).unwrap();
    let registration_id = from(IdentitySource::TpmEk(Encoding::Base32), "");
    assert_eq!(loaded.config.attestation, Profile::Tpm { registration_id, tpm: usual() });
    let again = load(&[(MAIN, &main), (DROP_IN, drop_in), ("/a", "[attestation]\nregistration_id = ''")], &[]).unwrap();
    assert_eq!(*again.config.attestation.registration_id(), from(IdentitySource::TpmEk(Encoding::Hex), ""));
}

#[test]
fn what_is_shown_means_the_same_again() {
    for lines in [
        "",
        "registration_id = { from = 'tpm-ek', encoding = 'base32' }\nidentity_handle = '0x81000100'",
        "registration_id = { from = 'file:/it\"s' }\nowner_auth_file = '/o'",
    ] {
        let loaded = load(&[(MAIN, &format!("{TPM}{lines}"))], &[]).unwrap();
        let shown = loaded.to_toml();
        assert_eq!(config(&shown), loaded.config, "{shown}");
    }
    let loaded = load(&[("F", &format!("{TPM}registration_id = {{ from = 'tpm-ek' }}"))], &[]).unwrap();
    let shown = loaded.to_toml();
    assert!(shown.contains("registration_id = { from = \"tpm-ek\", encoding = \"hex\" }  # F:5\n"), "{shown}");
    assert!(shown.contains("ek_handle = \"0x81010001\"  # default\n"), "{shown}");
    let expected = json!({ "value": { "from": "tpm-ek", "encoding": "hex" }, "origin": "F:5" });
    assert_eq!(loaded.to_json()["attestation"]["registration_id"], expected);
    assert!(!load(&[("F", KEY)], &[]).unwrap().to_toml().contains("tcti"));
}
