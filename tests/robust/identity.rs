//! `identity` and `token`: what they print, to whom they give it, and that neither asks anybody nor gives a secret away.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::pki::{self, Algorithm, Leaf};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::gateway::{Gateway, KEY, emulator};

const HEADER: &str = "registrationId,attestation,endorsementKey,storageRootKey,sha1Thumbprint,sha256Thumbprint,certificate";

fn signature(key: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(key).unwrap()).unwrap();
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[expect(clippy::disallowed_methods, reason = "a test runs where clocks are right")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The parts of a token: what it is for, its signature, its end.
fn parts(token: &str) -> (String, String, u64) {
    let fields = token.strip_prefix("SharedAccessSignature ").unwrap().split('&');
    let fields: Vec<(&str, &str)> = fields.map(|field| field.split_once('=').unwrap()).collect();
    let [("sr", resource), ("sig", signature), ("se", expiry)] = fields[..] else { panic!("{token}") };
    let signature = signature.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    (resource.to_owned(), signature, expiry.parse().unwrap())
}

#[test]
fn an_identity_is_told_without_a_network_a_directory_or_a_secret() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https").set("dps.host = \"nowhere.invalid\"");
    for arguments in [&["identity"][..], &["identity", "--json"], &["identity", "--csv"], &["identity", "--csv-header"]] {
        let ran = gateway.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        assert!(ran.stdout.contains("gw-0001") && !ran.stdout.contains(KEY), "{ran:?}");
    }
    assert_eq!(gateway.run(&["identity", "--csv"]).stdout, "gw-0001,symmetric-key,,,,,\n");
    assert_eq!(gateway.run(&["identity", "--csv-header"]).stdout, format!("{HEADER}\ngw-0001,symmetric-key,,,,,\n"));
    let fingerprint = signature(KEY, "dps-agent: which key is this");
    let half: String = STANDARD.decode(fingerprint).unwrap()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let json = gateway.run(&["identity", "--json"]).json();
    assert_eq!(json["symmetricKey"]["fingerprint"], format!("symmetric-key:{half}"));
    assert!(!gateway.path("state").exists() && !gateway.path("run").exists());
}

#[test]
fn a_certificate_is_told_to_whoever_may_read_it_and_its_key_is_not_asked_for() {
    let emulator = emulator("", "");
    let leaf = Leaf::self_signed("gw-0001", Algorithm::EcP256, pki::VALID).unwrap();
    let (chain, key) = (leaf.chain_pem.clone(), leaf.key.pkcs8_pem());
    let gateway = Gateway::new(&emulator, "https").x509(&chain, &key);
    fs::remove_file(gateway.path("device-key.pem")).unwrap();
    let json = gateway.run(&["identity", "--json"]).json();
    let x509 = &json["x509"];
    let text = |name: &str| x509[name].as_str().unwrap().to_owned();
    assert_eq!((json["registrationId"].as_str(), text("commonName").as_str()), (Some("gw-0001"), "gw-0001"));
    assert_eq!(gateway.placed(&text("file")), "DIR/device.pem");
    let leaf = chain.split("-----END").next().unwrap();
    let base64: String = leaf.lines().skip(1).collect();
    assert_eq!(text("certificate"), base64);
    let line = gateway.run(&["identity", "--csv"]).stdout;
    assert_eq!(line, format!("gw-0001,x509,,,{},{},{base64}\n", text("sha1Thumbprint"), text("sha256Thumbprint")));

    let other = gateway.set("attestation.registration_id = \"gw-0002\"");
    let said = "the registration ID is \"gw-0002\" but the certificate's common name is \"gw-0001\"; with x509 they must be equal, in upper and lower case too";
    assert_eq!(other.error(&["identity"]), (78, said.to_owned()));
    fs::remove_file(other.path("device.pem")).unwrap();
    let said = "DIR/device.pem holds no usable certificate chain: No such file or directory (os error 2)";
    assert_eq!(other.error(&["identity"]), (77, said.to_owned()));
}

#[test]
fn an_identity_has_one_form() {
    let gateway = Gateway::new(&emulator("", ""), "https");
    let said = "--json and --csv are two forms of one answer; write one of them".to_owned();
    assert_eq!(gateway.error(&["identity", "--csv"]), (64, said.clone()));
    assert_eq!(gateway.error(&["identity", "--csv-header"]), (64, said));
}

#[test]
fn a_token_is_for_the_hub_and_lives_as_long_as_asked() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https");
    let assigned = gateway.run(&["provision", "--json"]).json();
    drop(emulator);
    let hub = assigned["assignedHub"].as_str().unwrap();
    for (arguments, life) in
        [(&["token"][..], 3600), (&["token", "--expiry-in", "10m"], 600), (&["token", "--expiry-in", "24h"], 86_400)]
    {
        let before = now();
        let ran = gateway.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
        let token = ran.stdout.strip_suffix('\n').unwrap();
        let (resource, signed, expiry) = parts(token);
        assert_eq!(resource, format!("{}%2Fdevices%2Fgw-0001", hub.replace(':', "%3A")));
        assert_eq!(signed, signature(KEY, &format!("{resource}\n{expiry}")));
        assert!((before + life..=now() + life).contains(&expiry), "{token}");
    }
    let json = gateway.run(&["token", "--json"]).json();
    assert_eq!((&json["assignedHub"], &json["deviceId"]), (&assigned["assignedHub"], &Value::from("gw-0001")));
    let (_, _, expiry) = parts(json["token"].as_str().unwrap());
    let shown = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(expiry));
    let time = json["expiresAt"].as_str().unwrap();
    assert!(time.ends_with('Z') && shown.contains(&time[11..19]), "{time} {shown}");
    assert_eq!(json.as_object().unwrap().len(), 4);
}

#[test]
fn a_token_wants_an_assignment_of_this_very_device() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https");
    let none = "not provisioned yet: no assignment is recorded for this device, so there is no hub to make a token for; `dps-agent provision` registers it";
    assert_eq!(gateway.error(&["token"]), (75, none.to_owned()));
    let ran = gateway.run(&["token"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr), ("", format!("dps-agent: {none}\n")));
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let mut gateway = gateway;
    gateway.file("device.key", 0o600, STANDARD.encode([7; 32]));
    assert_eq!(gateway.error(&["token"]), (75, none.to_owned()));
}

#[test]
fn the_key_that_the_service_took_is_the_one_that_signs() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "https");
    gateway.file("device.key", 0o600, STANDARD.encode([7; 32]));
    let second = gateway.file("second.key", 0o600, KEY);
    let gateway = gateway.set(&format!("attestation.secondary_key_file = \"{}\"", second.display()));
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let ran = gateway.run(&["token"]);
    let (resource, signed, expiry) = parts(ran.stdout.trim_end());
    assert_eq!(signed, signature(KEY, &format!("{resource}\n{expiry}")));
}

#[test]
fn a_certificate_makes_no_tokens() {
    let leaf = Leaf::self_signed("gw-0001", Algorithm::EcP256, pki::VALID).unwrap();
    let (chain, key) = (leaf.chain_pem.clone(), leaf.key.pkcs8_pem());
    let gateway = Gateway::new(&emulator("", ""), "https").x509(&chain, &key);
    let said = "with method = \"x509\" there are no tokens: the device shows certificate_file to the hub, with private_key_file, in the TLS handshake";
    assert_eq!(gateway.error(&["token"]), (64, said.to_owned()));
}
