//! The shell around the core: does what the steps of a registration ask for, proves the result and adopts it.

mod adopt;
mod look;
mod prove;
mod register;
mod take_over;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attestation::{Attestation, Key, Validity};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::{Config, KeySource, Profile, RegistrationIdSource};
use crate::desk::{ClockVerdict, Served};
use crate::failure::Failure;
use crate::files::{self, Lock};
use crate::id::RegistrationId;
use crate::progress::Progress;
use crate::protocol::registration::Registered;
use crate::record::{Record, RecordError, Store, rfc3339};
use crate::tpm::Memory;
use crate::transcript::Transcript;
use crate::transport::Limits;

use look::Trouble;

pub(crate) use look::LARGEST_SKEW;
pub(crate) use register::read_payload;
pub use take_over::Given;

/// What programs on the gateway read, in the runtime directory.
const ASSIGNMENT: &str = "assignment.json";
/// The longest that one exchange may take: to connect, and then to be answered.
const EXCHANGE: Duration = Duration::from_secs(10);

/// What the machine gives to the agent, as arguments, so that tests can give something else.
#[derive(Debug)]
pub struct Surroundings {
    /// `/` outside tests: where hardware names are looked up.
    pub root: PathBuf,
    /// systemd's `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// Where the conversation is written to.
    pub transcript: Transcript,
    /// Who is told what goes on.
    pub progress: Progress,
}

/// What a registration has brought: the assignment, and with a TPM the key for its hub.
#[derive(Debug, Clone)]
struct Obtained {
    registered: Registered,
    memory: Option<Memory>,
}

impl Obtained {
    fn key(&self) -> Key {
        let hub_key = self.memory.as_ref().map(|memory| memory.hub_key.clone());
        hub_key.map_or(Key::Enrolled(self.registered.slot), Key::Hub)
    }
}

/// When a valid record is no reason not to register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Always: a valid record will do.
    IfNeeded,
    /// Register all the same.
    Anew,
    /// Register, and believe the hub only when it has let us in anew: it has refused us, or a consumer.
    Doubted,
}

/// One device with its configuration, opened identity and memory.
#[derive(Debug)]
pub struct Agent {
    config: Arc<Config>,
    attestation: Arc<Attestation>,
    /// The service may tell the time in the middle of a registration.
    clock: Cell<Clock>,
    /// What was found when it was last compared with the service's.
    verdict: Cell<ClockVerdict>,
    /// By how many seconds the service's time was ahead of ours when it last told it.
    ahead: Cell<Option<i64>>,
    /// Why the hub was not reached at the last look.
    hub_trouble: Trouble,
    store: Store,
    transcript: Transcript,
    progress: Progress,
}

impl Agent {
    /// Opens identity and record, and clears away what a killed predecessor has left half written. Asks nobody. A TPM that is
    /// not there yet is waited for, within this patience.
    pub async fn open(config: Config, surroundings: Surroundings, patience: Duration) -> Result<Self, Failure> {
        let store = Store::new(&config.state_directory);
        let record = store.read().ok().flatten();
        let config = Arc::new(config);
        let clock = Clock::with_floor(record.as_ref().map(|record| record.assigned_at));
        let attestation = open_attestation(&config, &surroundings, record, Deadline::after(&clock, patience), &clock).await?;
        warn_of_disputed(&config.attestation, attestation.registration_id());
        attestation.validity().inspect(|validity| warn_of_validity(*validity));
        tidy(&store, &config.runtime_directory);
        let Surroundings { transcript, progress, .. } = surroundings;
        Ok(Self {
            config,
            attestation: Arc::new(attestation),
            clock: Cell::new(clock),
            verdict: Cell::new(ClockVerdict::Good),
            ahead: Cell::new(None),
            hub_trouble: Trouble::default(),
            store,
            transcript,
            progress,
        })
    }

    /// The record, if it is of this device, tenant and key, and can still be used. A damaged one is set aside, with a warning that
    /// names it.
    pub fn current(&self) -> Result<Option<Record>, Failure> {
        Ok(self.remembered()?.filter(|record| self.is_settled(record)))
    }

    /// Writes `assignment.json`, unless it is there already.
    pub fn publish(&self, record: &Record) -> Result<(), Failure> {
        let directory = &self.config.runtime_directory;
        files::make_directory(directory, 0o755)?;
        let (path, content) = (directory.join(ASSIGNMENT), format!("{}\n", record.public()).into_bytes());
        if std::fs::read(&path).is_ok_and(|found| found == content) {
            return Ok(());
        }
        Ok(files::replace(&path, &content, 0o640)?)
    }

    /// Registers, proves and adopts, within this patience. What was adopted before serves until then.
    /// A valid record that another agent has made in the meantime will do where the renewal allows it.
    pub async fn provision(&self, patience: Duration, renewal: Renewal) -> Result<Record, Failure> {
        let anew = renewal != Renewal::IfNeeded;
        let end = Deadline::after(&self.clock(), patience);
        files::make_directory(&self.config.state_directory, 0o700)?;
        let _alone = self.alone(end).await?;
        if let Some(record) = self.current()?.filter(|_| !anew) {
            return self.hand_off(&record).await.map(|()| record);
        }
        self.store.prepare()?;
        files::make_directory(&self.config.runtime_directory, 0o755)?;
        files::probe_directory(&self.config.runtime_directory)?;
        self.believable_clock(end).await?;
        let remembered = self.remembered()?;
        if let Some(record) = self.resume(remembered.clone().filter(|_| !anew), end).await? {
            return Ok(record);
        }
        let previous = remembered.and_then(Record::adopted);
        self.tell_of_changes(previous.as_ref());
        let obtained = self.register_in_time(end, previous.as_ref()).await;
        let obtained = obtained.map_err(|failure| self.explained(failure, previous.as_ref()))?;
        let believed = previous.as_ref().filter(|_| renewal != Renewal::Doubted);
        let (obtained, proof) = self.prove(obtained, believed, end).await?;
        self.adopt(&obtained, proof, previous.as_ref()).await
    }

    /// What was adopted serves until something better is; with a TPM also while nobody knows how a registration ended.
    pub fn adopted(&self) -> Option<Record> {
        let adopted = self.store.read().ok().flatten().and_then(Record::adopted);
        adopted.filter(|record| self.is_ours(record))
    }

    /// The same as consumers get it.
    pub fn served(&self, record: Record) -> Served {
        Served { record, config: Arc::clone(&self.config), attestation: Arc::clone(&self.attestation), clock: self.clock.get() }
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The opened identity.
    pub fn attestation(&self) -> &Attestation {
        &self.attestation
    }

    /// The clock that it goes by now.
    pub fn clock(&self) -> Clock {
        self.clock.get()
    }

    /// Somebody has set the machine's clock: what the service told is forgotten.
    pub fn believe_the_machine(&self) {
        self.clock.set(self.clock.get().untold());
        self.verdict.set(ClockVerdict::Good);
    }

    /// The files whose change is a reason to open the identity anew, and the record, which a verb may replace.
    pub fn watched(&self) -> Vec<PathBuf> {
        let key = |source: &KeySource| match source {
            KeySource::File(path) => Some(path.clone()),
            // systemd passes a credential once, at the start.
            KeySource::Credential(_) => None,
        };
        let files: Vec<Option<PathBuf>> = match &self.config.attestation {
            Profile::SymmetricKey { primary, secondary, .. } => vec![key(primary), secondary.as_ref().and_then(key)],
            Profile::X509 { chain, key, .. } => vec![Some(chain.clone()), Some(key.clone())],
            Profile::Tpm { .. } => Vec::new(),
        };
        files.into_iter().flatten().chain([self.store.path()]).collect()
    }

    /// What a wait is about: another DPS, tenant or identity does not wait for it.
    pub fn about(&self) -> String {
        let dps = &self.config.dps;
        format!("{} {} {} {}", dps.host, dps.id_scope, self.attestation.registration_id(), self.attestation.fingerprint())
    }

    /// The directory of the record.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Waits until no other agent registers with this state directory: two would each undo what the other has proven.
    async fn alone(&self, end: Deadline) -> Result<Lock, Failure> {
        let mut told = false;
        loop {
            if let Some(lock) = self.store.try_lock()? {
                return Ok(lock);
            }
            let why = format!("another dps-agent is registering with {}", self.config.state_directory.display());
            let left = end.left(&self.clock());
            if left.is_zero() {
                return Err(Failure::new(Blame::Busy, why));
            }
            if !std::mem::replace(&mut told, true) {
                self.progress.doing(format_args!("waiting, since {why}"));
            }
            tokio::time::sleep(left.min(Duration::from_millis(200))).await;
        }
    }

    async fn believable_clock(&self, end: Deadline) -> Result<(), Failure> {
        let Some(behind) = self.clock().below_floor() else { return Ok(()) };
        let behind = behind.as_secs();
        let why = format!("the clock is {behind} s behind the earliest time it can be; waiting for somebody to set it");
        // Said once: the log of a gateway whose clock nobody sets lies on flash.
        self.progress.doing(format_args!("{why}"));
        while self.clock().below_floor().is_some() {
            let left = end.left(&self.clock());
            if left.is_zero() {
                return Err(Failure::new(Blame::Clock, why));
            }
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
        Ok(())
    }

    fn is_ours(&self, record: &Record) -> bool {
        let (scope, id) = (self.config.dps.id_scope.as_str(), self.attestation.registration_id().as_str());
        record.belongs_to(scope, id, &self.attestation.fingerprint())
    }

    /// Whether it is ours, was adopted, and nothing has been begun since then that may have made it worthless.
    fn is_settled(&self, record: &Record) -> bool {
        self.is_ours(record) && !record.unfinished && record.proof != Record::UNTRIED && self.can_sign_by(record)
    }

    /// Whether the TPM still has the storage key of the record's hub key. A TPM that was cleared has not.
    fn can_sign_by(&self, record: &Record) -> bool {
        let kept = record.tpm.as_ref().map(|memory| &memory.keys.storage_key.public);
        self.attestation.tpm_keys().is_none_or(|now| kept == Some(&now.storage_key.public))
    }

    /// The record, whoever's it is. A damaged one is set aside.
    fn remembered(&self) -> Result<Option<Record>, Failure> {
        match self.store.read() {
            Err(damaged @ RecordError::Damaged { .. }) => {
                let aside = self.store.set_aside()?;
                tracing::warn!("{damaged}; it is kept as {}, and the device registers anew", aside.display());
                Ok(None)
            }
            other => Ok(other?),
        }
    }
}

async fn open_attestation(
    config: &Config,
    surroundings: &Surroundings,
    record: Option<Record>,
    end: Deadline,
    clock: &Clock,
) -> Result<Attestation, Failure> {
    let remembered = record.and_then(|record| record.tpm);
    let credentials = surroundings.credentials.as_deref();
    let mut told = false;
    loop {
        match Attestation::open(&config.attestation, &surroundings.root, credentials, remembered.as_ref()).await {
            Err(absent) if absent.is_absent_tpm() && !end.left(clock).is_zero() => {
                if !std::mem::replace(&mut told, true) {
                    surroundings.progress.doing(format_args!("waiting for the TPM: {absent}"));
                }
                tokio::time::sleep(end.left(clock).min(Duration::from_millis(500))).await;
            }
            other => return Ok(other?),
        }
    }
}

/// The service would answer no more than 401.
fn warn_of_validity(validity: Validity) {
    let now = Clock::wall();
    if now > validity.until {
        tracing::warn!("the client certificate expired on {}; put a new one in place", rfc3339(validity.until));
    } else if now < validity.from {
        tracing::warn!("the client certificate is valid from {} on, and the clock says {}", rfc3339(validity.from), rfc3339(now));
    }
}

/// What lies there half written is a predecessor's only if nobody is at work now.
fn tidy(store: &Store, runtime_directory: &Path) {
    let assignment = runtime_directory.join(ASSIGNMENT);
    if store.is_untidy() || files::is_untidy(&assignment) {
        if let Ok(Some(_lock)) = store.try_lock() {
            store.tidy();
            files::tidy(&assignment);
        }
    }
}

/// The configuration has warned of a written ID; one that the machine gave is known only now.
fn warn_of_disputed(profile: &Profile, id: &RegistrationId) {
    if id.is_disputed() && matches!(profile.registration_id(), RegistrationIdSource::From { .. }) {
        tracing::warn!(
            "registration ID {id}: the documents of DPS disagree about such an ID; lower-case letters, digits and dashes inside are safe"
        );
    }
}

/// A moment by which something must have ended, or none.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(clock: &Clock, patience: Duration) -> Self {
        Self(clock.instant().checked_add(patience))
    }

    /// The earlier of this and another.
    fn or_after(self, clock: &Clock, patience: Duration) -> Self {
        let other = Self::after(clock, patience);
        Self(self.0.into_iter().chain(other.0).min())
    }

    /// The later of this and a moment from now.
    fn no_sooner_than(self, clock: &Clock, from_now: Duration) -> Self {
        Self(self.0.and_then(|end| clock.instant().checked_add(from_now).map(|least| end.max(least))))
    }

    fn moment(self) -> Option<Instant> {
        self.0
    }

    fn left(self, clock: &Clock) -> Duration {
        self.0.map_or(Duration::MAX, |end| end.saturating_duration_since(clock.instant()))
    }
}

/// The deadlines of an exchange, which end with the patience at the latest.
fn limits(until: Option<Instant>) -> Limits {
    Limits { connect: EXCHANGE, reply: EXCHANGE, until }
}

/// A seed for jitter.
pub(crate) fn seed() -> u64 {
    let mut seed = [0; 8];
    // Without entropy the jitter is the same each time, which is bad for the service and not for us.
    let _ = getrandom::fill(&mut seed);
    u64::from_le_bytes(seed)
}
