//! What is whole is understood exactly, key by key; what is doubtful is warned of.

use std::path::PathBuf;

use serde_json::json;

use super::{KEY, MAIN, X509, load};
use crate::config::{
    Config, Dps, Gateway, Handoff, Hub, IdentitySource, KeySource, Payload, Profile, Proxy, ProxyCredentials,
    RegistrationIdSource, Trust, Verify,
};
use crate::protocol::Via::{Https, Mqtt, MqttWs};

fn config(text: &str) -> Config {
    load(&[(MAIN, text)], &[]).unwrap_or_else(|errors| panic!("{text}\n{errors}")).config
}

/// The symmetric key's configuration with lines in `[dps]`.
fn dps(lines: &str) -> Config {
    config(&KEY.replacen("[attestation]", &format!("{lines}\n[attestation]"), 1))
}

#[test]
fn the_least_that_works_has_every_default() {
    let expected = Config {
        dps: Dps {
            host: "global.azure-devices-provisioning.net".parse().unwrap(),
            id_scope: "0ne1".parse().unwrap(),
            routes: vec![Mqtt, MqttWs, Https],
            mqtt_port: 8883,
            https_port: 443,
            api_version: "2021-06-01".to_owned(),
            payload: None,
        },
        attestation: Profile::SymmetricKey {
            registration_id: RegistrationIdSource::Written("gw-1".parse().unwrap()),
            primary: KeySource::File(PathBuf::from("/k")),
            secondary: None,
        },
        hub: Hub { routes: vec![Mqtt, MqttWs], mqtt_port: 8883, https_port: 443, verify: Verify::OnChange, gateway: None },
        trust: Trust::System,
        proxy: None,
        trust_service_date: false,
        state_directory: PathBuf::from("/var/lib/dps-agent"),
        runtime_directory: PathBuf::from("/run/dps-agent"),
        handoff: Handoff::default(),
    };
    assert_eq!(config(KEY), expected);
}

#[test]
fn everything_that_can_be_written_arrives() {
    let text = r#"
        [dps]
        host = "my.azure-devices-provisioning.cn"
        id_scope = "0cn1"
        transport = "mqtt-ws"
        mqtt_port = 1883
        https_port = 8443
        ca_file = "/roots.pem"
        ca_only = true
        api_version = "2025-07-01-preview"
        payload = '{"modelId":"dtmi:x;1"}'
        proxy = "http://[::1]:3128/"
        proxy_credentials_file = "/proxy"
        [attestation]
        method = "symmetric-key"
        registration_id_from = "mac:eth0"
        registration_id_prefix = "Gw-"
        key_credential = "device.key"
        secondary_key_file = "/second"
        [hub]
        transport = "mqtt"
        mqtt_port = 2
        https_port = 3
        verify = "never"
        gateway_host = "edge"
        gateway_ca_file = "/edge.pem"
        [state]
        directory = "/s"
        [runtime]
        directory = "/r"
    "#;
    let expected = Config {
        dps: Dps {
            host: "my.azure-devices-provisioning.cn".parse().unwrap(),
            id_scope: "0cn1".parse().unwrap(),
            routes: vec![MqttWs],
            mqtt_port: 1883,
            https_port: 8443,
            api_version: "2025-07-01-preview".to_owned(),
            payload: Some(Payload::Inline(json!({ "modelId": "dtmi:x;1" }))),
        },
        attestation: Profile::SymmetricKey {
            registration_id: RegistrationIdSource::From {
                source: IdentitySource::Mac("eth0".to_owned()),
                prefix: "Gw-".to_owned(),
            },
            primary: KeySource::Credential("device.key".to_owned()),
            secondary: Some(KeySource::File(PathBuf::from("/second"))),
        },
        hub: Hub {
            routes: vec![Mqtt],
            mqtt_port: 2,
            https_port: 3,
            verify: Verify::Never,
            gateway: Some(Gateway { host: "edge".parse().unwrap(), ca_file: Some(PathBuf::from("/edge.pem")) }),
        },
        trust: Trust::Only(PathBuf::from("/roots.pem")),
        proxy: Some(Proxy {
            host: "::1".parse().unwrap(),
            port: 3128,
            credentials: Some(ProxyCredentials::File(PathBuf::from("/proxy"))),
            except: vec![],
        }),
        trust_service_date: false,
        state_directory: PathBuf::from("/s"),
        runtime_directory: PathBuf::from("/r"),
        handoff: Handoff::default(),
    };
    assert_eq!(config(text), expected);
}

#[test]
fn x509_takes_its_id_from_the_certificate_unless_told_otherwise() {
    let profile = |registration_id| Profile::X509 { registration_id, chain: PathBuf::from("/c"), key: PathBuf::from("/p") };
    let from = |source, prefix: &str| RegistrationIdSource::From { source, prefix: prefix.to_owned() };
    let cases = [
        ("", from(IdentitySource::CertificateCn, "")),
        ("registration_id_from = 'certificate-cn'", from(IdentitySource::CertificateCn, "")),
        ("registration_id = 'gw-1'", RegistrationIdSource::Written("gw-1".parse().unwrap())),
        ("registration_id_from = 'dmi-serial'\nregistration_id_prefix = 'gw-'", from(IdentitySource::DmiSerial, "gw-")),
        ("registration_id_from = 'device-tree-serial'", from(IdentitySource::DeviceTreeSerial, "")),
        ("registration_id_from = 'machine-id'", from(IdentitySource::MachineId, "")),
        ("registration_id_from = 'file:/etc/serial'", from(IdentitySource::File(PathBuf::from("/etc/serial")), "")),
    ];
    for (lines, id) in cases {
        assert_eq!(config(&format!("{X509}{lines}")).attestation, profile(id), "{lines}");
    }
}

#[test]
fn the_other_words_and_files_of_dps() {
    assert_eq!(dps("transport = 'https'").dps.routes, [Https]);
    assert_eq!(dps("transport = 'mqtt'").dps.routes, [Mqtt]);
    assert_eq!(dps("payload_file = '/p.json'").dps.payload, Some(Payload::File(PathBuf::from("/p.json"))));
    assert_eq!(dps("payload = '[1, null]'").dps.payload, Some(Payload::Inline(json!([1, null]))));
    assert_eq!(dps("ca_file = '/c'").trust, Trust::SystemAnd(PathBuf::from("/c")));
    assert_eq!(dps("ca_file = '/c'\nca_only = false").trust, Trust::SystemAnd(PathBuf::from("/c")));
    assert_eq!(dps("mqtt_port = 0xff").dps.mqtt_port, 255);
    assert_eq!(config(&format!("{KEY}[hub]\ntransport = 'mqtt-ws'")).hub.routes, [MqttWs]);
    assert_eq!(config(&format!("dps.transport = 'mqtt'\n{}", KEY.replace("[dps]\nid_scope", "dps.id_scope"))).dps.routes, [Mqtt]);
}

#[test]
fn an_id_about_which_the_documents_disagree_is_warned_of() {
    let text = KEY.replace("gw-1", "Gw_1");
    let loaded = load(&[("F", &text)], &[]).unwrap();
    let said: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let warning = "F:5: [attestation] registration_id: the documents of DPS disagree whether this ID is taken; lower-case letters, digits and dashes between them are taken for certain";
    assert_eq!(said, [warning]);
    assert_eq!(load(&[("F", KEY)], &[]).unwrap().warnings, []);
}
