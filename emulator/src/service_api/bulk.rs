//! Many records in one call, each of which can fail alone (service API §2.2).

use super::access::{Kind, Operation};
use super::body::{Body, Known, Wanted};
use super::enrollments::{Condition, Obstacle};
use crate::service::State;
use serde::Deserialize;
use serde_json::{Value, json};

/// The documented limit.
const LARGEST: usize = 10;

/// The body of a bulk call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Bulk {
    mode: Mode,
    enrollments: Option<Vec<Value>>,
    enrollment_groups: Option<Vec<Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Mode {
    Create,
    Update,
    #[serde(rename = "updateIfMatchETag")]
    UpdateIfMatch,
    Delete,
}

/// Why one record was left as it is.
struct Failed {
    code: u32,
    message: String,
}

impl From<Obstacle> for Failed {
    fn from(obstacle: Obstacle) -> Self {
        Self { code: obstacle.code(), message: obstacle.message().to_owned() }
    }
}

impl Bulk {
    /// Reads the body; the error is for the client.
    pub(super) fn read(body: &[u8], kind: Kind) -> Result<Self, String> {
        let bulk: Self = serde_json::from_slice(body).map_err(|error| format!("The body is no bulk operation: {error}"))?;
        let (own, other) = match kind {
            Kind::Individual => (&bulk.enrollments, &bulk.enrollment_groups),
            Kind::Group => (&bulk.enrollment_groups, &bulk.enrollments),
        };
        match own.as_ref().map_or(0, Vec::len) {
            _ if other.is_some() => Err("The records are of the other kind of enrollment.".to_owned()),
            0 => Err("There are no records.".to_owned()),
            size if size > LARGEST => Err(format!("There are {size} records, more than {LARGEST}.")),
            _ => Ok(bulk),
        }
    }

    fn items(&self) -> impl Iterator<Item = &Value> {
        self.enrollments.iter().chain(&self.enrollment_groups).flatten()
    }

    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.items().count()).unwrap_or(u32::MAX)
    }

    /// Which permission each mode takes is UNCONFIRMED (service API §5.2).
    pub(super) fn operation(&self, kind: Kind) -> Operation {
        if self.mode == Mode::Delete { Operation::Delete(kind) } else { Operation::Write(kind) }
    }

    /// Does what can be done, record by record, and tells what could not.
    pub(super) fn run(&self, state: &mut State, known: &Known<'_>) -> Value {
        let errors: Vec<Value> = self.items().filter_map(|item| self.one(state, item, known).err()).collect();
        json!({"isSuccessful": errors.is_empty(), "errors": errors})
    }

    fn one(&self, state: &mut State, item: &Value, known: &Known<'_>) -> Result<(), Value> {
        let name = match known.kind {
            Kind::Individual => "registrationId",
            Kind::Group => "enrollmentGroupId",
        };
        self.try_one(state, item, known)
            .map_err(|failed| json!({name: item[name], "errorCode": failed.code, "errorStatus": failed.message}))
    }

    fn try_one(&self, state: &mut State, item: &Value, known: &Known<'_>) -> Result<(), Failed> {
        let wrong = |message: String| Failed { code: 400_000, message };
        let body = Body::read(item.clone()).map_err(wrong)?;
        let id = body.id(known.kind).unwrap_or_default().to_owned();
        let etag = body.etag.clone();
        self.condition(state.etag(known.kind, &id), etag.as_deref())?;
        if self.mode == Mode::Delete {
            state.delete(known.kind, &id);
            return Ok(());
        }
        let certificates = state.certificates(known.kind, &id);
        let wanted: Wanted = body.checked(&Known { certificates: &certificates, ..*known }).map_err(wrong)?;
        state.put(known.kind, wanted);
        Ok(())
    }

    fn condition(&self, current: Option<&str>, etag: Option<&str>) -> Result<(), Failed> {
        match (self.mode, etag) {
            (Mode::Create, _) => Ok(Condition::New.check(current)?),
            (Mode::Update | Mode::Delete, _) => Ok(Condition::Any.check_old(current)?),
            (Mode::UpdateIfMatch, Some(etag)) => Ok(Condition::Version(etag).check_old(current)?),
            (Mode::UpdateIfMatch, None) => Err(Failed { code: 400_000, message: "etag is missing.".to_owned() }),
        }
    }
}
