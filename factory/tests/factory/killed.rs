//! Killed anywhere and run again, the program ends where an undisturbed run ends: at the service, in the key files, in the reports.

use std::time::Duration;

use serde_json::Value;

use crate::bench::{Bench, OWNER, STATION, ended, tpm};

const DEVICES: u32 = 40;
const ENROLL: [&str; 7] = ["enroll", "devices.jsonl", "keys.csv", "--keys", "keys", "--report", "report"];

fn bench() -> Bench {
    let bench = Bench::new("server_key = \"ecdsa\"", "", "");
    bench.put(
        "devices.jsonl",
        &(0..DEVICES / 2).map(|number| format!("{}\n", tpm(&format!("tpm-{number:02}"), number))).collect::<String>(),
    );
    bench.put("keys.csv", &(0..DEVICES / 2).map(|number| format!("key-{number:02},symmetric-key,,,,,\n")).collect::<String>());
    bench
}

/// All that an end consists of, without what differs between two benches: times, ETags, ports and the random keys themselves.
fn end(bench: &Bench) -> (Vec<(String, Value)>, Vec<String>, Vec<String>) {
    let enrolled = bench.enrolled().into_iter().map(|(id, record)| (id, record["attestation"].clone())).collect();
    // What the folder says is what the service has.
    let checked = bench.run_as(OWNER, &["enroll", "keys.csv", "--keys", "keys", "--check-keys", "--dry-run"]);
    assert_eq!(checked.stdout, "20 devices: 20 unchanged\n", "{}", checked.stderr);
    let keys = bench.files("keys");
    let reports = bench.files("report");
    let reports = reports.into_iter().map(|(name, text)| format!("{name} {}", text.replace(&bench.instance(), "HOST"))).collect();
    (enrolled, keys.into_keys().collect(), reports)
}

fn undisturbed() -> (Vec<(String, Value)>, Vec<String>, Vec<String>) {
    let bench = bench();
    assert_eq!(bench.run_as(STATION, &ENROLL).stdout, "40 devices: 40 created\n");
    end(&bench)
}

/// Kills it when so many requests have arrived, then runs it again.
fn killed_after(requests: usize, fault: &str) -> Bench {
    let bench = bench();
    let mut command = bench.command_as(STATION, &ENROLL);
    // The answer to the request at which it is killed must not come before the kill.
    bench.emulator.set_service_faults(&[fault]).unwrap();
    let mut child = command.spawn().unwrap();
    let mut seen = 0;
    while bench.asked().len() < requests && child.try_wait().unwrap().is_none() {
        seen = bench.emulator.wait_for_change(seen, Duration::from_millis(100));
    }
    child.kill().unwrap();
    ended(child);
    bench.emulator.set_service_faults(&[]).unwrap();
    let again = bench.run_as(STATION, &ENROLL);
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "killed after {requests} requests");
    bench
}

#[test]
fn killed_at_each_request_and_run_again_it_ends_in_the_same_state() {
    let expected = undisturbed();
    assert_eq!((expected.0.len(), expected.1.len(), expected.2.len()), (40, 40, 40));
    for requests in 0..=5 {
        for fault in ["service-api: late-drop x*", "service-api: slow 1 x*", "service-api: drop x*"] {
            assert_eq!(end(&killed_after(requests, fault)), expected, "killed after {requests} requests with {fault}");
        }
    }
}

#[test]
fn killed_while_it_writes_keys_and_reports_it_ends_in_the_same_state() {
    let expected = undisturbed();
    // Between two files: when so many are there.
    for files in [1, 3, 17, 41, 55, 79] {
        let bench = bench();
        let mut child = bench.command_as(STATION, &ENROLL).spawn().unwrap();
        let count = || bench.count("keys") + bench.count("report");
        // Only by looking can it be caught between two of them.
        while count() < files && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        ended(child);
        let again = bench.run_as(STATION, &ENROLL);
        assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "killed at {files} files");
        assert_eq!(end(&bench), expected, "killed at {files} files");
    }
}
