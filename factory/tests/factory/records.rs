//! `enrollment`, `enrollment-group`, `registration`, `attestation` and `derive-key`, one after the other as a person would.

use serde_json::{Value, json};

use crate::bench::{Bench, OWNER, Ran, certificate, endorsement_key, with_input};

const KEY: &str = "YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=";

fn owner(bench: &Bench, arguments: &[&str]) -> Ran {
    bench.run_as(OWNER, arguments)
}

/// What it printed as JSON; it must have gone well.
fn answer(bench: &Bench, arguments: &[&str]) -> Value {
    let ran = owner(bench, &[arguments, &["--output", "json"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn an_enrollment_is_created_shown_changed_and_deleted() {
    let bench = Bench::plain();
    bench.put("key", KEY);
    let create =
        ["enrollment", "create", "--enrollment-id", "gw-1", "--attestation-type", "symmetricKey", "--primary-key-file", "key"];
    let more =
        ["--device-id", "other", "--allocation-policy", "static", "--iot-hubs", "hub-b.localhost", "--edge-enabled", "true"];
    let created = answer(&bench, &[&create[..], &more[..]].concat());
    assert_eq!((&created["deviceId"], &created["iotHubs"]), (&json!("other"), &json!(["hub-b.localhost"])));
    assert_eq!((&created["allocationPolicy"], &created["capabilities"]["iotEdge"]), (&json!("static"), &json!(true)));

    let again = owner(&bench, &create);
    assert_eq!(
        (again.code, again.stderr.as_str()),
        (Some(69), "dps-factory: the enrollment \"gw-1\" is there already; update changes it\n")
    );

    let updated = answer(&bench, &["enrollment", "update", "--eid", "gw-1", "--provisioning-status", "disabled"]);
    assert_eq!((&updated["provisioningStatus"], &updated["deviceId"]), (&json!("disabled"), &json!("other")));
    let shown = answer(&bench, &["enrollment", "show", "--eid", "gw-1", "--show-keys"]);
    assert_eq!(shown["attestation"]["symmetricKey"]["primaryKey"], KEY, "an update keeps the keys");
    assert_eq!(answer(&bench, &["enrollment", "show", "--eid", "gw-1"])["attestation"], json!({ "type": "symmetricKey" }));

    let stale =
        owner(&bench, &["enrollment", "update", "--eid", "gw-1", "--ps", "enabled", "--etag", created["etag"].as_str().unwrap()]);
    assert_eq!(stale.code, Some(69));
    assert!(
        stale.stderr.contains("answered 412") && stale.stderr.contains("the record was changed since it was read"),
        "{}",
        stale.stderr
    );

    assert_eq!(owner(&bench, &["enrollment", "delete", "--eid", "gw-1"]).code, Some(0));
    let gone = owner(&bench, &["enrollment", "show", "--eid", "gw-1"]);
    assert_eq!((gone.code, gone.stderr.as_str()), (Some(69), "dps-factory: there is no enrollment \"gw-1\" at this instance\n"));
}

#[test]
fn certificates_and_endorsement_keys_are_enrolled_by_hand_too() {
    let bench = Bench::plain();
    bench.put("gw-1.pem", &certificate("gw-1"));
    bench.put("spare.pem", &certificate("gw-1"));
    let x509 = ["enrollment", "create", "--eid", "gw-1", "--at", "x509", "--cp", "gw-1.pem", "--scp", "spare.pem"];
    let certificates = &answer(&bench, &x509)["attestation"]["x509"]["clientCertificates"];
    assert_ne!(certificates["primary"]["info"]["sha256Thumbprint"], certificates["secondary"]["info"]["sha256Thumbprint"]);
    let key = endorsement_key(1);
    let tpm = answer(&bench, &["enrollment", "create", "--eid", "gw-2", "--at", "tpm", "--ek", &key]);
    assert_eq!(tpm["attestation"]["tpm"]["endorsementKey"], key);
    let listed = owner(&bench, &["enrollment", "list", "--output", "csv"]).stdout;
    let rows: Vec<_> = listed.lines().map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(rows, ["registrationId,attestation,status", "gw-1,x509,enabled", "gw-2,tpm,enabled"]);

    for (arguments, message) in [
        (
            vec!["--at", "tpm", "--ek", "AAAA"],
            "--endorsement-key: it is not a whole TPM2B_PUBLIC: its first two bytes are not the length of the rest",
        ),
        (vec!["--at", "tpm"], "tpm needs --endorsement-key"),
        (vec!["--at", "x509"], "x509 needs --certificate-path"),
        (vec!["--at", "symmetricKey", "--cp", "gw-1.pem"], "--certificate-path goes with --attestation-type x509"),
        (vec![], "create needs --attestation-type symmetricKey, x509 or tpm"),
        (
            vec!["--at", "symmetricKey", "--tags", "{"],
            "--initial-twin-tags: not JSON: EOF while parsing an object at line 1 column 1",
        ),
    ] {
        let ran = owner(&bench, &[&["enrollment", "create", "--eid", "gw-3"], &arguments[..]].concat());
        assert_eq!(ran.stderr, format!("dps-factory: {message}\n"));
    }
}

#[test]
fn lists_are_read_page_by_page() {
    let bench = Bench::new("", "page_size = 7", "");
    let lines: String = (0..30).map(|number| format!("{}\n", crate::bench::tpm(&format!("gw-{number:02}"), number))).collect();
    bench.put("a.jsonl", &lines);
    assert_eq!(owner(&bench, &["enroll", "a.jsonl"]).stdout, "30 devices: 30 created\n");
    assert_eq!(answer(&bench, &["enrollment", "list"]).as_array().unwrap().len(), 30);
    assert_eq!(answer(&bench, &["enrollment", "query", "SELECT * FROM enrollments", "--top", "9"]).as_array().unwrap().len(), 9);
    assert_eq!(owner(&bench, &["enroll", "a.jsonl"]).stdout, "30 devices: 30 unchanged\n");
}

#[test]
fn one_device_among_many_is_asked_for_by_its_name() {
    let bench = Bench::new("", "page_size = 2", "");
    let lines: String = (0..12).map(|number| format!("{}\n", crate::bench::tpm(&format!("gw-{number:02}"), number))).collect();
    bench.put("a.jsonl", &lines);
    bench.put("three.jsonl", &lines.lines().skip(9).collect::<Vec<_>>().join("\n"));
    owner(&bench, &["enroll", "a.jsonl"]);
    let before = bench.asked().len();
    assert_eq!(owner(&bench, &["enroll", "three.jsonl"]).stdout, "3 devices: 3 unchanged\n");
    let mut asked = bench.asked()[before..].to_vec();
    asked.sort();
    let expected = [
        "GET /enrollments/gw-09",
        "GET /enrollments/gw-10",
        "GET /enrollments/gw-11",
        "POST /enrollments/query",
        "POST /enrollments/query",
    ];
    assert_eq!(asked, expected, "no more pages than devices");
}

#[test]
fn a_group_with_a_key_and_keys_derived_from_it() {
    let bench = Bench::plain();
    let group = answer(&bench, &["enrollment-group", "create", "--enrollment-id", "line-7"]);
    assert_eq!(group["attestation"], json!({ "type": "symmetricKey" }));
    let shown = answer(&bench, &["attestation", "show", "--group-id", "line-7"]);
    let key = shown["symmetricKey"]["primaryKey"].as_str().unwrap();
    let through_the_service = owner(&bench, &["derive-key", "--enrollment-id", "line-7", "--registration-id", "gw-1"]);
    let from_stdin = with_input(bench.command(&["derive-key", "--key-file", "-", "--registration-id", "gw-1"]), key);
    assert_eq!((through_the_service.stdout.as_str(), through_the_service.code), (from_stdin.stdout.as_str(), Some(0)));

    // Microsoft's own example (DPS device API §4.3).
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/data/test-vectors.json")).unwrap();
    let published = &vectors["derived_device_keys"][0];
    bench.put("group.key", published["group_key_b64"].as_str().unwrap());
    let id = published["registration_id"].as_str().unwrap();
    let derived = bench.run(&["derive-key", "--key-file", "group.key", "--registration-id", id]);
    assert_eq!(derived.stdout.trim(), published["published_b64"]);
    let written = bench.run(&["derive-key", "--key-file", "group.key", "--registration-id", id, "gw-2", "--keys", "keys"]);
    assert_eq!(written.stdout, format!("keys/{id}.key\nkeys/gw-2.key\n"));
    assert_eq!(bench.read(&format!("keys/{id}.key")).trim(), published["published_b64"]);
    bench.put("keys/gw-2.key", KEY);
    let other = bench.run(&["derive-key", "--key-file", "group.key", "--registration-id", "gw-2", "--keys", "keys"]);
    assert_eq!(
        (other.code, other.stderr.as_str()),
        (Some(65), "dps-factory: keys/gw-2.key: another key is there; move it away first\n")
    );

    let updated = answer(&bench, &["enrollment-group", "update", "--eid", "line-7", "--rp", "never"]);
    assert_eq!(updated["reprovisionPolicy"], json!({ "updateHubAssignment": false, "migrateDeviceData": false }));
    assert_eq!(answer(&bench, &["attestation", "show", "--gid", "line-7"]), shown, "an update keeps the keys");
    assert_eq!(owner(&bench, &["enrollment-group", "delete", "--eid", "line-7"]).code, Some(0));
    assert_eq!(answer(&bench, &["enrollment-group", "list"]), json!([]));
}

#[test]
fn a_group_with_a_certificate_and_no_key() {
    let bench = Bench::plain();
    bench.put("ca.crt", &certificate("Line 7 CA"));
    let group = answer(&bench, &["enrollment-group", "create", "--eid", "line-7", "--certificate-path", "ca.crt"]);
    let thumbprint = group["attestation"]["x509"]["signingCertificates"]["primary"]["info"]["sha256Thumbprint"].as_str();
    assert_eq!(thumbprint.map(str::len), Some(64));
    let none = owner(&bench, &["derive-key", "--eid", "line-7", "--rid", "gw-1"]);
    assert_eq!(
        (none.code, none.stderr.as_str()),
        (Some(65), "dps-factory: the group \"line-7\" has no symmetric key to derive from\n")
    );
    let unknown = owner(&bench, &["enrollment-group", "create", "--eid", "line-8", "--ca-name", "nobody"]);
    assert_eq!(unknown.code, Some(69));
    assert!(unknown.stderr.contains("answered 400 (No certificate is called nobody.)"), "{}", unknown.stderr);
}

#[test]
fn a_registration_that_never_was_is_told() {
    let bench = Bench::plain();
    let ran = owner(&bench, &["registration", "show", "--registration-id", "gw-1"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(69), "dps-factory: there is no registration \"gw-1\" at this instance\n"));
    let error = owner(&bench, &["registration", "delete", "--rid", "gw-1", "--output", "json"]);
    let error: Value = serde_json::from_str(&error.stdout).unwrap();
    assert_eq!((&error["error"]["status"], &error["error"]["blame"]), (&json!(404), &json!("refused")));
}
