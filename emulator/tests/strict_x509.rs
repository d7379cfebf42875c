//! Which certificates the provisioning service accepts.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::{FILTER, Mqtt, SCOPE, emulator, exchange, tls, user_name};
use dps_emulator::Emulator;
use dps_emulator::pki::{Algorithm, Authority, EXPIRED, Leaf, NOT_YET_VALID, VALID};

const EC: Algorithm = Algorithm::EcP256;

fn individual(leaf: &Leaf) -> String {
    format!(
        "[[enrollment]]\nregistration_id = \"gw\"\nanswer = \"at-once\"\ncertificate_pem = \"\"\"\n{}\"\"\"\n",
        leaf.certificate_pem
    )
}

fn group(ca: &Authority) -> String {
    format!("[[group]]\nname = \"fleet\"\nanswer = \"at-once\"\ncertificate_pem = \"\"\"\n{}\"\"\"\n", ca.certificate_pem())
}

/// What `leaf` gets as `id`: the status, or the error code.
fn mqtt(emulator: &Emulator, id: &str, leaf: Option<&Leaf>) -> String {
    let mut client = Mqtt::open(emulator, leaf);
    match client.connect(id, &user_name(id), None) {
        Ok(0) => {}
        other => return format!("{other:?}"),
    }
    assert_eq!(client.subscribe(FILTER, 1), Ok(1));
    outcome(&client.register().unwrap().1)
}

fn https(emulator: &Emulator, id: &str, leaf: Option<&Leaf>) -> String {
    let target = format!("/{SCOPE}/registrations/{id}/register?api-version=2021-06-01");
    let mut stream = tls(emulator, emulator.https_port(), leaf);
    outcome(&exchange(&mut stream, "PUT", &target, &[], "").unwrap().json())
}

fn outcome(body: &serde_json::Value) -> String {
    body["errorCode"].as_u64().map_or_else(|| body["status"].as_str().unwrap().to_owned(), |code| code.to_string())
}

#[test]
fn an_individual_enrollment_wants_its_own_certificate() {
    let leaf = Leaf::self_signed("gw", EC, VALID).unwrap();
    let emulator = emulator("", &individual(&leaf));
    assert_eq!(mqtt(&emulator, "gw", Some(&leaf)), "assigned");
    assert_eq!(https(&emulator, "gw", Some(&leaf)), "assigned");
    assert_eq!(mqtt(&emulator, "gw", None), "Ok(5)");
    assert_eq!(https(&emulator, "gw", None), "401000");
    let other = Leaf::self_signed("gw", EC, VALID).unwrap();
    assert_eq!(mqtt(&emulator, "gw", Some(&other)), "401002");
    let kinder = self::emulator("kinder = [\"skip-thumbprint\"]\ntls = [\"1.3\"]", &individual(&leaf));
    assert_eq!(mqtt(&kinder, "gw", Some(&other)), "assigned");
    assert_eq!(https(&emulator, "gw", Some(&other)), "401002");
    assert_eq!(mqtt(&emulator, "nobody", Some(&leaf)), "404201");
}

#[test]
fn it_must_be_valid_today_and_bear_the_registration_id() {
    let checked =
        |leaf: &Leaf, kinder: &str| mqtt(&emulator(&format!("kinder = [{kinder}]"), &individual(leaf)), "gw", Some(leaf));
    let expired = Leaf::self_signed("gw", EC, EXPIRED).unwrap();
    let future = Leaf::self_signed("gw", EC, NOT_YET_VALID).unwrap();
    let other = Leaf::self_signed("other", EC, VALID).unwrap();
    assert_eq!(checked(&expired, ""), "401002");
    assert_eq!(checked(&expired, "\"skip-expiry\""), "assigned");
    assert_eq!(checked(&future, ""), "401002");
    assert_eq!(checked(&other, ""), "401002");
    assert_eq!(checked(&other, "\"skip-cn\""), "assigned");
}

#[test]
fn a_group_wants_the_whole_chain() {
    let root = Authority::root("root", EC).unwrap();
    let intermediate = root.intermediate("intermediate", EC).unwrap();
    let leaf = intermediate.leaf("gw", EC, VALID).unwrap();
    let short = Leaf { chain_pem: leaf.certificate_pem.clone(), certificate_pem: String::new(), key: leaf.key.copy().unwrap() };
    let by_root = emulator("", &group(&root));
    assert_eq!(mqtt(&by_root, "gw", Some(&leaf)), "assigned");
    assert_eq!(https(&by_root, "gw", Some(&leaf)), "assigned");
    assert_eq!(mqtt(&by_root, "gw", Some(&short)), "401002");
    assert_eq!(https(&by_root, "gw", Some(&short)), "401002");
    assert_eq!(mqtt(&by_root, "gw2", Some(&leaf)), "401002", "the common name is another one");
    let by_intermediate = emulator("", &group(&intermediate));
    assert_eq!(mqtt(&by_intermediate, "gw", Some(&short)), "assigned");
    let kinder = emulator("kinder = [\"skip-chain\"]", &group(&root));
    assert_eq!(mqtt(&kinder, "gw", Some(&short)), "assigned");
    let stranger = Authority::root("root", EC).unwrap().leaf("gw", EC, VALID).unwrap();
    assert_eq!(mqtt(&by_root, "gw", Some(&stranger)), "401002");
    let late = intermediate.leaf("gw", EC, EXPIRED).unwrap();
    assert_eq!(mqtt(&by_root, "gw", Some(&late)), "401002");
}

#[test]
fn an_individual_enrollment_goes_before_a_group() {
    let root = Authority::root("root", EC).unwrap();
    let leaf = root.leaf("gw", EC, VALID).unwrap();
    let disabled = individual(&leaf).replace("answer = \"at-once\"", "enabled = false");
    let emulator = emulator("", &format!("{disabled}{}", group(&root)));
    assert_eq!(mqtt(&emulator, "gw", Some(&leaf)), "disabled");
}

#[test]
fn rsa_keys_and_websocket_work_too() {
    let root = Authority::root("root", Algorithm::Rsa2048).unwrap();
    let leaf = root.leaf("gw", Algorithm::Rsa2048, VALID).unwrap();
    let emulator = emulator("", &group(&root));
    let mut client = Mqtt::websocket(&emulator, Some(&leaf));
    assert_eq!(client.connect("gw", &user_name("gw"), None), Ok(0));
    assert_eq!(client.subscribe(FILTER, 1), Ok(1));
    assert_eq!(client.register().unwrap().1["status"], "assigned");
    assert!(leaf.key.traditional_pem().unwrap().starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
}

#[test]
fn ec_keys_are_written_as_sec1_that_others_read() {
    use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
    let leaf = Leaf::self_signed("gw", EC, VALID).unwrap();
    let der = PrivateKeyDer::from_pem_slice(leaf.key.traditional_pem().unwrap().as_bytes()).unwrap();
    assert!(matches!(der, PrivateKeyDer::Sec1(_)));
    let sec1 = rustls::crypto::ring::sign::any_ecdsa_type(&der).unwrap();
    let pkcs8 = PrivateKeyDer::from_pem_slice(leaf.key.pkcs8_pem().as_bytes()).unwrap();
    let pkcs8 = rustls::crypto::ring::sign::any_ecdsa_type(&pkcs8).unwrap();
    assert_eq!(sec1.public_key(), pkcs8.public_key());
}
