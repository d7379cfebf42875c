//! `enroll`: what it makes of identities, and what it leaves alone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::{Bench, OWNER, STATION, certificate, ended, endorsement_key, tpm, with_input, x509};

/// So many of each kind in the scaled-down run; `cargo xtask factory-demo` has a thousand.
const EACH: u32 = 20;

fn csv_of_keys(count: u32) -> String {
    let lines: String = (0..count).map(|number| format!("key-{number:04},symmetric-key,,,,,\n")).collect();
    format!("registrationId,attestation,endorsementKey,storageRootKey,sha1Thumbprint,sha256Thumbprint,certificate\n{lines}")
}

#[test]
fn three_kinds_are_enrolled_with_read_and_write_alone_at_the_rate_and_never_throttled() {
    // 60 devices are 60 operations, and the list that is read before is one more than the service lets through in a minute.
    let bench = Bench::new("", "operations_per_minute = 60", "");
    let lines =
        (0..EACH).map(|number| format!("{}\n{}\n", tpm(&format!("tpm-{number:04}"), number), x509(&format!("x509-{number:04}"))));
    bench.put("lines.jsonl", &lines.collect::<String>());
    bench.put("keys.csv", &csv_of_keys(EACH));
    let arguments =
        ["enroll", "lines.jsonl", "keys.csv", "--keys", "keys", "--report", "report", "--output", "json", "--rate", "60"];
    let ran = bench.run_as(STATION, &arguments);
    assert_eq!((ran.code, ran.stderr.lines().last()), (Some(0), Some("dps-factory: 60 devices: 60 created")));
    assert!(ran.stderr.lines().all(|line| line.starts_with("dps-factory: ") && line.contains(" 60")), "{}", ran.stderr);
    assert_eq!(bench.emulator.throttled(), 0);
    let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(rows[0], json!({ "registrationId": "tpm-0000", "attestation": "tpm", "result": "created", "details": "" }));
    assert_eq!(rows.as_array().unwrap().len(), 60);

    let enrolled = bench.enrolled();
    assert_eq!(enrolled.len(), 60);
    assert_eq!(enrolled["tpm-0007"]["attestation"]["tpm"]["endorsementKey"], json!(endorsement_key(7)));
    assert_eq!(enrolled["x509-0019"]["attestation"]["type"], "x509");
    let shown = bench.run_as(OWNER, &["attestation", "show", "--enrollment-id", "key-0019", "--output", "json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["symmetricKey"]["primaryKey"], bench.read("keys/key-0019.key").trim());
    assert_eq!(shown["symmetricKey"]["secondaryKey"], bench.read("keys/key-0019.secondary.key").trim());
    let report: Value = serde_json::from_str(&bench.read("report/x509-0019.json")).unwrap();
    let expected = json!({ "registrationId": "x509-0019", "attestation": "x509", "instance": bench.instance(), "standing": "enrolled",
        "differences": [], "error": null, "note": null });
    assert_eq!((report, bench.files("report").len()), (expected, 60));
}

#[test]
fn a_second_run_changes_nothing() {
    let bench = Bench::plain();
    bench.put("lines.jsonl", &format!("{}\n{}\n", tpm("gw-1", 1), x509("gw-2")));
    bench.put("keys.csv", &csv_of_keys(3));
    let enroll = ["enroll", "lines.jsonl", "keys.csv", "--keys", "keys", "--report", "report"];
    assert_eq!(bench.run_as(STATION, &enroll).stdout, "5 devices: 5 created\n");
    let (enrolled, keys, reports) = (bench.enrolled(), bench.files("keys"), bench.files("report"));
    let before = bench.asked().len();
    let ran = bench.run_as(STATION, &enroll);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "5 devices: 5 unchanged\n"));
    assert_eq!(bench.asked()[before..], ["POST /enrollments/query"], "only read");
    assert_eq!((bench.enrolled(), bench.files("keys"), bench.files("report")), (enrolled, keys, reports));
}

#[test]
fn what_differs_is_shown_and_changed_only_with_update() {
    let bench = Bench::plain();
    bench.put("a.jsonl", &tpm("gw-1", 1));
    bench.run_as(STATION, &["enroll", "a.jsonl", "--iot-hubs", "localhost", "--initial-twin-tags", "{\"line\": 7}"]);
    bench.put("a.jsonl", &tpm("GW-1", 2));
    let differences = format!(
        "attestation.tpm.endorsementKey: {} → {}\n    reprovisionPolicy.migrateDeviceData: true → false\n",
        endorsement_key(1),
        endorsement_key(2)
    );
    let enroll = ["enroll", "a.jsonl", "--report", "report", "--reprovision-policy", "reprovisionandresetdata"];
    let ran = bench.run_as(STATION, &enroll);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stdout, format!("GW-1: differs\n    {differences}1 devices: 1 differs\n"));
    assert_eq!(ran.stderr, "dps-factory: 0 failed, 1 differ; --update changes what differs\n");
    assert_eq!(bench.enrolled()["gw-1"]["attestation"]["tpm"]["endorsementKey"], json!(endorsement_key(1)));
    let report: Value = serde_json::from_str(&bench.read("report/GW-1.json")).unwrap();
    assert_eq!(report["standing"], "differs");

    let dry = bench.run_as(STATION, &[&enroll[..], &["--update", "--dry-run"]].concat());
    assert_eq!((dry.code, dry.stdout), (Some(0), format!("GW-1: would-update\n    {differences}1 devices: 1 would-update\n")));
    let ran = bench.run_as(STATION, &[&enroll[..], &["--update"]].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "1 devices: 1 updated\n"));
    let record = &bench.enrolled()["gw-1"];
    assert_eq!(record["attestation"]["tpm"]["endorsementKey"], json!(endorsement_key(2)));
    assert_eq!(record["reprovisionPolicy"], json!({ "updateHubAssignment": true, "migrateDeviceData": false }));
    assert_eq!(record["initialTwin"]["tags"]["line"], 7, "what was not asked for stays");
}

#[test]
fn a_change_by_somebody_else_in_between_is_not_overwritten() {
    let bench = Bench::plain();
    bench.put("a.jsonl", &tpm("gw-1", 1));
    bench.run_as(STATION, &["enroll", "a.jsonl"]);
    // At four operations a minute a quarter of a minute lies between what it reads and what it writes.
    let mut slow = bench.command_as(STATION, &["enroll", "a.jsonl", "--update", "--ps", "disabled", "--rate", "4"]);
    let slow = slow.spawn().unwrap();
    let reads = || bench.asked().iter().filter(|line| line.starts_with("GET")).count();
    let mut seen = 0;
    while reads() < 2 {
        seen = bench.emulator.wait_for_change(seen, Duration::from_millis(100));
    }
    let other =
        bench.run_as(OWNER, &["enrollment", "update", "--enrollment-id", "gw-1", "--initial-twin-tags", "{\"by\": \"other\"}"]);
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    let ran = ended(slow);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.starts_with("gw-1: failed\n    the service answered 412"), "{}", ran.stdout);
    let record = &bench.enrolled()["gw-1"];
    assert_eq!((&record["initialTwin"]["tags"]["by"], &record["provisioningStatus"]), (&json!("other"), &json!("enabled")));
}

#[test]
fn one_that_the_service_does_not_take_is_named_and_can_be_tried_alone() {
    let bench = Bench::plain();
    let good: String = (0..12).map(|number| format!("{}\n", tpm(&format!("gw-{number}"), number))).collect();
    bench.put("a.jsonl", &good);
    // A record that came to be between the read and the write, with another key.
    bench.put("other.jsonl", &tpm("gw-5", 99));
    let refused = bench.run_as(STATION, &["enroll", "a.jsonl", "--report", "report", "--iot-hubs", "unlinked.azure-devices.net"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stdout.contains("gw-5: failed\n    the service answered 400"), "{}", refused.stdout);
    assert_eq!(
        refused.stderr,
        "dps-factory: 12 failed, 0 differ; run it again, with --report FOLDER --only-failed for these alone\n"
    );
    bench.run_as(STATION, &["enroll", "other.jsonl", "--report", "report"]);
    let ran = bench.run_as(STATION, &["enroll", "a.jsonl", "--report", "report", "--only-failed"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "11 devices: 11 created\n"), "gw-5 has not failed since");
}

#[test]
fn an_answer_that_is_lost_ends_in_the_same_state() {
    let bench = Bench::plain();
    bench.put("a.jsonl", &format!("{}\n{}\n", tpm("gw-1", 1), tpm("gw-2", 2)));
    assert_eq!(bench.run_as(STATION, &["enroll", "a.jsonl", "--dry-run"]).stdout, "2 devices: 2 would-create\n");
    assert!(bench.enrolled().is_empty());
    let before = bench.asked().len();
    // At ten operations a minute six seconds lie between the list and the bulk: time to arrange what becomes of its answer.
    let running = bench.command_as(STATION, &["enroll", "a.jsonl", "--rate", "10"]).spawn().unwrap();
    let mut seen = 0;
    while bench.asked().len() == before {
        seen = bench.emulator.wait_for_change(seen, Duration::from_millis(100));
    }
    bench.emulator.set_service_faults(&["service-api: late-drop"]).unwrap();
    let ran = ended(running);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "2 devices: 2 created\n"), "{}", ran.stderr);
    let mut asked = bench.asked()[before..].to_vec();
    asked.sort();
    let expected =
        ["GET /enrollments/gw-1", "GET /enrollments/gw-2", "POST /enrollments", "POST /enrollments", "POST /enrollments/query"];
    assert_eq!(asked, expected);
    assert_eq!(bench.enrolled().len(), 2);
}

#[test]
fn a_service_that_asks_for_time_gets_it() {
    let bench = Bench::plain();
    bench.put("a.jsonl", &tpm("gw-1", 1));
    bench.emulator.set_service_faults(&["service-api: status 429 retry-after=2"]).unwrap();
    let began = std::fs::metadata(bench.path("a.jsonl")).unwrap().modified().unwrap();
    let ran = bench.run_as(STATION, &["enroll", "a.jsonl"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "1 devices: 1 created\n"), "{}", ran.stderr);
    assert!(began.elapsed().unwrap().as_secs() >= 2);
    assert_eq!(ran.stderr, format!("dps-factory: {} answered 429, so we wait\n", bench.instance()));
}

#[test]
fn bad_input_sends_nothing() {
    let bench = Bench::plain();
    bench.put("a.jsonl", &format!("{}\n{}\n", tpm("gw-1", 1), tpm("gw-2", 1)));
    let ran = bench.run_as(STATION, &["enroll", "a.jsonl"]);
    assert_eq!(ran.code, Some(65));
    assert_eq!(
        ran.stderr,
        "dps-factory: a.jsonl:2: endorsement key of \"gw-2\" is that of the device at a.jsonl:1; a cloned device, or one that was read \
         twice; keep one of them\n1 wrong, nothing was sent\n"
    );
    assert_eq!(bench.asked(), [""; 0]);
    assert!(bench.emulator.transcript("entra").is_empty(), "not even signed in");
}

#[test]
fn identities_come_from_stdin_too() {
    let bench = Bench::plain();
    let ran = with_input(bench.command_as(STATION, &["enroll", "-"]), &tpm("gw-1", 1));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "1 devices: 1 created\n"));
    let ran = with_input(bench.command_as(STATION, &["enroll", "-"]), "gw-1,tpm,AAAA\n");
    assert_eq!(ran.code, Some(65));
    assert!(ran.stderr.starts_with("dps-factory: -:1: endorsement key: it is not a whole TPM2B_PUBLIC"), "{}", ran.stderr);
}

#[test]
fn symmetric_keys_are_given_made_or_left_to_the_service() {
    let bench = Bench::plain();
    let given = "YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=";
    bench.put("a.csv", "gw-1,symmetric-key,,,,,\n");
    let ran = bench.run_as(STATION, &["enroll", "a.csv"]);
    assert_eq!(ran.code, Some(65));
    let cure = "dps-factory: a.csv:1: device \"gw-1\" needs a key; --keys FOLDER is where it is or will be, --service-keys lets the service make it";
    assert_eq!(ran.stderr, format!("{cure}\n1 wrong, nothing was sent\n"));

    std::fs::create_dir(bench.path("keys")).unwrap();
    bench.put("keys/gw-1.key", given);
    assert_eq!(bench.run_as(STATION, &["enroll", "a.csv", "--keys", "keys"]).stdout, "1 devices: 1 created\n");
    let key_of = |id: &str| {
        let shown = bench.run_as(OWNER, &["attestation", "show", "--eid", id, "--output", "json"]).stdout;
        serde_json::from_str::<Value>(&shown).unwrap()["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned()
    };
    assert_eq!(key_of("gw-1"), given);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(bench.path("keys/gw-1.secondary.key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    bench.put("keys/gw-1.key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    assert_eq!(
        bench.run_as(STATION, &["enroll", "a.csv", "--keys", "keys"]).stdout,
        "1 devices: 1 unchanged\n",
        "keys are not read"
    );
    let ran = bench.run_as(OWNER, &["enroll", "a.csv", "--keys", "keys", "--check-keys"]);
    assert_eq!(
        ran.stdout,
        "gw-1: differs\n    attestation.symmetricKey.primaryKey: another key → the given key\n1 devices: 1 differs\n"
    );
    let ran = bench.run_as(OWNER, &["enroll", "a.csv", "--keys", "keys", "--check-keys", "--update"]);
    assert_eq!(ran.stdout, "1 devices: 1 updated\n");
    assert_eq!(key_of("gw-1"), bench.read("keys/gw-1.key"));

    bench.put("b.csv", "gw-2,symmetric-key,,,,,\n");
    assert_eq!(bench.run_as(STATION, &["enroll", "b.csv", "--service-keys"]).stdout, "1 devices: 1 created\n");
    let made = key_of("gw-2");
    let ran = bench.run_as(OWNER, &["enroll", "b.csv", "--service-keys", "--update", "--provisioning-status", "disabled"]);
    assert_eq!((ran.stdout.as_str(), key_of("gw-2")), ("1 devices: 1 updated\n", made.clone()), "an update keeps the key");
    let ran = bench.run_as(OWNER, &["enroll", "b.csv", "--keys", "keys", "--update", "--provisioning-status", "enabled"]);
    assert_eq!((ran.stdout.as_str(), key_of("gw-2")), ("1 devices: 1 updated\n", made), "also if the folder lacks it");
    assert!(!bench.path("keys/gw-2.key").exists());
}

#[test]
fn a_device_that_has_a_key_is_not_given_another() {
    let bench = Bench::plain();
    // HMAC-SHA256 of "dps-agent: which key is this" with the key of the file, its first eight bytes.
    let identity = |fingerprint: &str| json!({ "registrationId": "gw-1", "attestation": "symmetric-key", "symmetricKey": { "fingerprint": fingerprint, "secondKey": false } });
    std::fs::create_dir(bench.path("keys")).unwrap();
    bench.put("a.json", &identity("0000000000000000").to_string());
    let ran = bench.run_as(STATION, &["enroll", "a.json", "--keys", "keys"]);
    assert_eq!(
        ran.stderr,
        "dps-factory: a.json:1: device \"gw-1\" has a key already; put it into keys/gw-1.key\n1 wrong, nothing was sent\n"
    );
    bench.put("keys/gw-1.key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let ran = bench.run_as(STATION, &["enroll", "a.json", "--keys", "keys"]);
    assert_eq!(
        ran.stderr,
        "dps-factory: a.json:1: the key in keys/gw-1.key is not the one that device \"gw-1\" has\n1 wrong, nothing was sent\n"
    );
    bench.put("a.json", &identity(FINGERPRINT).to_string());
    assert_eq!(bench.run_as(STATION, &["enroll", "a.json", "--keys", "keys"]).stdout, "1 devices: 1 created\n");
}

/// Of the key 00 01 … 1f, as `dps-agent identity` prints it.
const FINGERPRINT: &str = "00a6d886c6242ce9";

#[test]
fn a_certificate_replaced_is_a_difference() {
    let bench = Bench::plain();
    bench.put("a.jsonl", &x509("gw-1"));
    assert_eq!(bench.run_as(STATION, &["enroll", "a.jsonl"]).stdout, "1 devices: 1 created\n");
    assert_eq!(bench.run_as(STATION, &["enroll", "a.jsonl"]).stdout, "1 devices: 1 unchanged\n");
    assert_ne!(certificate("gw-1"), certificate("gw-1"));
    bench.put("a.jsonl", &x509("gw-1"));
    let ran = bench.run_as(STATION, &["enroll", "a.jsonl"]);
    assert!(ran.stdout.starts_with("gw-1: differs\n    attestation.x509.clientCertificates.primary: SHA-256 "), "{}", ran.stdout);
    assert_eq!(bench.run_as(STATION, &["enroll", "a.jsonl", "--update"]).stdout, "1 devices: 1 updated\n");
    assert_eq!(bench.run_as(STATION, &["enroll", "a.jsonl"]).stdout, "1 devices: 1 unchanged\n");
}
