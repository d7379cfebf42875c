//! Each line that can go wrong without a peer, word for word.

use super::*;
use crate::attestation::Validity;
use crate::clock::Clock;
use crate::record::Record;

const NOON: u64 = 1_795_435_200;

fn said(check: &Check) -> (Outcome, &str, &str) {
    (check.outcome, &check.found, check.cure.as_deref().unwrap_or_default())
}

#[test]
fn a_clock_below_its_floor_is_named() {
    let check = clock::plausible(&Clock::with_floor(Some(4_000_000_000)));
    assert_eq!(check.outcome, Outcome::Failed(Blame::Clock));
    assert!(check.found.ends_with(" days behind that time (2096-10-02T07:06:40Z)"), "{}", check.found);
    assert_eq!(check.cure.as_deref(), Some("set this machine's clock: timedatectl set-ntp true, or date -s"));
    assert_eq!(clock::plausible(&Clock::with_floor(None)).outcome, Outcome::Ok);
}

#[test]
fn a_payload_file_that_is_none_is_named_before_a_registration_needs_it() {
    let text = "[dps]\nid_scope = \"0ne1\"\npayload_file = \"/dev/zero\"\n[attestation]\nmethod = \"symmetric-key\"\n\
                registration_id = \"gw-0001\"\nkey_file = \"/nowhere\"\n";
    let config = Config::from_layers(vec![("config.toml".into(), text.into())], &|_| None).unwrap().config;
    let check = offline::payload(&config).unwrap();
    assert_eq!(
        said(&check),
        (
            Outcome::Failed(Blame::Configuration),
            "dps.payload_file /dev/zero: not a file of at most 128 KiB",
            "write one JSON text into it, or remove payload_file"
        )
    );
}

#[test]
fn a_clock_that_differs_from_the_service_is_named_with_the_difference() {
    let cure = "set this machine's clock: timedatectl set-ntp true, or date -s";
    let against = |now| clock::against(Some("Mon, 23 Nov 2026 12:00:00 GMT"), now, "dps").unwrap();
    assert_eq!(against(NOON).tried, "compare it with the clock of dps");
    for (now, outcome, found, cure) in [
        (NOON, Outcome::Ok, "they differ by 0 s", ""),
        (NOON + 300, Outcome::Ok, "they differ by 5 min", ""),
        (
            NOON + 301,
            Outcome::Failed(Blame::Clock),
            "it is 5 min ahead: 2026-11-23T12:05:01Z here, 2026-11-23T12:00:00Z there",
            cure,
        ),
        (
            NOON - 3 * 3600,
            Outcome::Failed(Blame::Clock),
            "it is 3 h behind: 2026-11-23T09:00:00Z here, 2026-11-23T12:00:00Z there",
            cure,
        ),
    ] {
        assert_eq!(said(&against(now)), (outcome, found, cure));
    }
    for date in [None, Some("noon"), Some("")] {
        assert_eq!(clock::against(date, NOON, "dps"), None);
    }
}

#[test]
fn a_window_is_told_by_its_nearest_end() {
    const DAY: u64 = 86_400;
    let of = |from, until| clock::window(Validity { from, until }, NOON);
    assert_eq!(of(NOON, NOON + 30 * DAY).found, "valid for 30 more days");
    assert_eq!(of(NOON, NOON + 30 * DAY).outcome, Outcome::Ok);
    assert_eq!(of(NOON, NOON + 30 * DAY - 1).outcome, Outcome::Warning);
    assert_eq!(of(NOON, NOON).found, "valid for 0 more days");
    assert_eq!(of(0, NOON - 1).found, "the certificate expired 1 s ago");
    assert_eq!(of(NOON + 1, NOON + 9).found, "the certificate is not valid before 1 s from now");
}

#[test]
fn the_first_failure_decides_the_exit_code() {
    let mut tell = |_: &Check| {};
    let mut findings = Findings { checks: Vec::new(), tell: &mut tell };
    for (outcome, code) in [
        (Outcome::Ok, 0),
        (Outcome::Warning, 0),
        (Outcome::Skipped, 0),
        (Outcome::Failed(Blame::Unwritable), 73),
        (Outcome::Failed(Blame::Network), 73),
    ] {
        findings.add(Check::new(Id::Record, outcome, "", ""));
        assert_eq!(findings.exit_code(), code);
    }
    assert_eq!(findings.to_json()["ok"], false);
}

#[test]
fn answers_to_a_lookup_are_understood() {
    let answer = |status, body: &str| crate::protocol::Answer { status, body: body.into(), ..Default::default() };
    let told = |status, body: &str, record: Option<&Record>| {
        let check = service::standing(String::new(), &answer(status, body), record);
        (check.outcome, check.found)
    };
    for (status, body, outcome, found) in [
        (200, r#"{"status":"assigned","assignedHub":"h"}"#, Outcome::Ok, "assigned to h"),
        (200, r#"{"status":"assigning"}"#, Outcome::Ok, "it is enrolled and has no hub yet"),
        (200, r#"{"status":"disabled"}"#, Outcome::Failed(Blame::Refused), "the enrollment is disabled"),
        (200, r#"{"status":"failed"}"#, Outcome::Warning, "the last registration failed there"),
        (200, "<html>", Outcome::Failed(Blame::Peer), "an answer that makes no sense"),
        (200, r#"{"status":"assigned","assignedHub":"h/p"}"#, Outcome::Failed(Blame::Peer), "an answer that makes no sense"),
        (404, "", Outcome::Ok, "no registration yet: it has never registered, or is not enrolled in this ID scope"),
        (401, "", Outcome::Failed(Blame::Unauthorized), "the service answered 401"),
        (400, "", Outcome::Failed(Blame::Refused), "the service answered 400"),
        (503, "<html>", Outcome::Failed(Blame::Busy), "the service answered 503"),
    ] {
        assert_eq!(told(status, body, None), (outcome, found.to_owned()), "{status} {body}");
    }
}
