//! What the daemon does next, and when, for years: a value without clock, socket, key or file.
//!
//! DPS is asked on evidence alone (each [`Why`] is one kind), and a hub is judged by looks that disturb nobody. Time is the time
//! since the machine's start, sleep included, so that no clock that is set, or falls back, shortens or lengthens a wait.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blame::Blame;
use crate::campaign::Campaign;

/// Time since the machine's start.
pub type Uptime = Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// How often the way to the hub is looked at while it is open.
pub const LOOK: Duration = Duration::from_secs(15 * 60);
/// How often while it is not.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);
/// A hub that was gone for so long, while DPS answers, may have been replaced (DPS device API, reprovisioning).
pub const GONE: Duration = Duration::from_secs(30 * 60);
/// The longest patience with a hub that is gone, when DPS has said again and again that it is the right one.
const LONGEST_GONE: Duration = Duration::from_secs(24 * 3600);
/// Between two tries of the hub on behalf of consumers who say that it refuses them; doubled while it does not.
const CONFIRM: Duration = MINUTE;
/// The longest time between two of those tries.
const LONGEST_CONFIRM: Duration = Duration::from_secs(3600);
/// Shorter waits are not worth a write to flash.
const WORTH_KEEPING: Duration = Duration::from_secs(5 * 60);

/// Why DPS is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no assignment, or none that fits the configuration and can be used.
    NoAssignment,
    /// Configuration, key or certificate have changed.
    Changed,
    /// An operator wants it.
    Ordered,
    /// The hub has refused us ourselves, after a consumer had said so.
    HubRefuses,
    /// The hub has been gone for long, while DPS answers.
    HubGone,
    /// DPS says that the device is assigned to another hub.
    Moved,
}

impl Why {
    /// In words, for the log and the status.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NoAssignment => "there is no assignment yet",
            Self::Changed => "the configuration, key or certificate has changed",
            Self::Ordered => "an operator asked for it",
            Self::HubRefuses => "the hub refuses this device",
            Self::HubGone => "the hub has been unreachable for long, while DPS answers",
            Self::Moved => "DPS has assigned the device to another hub",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Register with DPS, prove, adopt.
    Register(Why),
    /// See whether somebody answers at the hub, without saying who we are.
    LookAtHub,
    /// One CONNECT to the hub with our own credential: it may take the connection from a consumer.
    TryHub,
    /// See whether DPS answers, without asking it anything.
    AskDps,
    /// The registration status lookup: free of charge, changes nothing.
    LookUp,
}

/// What a try of the hub has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It let us in.
    Proven,
    /// It refuses us, and our clock is not to blame.
    Refused,
    /// It is too busy to say (429, 5xx, CONNACK 3).
    Busy,
    /// It could not be asked, or it was not the hub who answered, or we could not make the credential.
    Unreachable,
}

/// The state of a device's life.
#[derive(Debug)]
pub struct Lifecycle {
    campaign: Campaign,
    wanted: Option<Wanted>,
    /// There is an assignment that serves.
    settled: bool,
    hub: HubWatch,
    confirm: Confirm,
    look_up: bool,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    why: Why,
    due: Uptime,
}

#[derive(Debug)]
struct HubWatch {
    next: Uptime,
    gone_since: Option<Uptime>,
    patience: Duration,
    ask_dps: bool,
    /// DPS answers although the hub was gone for so long: one more look decides.
    dps_answers: bool,
}

impl HubWatch {
    const fn new(next: Uptime, gone_since: Option<Uptime>, patience: Duration) -> Self {
        Self { next, gone_since, patience, ask_dps: false, dps_answers: false }
    }
}

#[derive(Debug)]
struct Confirm {
    due: Option<Uptime>,
    not_before: Uptime,
    spacing: Duration,
}

/// What of a wait outlives the process: kept with the machine's boot, since a wall clock may fall back to 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Which boot of the machine `due_at` counts from.
    pub boot: String,
    /// What configuration and identity it is about: another one does not wait.
    pub about: String,
    /// Seconds since the machine's start.
    pub due_at: u64,
    /// What was left of it when this was written, in seconds: what counts after another boot.
    pub left: u64,
    /// How often this pace has failed already.
    pub failures: u32,
    /// Whose fault the last failure was.
    pub blame: String,
}

impl Lifecycle {
    /// A life in which everything is still to be found out. `settled`: there is an assignment that serves.
    pub fn new(settled: bool, seed: u64, now: Uptime) -> Self {
        Self {
            campaign: Campaign::new(seed),
            wanted: (!settled).then_some(Wanted { why: Why::NoAssignment, due: now }),
            settled,
            hub: HubWatch::new(now + LOOK, None, GONE),
            confirm: Confirm { due: None, not_before: now, spacing: CONFIRM },
            look_up: false,
        }
    }

    /// What is due first, and when; `None` if only something from outside can bring work.
    pub fn next(&self, now: Uptime) -> Option<(Task, Uptime)> {
        let registering = self.wanted.map(|wanted| (Task::Register(wanted.why), wanted.due));
        let confirming = self.confirm.due.map(|due| (Task::TryHub, due));
        let asking = self.hub.ask_dps.then_some((Task::AskDps, now));
        let looking_up = self.look_up.then_some((Task::LookUp, now));
        let looking = self.watches_hub().then_some((Task::LookAtHub, self.hub.next));
        let all = [registering, confirming, looking_up, asking, looking];
        all.into_iter().flatten().min_by_key(|(_, due)| (*due).max(now))
    }

    /// Why DPS is to be asked, and when, if it is.
    pub fn registration_due(&self) -> Option<(Why, Uptime)> {
        self.wanted.map(|wanted| (wanted.why, wanted.due))
    }

    /// How often registrations have failed since the last one that did not.
    pub fn failures(&self) -> u32 {
        self.campaign.failures()
    }

    /// The device is registered, and its hub has let it in or could not be asked. `moved`: it is another hub than before.
    pub fn registered(&mut self, moved: bool, now: Uptime) {
        let why = self.wanted.map(|wanted| wanted.why);
        self.campaign.begin_again();
        (self.wanted, self.settled, self.look_up) = (None, true, false);
        self.confirm.due = None;
        let again = why == Some(Why::HubGone) && !moved;
        let patience = if again { self.hub.patience.saturating_mul(2).min(LONGEST_GONE) } else { GONE };
        // The same answer counts as a fresh start: a hub that stays away must not be asked about each half hour.
        let gone_since = if again { Some(now) } else { None };
        self.hub = HubWatch::new(now + if again { LOOK_AGAIN } else { LOOK }, gone_since, patience);
    }

    /// A registration has failed: how long until the next one. `wish` is what the service asked for.
    pub fn failed(&mut self, blame: Blame, wish: Duration, now: Uptime) -> Duration {
        let wait = self.campaign.wait_after(blame, wish);
        let why = self.wanted.map_or(Why::NoAssignment, |wanted| wanted.why);
        self.wanted = Some(Wanted { why, due: now + wait });
        wait
    }

    /// Something that was changed makes all waiting pointless. `settled`: the assignment fits what was changed all the same.
    pub fn changed(&mut self, settled: bool, now: Uptime) {
        self.campaign.begin_again();
        self.settled = settled;
        let why = if settled { None } else { Some(Why::Changed) };
        self.wanted = why.map(|why| Wanted { why, due: now });
    }

    /// Somebody has set the clock: what failed for want of the right time is tried at once.
    pub fn clock_was_set(&mut self, now: Uptime) {
        let waits_for_it = self.campaign.last_blame().is_some_and(|blame| matches!(blame, Blame::Clock | Blame::Unauthorized));
        if let Some(wanted) = self.wanted.as_mut().filter(|_| waits_for_it) {
            wanted.due = now;
        }
    }

    /// An operator wants a registration now.
    pub fn ordered(&mut self, now: Uptime) {
        self.campaign.begin_again();
        self.wanted = Some(Wanted { why: Why::Ordered, due: now });
    }

    /// A consumer says that the hub refused it. Our own try decides; consumers cannot make us try without end.
    pub fn reported_refused(&mut self, now: Uptime) {
        if self.settled && self.confirm.due.is_none() {
            self.confirm.due = Some(self.confirm.not_before.max(now));
        }
    }

    /// A consumer says that the hub is not there: look soon.
    pub fn reported_unreachable(&mut self, now: Uptime) {
        if self.hub.gone_since.is_none() {
            self.hub.next = self.hub.next.min(now.max(self.confirm.not_before));
            self.confirm.not_before = self.hub.next + self.confirm.spacing;
        }
    }

    /// What a look at the hub has shown. `provable`: the hub has not proven itself yet, and no consumer can be connected.
    pub fn looked(&mut self, reachable: bool, provable: bool, now: Uptime) {
        if reachable {
            self.hub = HubWatch::new(now + LOOK, None, GONE);
            self.forget(Why::HubGone);
            if provable {
                self.confirm.due = Some(now);
            }
            return;
        }
        let gone_since = *self.hub.gone_since.get_or_insert(now);
        self.hub.next = now + LOOK_AGAIN;
        let for_long = self.wanted.is_none() && now.saturating_sub(gone_since) >= self.hub.patience;
        let answers = std::mem::take(&mut self.hub.dps_answers);
        if for_long && answers {
            self.wanted = Some(Wanted { why: Why::HubGone, due: now });
        }
        self.hub.ask_dps = for_long && !answers;
    }

    /// Whether DPS answers while the hub does not.
    pub fn asked_dps(&mut self, answers: bool, now: Uptime) {
        (self.hub.ask_dps, self.hub.dps_answers) = (false, answers);
        if answers {
            // The network may have come back in between, and the hub with it.
            self.hub.next = now;
        }
    }

    /// What our own try of the hub has brought.
    pub fn tried(&mut self, tried: Tried, now: Uptime) {
        self.confirm.due = None;
        self.confirm.not_before = now + self.confirm.spacing;
        self.confirm.spacing = match tried {
            Tried::Refused => CONFIRM,
            Tried::Proven | Tried::Busy | Tried::Unreachable => self.confirm.spacing.saturating_mul(2).min(LONGEST_CONFIRM),
        };
        match tried {
            Tried::Proven => self.forget(Why::HubRefuses),
            Tried::Refused if self.wanted.is_none() => self.wanted = Some(Wanted { why: Why::HubRefuses, due: now }),
            // A registration is on its way already, at its own pace.
            Tried::Refused => {}
            Tried::Busy => self.look_up = true,
            Tried::Unreachable => self.looked(false, false, now),
        }
    }

    /// Whether DPS says that the device belongs to another hub; `None` if it did not say.
    pub fn looked_up(&mut self, moved: Option<bool>, now: Uptime) {
        self.look_up = false;
        if moved == Some(true) && self.wanted.is_none() {
            self.wanted = Some(Wanted { why: Why::Moved, due: now });
        }
    }

    /// What is worth keeping of the present wait.
    pub fn keep(&self, boot: &str, about: &str, now: Uptime) -> Option<Kept> {
        let wanted = self.wanted.filter(|wanted| wanted.due > now + WORTH_KEEPING)?;
        Some(Kept {
            boot: boot.to_owned(),
            about: about.to_owned(),
            due_at: wanted.due.as_secs(),
            left: (wanted.due - now).as_secs(),
            failures: self.campaign.failures(),
            blame: self.campaign.last_blame()?.word().to_owned(),
        })
    }

    /// Goes on waiting where a process before this one stopped. Another configuration or identity does not wait.
    pub fn resume(&mut self, kept: &Kept, boot: &str, about: &str, now: Uptime) {
        let Some(blame) = Blame::ALL.into_iter().find(|blame| blame.word() == kept.blame) else { return };
        if kept.about != about || self.wanted.is_none() {
            return;
        }
        self.campaign.go_on(blame, kept.failures);
        let left = match kept.boot == boot {
            true => Duration::from_secs(kept.due_at).saturating_sub(now),
            false => Duration::from_secs(kept.left),
        };
        // What nobody could have planned is not obeyed.
        let left = left.min(Campaign::LONGEST);
        self.wanted = Some(Wanted { why: Why::NoAssignment, due: now + left });
    }

    fn watches_hub(&self) -> bool {
        self.settled && self.wanted.is_none_or(|wanted| wanted.why == Why::HubGone)
    }

    fn forget(&mut self, why: Why) {
        if self.wanted.is_some_and(|wanted| wanted.why == why) {
            self.campaign.begin_again();
            self.wanted = None;
        }
    }
}

#[cfg(test)]
mod tests;
