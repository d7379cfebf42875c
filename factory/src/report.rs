//! A file for each device: how it stands with the service. It tells a state and not a history, so a run that was killed and repeated
//! ends with the same files as one that was not.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::files;
use crate::id::EnrollmentId;
use crate::settings::Difference;

/// How a device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As it was asked.
    Enrolled,
    /// There, and not as it was asked.
    Differs(Vec<Difference>),
    /// The service does not take it; its words.
    Failed(String),
}

/// What a run did to come there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It was not there before.
    Created,
    /// It was there and different.
    Updated,
    /// Nothing.
    Left,
    /// It would be created, were it not a dry run.
    WouldCreate,
    /// It would be changed, were it not a dry run.
    WouldUpdate,
}

/// A device at the end of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its name.
    pub registration_id: EnrollmentId,
    /// The service's word for how it proves itself.
    pub attestation: &'static str,
    /// What was done.
    pub deed: Deed,
    /// How it stands.
    pub standing: Standing,
    /// What else should be known.
    pub note: Option<String>,
}

impl Outcome {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match (&self.standing, self.deed) {
            (Standing::Failed(_), _) => "failed",
            (_, Deed::WouldCreate) => "would-create",
            (_, Deed::WouldUpdate) => "would-update",
            (Standing::Differs(_), _) => "differs",
            (Standing::Enrolled, Deed::Created) => "created",
            (Standing::Enrolled, Deed::Updated) => "updated",
            (Standing::Enrolled, Deed::Left) => "unchanged",
        }
    }

    /// The differences, the service's words, and the note.
    pub fn details(&self) -> Vec<String> {
        let mut details = match &self.standing {
            Standing::Enrolled => Vec::new(),
            Standing::Differs(differences) => differences.iter().map(ToString::to_string).collect(),
            Standing::Failed(words) => vec![words.clone()],
        };
        details.extend(self.note.clone());
        details
    }

    /// A row of `enroll`'s output.
    pub fn row(&self) -> Value {
        json!({ "registrationId": self.registration_id.as_str(), "attestation": self.attestation, "result": self.word(),
            "details": self.details().join("; ") })
    }

    fn file(&self, instance: &str) -> Value {
        let (standing, differences, error) = match &self.standing {
            Standing::Enrolled => ("enrolled", Vec::new(), None),
            Standing::Differs(differences) => ("differs", differences.iter().map(ToString::to_string).collect(), None),
            Standing::Failed(words) => ("failed", Vec::new(), Some(words)),
        };
        json!({ "registrationId": self.registration_id.as_str(), "attestation": self.attestation, "instance": instance,
            "standing": standing, "differences": differences, "error": error, "note": self.note })
    }
}

/// The folder of the files.
#[derive(Debug, Clone)]
pub struct Reports(PathBuf);

impl Reports {
    /// It is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(path: PathBuf) -> Result<Self, Failure> {
        files::make_folder(&path, 0o755)?;
        Ok(Self(path))
    }

    /// Whether the file of this device says that it failed.
    pub fn has_failed(&self, id: &EnrollmentId) -> bool {
        let text = fs::read(self.path(id)).unwrap_or_default();
        serde_json::from_slice::<Value>(&text).is_ok_and(|report| report["standing"] == "failed")
    }

    /// Writes the file of a device.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, outcome: &Outcome, instance: &str) -> Result<(), Failure> {
        files::replace_quickly(&self.path(&outcome.registration_id), format!("{}\n", outcome.file(instance)).as_bytes(), 0o644)
    }

    fn path(&self, id: &EnrollmentId) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }
}
