//! `enroll`: brings the service to where the identities say, in bulks of ten, and again and again to the same end.
//!
//! The state is at the service and in the key files alone. A key is on disk before the service hears of it; what is there already is
//! found by reading first. So a run that was killed anywhere is continued by running it again.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use crate::failure::{Blame, Failure};
use crate::id::EnrollmentId;
use crate::input::{Attestation, Identity};
use crate::keys::{KeyFolder, Keys};
use crate::progress::Progress;
use crate::report::{Deed, Outcome, Reports, Standing};
use crate::service::{BULK, Bulk, Kind, Rejected, Service};
use crate::settings::{Difference, differences, merged, of_device};

/// So many requests are on their way at once, so that a slow answer does not slow the rate.
const AT_ONCE: usize = 4;

/// What is to be done with the identities.
#[derive(Debug)]
pub struct Order {
    /// Members for every enrollment.
    pub asked: Map<String, Value>,
    /// Where symmetric keys are or will be.
    pub keys: Option<KeyFolder>,
    /// The service makes the symmetric keys, and keeps them to itself.
    pub service_keys: bool,
    /// Change what differs.
    pub update: bool,
    /// Compare symmetric keys, too.
    pub check_keys: bool,
    /// Change nothing, here or at the service.
    pub dry_run: bool,
    /// Where to report.
    pub reports: Option<Reports>,
}

/// A device and its enrollment as it is to be.
#[derive(Debug)]
pub struct Wish {
    identity: Identity,
    keys: Option<Keys>,
}

/// A wish and what is there.
#[derive(Debug)]
enum Step {
    Create(Wish),
    Change(Wish, Value, Vec<Difference>),
    Done(Outcome),
}

impl Order {
    /// Finds the keys of those devices that have symmetric ones, before anything is sent.
    ///
    /// # Errors
    /// All that does not fit, a line for each, with file and line.
    pub fn wishes(&self, identities: Vec<Identity>) -> Result<Vec<Wish>, Failure> {
        let (mut wishes, mut problems) = (Vec::new(), Vec::new());
        for identity in identities {
            match self.keys_of(&identity) {
                Ok(keys) => wishes.push(Wish { identity, keys }),
                Err(problem) => problems.push(format!("{}: {problem}", identity.place)),
            }
        }
        if problems.is_empty() {
            return Ok(wishes);
        }
        problems.push(format!("{} wrong, nothing was sent", problems.len()));
        Err(Failure::new(Blame::Input, problems.join("\n")))
    }

    fn keys_of(&self, identity: &Identity) -> Result<Option<Keys>, String> {
        let Attestation::SymmetricKey { fingerprint } = &identity.attestation else { return Ok(None) };
        let id = &identity.registration_id;
        let Some(folder) = &self.keys else {
            let device = id.as_str();
            return match fingerprint {
                Some(_) => Err(format!("device {device:?} has a key already; give it with --keys FOLDER")),
                None if self.service_keys => Ok(None),
                None => Err(format!(
                    "device {device:?} needs a key; --keys FOLDER is where it is or will be, --service-keys lets the service make it"
                )),
            };
        };
        let keys = folder.find(id).map_err(|failure| failure.message)?;
        let file = folder.primary(id);
        match (fingerprint, &keys.primary) {
            (Some(_), None) => Err(format!("device {:?} has a key already; put it into {}", id.as_str(), file.display())),
            (Some(theirs), Some(ours)) if *theirs != ours.fingerprint() => {
                Err(format!("the key in {} is not the one that device {:?} has", file.display(), id.as_str()))
            }
            (_, Some(_) | None) => Ok(Some(keys)),
        }
    }

    /// Does it; how each device stands, in the order of the wishes.
    ///
    /// # Errors
    /// What stops all of it. What was done until then stays, and the next run finds it.
    pub async fn run(&self, service: &Service, wishes: Vec<Wish>) -> Result<Vec<Outcome>, Failure> {
        let place: HashMap<_, usize> = wishes.iter().map(|wish| wish.identity.registration_id.folded()).zip(0..).collect();
        let progress = Progress::new(wishes.len(), "looking");
        let found = self.look(service, &wishes, &progress).await?;
        progress.finish();
        let progress = Progress::new(wishes.len(), "enrolling");
        let (mut creates, mut changes, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for wish in wishes {
            let there = found.get(&wish.identity.registration_id.folded());
            match self.compare(service, wish, there).await? {
                Step::Create(wish) => creates.push(wish),
                Step::Change(wish, record, differences) => changes.push((wish, record, differences)),
                Step::Done(outcome) => outcomes.push(self.tell(service, outcome, &progress)?),
            }
        }
        outcomes.extend(self.create_all(service, creates, &progress).await?);
        outcomes.extend(self.change_all(service, changes, &progress).await?);
        progress.finish();
        outcomes.sort_by_key(|outcome| place.get(&outcome.registration_id.folded()).copied());
        Ok(outcomes)
    }

    /// What is there of the wishes. Lists are read while that is cheaper than asking for each device.
    async fn look(&self, service: &Service, wishes: &[Wish], progress: &Progress) -> Result<HashMap<String, Value>, Failure> {
        let mut found = HashMap::new();
        let mut missing: HashMap<String, &EnrollmentId> =
            wishes.iter().map(|wish| (wish.identity.registration_id.folded(), &wish.identity.registration_id)).collect();
        let mut pages = service.query(Kind::Individual, "SELECT * FROM enrollments");
        let mut budget = wishes.len();
        while budget > 1 && !missing.is_empty() && !pages.is_at_end() {
            budget -= 1;
            for record in pages.next().await?.unwrap_or_default() {
                let id = record["registrationId"].as_str().unwrap_or_default().to_ascii_lowercase();
                if missing.remove(&id).is_some() {
                    progress.add(1);
                    found.insert(id, record);
                }
            }
        }
        if pages.is_at_end() {
            return Ok(found);
        }
        let mut answers =
            stream::iter(missing.into_iter().map(|(folded, id)| async move {
                service.get(Kind::Individual, id.as_str()).await.map(|record| (folded, record))
            }))
            .buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            let (folded, record) = answer?;
            progress.add(1);
            found.extend(record.map(|record| (folded, record)));
        }
        Ok(found)
    }

    async fn compare(&self, service: &Service, wish: Wish, there: Option<&Value>) -> Result<Step, Failure> {
        let Some(there) = there else {
            if self.dry_run {
                return Ok(Step::Done(wish.outcome(Deed::WouldCreate, Standing::Enrolled, None)));
            }
            return Ok(Step::Create(wish));
        };
        let mut record = there.clone();
        if let (true, Some(_)) = (self.check_keys, &wish.keys) {
            record["attestation"] =
                service.attestation(Kind::Individual, wish.identity.registration_id.as_str()).await?.unwrap_or_default();
        }
        let differences = differences(&record, &self.members(&wish));
        let note = wish.keys.as_ref().filter(|keys| keys.primary.is_none()).map(|_| NO_KEY.to_owned());
        Ok(if differences.is_empty() {
            Step::Done(wish.outcome(Deed::Left, Standing::Enrolled, note))
        } else if self.update && self.dry_run {
            Step::Done(wish.outcome(Deed::WouldUpdate, Standing::Differs(differences), note))
        } else if self.update {
            Step::Change(wish, record, differences)
        } else {
            Step::Done(wish.outcome(Deed::Left, Standing::Differs(differences), note))
        })
    }

    async fn create_all(&self, service: &Service, wishes: Vec<Wish>, progress: &Progress) -> Result<Vec<Outcome>, Failure> {
        let bulks = stream::iter(in_bulks(wishes)).map(|bulk| self.create(service, bulk, progress));
        collect(bulks.buffer_unordered(AT_ONCE)).await
    }

    async fn create(&self, service: &Service, mut wishes: Vec<Wish>, progress: &Progress) -> Result<Vec<Outcome>, Failure> {
        for wish in &mut wishes {
            self.make_keys(wish)?;
        }
        self.settle_keys(&wishes)?;
        let records = wishes.iter().map(|wish| Value::Object(self.members(wish))).collect();
        let rejected = send(service, Bulk::Create, records).await?;
        let unclear = rejected.iter().find(|rejected| !wishes.iter().any(|wish| is_of(rejected, wish)));
        let mut outcomes = Vec::new();
        for wish in wishes {
            let outcome = match of(&rejected, &wish).or(unclear) {
                None => wish.outcome(Deed::Created, Standing::Enrolled, None),
                // An answer that was lost, or another station: it is there now.
                Some(rejected) if rejected.code / 1000 == 409 || !is_of(rejected, &wish) => {
                    self.find_again(service, wish, rejected).await?
                }
                Some(rejected) => wish.outcome(Deed::Left, Standing::Failed(words(rejected)), None),
            };
            outcomes.push(self.tell(service, outcome, progress)?);
        }
        Ok(outcomes)
    }

    async fn find_again(&self, service: &Service, wish: Wish, rejected: &Rejected) -> Result<Outcome, Failure> {
        let Some(record) = service.get(Kind::Individual, wish.identity.registration_id.as_str()).await? else {
            return Ok(wish.outcome(Deed::Left, Standing::Failed(words(rejected)), None));
        };
        let differences = differences(&record, &self.members(&wish));
        let standing = if differences.is_empty() { Standing::Enrolled } else { Standing::Differs(differences) };
        Ok(wish.outcome(Deed::Created, standing, None))
    }

    async fn change_all(
        &self,
        service: &Service,
        changes: Vec<(Wish, Value, Vec<Difference>)>,
        progress: &Progress,
    ) -> Result<Vec<Outcome>, Failure> {
        let bulks = stream::iter(in_bulks(changes)).map(|bulk| self.change(service, bulk, progress));
        collect(bulks.buffer_unordered(AT_ONCE)).await
    }

    async fn change(
        &self,
        service: &Service,
        changes: Vec<(Wish, Value, Vec<Difference>)>,
        progress: &Progress,
    ) -> Result<Vec<Outcome>, Failure> {
        let (mut records, mut wishes) = (Vec::new(), Vec::new());
        for (mut wish, record, _) in changes {
            let kept = self.kept_keys(service, &wish, &record).await?;
            if kept.is_none() {
                self.make_keys(&mut wish)?;
            }
            let mut members = self.members(&wish);
            members.extend(kept.map(|attestation| ("attestation".to_owned(), attestation)));
            records.push(merged(&record, &members));
            wishes.push(wish);
        }
        self.settle_keys(&wishes)?;
        let rejected = send(service, Bulk::UpdateIfMatch, records).await?;
        let unclear = rejected.iter().find(|rejected| !wishes.iter().any(|wish| is_of(rejected, wish)));
        let mut outcomes = Vec::new();
        for wish in wishes {
            let outcome = match of(&rejected, &wish).or(unclear) {
                None => wish.outcome(Deed::Updated, Standing::Enrolled, None),
                Some(rejected) => wish.outcome(Deed::Left, Standing::Failed(words(rejected)), None),
            };
            outcomes.push(self.tell(service, outcome, progress)?);
        }
        Ok(outcomes)
    }

    /// An update replaces all. Keys that are at the service and not with us have to be read, to be sent again.
    async fn kept_keys(&self, service: &Service, wish: &Wish, record: &Value) -> Result<Option<Value>, Failure> {
        let symmetric = matches!(wish.identity.attestation, Attestation::SymmetricKey { .. });
        let ours = wish.keys.as_ref().is_some_and(|keys| keys.primary.is_some());
        if !symmetric || ours || record["attestation"]["type"] != "symmetricKey" {
            return Ok(None);
        }
        service.attestation(Kind::Individual, wish.identity.registration_id.as_str()).await
    }

    fn make_keys(&self, wish: &mut Wish) -> Result<(), Failure> {
        if let (Some(folder), Some(keys)) = (&self.keys, &wish.keys) {
            wish.keys = Some(folder.complete(&wish.identity.registration_id, keys)?);
        }
        Ok(())
    }

    fn settle_keys(&self, wishes: &[Wish]) -> Result<(), Failure> {
        let folder = self.keys.as_ref().filter(|_| wishes.iter().any(|wish| wish.keys.is_some()));
        folder.map_or(Ok(()), KeyFolder::settle)
    }

    /// The enrollment as it is to be.
    fn members(&self, wish: &Wish) -> Map<String, Value> {
        let identity = &wish.identity;
        let attestation = match &identity.attestation {
            Attestation::SymmetricKey { .. } => {
                wish.keys.as_ref().map_or_else(|| json!({ "type": "symmetricKey" }), Keys::attestation)
            }
            Attestation::X509(certificate) => json!({ "type": "x509",
                "x509": { "clientCertificates": { "primary": { "certificate": certificate.base64() } } } }),
            Attestation::Tpm(key) => json!({ "type": "tpm", "tpm": { "endorsementKey": key.text() } }),
        };
        let mut members = of_device(identity.registration_id.as_str(), identity.device_id.as_ref(), attestation);
        members.extend(self.asked.clone());
        members
    }

    fn tell(&self, service: &Service, outcome: Outcome, progress: &Progress) -> Result<Outcome, Failure> {
        if let (Some(reports), false) = (&self.reports, self.dry_run) {
            reports.write(&outcome, service.host())?;
        }
        progress.add(1);
        Ok(outcome)
    }
}

const NO_KEY: &str = "it is enrolled, and its key is not in the folder of --keys; attestation show reads it";

impl Wish {
    fn outcome(self, deed: Deed, standing: Standing, note: Option<String>) -> Outcome {
        let attestation = self.identity.attestation.kind();
        Outcome { registration_id: self.identity.registration_id, attestation, deed, standing, note }
    }
}

/// A bulk. If the service refuses it as a whole, each record is sent alone, to find the one that it minds.
async fn send(service: &Service, mode: Bulk, records: Vec<Value>) -> Result<Vec<Rejected>, Failure> {
    let failure = match service.bulk(Kind::Individual, mode, records.clone()).await {
        Err(failure) if is_about_a_record(&failure) => failure,
        other => return other,
    };
    if records.len() == 1 {
        return Ok(records.iter().map(|record| alone(record, &failure)).collect());
    }
    let mut rejected = Vec::new();
    for record in records {
        match service.bulk(Kind::Individual, mode, vec![record.clone()]).await {
            Ok(more) => rejected.extend(more),
            Err(failure) if is_about_a_record(&failure) => rejected.push(alone(&record, &failure)),
            Err(failure) => return Err(failure),
        }
    }
    Ok(rejected)
}

fn is_about_a_record(failure: &Failure) -> bool {
    failure.answer.as_ref().is_some_and(|answer| matches!(answer.status, 400 | 404 | 409 | 412))
}

fn alone(record: &Value, failure: &Failure) -> Rejected {
    let status = failure.answer.as_ref().map_or(400, |answer| i64::from(answer.status));
    let id = record["registrationId"].as_str().unwrap_or_default().to_owned();
    Rejected { id, code: status * 1000, words: failure.message.clone() }
}

fn of<'a>(rejected: &'a [Rejected], wish: &Wish) -> Option<&'a Rejected> {
    rejected.iter().find(|rejected| is_of(rejected, wish))
}

fn is_of(rejected: &Rejected, wish: &Wish) -> bool {
    rejected.id.eq_ignore_ascii_case(wish.identity.registration_id.as_str())
}

fn words(rejected: &Rejected) -> String {
    format!("the service answered {} ({})", rejected.code, rejected.words)
}

fn in_bulks<T>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut bulks = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        bulks.push(items.by_ref().take(BULK).collect());
    }
    bulks
}

async fn collect<S>(mut bulks: S) -> Result<Vec<Outcome>, Failure>
where
    S: stream::Stream<Item = Result<Vec<Outcome>, Failure>> + Unpin,
{
    let mut all = Vec::new();
    while let Some(outcomes) = bulks.next().await {
        all.extend(outcomes?);
    }
    Ok(all)
}
