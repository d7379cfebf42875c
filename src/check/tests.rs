//! Each line that can go wrong without a peer, word for word.

use super::*;
use crate::attestation::{AttestationError, Validity};
use crate::clock::Clock;
use crate::config::{EkUnique, TpmSettings};
use crate::record::Record;
use crate::tpm::{Examination, Occupant, TpmError};

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
        (404, "", Outcome::Warning, "it knows no registration of this device: it has never registered, or is not enrolled"),
        (401, "", Outcome::Failed(Blame::Unauthorized), "the service answered 401"),
        (400, "", Outcome::Failed(Blame::Refused), "the service answered 400"),
        (503, "<html>", Outcome::Failed(Blame::Busy), "the service answered 503"),
    ] {
        assert_eq!(told(status, body, None), (outcome, found.to_owned()), "{status} {body}");
    }
}

fn settings(identity_handle: Option<u32>) -> TpmSettings {
    TpmSettings {
        tcti: "device:/dev/tpmrm0".to_owned(),
        owner_auth: None,
        endorsement_auth: None,
        ek_handle: 0x8101_0001,
        srk_handle: 0x8100_0001,
        identity_handle,
        ek_unique: EkUnique::Tcg,
    }
}

/// The lines about a TPM: id, outcome, what was tried, found and cure.
fn tpm_lines(identity_handle: Option<u32>, examination: Result<Examination, AttestationError>) -> Vec<[String; 5]> {
    let checks = tpm::told(&settings(identity_handle), &examination);
    let text = |check: Check| {
        let [id, outcome] = [check.id.name(), check.outcome.word()].map(str::to_owned);
        [id, outcome, check.tried, check.found, check.cure.unwrap_or_default()]
    };
    checks.into_iter().map(text).collect()
}

const ASKED: &str = "ask device:/dev/tpmrm0 what it is";
const EK: &str = "look at handle 0x81010001";
const SRK: &str = "look at handle 0x81000001";
const IDENTITY: &str = "look at handle 0x81000100";

#[test]
fn a_tpm_is_told_by_its_name_and_its_handles() {
    let found = Examination {
        vendor: "IBM SW TPM 1.2.3.4".to_owned(),
        locked: None,
        endorsement_key: Occupant::Fitting,
        storage_key: Occupant::Nothing,
        identity: None,
    };
    let made = "nothing yet: the key is made and put there when it is needed first";
    assert_eq!(
        tpm_lines(None, Ok(found.clone())),
        [
            ["tpm", "ok", ASKED, "IBM SW TPM 1.2.3.4", ""],
            ["tpm-ek", "ok", EK, "an endorsement key", ""],
            ["tpm-srk", "ok", SRK, made, ""],
        ]
    );
    let found = Examination { endorsement_key: Occupant::Nothing, storage_key: Occupant::Fitting, ..found };
    let identity = |identity| tpm_lines(Some(0x8100_0100), Ok(Examination { identity: Some(identity), ..found.clone() }));
    assert_eq!(
        identity(Occupant::Nothing)[1..],
        [
            ["tpm-ek", "ok", EK, made, ""],
            ["tpm-srk", "ok", SRK, "a storage root key", ""],
            ["tpm-identity", "ok", IDENTITY, "nothing yet: the hub key is put there after a registration", ""],
        ]
    );
    assert_eq!(identity(Occupant::Fitting)[3], ["tpm-identity", "ok", IDENTITY, "a key that signs", ""]);
}

#[test]
fn what_is_foreign_in_a_tpm_is_named_with_what_follows_from_it() {
    let found = Examination {
        vendor: String::new(),
        locked: Some(Some(Duration::from_secs(600))),
        endorsement_key: Occupant::Foreign("an ECC key"),
        storage_key: Occupant::Foreign("an object of unknown type"),
        identity: Some(Occupant::Foreign("an RSA key")),
    };
    let anew = "that belongs to somebody else; it is left alone, and the key is made anew for each use, which is slow";
    let cure = |setting| format!("set {setting} in [attestation] to a free handle, or remove the object if nobody needs it");
    let locked = "a TPM that does not name its maker: the TPM is locked after too many wrong passwords for at most 600 s more";
    assert_eq!(
        tpm_lines(Some(0x8100_0100), Ok(found)),
        [
            ["tpm", "warning", ASKED, locked, "wait, or reset it with tpm2_dictionarylockout --clear-lockout"],
            ["tpm-ek", "warning", EK, &format!("an ECC key {anew}"), &cure("ek_handle")],
            ["tpm-srk", "warning", SRK, &format!("an object of unknown type {anew}"), &cure("srk_handle")],
            [
                "tpm-identity",
                "warning",
                IDENTITY,
                "an RSA key that belongs to somebody else; it is left alone, so programs that look there do not find the hub key",
                &cure("identity_handle"),
            ],
        ]
    );
}

#[test]
fn a_tpm_that_cannot_be_asked_is_told_with_the_cure() {
    let forbidden = TpmError::Forbidden { device: "/dev/tpmrm0".to_owned(), group: "tss".to_owned() };
    let cure = "add the agent's user to the group tss (in the unit: SupplementaryGroups=tss, DeviceAllow=/dev/tpmrm0 rw)";
    let first = "the TPM comes first";
    assert_eq!(
        tpm_lines(None, Err(forbidden.into())),
        [
            ["tpm", "failed", ASKED, "/dev/tpmrm0 is not open to this user", cure],
            ["tpm-ek", "skipped", EK, first, ""],
            ["tpm-srk", "skipped", SRK, first, ""],
        ]
    );
    let no_password = AttestationError::NoCredentials("owner".to_owned());
    let lines = tpm_lines(Some(0x8100_0100), Err(no_password));
    assert_eq!(lines[0], ["tpm", "skipped", ASKED, "a password for it cannot be read, see below", ""]);
    assert_eq!(lines[3], ["tpm-identity", "skipped", IDENTITY, first, ""]);
}

#[test]
fn a_challenge_that_the_tpm_cannot_answer_is_blamed_on_the_enrollment() {
    let rejected = TpmError::Rejected("it was made for another endorsement key".to_owned());
    let check = tpm::unanswered(String::new(), &rejected.into());
    assert_eq!(
        said(&check),
        (
            Outcome::Failed(Blame::Refused),
            "the TPM does not accept the key that DPS sent: it was made for another endorsement key",
            "enroll this endorsement key, which `dps-agent identity` prints"
        )
    );
    let check = tpm::unanswered(String::new(), &TpmError::Failed.into());
    assert_eq!(check.outcome, Outcome::Failed(Blame::Tpm));
    assert_eq!(check.cure.as_deref(), Some("power-cycle the gateway, and replace the TPM if it stays so"));
}

#[test]
fn a_tpm_that_is_not_challenged_is_enrolled_otherwise_or_not_at_all() {
    let told = |status| {
        let answer = crate::protocol::Answer { status, ..Default::default() };
        service::not_challenged(String::new(), &answer)
    };
    let cure = "enroll it: `dps-agent identity` prints what DPS has to know";
    assert_eq!(said(&told(404)), (Outcome::Failed(Blame::Refused), "the service answered 404", cure));
    let check = told(401);
    assert_eq!((check.outcome, check.found.as_str()), (Outcome::Failed(Blame::Unauthorized), "the service answered 401"));
    let cure = check.cure.unwrap();
    assert!(cure.starts_with("compare the endorsement key of the enrollment with the one that `dps-agent identity` prints; "));
    assert_eq!(told(503).cure.as_deref(), Some("try again later"));
}

#[test]
fn the_manual_explains_every_error_of_a_tpm() {
    let source = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tpm/error.rs"));
    let manual = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tpm.md"));
    let variants = source.split_once("pub enum TpmError {\n").unwrap().1.split_once("\n}\n").unwrap().0;
    let name = |line: &str| -> Option<String> {
        let rest = line.strip_prefix("    ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))?;
        Some(rest.chars().take_while(char::is_ascii_alphanumeric).collect())
    };
    let names: Vec<String> = variants.lines().filter_map(name).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in &names {
        assert!(manual.contains(&format!("\n| `{name}` | ")), "{name} is missing in docs/tpm.md");
    }
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name));
    for row in rows.filter(|row| row.starts_with(|c: char| c.is_ascii_uppercase())) {
        assert!(names.iter().any(|name| name == row), "there is no {row} any more");
    }
}
