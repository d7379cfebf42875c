//! The steps of one registration: each is a value whose methods are its only legal continuations.

use std::fmt;
use std::time::{Duration, Instant};

use super::retry::{Backoff, Verdict};
use super::{Assignment, AuthenticationKey, KeySlot, Lost, Refusal, Reply, Request, Via};
use crate::blame::Blame;
use crate::id::OperationId;

/// What to do next. Do it, tell how it went, and there is the next step.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Send its request on its connection, then [`Exchange::replied`] or [`Exchange::lost`].
    Exchange(Exchange),
    /// Wait its length, then [`Pause::elapsed`].
    Pause(Pause),
    /// Give its key to the TPM, then [`Import::imported`] or [`Import::lost`].
    Import(Import),
    /// The end.
    Done(Result<Registered, GaveUp>),
}

/// The numbers of a registration.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long to go on, from the beginning.
    pub patience: Duration,
    /// The ways to reach the service, in the order in which they are tried. Not empty.
    pub routes: Vec<Via>,
    /// Whether there is a second key to try.
    pub second_key: bool,
    /// Whether the service asks for a proof of what the TPM can do, before and after it assigns (DPS device API, TPM attestation).
    pub challenged: bool,
    /// What the jitter is drawn from.
    pub seed: u64,
}

impl Policy {
    const FIRST_WAIT: Duration = Duration::from_secs(1);
    const LONGEST_WAIT: Duration = Duration::from_secs(300);
    /// The service allows 5 polls in 10 s (DPS device API, limits).
    const POLL: Duration = Duration::from_secs(2);
    /// A pause longer than this gives the connection back: neither side should hold it.
    const KEEP_CONNECTION: Duration = Duration::from_secs(30);
    /// What a last try before the end of the patience needs: the time that one exchange may take.
    const LAST_TRY: Duration = Duration::from_secs(10);
    /// Less is no time to try anything: its failure would say nothing, and hide what was said before.
    const SHORTEST_TRY: Duration = Duration::from_millis(500);
    /// So many answers in a row that make no sense are the end.
    const STRIKES: u32 = 3;
}

/// The connection on which an exchange is to happen. Another value means another connection: the old one is closed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The transport.
    pub via: Via,
    /// The key that signs for it.
    pub slot: KeySlot,
    /// Counts the connections of this registration, so that two in a row can differ in nothing else.
    pub number: u32,
}

/// A registration that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// The hub and the device's name there.
    pub assignment: Assignment,
    /// The transport that worked.
    pub via: Via,
    /// The key that the service accepted.
    pub slot: KeySlot,
}

/// A registration that ended without an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaveUp {
    /// What stood in the way at the end.
    pub trouble: Trouble,
    /// The service's wish not to be asked before this moment, where it reaches past our patience.
    pub not_before: Option<Instant>,
}

/// What stands in the way of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The service said no.
    Refused(Refusal),
    /// No sensible answer came.
    Lost(Lost),
    /// The service has accepted the registration and has not decided yet.
    StillAssigning,
}

impl Trouble {
    /// Whom to blame for it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Refused(refusal) => refusal.blame(),
            Self::Lost(lost) => lost.blame(),
            Self::StillAssigning => Blame::Busy,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Lost(lost) => lost.fmt(f),
            Self::StillAssigning => f.write_str("the service is still assigning a hub"),
        }
    }
}

/// Begins a registration at `now`.
pub fn begin(policy: Policy, now: Instant) -> Step {
    let course = Course {
        // A patience too long to be a time is no end at all.
        deadline: now.checked_add(policy.patience),
        backoff: Backoff::new(Policy::FIRST_WAIT, Policy::LONGEST_WAIT, policy.seed),
        policy,
        route: 0,
        routes_failed: 0,
        slot: KeySlot::Primary,
        keys_refused: 0,
        strikes: 0,
        answered: false,
        useless_keys: 0,
        connection: 1,
        last: None,
        lost_operation: false,
    };
    let request = course.opening();
    course.ask(request)
}

/// Ask the service its [`request`](Exchange::request) on its [`connection`](Exchange::connection).
#[derive(Debug)]
pub struct Exchange {
    course: Course,
    request: Request,
}

impl Exchange {
    /// What to ask.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Where to ask.
    pub fn connection(&self) -> Connection {
        self.course.connection()
    }

    /// What is left of the patience; `None` if it has no end.
    pub fn patience_left(&self, now: Instant) -> Option<Duration> {
        self.course.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// An answer came and made sense.
    pub fn replied(mut self, reply: Reply, now: Instant) -> Step {
        self.course.strikes = 0;
        self.course.last = None;
        self.course.routes_failed = 0;
        match reply {
            Reply::Challenged(key) if self.request == Request::Challenge => {
                Step::Import(Import { course: self.course, key, errand: Errand::Answer, assignment: None })
            }
            Reply::Challenged(_) => self.lost(Lost::Nonsense("a challenge that nobody has asked for".to_owned()), now),
            Reply::Assigned(assignment) => self.course.assigned(assignment, now),
            Reply::Pending { operation, retry_after } => {
                // Progress, unless it is one operation after the other that gets lost.
                self.course.lost_operation &= !matches!(self.request, Request::Query(_));
                if !self.course.lost_operation {
                    self.course.backoff.reset();
                }
                self.course.pending(operation, retry_after, now)
            }
            Reply::Refused(refusal) => self.refused(refusal, now),
        }
    }

    /// No answer that makes sense came, and the connection is gone.
    pub fn lost(self, lost: Lost, now: Instant) -> Step {
        let Self { mut course, request } = self;
        course.connection += 1;
        match lost.verdict() {
            Verdict::AnotherRoute | Verdict::Again if course.is_late(now) => return course.run_out(Trouble::Lost(lost)),
            Verdict::AnotherRoute if course.has_another_route() => return course.by_another_route(request),
            // The next round begins with the preferred route again: a network that was down says nothing against it.
            Verdict::AnotherRoute => course.route = 0,
            Verdict::Strike => {
                course.strikes += 1;
                if course.strikes >= Policy::STRIKES {
                    return course.give_up(Trouble::Lost(lost), None);
                }
            }
            Verdict::Stop => return course.give_up(Trouble::Lost(lost), None),
            Verdict::Again | Verdict::AnotherKey | Verdict::Anew => {}
        }
        course.routes_failed = 0;
        course.back_off(request, Trouble::Lost(lost), None, now)
    }

    fn refused(self, refusal: Refusal, now: Instant) -> Step {
        let Self { mut course, request } = self;
        match refusal.verdict(&request) {
            Verdict::AnotherKey if course.has_another_key() => course.by_another_key(request),
            Verdict::Again => course.back_off_for(request, refusal, now),
            Verdict::Anew => {
                course.lost_operation = true;
                course.back_off_for(Request::Register, refusal, now)
            }
            Verdict::AnotherKey | Verdict::Stop | Verdict::AnotherRoute | Verdict::Strike => {
                course.give_up(Trouble::Refused(refusal), None)
            }
        }
    }
}

/// Give the service's [`key`](Import::key) to the TPM, for its [`errand`](Import::errand).
#[derive(Debug)]
pub struct Import {
    course: Course,
    key: AuthenticationKey,
    errand: Errand,
    assignment: Option<Box<Assignment>>,
}

/// What a key from the service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// To sign the requests that follow, and to be forgotten.
    Answer,
    /// To be kept, for the hub.
    Keep,
}

impl Errand {
    /// The word for it in transcripts, when it is done.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answer => "answered",
            Self::Keep => "imported",
        }
    }
}

impl Import {
    /// The key.
    pub fn key(&self) -> &AuthenticationKey {
        &self.key
    }

    /// What for.
    pub fn errand(&self) -> Errand {
        self.errand
    }

    /// The TPM has taken it.
    pub fn imported(mut self) -> Step {
        match self.assignment {
            Some(assignment) => Step::Done(Ok(self.course.registered(*assignment))),
            None => {
                self.course.answered = true;
                self.course.ask(Request::Register)
            }
        }
    }

    /// The TPM has not. [`Lost::Nonsense`] says that the key is no good; anything else, that the TPM is not.
    pub fn lost(self, lost: Lost, now: Instant) -> Step {
        match lost.verdict() {
            Verdict::Strike => self.course.useless_key(lost, now),
            Verdict::Stop | Verdict::Again | Verdict::AnotherRoute | Verdict::AnotherKey | Verdict::Anew => {
                self.course.give_up(Trouble::Lost(lost), None)
            }
        }
    }
}

/// Wait.
#[derive(Debug)]
pub struct Pause {
    course: Course,
    next: Request,
    length: Duration,
    trouble: Trouble,
}

impl Pause {
    /// How long to wait.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// What the wait is for.
    pub fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Whether to keep the connection meanwhile; otherwise it is to be closed before the wait.
    pub fn keeps(&self) -> bool {
        self.length <= Policy::KEEP_CONNECTION && !matches!(self.trouble, Trouble::Lost(_))
    }

    /// The time has passed.
    pub fn elapsed(mut self) -> Step {
        if !self.keeps() {
            self.course.connection += 1;
        }
        self.course.last = Some(self.trouble);
        self.course.ask(self.next)
    }
}

/// What a registration carries from step to step.
#[derive(Debug)]
struct Course {
    policy: Policy,
    deadline: Option<Instant>,
    backoff: Backoff,
    route: usize,
    routes_failed: usize,
    slot: KeySlot,
    keys_refused: usize,
    strikes: u32,
    /// A challenge has been answered, and its key signs.
    answered: bool,
    /// Keys that the TPM did not take, one after the other.
    useless_keys: u32,
    connection: u32,
    /// What the last pause was for.
    last: Option<Trouble>,
    /// The service forgot an operation, and has not shown since that it remembers the one after it.
    lost_operation: bool,
}

impl Course {
    fn ask(self, request: Request) -> Step {
        Step::Exchange(Exchange { course: self, request })
    }

    fn connection(&self) -> Connection {
        let via = self.policy.routes.get(self.route).copied().unwrap_or(Via::Mqtt);
        Connection { via, slot: self.slot, number: self.connection }
    }

    fn opening(&self) -> Request {
        if self.policy.challenged && !self.answered { Request::Challenge } else { Request::Register }
    }

    fn assigned(self, mut assignment: Assignment, now: Instant) -> Step {
        match assignment.key.take().filter(|_| self.policy.challenged) {
            None if self.policy.challenged => {
                self.useless_key(Lost::Nonsense("it assigns a hub without the TPM's key for it".to_owned()), now)
            }
            None => Step::Done(Ok(self.registered(assignment))),
            Some(key) => Step::Import(Import { course: self, key, errand: Errand::Keep, assignment: Some(Box::new(assignment)) }),
        }
    }

    /// Another registration may bring a better one.
    fn useless_key(mut self, lost: Lost, now: Instant) -> Step {
        self.useless_keys += 1;
        if self.useless_keys >= Policy::STRIKES {
            return self.give_up(Trouble::Lost(lost), None);
        }
        self.answered = false;
        self.back_off(Request::Challenge, Trouble::Lost(lost), None, now)
    }

    fn registered(&self, assignment: Assignment) -> Registered {
        Registered { assignment, via: self.connection().via, slot: self.slot }
    }

    fn pending(mut self, operation: OperationId, retry_after: Option<Duration>, now: Instant) -> Step {
        self.keys_refused = 0;
        let length = retry_after.unwrap_or(Policy::POLL).max(Policy::POLL);
        self.pause(length, Request::Query(operation), Trouble::StillAssigning, now)
    }

    fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    fn has_another_route(&self) -> bool {
        self.routes_failed + 1 < self.policy.routes.len()
    }

    fn by_another_route(mut self, request: Request) -> Step {
        self.routes_failed += 1;
        self.route = (self.route + 1) % self.policy.routes.len();
        self.ask(request)
    }

    /// A challenge may have grown old, and there can be a new one.
    fn has_another_key(&self) -> bool {
        (self.policy.second_key || self.policy.challenged) && self.keys_refused == 0
    }

    fn by_another_key(mut self, request: Request) -> Step {
        self.keys_refused += 1;
        if self.policy.challenged {
            self.answered = false;
            return self.ask(Request::Challenge);
        }
        self.connection += 1;
        self.slot = match self.slot {
            KeySlot::Primary => KeySlot::Secondary,
            KeySlot::Secondary => KeySlot::Primary,
        };
        self.ask(request)
    }

    fn back_off_for(self, request: Request, refusal: Refusal, now: Instant) -> Step {
        let wish = refusal.retry_after;
        self.back_off(request, Trouble::Refused(refusal), wish, now)
    }

    /// `wish` is obeyed to the letter and a little beyond: all that were told the same must not come back together.
    fn back_off(mut self, request: Request, trouble: Trouble, wish: Option<Duration>, now: Instant) -> Step {
        let own = self.backoff.wait();
        let length = match wish {
            Some(wish) => wish.saturating_add(self.backoff.fraction_of(wish / 10)).max(own),
            None => self.leaving_a_last_try(own, now),
        };
        self.pause(length, request, trouble, now)
    }

    /// A wait of our own choice must not reach past the patience while there is time for one more exchange in it.
    fn leaving_a_last_try(&self, wait: Duration, now: Instant) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
        match left.and_then(|left| left.checked_sub(Policy::LAST_TRY)) {
            Some(until_then) if wait > until_then && until_then >= Policy::FIRST_WAIT => until_then,
            Some(_) | None => wait,
        }
    }

    /// Nothing is gained by waiting for a moment at which nobody will try, or has no time for it.
    fn pause(self, length: Duration, next: Request, trouble: Trouble, now: Instant) -> Step {
        let until = now.checked_add(length);
        let tried = until.and_then(|until| until.checked_add(Policy::SHORTEST_TRY));
        match (self.deadline, until) {
            (Some(deadline), Some(until)) if tried.is_none_or(|tried| tried >= deadline) => self.give_up(trouble, Some(until)),
            (Some(_), None) => self.give_up(trouble, None),
            (_, _) => Step::Pause(Pause { course: self, next, length, trouble }),
        }
    }

    /// The patience ended in the middle of an exchange. A service that said no before, or showed a certificate of the future, may
    /// have been given no time to do it again.
    fn run_out(mut self, trouble: Trouble) -> Step {
        match self.last.take() {
            Some(said @ (Trouble::Refused(_) | Trouble::Lost(Lost::NotYetValid { .. }))) => self.give_up(said, None),
            Some(Trouble::Lost(_) | Trouble::StillAssigning) | None => self.give_up(trouble, None),
        }
    }

    fn give_up(self, trouble: Trouble, not_before: Option<Instant>) -> Step {
        Step::Done(Err(GaveUp { trouble, not_before }))
    }
}

#[cfg(test)]
mod tests;
