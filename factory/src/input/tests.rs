//! Identities as they come, and each way in which one is refused.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::certificate::tests::made as certificate;
use crate::endorsement::tests::made as endorsement_key;

/// 2026-01-01.
const NOW: u64 = 1_767_225_600;
const HEADER: &str = "registrationId,attestation,endorsementKey,storageRootKey,sha1Thumbprint,sha256Thumbprint,certificate";

/// A folder with files, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let name = format!("dps-factory-input-{}-{:?}", std::process::id(), std::thread::current().id());
        let folder = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        let _leftover = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
        Self(folder)
    }

    /// What is said of these files, without the folder before their names.
    fn problems(&self) -> String {
        let failure = read(std::slice::from_ref(&self.0), NOW).unwrap_err();
        assert_eq!(failure.blame, Blame::Input);
        failure.message.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tpm(registration_id: &str, byte: u8) -> Value {
    json!({ "registrationId": registration_id, "attestation": "tpm", "symmetricKey": null, "x509": null,
        "tpm": { "endorsementKey": endorsement_key(byte), "endorsementCertificate": null, "certifiedKey": null } })
}

fn x509(registration_id: &str, certificate: &str) -> Value {
    json!({ "registrationId": registration_id, "attestation": "x509", "x509": { "certificate": certificate } })
}

#[test]
fn files_of_both_kinds_are_read_in_the_order_of_their_names() {
    let csv = format!("{HEADER}\ngw-3,tpm,{},,,,\ngw-4,symmetric-key,,,,,\n", endorsement_key(0xc3));
    let lines = format!("{}\n{}\n", tpm("gw-1", 0xc1), x509("gw-2", &certificate("gw-2", 2030)));
    let array = serde_json::to_string_pretty(&json!([tpm("gw-5", 0xc5), tpm("gw-6", 0xc6)])).unwrap();
    let folder =
        Folder::with(&[("b.csv", &csv), ("a.jsonl", &lines), ("c.json", &array), ("notes.txt", "not ours"), (".x.csv", "no")]);
    let identities = read(std::slice::from_ref(&folder.0), NOW).unwrap();
    let seen = identities.iter().fold(String::new(), |mut seen, identity| {
        let file = identity.place.file.rsplit('/').next().unwrap();
        writeln!(seen, "{file}:{} {} {}", identity.place.line, identity.registration_id, identity.attestation.kind()).unwrap();
        seen
    });
    let expected = "a.jsonl:1 gw-1 tpm\na.jsonl:2 gw-2 x509\nb.csv:2 gw-3 tpm\nb.csv:3 gw-4 symmetricKey\nc.json:2 gw-5 tpm\nc.json:13 gw-6 tpm\n";
    assert_eq!(seen, expected);
}

#[test]
fn lines_without_column_names_are_what_identity_csv_prints() {
    let line = |id: &str, byte| format!("{id},tpm,{},AToA,,,\n", endorsement_key(byte));
    let folder = Folder::with(&[("a.csv", &format!("{}{HEADER}\n{}", line("gw-1", 0xc1), line("gw-2", 0xc2)))]);
    let identities = read(std::slice::from_ref(&folder.0), NOW).unwrap();
    assert_eq!(identities.iter().map(|identity| identity.registration_id.as_str()).collect::<Vec<_>>(), ["gw-1", "gw-2"]);
    assert_eq!(identities[1].place.line, 3);
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_file_and_line() {
    let csv = format!(
        "{HEADER}\ngw 1,symmetric-key,,,,,\ngw-2,tpm,AAAA,,,,\ngw-3,x509,,,,,\ngw-4,ecc,,,,,\ngw-5,,,,,,\ngw-6,tpm,a,b,c,d,e,f\n,tpm\n"
    );
    assert_eq!(
        Folder::with(&[("a.csv", &csv)]).problems(),
        "a.csv:2: registration ID \"gw 1\": it consists of letters, digits and '-', '.', '_', ':'\n\
         a.csv:3: endorsement key: it is not a whole TPM2B_PUBLIC: its first two bytes are not the length of the rest\n\
         a.csv:4: certificate is missing; a thumbprint alone cannot be enrolled\n\
         a.csv:5: attestation \"ecc\" is not symmetric-key, x509 or tpm\n\
         a.csv:6: attestation is missing; it is symmetric-key, x509 or tpm\n\
         a.csv:7: 8 values for 7 columns; a comma too much?\n\
         a.csv:8: registrationId is missing; take what dps-agent identity prints\n\
         7 wrong, nothing was sent"
    );
}

#[test]
fn one_name_for_two_devices_and_one_key_for_two_devices_are_refused() {
    let fingerprint = |id: &str| json!({ "registrationId": id, "attestation": "symmetric-key", "symmetricKey": { "fingerprint": "0123456789abcdef" } });
    let lines = [tpm("gw-1", 0xc1), tpm("GW-1", 0xc2), tpm("gw-2", 0xc1), fingerprint("gw-3"), fingerprint("gw-4")];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let folder = Folder::with(&[("a.jsonl", &text)]);
    let first = format!("{}/a.jsonl", folder.0.display());
    let problems = folder.problems().replace(&first, "a.jsonl");
    assert_eq!(
        problems,
        "a.jsonl:2: registration ID \"GW-1\" stands at a.jsonl:1 too; each device needs its own, and the service disregards case\n\
         a.jsonl:3: endorsement key of \"gw-2\" is that of the device at a.jsonl:1; a cloned device, or one that was read twice; keep one of them\n\
         a.jsonl:5: symmetric key of \"gw-4\" is that of the device at a.jsonl:4; a cloned device, or one that was read twice; keep one of them\n\
         3 wrong, nothing was sent"
    );
}

#[test]
fn a_certificate_is_valid_and_of_this_device() {
    let other = x509("gw-1", &certificate("gw-2", 2030));
    let expired = x509("gw-3", &certificate("gw-3", 2025));
    let mut damaged = x509("gw-4", &certificate("gw-4", 2030));
    damaged["x509"]["sha256Thumbprint"] = json!("00");
    let problems = Folder::with(&[("a.jsonl", &format!("{other}\n{expired}\n{damaged}\n"))]).problems();
    assert_eq!(
        problems,
        "a.jsonl:1: certificate: its common name is \"gw-2\" and the registration ID \"gw-1\"; they must be equal; \
         correct registration_id of the device, or issue its certificate anew\n\
         a.jsonl:2: certificate: expired at 2025-01-01T00:00:00Z; issue a new one (and look at this machine's clock)\n\
         a.jsonl:3: certificate: its SHA-256 is not the sha256Thumbprint beside it; the text was damaged on the way\n\
         3 wrong, nothing was sent"
    );
}

#[test]
fn an_endorsement_key_is_the_one_of_its_certificate() {
    let pem = include_str!("../../../tests/data/endorsement-certificate.pem");
    let certified =
        EndorsementKey::parse(&crate::endorsement::tests::of(&Certificate::parse(pem).unwrap().modulus().unwrap())).unwrap();
    let with = |key: &str, another: Option<&str>| {
        let mut identity = tpm("gw-1", 0xc1);
        identity["tpm"]["endorsementKey"] = json!(key);
        identity["tpm"]["endorsementCertificate"] = json!({ "certificate": pem });
        identity["tpm"]["certifiedKey"] = json!(another);
        Folder::with(&[("a.json", &identity.to_string())])
    };
    assert!(read(std::slice::from_ref(&with(certified.text(), None).0), NOW).is_ok());
    assert!(
        read(std::slice::from_ref(&with(&endorsement_key(0xc1), Some(certified.text())).0), NOW).is_ok(),
        "certified by another key of the same TPM"
    );
    let refused = "a.json:1: certificate of the endorsement key: it is for another key; another TPM's, or somebody has put a key of \
                   their own here; to enroll it without its certificate, set endorsementCertificate to null\n1 wrong, nothing was sent";
    assert_eq!(with(&endorsement_key(0xc1), None).problems(), refused);
    assert_eq!(with(&endorsement_key(0xc1), Some(&endorsement_key(0xc2))).problems(), refused);
}

#[test]
fn what_is_no_identity_is_told() {
    assert_eq!(
        Folder::with(&[("a.json", "{\n\"registrationId\": }")]).problems(),
        "a.json:2: not JSON: expected value at line 2 column 19\n1 wrong, nothing was sent"
    );
    let error = json!({ "error": { "message": "the TPM does not answer" } });
    assert_eq!(
        Folder::with(&[("a.json", &error.to_string())]).problems(),
        "a.json:1: dps-agent printed an error instead of an identity: the TPM does not answer\n1 wrong, nothing was sent"
    );
    assert_eq!(
        Folder::with(&[("a.json", "[]")]).problems(),
        "no identities there; give what dps-agent identity --json or --csv printed"
    );
    let folder = Folder::with(&[]);
    assert_eq!(folder.problems(), format!("{}: no .json, .jsonl or .csv file in this folder", folder.0.display()));
}
