//! A verb's bad end: whose fault, in which words, and what is known of it in DPS's own numbers.

use std::error::Error;
use std::time::Instant;

use serde_json::{Value, json};

use crate::attestation::AttestationError;
use crate::blame::Blame;
use crate::files::FileError;
use crate::protocol::Refusal;
use crate::protocol::registration::{GaveUp, Trouble};
use crate::record::RecordError;
use crate::tls::TlsError;

/// What DPS last said of the enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrollment {
    /// It has not been asked yet.
    NotAsked,
    /// The device may register.
    Accepted,
    /// It is disabled.
    Disabled,
    /// There is none with this registration ID.
    Missing,
    /// The device may not register, for another reason.
    Refused,
}

impl Enrollment {
    /// The word in JSON and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::Accepted => "accepted",
            Self::Disabled => "disabled",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }

    fn of(refusal: &Refusal) -> Option<Self> {
        match (refusal.blame(), refusal.final_status.as_deref(), refusal.status) {
            (Blame::Refused, Some("disabled"), _) => Some(Self::Disabled),
            (Blame::Refused, None, 404) => Some(Self::Missing),
            (Blame::Refused | Blame::Unauthorized, _, _) => Some(Self::Refused),
            (_, _, _) => None,
        }
    }
}

/// Why a verb did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Whose fault it is; the exit code follows from it.
    pub blame: Blame,
    /// What happened and what to do, for people.
    pub message: String,
    /// DPS's error code, such as 404201.
    pub code: Option<u32>,
    /// The key into the service's own logs.
    pub tracking_id: Option<String>,
    /// Not to be tried again before this moment.
    pub not_before: Option<Instant>,
    /// What it tells of the enrollment, if anything.
    pub enrollment: Option<Enrollment>,
}

impl Failure {
    /// A failure of which DPS has said nothing.
    pub fn new(blame: Blame, message: impl Into<String>) -> Self {
        Self { blame, message: message.into(), code: None, tracking_id: None, not_before: None, enrollment: None }
    }

    /// `{"error": …}`, as `--json` prints it.
    pub fn to_json(&self) -> Value {
        json!({
            "error": {
                "exitCode": self.blame.exit_code(),
                "blame": self.blame.word(),
                "message": self.message,
                "errorCode": self.code,
                "trackingId": self.tracking_id,
            }
        })
    }
}

impl From<GaveUp> for Failure {
    fn from(gave_up: GaveUp) -> Self {
        let trouble = &gave_up.trouble;
        let message = format!("{trouble}{}", advice(trouble));
        let (code, tracking_id, enrollment) = match trouble {
            Trouble::Refused(refusal) => (refusal.code, refusal.tracking_id.clone(), Enrollment::of(refusal)),
            Trouble::Lost(_) | Trouble::StillAssigning => (None, None, None),
        };
        Self { blame: trouble.blame(), message, code, tracking_id, not_before: gave_up.not_before, enrollment }
    }
}

/// The cure, where the trouble's own words do not hold it.
fn advice(trouble: &Trouble) -> &'static str {
    match (trouble, trouble.blame()) {
        (_, Blame::Unauthorized) => {
            "; the key or certificate may not be the enrolled one or may have expired, this machine's clock may be wrong, \
             an IP filter of the DPS instance may exclude this address (DPS does not say which), or something on the way may \
             have taken the client certificate off: `dps-agent check` tells what it can"
        }
        (Trouble::Refused(refusal), Blame::Refused) => refused(refusal),
        (Trouble::StillAssigning, _) => "; it was asked until the patience ended, and may come right on the next try",
        (Trouble::Lost(_), Blame::Clock) => "; set this machine's clock",
        (Trouble::Lost(_), Blame::Peer) => "; three answers in a row: whatever answers there may not be DPS",
        _ => "",
    }
}

fn refused(refusal: &Refusal) -> &'static str {
    match (refusal.status, refusal.final_status.as_deref()) {
        (_, Some("disabled")) => "; the enrollment is disabled: enable it in DPS",
        (_, Some(_)) => "; the cause is in the DPS instance: its allocation policy, its webhook or its link to the hub",
        (404, None) => {
            "; no enrollment with this registration ID in this ID scope: enroll the device, or correct id_scope or registration_id"
        }
        (_, None) => "; the service does not understand this request: check id_scope, registration_id and api_version",
    }
}

/// The error and what caused it, each thing said once.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

macro_rules! from_blamed {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.blame(), with_causes(&error))
            }
        }
    )+};
}

from_blamed!(AttestationError, FileError, RecordError, TlsError);
