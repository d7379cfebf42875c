//! What the agent remembers: one versioned, checksummed record of the last good assignment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_cert::der::DateTime;

use crate::blame::Blame;
use crate::files::{self, FileError, Lock};
use crate::tpm::{Memory, Name};

/// The version that is written. A field may be added under it; none is ever removed or given another meaning.
const VERSION: u32 = 1;

/// An adopted assignment and whose it is. It holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of the format.
    pub version: u32,
    /// Counts the changes of what consumers get, from 1.
    pub generation: u64,
    /// The tenant it belongs to.
    pub id_scope: String,
    /// The device it belongs to.
    pub registration_id: String,
    /// The key or certificate it belongs to, as `Attestation::fingerprint` has it.
    pub identity: String,
    /// The method of attestation.
    pub attestation: String,
    /// The hub, as DPS wrote it.
    pub assigned_hub: String,
    /// The device's name there.
    pub device_id: String,
    /// Why this hub, in DPS's word.
    pub substatus: Option<String>,
    /// What custom allocation returned.
    pub payload: Option<Value>,
    /// When DPS assigned it, in seconds since 1970, as [`certainly_past`] has it: the clock's floor from then on.
    pub assigned_at: u64,
    /// The verdict of the proof: `proven`, `unproven`, or `unverified` where none was wanted; `untried` before it has spoken.
    pub proof: String,
    /// The transport over which DPS was last reached.
    pub transport: String,
    /// Which of two keys the service accepted: `primary` or `secondary`.
    pub key: String,
    /// A registration was begun that may have replaced what the hub accepts, and its end is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// With a TPM: the keys by which this device signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<Memory>,
    /// With a TPM: the names of the last hub keys that were made here, the newest last, at most [`Record::MADE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<Name>,
    /// With a TPM: the record before this one, whose key is kept until the hub has accepted the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Box<Record>>,
    /// What a later version has added: kept, so that it can come back to it.
    #[serde(flatten)]
    pub later: Map<String, Value>,
}

impl Record {
    /// The version that [`Store::write`] puts into a record.
    pub const VERSION: u32 = VERSION;

    /// So many names of hub keys are remembered.
    pub const MADE: usize = 8;

    /// The proof's verdict of a record that is not adopted yet.
    pub const UNTRIED: &str = "untried";

    /// The record that is adopted: this one, or its predecessor while this one is untried.
    pub fn adopted(self) -> Option<Self> {
        if self.proof == Self::UNTRIED { self.predecessor.map(|predecessor| *predecessor) } else { Some(self) }
    }

    /// Whether it was made for this tenant, device and key.
    pub fn belongs_to(&self, id_scope: &str, registration_id: &str, identity: &str) -> bool {
        self.id_scope == id_scope && self.registration_id == registration_id && self.identity == identity
    }

    /// Whether consumers get the same from both, so that the generation stays.
    pub fn hands_off_the_same_as(&self, other: &Self) -> bool {
        self.assigned_hub == other.assigned_hub
            && self.device_id == other.device_id
            && self.identity == other.identity
            && self.payload == other.payload
    }

    /// What programs on the gateway may know of it: the content of `assignment.json`.
    pub fn public(&self) -> Value {
        json!({
            "generation": self.generation,
            "registrationId": self.registration_id,
            "assignedHub": self.assigned_hub,
            "deviceId": self.device_id,
            "substatus": self.substatus,
            "proof": self.proof,
            "attestation": self.attestation,
            "payload": self.payload,
            "assignedAt": rfc3339(self.assigned_at),
        })
    }
}

/// Why there is no record to use.
#[derive(Debug, Error)]
pub enum RecordError {
    /// A file or directory failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what was written.
    #[error("the record {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl RecordError {
    /// Whom to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::File(error) => error.blame(),
            Self::Damaged { .. } => Blame::Storage,
        }
    }
}

/// The directory of the record.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in this directory. Nothing is touched yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Creates the directory (0700) and finds out whether it can be written: before DPS is asked, not after.
    pub fn prepare(&self) -> Result<(), FileError> {
        files::make_directory(&self.directory, 0o700)?;
        files::probe_directory(&self.directory)
    }

    /// The right to register and to write the record; `None` while another agent has it.
    pub fn try_lock(&self) -> Result<Option<Lock>, FileError> {
        files::try_lock(&self.directory)
    }

    /// Whether something lies there half written.
    pub fn is_untidy(&self) -> bool {
        files::is_untidy(&self.path())
    }

    /// Removes what a killed predecessor has left half written.
    pub fn tidy(&self) {
        files::tidy(&self.path());
    }

    /// The record; `None` if there is none. Changes nothing.
    pub fn read(&self) -> Result<Option<Record>, RecordError> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FileError::Failed { action: "read", path, source }.into()),
        };
        parse(&text).map(Some).map_err(|why| RecordError::Damaged { path, why })
    }

    /// Replaces the record. After an error, or a power cut at any moment, the old one or the new one is there.
    pub fn write(&self, record: &Record) -> Result<(), FileError> {
        files::replace(&self.path(), &render(record), 0o600)
    }

    /// Moves a damaged record out of the way and tells where it is now.
    pub fn set_aside(&self) -> Result<PathBuf, FileError> {
        files::set_aside(&self.path())
    }

    /// The record's file.
    pub fn path(&self) -> PathBuf {
        self.directory.join("record")
    }
}

/// Two lines: the record as JSON, and the SHA-256 of the first line.
fn render(record: &Record) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "strings, numbers and JSON values always serialize")]
    let line = serde_json::to_string(record).expect("plain data");
    format!("{line}\nsha256 {}\n", checksum(line.as_bytes())).into_bytes()
}

fn parse(text: &[u8]) -> Result<Record, String> {
    let end = text.iter().position(|byte| *byte == b'\n').ok_or("its first line has no end")?;
    let (line, rest) = text.split_at(end);
    let written = std::str::from_utf8(rest).ok().and_then(|rest| rest.trim().strip_prefix("sha256 "));
    if written.ok_or("it has no checksum")? != checksum(line) {
        return Err("its checksum is wrong".into());
    }
    let record: Record = serde_json::from_slice(line).map_err(|error| format!("its checksum is right, but {error}"))?;
    match record.version {
        VERSION => Ok(record),
        other => Err(format!("it has version {other}, and this agent reads version {VERSION}")),
    }
}

fn checksum(line: &[u8]) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The earlier of our own time (seconds since 1970) and the service's (ISO 8601, UTC): a clock that runs ahead while a device
/// registers must not become the time below which the right one is not believed. Our own if the service tells none.
pub fn certainly_past(own: u64, service: Option<&str>) -> u64 {
    let to_the_second = service.and_then(|text| text.get(..19)).map(|text| format!("{text}Z"));
    let theirs = to_the_second.and_then(|text| text.parse::<DateTime>().ok());
    theirs.map_or(own, |theirs| theirs.unix_duration().as_secs().min(own))
}

/// Seconds since 1970 as `2026-11-23T10:00:00Z`.
pub fn rfc3339(seconds: u64) -> String {
    DateTime::from_unix_duration(Duration::from_secs(seconds)).map_or_else(|_| format!("@{seconds}"), |time| time.to_string())
}

#[cfg(test)]
impl Record {
    /// Any record, for tests.
    pub(crate) fn example() -> Self {
        Self {
            version: VERSION,
            generation: 3,
            id_scope: "0ne00000000".into(),
            registration_id: "gw-0001".into(),
            identity: "symmetric-key:00".into(),
            attestation: "symmetric-key".into(),
            assigned_hub: "h.azure-devices.net".into(),
            device_id: "gw-0001".into(),
            substatus: Some("initialAssignment".into()),
            payload: Some(json!({"a": [1, 2.5, null]})),
            assigned_at: 1_795_428_000,
            proof: "proven".into(),
            transport: "mqtt".into(),
            key: "primary".into(),
            unfinished: false,
            tpm: None,
            made: Vec::new(),
            predecessor: None,
            later: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> Store {
        let directory = std::env::temp_dir().join(format!("dps-agent-record-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let store = Store::new(&directory);
        store.prepare().unwrap();
        store
    }

    #[test]
    fn what_is_written_is_read() {
        let store = store("roundtrip");
        assert_eq!(store.read().unwrap(), None);
        store.write(&Record::example()).unwrap();
        assert_eq!(store.read().unwrap(), Some(Record::example()));
    }

    #[test]
    fn what_a_later_version_has_added_is_kept() {
        let later = Record { later: Map::from_iter([("wrappedKey".into(), json!("AAAA"))]), ..Record::example() };
        assert_eq!(parse(&render(&later)).unwrap(), later);
    }

    #[test]
    fn the_record_of_the_first_version_is_read_for_ever() {
        let line = r#"{"version":1,"generation":1,"idScope":"0ne","registrationId":"gw","identity":"x509:00","attestation":"x509","assignedHub":"h","deviceId":"d","substatus":null,"payload":null,"assignedAt":1795428000,"proof":"unproven","transport":"https","key":"primary"}"#;
        let record =
            parse(format!("{line}\nsha256 a3a43295edf25fc1914814a739ae7cfb0e8458c028e0cb258590bbbb6d080663\n").as_bytes());
        assert_eq!(record.unwrap().assigned_hub, "h");
    }

    /// What this version writes, as each later one must read it and write it again (docs/lifecycle.md, A/B).
    #[test]
    fn the_record_of_a_tpm_is_read_for_ever_and_written_as_it_was() {
        let text = include_bytes!("../tests/data/record-1-tpm");
        let record = parse(text).unwrap();
        assert_eq!((record.registration_id.as_str(), record.generation, record.made.len()), ("gw-0004", 1, 1));
        assert_eq!(String::from_utf8(render(&record)).unwrap(), String::from_utf8_lossy(text));
    }

    #[test]
    fn each_kind_of_damage_is_named_and_the_file_set_aside() {
        let good = render(&Record::example());
        let flipped = {
            let mut text = good.clone();
            text[20] ^= 1;
            text
        };
        let newer = {
            let line = serde_json::to_string(&Record { version: 2, ..Record::example() }).unwrap();
            format!("{line}\nsha256 {}\n", checksum(line.as_bytes())).into_bytes()
        };
        let foreign = format!("{{}}\nsha256 {}\n", checksum(b"{}")).into_bytes();
        for (text, why) in [
            (Vec::new(), "its first line has no end"),
            (good[..40].to_vec(), "its first line has no end"),
            (vec![0; 300], "its first line has no end"),
            (good[..good.len() - 80].to_vec(), "its first line has no end"),
            (good[..good.len() - 30].to_vec(), "its checksum is wrong"),
            (b"{}\n".to_vec(), "it has no checksum"),
            (flipped, "its checksum is wrong"),
            (newer, "it has version 2, and this agent reads version 1"),
            (foreign, "its checksum is right, but missing field `version` at line 1 column 2"),
        ] {
            let store = store("damage");
            fs::write(store.path(), &text).unwrap();
            let said = store.read().unwrap_err().to_string();
            assert_eq!(said, format!("the record {} is damaged: {why}", store.path().display()));
            let aside = store.set_aside().unwrap();
            assert_eq!((aside.file_name().unwrap().to_str(), fs::read(&aside).unwrap()), (Some("record.damaged-1"), text));
            assert_eq!(store.read().unwrap(), None);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named_with_its_blame() {
        let file = std::env::temp_dir().join(format!("dps-agent-record-{}-file", std::process::id()));
        fs::write(&file, "").unwrap();
        let error = Store::new(&file).prepare().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} is not a directory: remove it, or name another one in the configuration", file.display())
        );
        assert_eq!(error.blame(), Blame::Unwritable);
        let error = Store::new(&file.join("below")).prepare().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot create {}/below: Not a directory (os error 20)", file.display()));
    }

    #[test]
    fn only_what_both_clocks_have_passed_is_certainly_past() {
        let ten = Some("2026-11-23T10:00:00.1234567Z");
        assert_eq!(certainly_past(1_795_428_060, ten), 1_795_428_000);
        assert_eq!(certainly_past(4_000_000_000, ten), 1_795_428_000);
        assert_eq!(certainly_past(1_795_427_000, ten), 1_795_427_000);
        for none in [None, Some(""), Some("yesterday"), Some("2026-13-23T10:00:00Z"), Some("2026-11-23 10:00:00Z")] {
            assert_eq!(certainly_past(1_795_428_060, none), 1_795_428_060, "{none:?}");
        }
    }

    #[test]
    fn times_are_written_as_people_and_machines_read_them() {
        assert_eq!(rfc3339(1_795_428_000), "2026-11-23T10:00:00Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
