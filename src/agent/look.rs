//! Looks that decide whether DPS is asked again: at the hub, at DPS, and at the service's own clock.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use super::adopt::assignment_of;
use super::prove::Standing;
use super::{Agent, Deadline, Obtained, limits};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::connection;
use crate::desk::ClockVerdict;
use crate::failure::Failure;
use crate::lifecycle::Tried;
use crate::proof::Attempt;
use crate::protocol::{Answer, wire};
use crate::record::{Record, rfc3339};
use crate::transport::Service;

/// So long a look may take.
const LOOK: Duration = Duration::from_secs(30);

/// A token lives an hour, and the service allows for a few minutes: a smaller difference explains no refusal, in seconds.
pub(crate) const LARGEST_SKEW: u64 = 5 * 60;

impl Agent {
    /// Registers; where the service refuses a token and a wrong clock would explain that, its own time settles it.
    pub(super) async fn register_in_time(&self, end: Deadline, previous: Option<&Record>) -> Result<Obtained, Failure> {
        let failure = match self.register(end, previous).await {
            Err(failure) if is_about_a_token(&failure) => failure,
            other => return other,
        };
        match self.settle_clock(end).await {
            ClockVerdict::Skewed { trusted: true, .. } => self.register(end, previous).await,
            ClockVerdict::Skewed { by, trusted: false } => Err(self.skewed(failure, by)),
            ClockVerdict::Good | ClockVerdict::BelowFloor => Err(failure),
        }
    }

    /// Remembers how far the service's own time is ahead of ours, where its answer tells that (RFC 9110 §6.6.1).
    pub(super) fn note_time(&self, answer: &Answer) {
        let theirs = answer.date.as_deref().and_then(seconds);
        self.ahead.set(theirs.map(|theirs| apart(theirs, self.clock().now())));
    }

    /// What is known of the machine's clock now.
    pub fn clock_verdict(&self) -> ClockVerdict {
        match (self.verdict.get(), self.clock().below_floor()) {
            (ClockVerdict::Good | ClockVerdict::BelowFloor, Some(_)) => ClockVerdict::BelowFloor,
            (ClockVerdict::BelowFloor, None) => ClockVerdict::Good,
            (verdict, _) => verdict,
        }
    }

    /// Whether somebody answers at the hub with its certificate. It is not told who we are, so no consumer loses its connection.
    pub async fn reaches_hub(&self, record: &Record) -> bool {
        let (Some(assignment), Ok(probe)) = (assignment_of(record), self.probe()) else { return false };
        let lost = probe.reach(&assignment.hub, limits(self.soon().moment())).await.err();
        let trouble = lost.map(|lost| format!("the hub {} is not reached: {lost}", assignment.hub));
        let reached = trouble.is_none();
        match self.hub_trouble.news(trouble) {
            Some(Some(trouble)) => tracing::info!("{trouble}"),
            Some(None) => tracing::info!("the hub {} is reached now", assignment.hub),
            None => {}
        }
        reached
    }

    /// Whether DPS answers, by any of the configured ways. It is asked nothing.
    pub async fn reaches_dps(&self) -> bool {
        let Ok(service) = self.service() else { return false };
        for via in &self.config.dps.routes {
            if service.reach(*via, limits(self.soon().moment())).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// One try of the hub with the credential of this record, and the record as it is after that: a hub that had not proven
    /// itself may do so now.
    pub async fn try_hub_of(&self, record: &Record) -> Result<(Tried, Option<Record>), Failure> {
        let Some(assignment) = assignment_of(record) else { return Ok((Tried::Refused, None)) };
        let (probe, key) = (self.probe()?, connection::key(record));
        // A hub tells no time, and what DPS told may be of last week.
        self.ahead.set(None);
        let mut attempt = probe.try_hub(&assignment, &key, limits(self.soon().moment())).await;
        if let Attempt::Refused(_) = attempt {
            match self.settle_clock(self.soon()).await {
                ClockVerdict::Skewed { trusted: true, .. } => {
                    attempt = self.probe()?.try_hub(&assignment, &key, limits(self.soon().moment())).await;
                }
                // The token was made by a wrong clock: what the hub says of it is no evidence.
                ClockVerdict::Skewed { trusted: false, .. } => return Ok((Tried::Unreachable, None)),
                ClockVerdict::Good | ClockVerdict::BelowFloor => {}
            }
        }
        let tried = told(&attempt);
        tracing::info!("tried the hub {} as {}: {}", record.assigned_hub, record.device_id, word(tried));
        let news = tried == Tried::Proven && record.proof != Standing::Proven.word();
        let proven = news.then(|| self.proven(record)).transpose()?;
        Ok((tried, proven))
    }

    /// Whether DPS has assigned the device elsewhere (DPS device API, registration status lookup); `None` if it does not say.
    pub async fn has_moved(&self, record: &Record) -> Option<bool> {
        let known = self.look_up(self.soon()).await;
        let known =
            known.inspect_err(|failure| tracing::info!("the registration status lookup brings nothing: {failure}")).ok()?;
        Some(known.hub.as_str() != record.assigned_hub || known.device_id.as_str() != record.device_id)
    }

    fn proven(&self, record: &Record) -> Result<Record, Failure> {
        let record = Record { proof: Standing::Proven.word().to_owned(), predecessor: None, ..record.clone() };
        self.store.write(&record)?;
        self.publish(&record)?;
        Ok(record)
    }

    /// Compares our clock with the service's, where a token is what was refused: by the answer that refused it, or else by one
    /// more over HTTPS. Where the configuration allows it, the service's time is ours from then on. A difference that explains
    /// nothing, or that nobody tells, is good.
    async fn settle_clock(&self, end: Deadline) -> ClockVerdict {
        if self.attestation.certificate().is_some() {
            return ClockVerdict::Good;
        }
        if self.ahead.get().is_none() {
            self.ask_the_time(end).await;
        }
        let Some(ahead) = self.ahead.take().filter(|ahead| ahead.unsigned_abs() > LARGEST_SKEW) else {
            return ClockVerdict::Good;
        };
        let (theirs, trusted) = (self.clock().now().saturating_add_signed(ahead), self.config.trust_service_date);
        if trusted {
            self.clock.set(self.clock().told(theirs));
        }
        let verdict = ClockVerdict::Skewed { by: apart(theirs, Clock::wall()), trusted };
        self.tell_skew(verdict);
        self.verdict.set(verdict);
        verdict
    }

    async fn ask_the_time(&self, end: Deadline) {
        let Ok(mut service) = self.service() else { return };
        if let Ok(answer) = self.ask(&mut service, end).await {
            self.note_time(&answer);
        }
    }

    fn tell_skew(&self, verdict: ClockVerdict) {
        let ClockVerdict::Skewed { by, trusted } = verdict else { return };
        let side = if by > 0 { "behind" } else { "ahead of" };
        let then = if trusted { "its time is used for tokens" } else { "set the clock" };
        tracing::warn!("this machine's clock is {} s {side} that of {}: {then}", by.unsigned_abs(), self.config.dps.host);
    }

    fn skewed(&self, failure: Failure, by: i64) -> Failure {
        let theirs = Clock::wall().saturating_add_signed(by);
        let message = format!(
            "{}: the token was made by a wrong clock: it is {} here and {} at {}; set this machine's clock, or write \
             trust_service_date = true in [clock]",
            failure.message.split(';').next().unwrap_or_default(),
            rfc3339(Clock::wall()),
            rfc3339(theirs),
            self.config.dps.host
        );
        Failure { blame: Blame::Clock, message, ..failure }
    }

    pub(super) fn service(&self) -> Result<Service<'_>, Failure> {
        let body = wire::register_body(self.attestation.registration_id(), None, self.attestation.shown_keys().as_ref());
        Ok(Service::new(&self.config, &self.attestation, self.clock(), &self.transcript, body)?)
    }

    fn soon(&self) -> Deadline {
        Deadline::after(&self.clock(), LOOK)
    }
}

/// What was last said of a trouble. A gateway may be without an uplink for months, and is not to fill its journal with that.
#[derive(Debug, Default)]
pub(super) struct Trouble(RefCell<Option<String>>);

impl Trouble {
    /// What there is now, or that there is none any more, unless that has been said already.
    fn news(&self, now: Option<String>) -> Option<Option<String>> {
        let before = self.0.replace(now.clone());
        (before != now).then_some(now)
    }
}

/// A 401, or a refused CONNECT: what a token gets that was made by a wrong clock.
fn is_about_a_token(failure: &Failure) -> bool {
    failure.blame == Blame::Unauthorized && failure.code.is_none_or(|code| code / 1000 == 401)
}

/// An HTTP date in seconds since 1970.
fn seconds(date: &str) -> Option<u64> {
    Some(httpdate::parse_http_date(date.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// By how much one time is later than another, in seconds.
fn apart(one: u64, other: u64) -> i64 {
    i64::try_from(i128::from(one) - i128::from(other)).unwrap_or(0)
}

fn told(attempt: &Attempt) -> Tried {
    match attempt {
        Attempt::Proven => Tried::Proven,
        Attempt::Refused(_) => Tried::Refused,
        Attempt::Busy(_) => Tried::Busy,
        Attempt::Unreachable(_) | Attempt::Unable(_) | Attempt::Untrusted(_) => Tried::Unreachable,
    }
}

const fn word(tried: Tried) -> &'static str {
    match tried {
        Tried::Proven => "it accepts this device",
        Tried::Refused => "it refuses this device",
        Tried::Busy => "it is busy",
        Tried::Unreachable => "it could not be asked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_when_it_changes_and_when_it_ends() {
        let (trouble, refused, no_name) = (Trouble::default(), "refused".to_owned(), "no such name".to_owned());
        let looks = [None, Some(&refused), Some(&refused), Some(&no_name), Some(&no_name), None, None, Some(&no_name)];
        let told = looks.map(|look| trouble.news(look.cloned()));
        let (refused, no_name) = (Some(Some(refused)), Some(Some(no_name)));
        assert_eq!(told, [None, refused, None, no_name.clone(), None, Some(None), None, no_name]);
    }
}
