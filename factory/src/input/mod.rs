//! What `dps-agent identity` printed, of one device or thousands: read, checked, and refused with file and line before anything is sent.

mod csv;
mod json;
mod raw;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::certificate::Certificate;
use crate::endorsement::EndorsementKey;
use crate::failure::{Blame, Failure};
use crate::id::{DeviceId, EnrollmentId};

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named; `-` is the standard input.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A device that asks to be enrolled.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Where it stands.
    pub place: Place,
    /// The name under which it will register.
    pub registration_id: EnrollmentId,
    /// Its name at the hub, where that is another one.
    pub device_id: Option<DeviceId>,
    /// By what it will prove itself.
    pub attestation: Attestation,
}

/// What the service has to know a device by.
#[derive(Debug, Clone)]
pub enum Attestation {
    /// A symmetric key, which no identity shows.
    SymmetricKey {
        /// Of the key that the device has already, if it said so.
        fingerprint: Option<String>,
    },
    /// Its own certificate.
    X509(Box<Certificate>),
    /// The endorsement key of its TPM.
    Tpm(Box<EndorsementKey>),
}

impl Attestation {
    /// The service's word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SymmetricKey { .. } => "symmetricKey",
            Self::X509(_) => "x509",
            Self::Tpm(_) => "tpm",
        }
    }

    /// What no two devices share: in words, and as a value.
    fn own(&self) -> Option<(&'static str, String)> {
        match self {
            Self::SymmetricKey { fingerprint } => Some(("symmetric key", fingerprint.clone()?)),
            Self::X509(certificate) => Some(("certificate", certificate.sha256())),
            Self::Tpm(key) => Some(("endorsement key", key.text().to_owned())),
        }
    }
}

/// Reads files, folders and (`-`) the standard input. `now` is in seconds since 1970.
///
/// # Errors
/// Everything that is wrong, a line for each thing: `FILE:LINE: what; the cure`.
pub fn read(sources: &[PathBuf], now: u64) -> Result<Vec<Identity>, Failure> {
    let (mut identities, mut problems) = (Vec::new(), Vec::new());
    for source in sources {
        for (name, text) in texts(source).map_err(|message| Failure::new(Blame::Input, message))? {
            for record in records(&name, &text) {
                match record.and_then(|record| record.check(now)) {
                    Ok(identity) => identities.push(identity),
                    Err(problem) => problems.push(problem),
                }
            }
        }
    }
    problems.extend(twins(&identities));
    if !problems.is_empty() {
        problems.push(format!("{} wrong, nothing was sent", problems.len()));
        return Err(Failure::new(Blame::Input, problems.join("\n")));
    }
    if identities.is_empty() {
        return Err(Failure::new(Blame::Input, "no identities there; give what dps-agent identity --json or --csv printed"));
    }
    Ok(identities)
}

/// JSON begins with a brace or a bracket; nothing else that we read does.
fn records(name: &str, text: &str) -> Vec<Result<raw::Raw, String>> {
    let file: Arc<str> = name.into();
    if text.trim_start().starts_with(['{', '[']) { json::records(&file, text) } else { csv::records(&file, text) }
}

/// What is the same in two devices and must not be.
fn twins(identities: &[Identity]) -> Vec<String> {
    let (mut names, mut keys) = (HashMap::new(), HashMap::new());
    let mut problems = Vec::new();
    for Identity { place, registration_id, attestation, .. } in identities {
        if let Some(first) = names.insert(registration_id.folded(), place) {
            let cure = "each device needs its own, and the service disregards case";
            problems.push(format!("{place}: registration ID {:?} stands at {first} too; {cure}", registration_id.as_str()));
        } else if let Some(first) = attestation.own().and_then(|own| keys.insert(own, place)) {
            let what = attestation.own().map_or("", |(what, _)| what);
            let cure = "a cloned device, or one that was read twice; keep one of them";
            problems.push(format!("{place}: {what} of {:?} is that of the device at {first}; {cure}", registration_id.as_str()));
        }
    }
    problems
}

fn texts(source: &Path) -> Result<Vec<(String, String)>, String> {
    if source == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| format!("-: cannot read the standard input: {error}"))?;
        return Ok(vec![("-".to_owned(), text)]);
    }
    let named = |error: std::io::Error| format!("{}: {error}", source.display());
    if !fs::metadata(source).map_err(named)?.is_dir() {
        return Ok(vec![(source.display().to_string(), fs::read_to_string(source).map_err(named)?)]);
    }
    let entries = fs::read_dir(source).map_err(named)?.collect::<Result<Vec<_>, _>>().map_err(named)?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(|path| is_ours(path)).collect();
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no .json, .jsonl or .csv file in this folder", source.display()));
    }
    files.iter().map(|file| texts(file)).try_fold(Vec::new(), |all, one| Ok([all, one?].concat()))
}

fn is_ours(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && path.extension().is_some_and(|extension| ["json", "jsonl", "csv"].iter().any(|ours| extension == *ours))
}
