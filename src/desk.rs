//! Where the daemon and those who ask it meet: what it tells of itself, what it serves, and what it is asked to do.
//!
//! The daemon writes here and goes on; whoever asks is answered from here at once, whatever the daemon is doing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::attestation::{Attestation, Validity};
use crate::clock::Clock;
use crate::config::Config;
pub use crate::failure::Enrollment;
use crate::failure::Failure;
use crate::lifecycle::Tried;
use crate::record::{Record, rfc3339};

/// So many orders wait for the daemon; more are refused.
const WAITING_ORDERS: usize = 8;

/// The meeting point. One per daemon.
#[derive(Debug)]
pub struct Desk {
    status: watch::Sender<Status>,
    served: watch::Sender<Option<Arc<Served>>>,
    orders: mpsc::Sender<Order>,
    last_given: Mutex<Option<Given>>,
    /// What has been counted since the start.
    pub counts: Counts,
}

/// The assignment that is served now, and what makes connections of it.
#[derive(Debug)]
pub struct Served {
    /// The adopted record.
    pub record: Record,
    /// The configuration under which it was adopted.
    pub config: Arc<Config>,
    /// The identity that signs.
    pub attestation: Arc<Attestation>,
    /// The clock by which tokens are made.
    pub clock: Clock,
}

/// What the daemon knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is at.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// In words, what is being done now.
    pub doing: String,
    /// Registrations begun since the last one that succeeded.
    pub attempts: u32,
    /// Why the last one failed, and when. Kept until one succeeds.
    pub last_error: Option<(Failure, Instant)>,
    /// When DPS is asked next; `None` if nothing is planned.
    pub next_attempt: Option<Instant>,
    /// What is known of the machine's clock.
    pub clock: ClockVerdict,
    /// What DPS last said of the enrollment.
    pub enrollment: Enrollment,
    /// What is known of the assigned hub.
    pub hub: HubVerdict,
    /// The method of attestation.
    pub attestation: Option<&'static str>,
    /// The name under which the device registers; `None` until it is known.
    pub registration_id: Option<String>,
    /// When the client certificate is valid; `None` without one.
    pub certificate: Option<Validity>,
}

/// What the daemon is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Opening configuration, keys or the TPM.
    Starting,
    /// Nobody knows what time it is.
    WaitingForClock,
    /// Asking DPS, or proving what it said. An earlier assignment serves meanwhile.
    Registering,
    /// The last registration failed and the next one is due later. An earlier assignment serves meanwhile.
    Waiting,
    /// There is a valid assignment and nothing to do.
    Provisioned,
}

impl State {
    /// Every state, in the manual's order.
    pub const ALL: [Self; 5] = [Self::Starting, Self::WaitingForClock, Self::Registering, Self::Waiting, Self::Provisioned];

    /// The word in JSON and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WaitingForClock => "waiting-for-clock",
            Self::Registering => "registering",
            Self::Waiting => "waiting",
            Self::Provisioned => "provisioned",
        }
    }
}

/// What is known of the machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockVerdict {
    /// Nothing speaks against it.
    Good,
    /// It is earlier than it can be.
    BelowFloor,
    /// The service's own time is this many seconds ahead of ours (negative: behind).
    Skewed {
        /// Seconds.
        by: i64,
        /// Whether tokens are made by the service's time instead.
        trusted: bool,
    },
}

impl ClockVerdict {
    /// The word in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::BelowFloor => "below-floor",
            Self::Skewed { .. } => "skewed",
        }
    }

    /// Seconds by which the service's time is ahead of ours; 0 where nothing is known.
    pub const fn offset(self) -> i64 {
        match self {
            Self::Good | Self::BelowFloor => 0,
            Self::Skewed { by, .. } => by,
        }
    }
}

/// What the agent's own looks at the hub have shown last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubVerdict {
    /// It has not looked.
    NotAsked,
    /// Something answers there, with the hub's certificate.
    Reachable,
    /// Nothing does, since this moment.
    Unreachable(Instant),
    /// It has refused the device.
    Refused,
}

impl HubVerdict {
    /// The word in JSON and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::Reachable => "reachable",
            Self::Unreachable(_) => "unreachable",
            Self::Refused => "refused",
        }
    }

    /// After a look that tells nobody who we are.
    pub fn looked(&mut self, reachable: bool, now: Instant) {
        *self = match (reachable, *self) {
            (true, _) => Self::Reachable,
            (false, Self::Unreachable(since)) => Self::Unreachable(since),
            (false, Self::NotAsked | Self::Reachable | Self::Refused) => Self::Unreachable(now),
        };
    }

    /// After a try with our credential.
    pub fn tried(&mut self, tried: Tried, now: Instant) {
        match tried {
            Tried::Proven | Tried::Busy => *self = Self::Reachable,
            Tried::Refused => *self = Self::Refused,
            Tried::Unreachable => self.looked(false, now),
        }
    }
}

/// What the daemon is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Register anew now, whatever is being waited for.
    Reprovision,
    /// A consumer says what the hub did with the connection of this generation.
    Report {
        /// The generation it had; `None` if it does not know.
        generation: Option<u64>,
        /// What happened to it.
        trouble: Trouble,
    },
}

/// What a consumer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The hub refused the credential (CONNACK 4 or 5, 401, 403, 404).
    Refused,
    /// The hub could not be reached.
    Unreachable,
}

/// Why an order is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Too many wait already.
    #[error("too many orders are waiting")]
    Busy,
    /// The daemon is going away.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Who was given a connection, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The way: `socket`, `credential` or `template`, and which.
    pub by: String,
    /// User ID of who asked; `None` where nobody asks.
    pub uid: Option<u32>,
    /// Process ID of who asked; `None` where nobody asks.
    pub pid: Option<i32>,
    /// When, by the machine's clock, in seconds since 1970.
    pub at: u64,
    /// The generation of what was given.
    pub generation: u64,
}

/// What has been counted since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Registrations begun.
    pub registrations: AtomicU64,
    /// Registrations that failed.
    pub failures: AtomicU64,
    /// Connections handed out.
    pub connections: AtomicU64,
    /// Reports taken.
    pub reports: AtomicU64,
}

impl Counts {
    /// One more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Desk {
    /// A desk with nothing on it, and the orders that will be laid there.
    pub fn new(now: Instant) -> (Arc<Self>, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(WAITING_ORDERS);
        let (status, served) = (watch::Sender::new(Status::starting(now)), watch::Sender::new(None));
        (Arc::new(Self { status, served, orders, last_given: Mutex::default(), counts: Counts::default() }), taken)
    }

    /// What the daemon is at.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The assignment that is served; `None` while there is none.
    pub fn served(&self) -> Option<Arc<Served>> {
        self.served.borrow().clone()
    }

    /// Hears of each assignment that is served from now on.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Served>>> {
        self.served.subscribe()
    }

    /// How many listen for another assignment now.
    pub fn watchers(&self) -> usize {
        self.served.receiver_count()
    }

    /// Hears of each change of the status.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Lays an order on the desk. The daemon takes it in its own time.
    pub fn order(&self, order: Order) -> Result<(), NotTaken> {
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Busy,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Stopping,
        })
    }

    /// Remembers who was given a connection last.
    pub fn note_given(&self, given: Given) {
        Counts::add(&self.counts.connections);
        *self.last_given.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
    }

    /// Who was given a connection last.
    pub fn last_given(&self) -> Option<Given> {
        self.last_given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon's side: what has changed. Who listens hears of it only if something has.
    pub fn tell(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// The daemon's side: another state from now on.
    pub fn enter(&self, state: State, now: Instant) {
        self.tell(|status| {
            if status.state != state {
                (status.state, status.since) = (state, now);
            }
        });
    }

    /// The daemon's side: serves this from now on.
    pub fn serve(&self, served: Option<Served>) {
        self.served.send_replace(served.map(Arc::new));
    }

    /// `GET /v1/status`, as docs/api.md has it.
    pub fn status_json(&self, clock: Clock) -> Value {
        let (status, served) = (self.status(), self.served());
        let (now, wall) = (clock.instant(), clock.now());
        let record = served.as_ref().map(|served| &served.record);
        json!({
            "state": status.state.word(),
            "since": rfc3339(past(wall, now, status.since)),
            "doing": status.doing,
            "provisioned": record.is_some(),
            "generation": record.map(|record| record.generation),
            "proof": record.map(|record| &record.proof),
            "transport": record.map(|record| &record.transport),
            "attempts": status.attempts,
            "lastError": status.last_error.as_ref().map(|(failure, at)| error_json(failure, past(wall, now, *at))),
            "nextAttempt": status.next_attempt.map(|at| rfc3339(wall.saturating_add(until(now, at)))),
            "nextAttemptInSeconds": status.next_attempt.map(|at| until(now, at)),
            "clock": clock_json(status.clock),
            "enrollment": status.enrollment.word(),
            "hub": status.hub.word(),
            "attestation": status.attestation,
            "registrationId": status.registration_id,
            "certificate": status.certificate.map(|validity| certificate_json(validity, wall)),
            "lastConnection": self.last_given().map(|given| given_json(&given)),
        })
    }
}

impl Status {
    /// A registration has succeeded.
    pub fn succeeded(&mut self, proof: &str) {
        (self.attempts, self.last_error, self.next_attempt) = (0, None, None);
        self.enrollment = Enrollment::Accepted;
        self.hub = if proof == "proven" { HubVerdict::Reachable } else { HubVerdict::NotAsked };
    }

    /// When DPS is asked next. The same moment, computed again, is no news.
    pub fn plan(&mut self, next: Option<Instant>) {
        const SAME: Duration = Duration::from_secs(1);
        let apart = |(one, other): (Instant, Instant)| one.max(other).saturating_duration_since(one.min(other));
        if self.next_attempt.zip(next).is_none_or(|both| apart(both) > SAME) {
            self.next_attempt = next;
        }
    }

    /// A registration has failed.
    pub fn failed(&mut self, failure: &Failure, now: Instant) {
        self.last_error = Some((failure.clone(), now));
        if let Some(enrollment) = failure.enrollment {
            self.enrollment = enrollment;
        }
    }

    fn starting(now: Instant) -> Self {
        Self {
            state: State::Starting,
            since: now,
            doing: "starting".to_owned(),
            attempts: 0,
            last_error: None,
            next_attempt: None,
            clock: ClockVerdict::Good,
            enrollment: Enrollment::NotAsked,
            hub: HubVerdict::NotAsked,
            attestation: None,
            registration_id: None,
            certificate: None,
        }
    }
}

/// Whole days until a certificate ends; negative once it has.
pub fn days_left(validity: Validity, wall: u64) -> i64 {
    let left = i128::from(validity.until) - i128::from(wall);
    i64::try_from(left.div_euclid(86_400)).unwrap_or(i64::MAX)
}

/// When `then` was by the machine's clock, which may have been set since.
fn past(wall: u64, now: Instant, then: Instant) -> u64 {
    wall.saturating_sub(now.saturating_duration_since(then).as_secs())
}

/// Seconds until then, rounded up.
fn until(now: Instant, then: Instant) -> u64 {
    then.saturating_duration_since(now).saturating_add(Duration::from_millis(999)).as_secs()
}

fn error_json(failure: &Failure, at: u64) -> Value {
    let mut error = failure.to_json()["error"].take();
    error["at"] = rfc3339(at).into();
    error
}

fn clock_json(verdict: ClockVerdict) -> Value {
    let trusted = matches!(verdict, ClockVerdict::Skewed { trusted: true, .. });
    json!({ "verdict": verdict.word(), "offsetSeconds": verdict.offset(), "serviceTimeTrusted": trusted })
}

fn certificate_json(validity: Validity, wall: u64) -> Value {
    json!({
        "notBefore": rfc3339(validity.from),
        "notAfter": rfc3339(validity.until),
        "daysLeft": days_left(validity, wall),
    })
}

fn given_json(given: &Given) -> Value {
    json!({
        "by": given.by,
        "uid": given.uid,
        "pid": given.pid,
        "at": rfc3339(given.at),
        "generation": given.generation,
    })
}

#[cfg(test)]
mod tests;
