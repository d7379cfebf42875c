//! What becomes of a registration: the record of it, the hand-off, and the way back after a power cut in between.

use super::prove::{Standing, Verdict};
use super::{Agent, Deadline, Obtained};
use crate::attestation::Key;
use crate::blame::Blame;
use crate::failure::Failure;
use crate::identity::enrollment_line;
use crate::protocol::{Assignment, KeySlot};
use crate::record::{Record, certainly_past};
use crate::tpm::{Name, Placed};

impl Agent {
    /// The record is written first, the hand-off follows from it.
    pub(super) async fn adopt(&self, obtained: &Obtained, proof: Standing, previous: Option<&Record>) -> Result<Record, Failure> {
        let record = self.record_of(obtained, proof, previous);
        self.store.write(&record)?;
        self.hand_off(&record).await?;
        Ok(record)
    }

    /// Gives the record to whoever needs it: `assignment.json`, and last the hub key at its handle, where the configuration
    /// wants it there.
    pub async fn hand_off(&self, record: &Record) -> Result<(), Failure> {
        self.publish(record)?;
        self.place(record).await;
        Ok(())
    }

    /// With a TPM the new key goes into the record before anything else happens to it, and its predecessor stays beside it: the
    /// service may have let go of the old key, and the hub has not accepted the new one yet.
    pub(super) fn keep_untried(&self, obtained: &Obtained, previous: Option<&Record>) -> Result<(), Failure> {
        if obtained.memory.is_some() {
            self.store.write(&self.record_of(obtained, Standing::Untried, previous))?;
        }
        Ok(())
    }

    /// Goes on where a power cut ended the proof: if the hub accepts the key that was kept, there is nothing to ask DPS for.
    pub(super) async fn resume(&self, record: Option<Record>, end: Deadline) -> Result<Option<Record>, Failure> {
        let untried = record.filter(|record| record.proof == Record::UNTRIED && self.is_ours(record) && self.can_sign_by(record));
        let Some(record) = untried else { return Ok(None) };
        let (Some(assignment), Some(memory)) = (assignment_of(&record), &record.tpm) else { return Ok(None) };
        let key = Key::Hub(memory.hub_key.clone());
        let Verdict::Adopt(Standing::Proven) = self.try_hub(&self.probe()?, &assignment, &key, end).await? else {
            return Ok(None);
        };
        let record = Record { proof: Standing::Proven.word().to_owned(), predecessor: None, ..record };
        self.store.write(&record)?;
        self.hand_off(&record).await?;
        Ok(Some(record))
    }

    /// A handle is a convenience of other programs: where it cannot be written, the record is as good as before.
    async fn place(&self, record: &Record) {
        let Some(memory) = record.tpm.as_ref().filter(|_| self.may_place(record)) else { return };
        match self.attestation.place(&memory.hub_key, &record.made).await {
            Ok(Placed::Already | Placed::Nowhere) => {}
            Ok(Placed::Written) => tracing::info!("the hub key is at [attestation] identity_handle now"),
            Ok(Placed::Foreign) => tracing::warn!(
                "[attestation] identity_handle holds an object that this agent did not make, so the hub key is not put there; \
                 if nobody needs it, remove it (tpm2_evictcontrol -c HANDLE), or name another handle"
            ),
            Err(error) => tracing::warn!("the hub key cannot be put at [attestation] identity_handle: {error}"),
        }
    }

    /// A key that exists at the handle only must not give way to one that the hub has not accepted.
    fn may_place(&self, record: &Record) -> bool {
        let before = record.predecessor.as_ref().and_then(|before| before.tpm.as_ref());
        before.is_none_or(|before| !before.hub_key.is_kept())
    }

    fn record_of(&self, obtained: &Obtained, proof: Standing, previous: Option<&Record>) -> Record {
        let assignment = &obtained.registered.assignment;
        let mut record = Record {
            version: Record::VERSION,
            generation: 1,
            id_scope: self.config.dps.id_scope.to_string(),
            registration_id: self.attestation.registration_id().to_string(),
            identity: self.attestation.fingerprint(),
            attestation: self.attestation.method().to_owned(),
            assigned_hub: assignment.hub.to_string(),
            device_id: assignment.device_id.to_string(),
            substatus: assignment.substatus.clone(),
            payload: assignment.payload.clone(),
            assigned_at: certainly_past(self.clock().now(), assignment.updated.as_deref()),
            proof: proof.word().to_owned(),
            transport: obtained.registered.via.name().to_owned(),
            key: match obtained.registered.slot {
                KeySlot::Primary => "primary",
                KeySlot::Secondary => "secondary",
            }
            .to_owned(),
            unfinished: false,
            tpm: obtained.memory.clone(),
            made: made(obtained, previous),
            predecessor: None,
            later: serde_json::Map::new(),
        };
        if let Some(previous) = previous {
            record.generation = previous.generation.saturating_add(u64::from(!record.hands_off_the_same_as(previous)));
            record.later.clone_from(&previous.later);
            record.predecessor = self.predecessor(previous, proof).map(Box::new);
        }
        record
    }

    /// The last record whose key the hub is known to have accepted, or else the last one, until the hub has accepted the new key.
    fn predecessor(&self, previous: &Record, proof: Standing) -> Option<Record> {
        let is_needed = previous.tpm.is_some() && self.is_ours(previous) && proof != Standing::Proven;
        let last = previous.predecessor.as_deref().filter(|_| previous.proof != Standing::Proven.word()).unwrap_or(previous);
        is_needed.then(|| Record { predecessor: None, ..last.clone() })
    }

    /// Another TPM, or a cleared one, is told from one that has changed nothing.
    pub(super) fn tell_of_changes(&self, previous: Option<&Record>) {
        let Some(previous) = previous.filter(|record| record.tpm.is_some()) else { return };
        if let Some(line) = self.stranger(previous) {
            tracing::warn!("{OTHER_TPM}; if DPS does not know it yet, enroll it: {line}");
        } else if self.is_ours(previous) && !self.can_sign_by(previous) {
            tracing::warn!(
                "the TPM was cleared: the hub key does not work without the storage key that is gone, so the device registers again"
            );
        }
    }

    /// The failure, with what to enroll where the TPM is another one.
    pub(super) fn explained(&self, failure: Failure, previous: Option<&Record>) -> Failure {
        let refused = matches!(failure.blame, Blame::Refused | Blame::Unauthorized);
        match previous.filter(|_| refused).and_then(|previous| self.stranger(previous)) {
            Some(line) => Failure {
                blame: Blame::Refused,
                message: format!("{}; {OTHER_TPM}: enroll this one: {line}", failure.message),
                ..failure
            },
            None if self.may_be_unknown(&failure) => Failure { message: format!("{}{UNKNOWN_TPM}", failure.message), ..failure },
            None => failure,
        }
    }

    fn may_be_unknown(&self, failure: &Failure) -> bool {
        let is_missing = failure.code.is_some_and(|code| code / 1000 == 404);
        self.attestation.is_challenged() && (is_missing || failure.blame == Blame::Unauthorized)
    }

    /// What enrolls this TPM, where the record is of another one.
    fn stranger(&self, previous: &Record) -> Option<String> {
        let (now, then) = (self.attestation.tpm_keys()?, previous.tpm.as_ref()?);
        let is_other = now.endorsement_key != then.keys.endorsement_key;
        is_other.then(|| enrollment_line(self.attestation.registration_id(), now))
    }
}

const OTHER_TPM: &str =
    "the TPM's endorsement key is not the one of the last registration (another board, or the firmware TPM was written anew)";

const UNKNOWN_TPM: &str = "; or another endorsement key is enrolled under this registration ID, or none: `dps-agent identity` prints \
     this TPM's, and [attestation] ek_unique = \"empty\" brings back the one that some of Microsoft's clients enrolled";

/// The names of the hub keys that were made here, this one last.
fn made(obtained: &Obtained, previous: Option<&Record>) -> Vec<Name> {
    let before = previous.map(|previous| previous.made.as_slice()).unwrap_or_default();
    let new = obtained.memory.as_ref().map(|memory| memory.hub_key.name());
    let all: Vec<Name> = before.iter().cloned().chain(new).collect();
    all[all.len().saturating_sub(Record::MADE)..].to_vec()
}

/// The assignment that the record tells of.
pub(super) fn assignment_of(record: &Record) -> Option<Assignment> {
    Some(Assignment {
        hub: record.assigned_hub.parse().ok()?,
        device_id: record.device_id.parse().ok()?,
        substatus: record.substatus.clone(),
        payload: record.payload.clone(),
        updated: None,
        key: None,
    })
}
