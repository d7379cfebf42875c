//! The daemon's patience, which has no end: how long to wait between one registration and the next.

use std::time::{Duration, Instant};

use crate::blame::Blame;
use crate::failure::Failure;
use crate::protocol::retry::Backoff;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Waits between registrations. They grow while the same pace is called for, and begin again when another is.
#[derive(Debug)]
pub struct Campaign {
    pace: Pace,
    backoff: Backoff,
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Nobody has said no: up to five minutes.
    Soon,
    /// Somebody may mend it any time: from a minute to an hour.
    Later,
    /// The service has said no for good, and half a million gateways may have heard it at once: from an hour to a day.
    Rarely,
}

impl Campaign {
    /// The patience of one registration within it.
    pub const PATIENCE: Duration = Duration::from_secs(600);

    /// A campaign that has not failed yet. The same seed gives the same waits.
    pub fn new(seed: u64) -> Self {
        Self { pace: Pace::Soon, backoff: Pace::Soon.backoff(seed), seed }
    }

    /// How long to wait after this failure: full jitter, and never less than the service has asked for.
    pub fn wait_after(&mut self, failure: &Failure, now: Instant) -> Duration {
        let pace = Pace::of(failure.blame);
        if pace != self.pace {
            self.seed = self.seed.wrapping_add(1);
            (self.pace, self.backoff) = (pace, pace.backoff(self.seed));
        }
        let wish = failure.not_before.map_or(Duration::ZERO, |moment| moment.saturating_duration_since(now));
        self.backoff.wait().max(wish).max(SECOND)
    }
}

impl Pace {
    fn of(blame: Blame) -> Self {
        match blame {
            Blame::Network | Blame::Clock | Blame::Busy => Self::Soon,
            Blame::Refused => Self::Rarely,
            Blame::Unauthorized
            | Blame::Hub
            | Blame::Untrusted
            | Blame::Peer
            | Blame::Tpm
            | Blame::Credential
            | Blame::Configuration
            | Blame::Usage
            | Blame::Unwritable
            | Blame::Storage => Self::Later,
        }
    }

    fn backoff(self, seed: u64) -> Backoff {
        let (first, most) = match self {
            Self::Soon => (SECOND * 10, SECOND * 300),
            Self::Later => (SECOND * 60, HOUR),
            Self::Rarely => (HOUR, HOUR * 24),
        };
        Backoff::new(first, most, seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn any_moment() -> Instant {
        Instant::now()
    }

    fn waits(campaign: &mut Campaign, blame: Blame, times: usize) -> Vec<Duration> {
        let failure = Failure::new(blame, "");
        (0..times).map(|_| campaign.wait_after(&failure, any_moment())).collect()
    }

    #[test]
    fn a_refusal_for_good_is_retried_within_an_hour_then_two_up_to_a_day() {
        for seed in 0..100 {
            let bounds = [1, 2, 4, 8, 16, 24, 24].map(|hours| HOUR * hours);
            for (wait, bound) in waits(&mut Campaign::new(seed), Blame::Refused, 7).into_iter().zip(bounds) {
                assert!(wait <= bound, "{wait:?} > {bound:?}");
            }
        }
    }

    #[test]
    fn half_a_million_refused_gateways_stay_below_the_service_s_rate() {
        // In the steady state each waits half a day on average: 500,000 / 720 min, where 1,000 a minute are allowed.
        let total: u64 =
            (0..2_000).map(|seed| waits(&mut Campaign::new(seed), Blame::Refused, 12).last().unwrap().as_secs()).sum();
        let a_minute = 500_000.0 * 60.0 / (total as f64 / 2_000.0);
        assert!(a_minute < 800.0, "{a_minute} registrations a minute");
    }

    #[test]
    fn another_blame_begins_at_its_own_pace() {
        let mut campaign = Campaign::new(7);
        waits(&mut campaign, Blame::Refused, 5);
        assert!(waits(&mut campaign, Blame::Network, 1)[0] <= SECOND * 10);
        assert!(waits(&mut campaign, Blame::Unauthorized, 1)[0] <= SECOND * 60);
        assert!(waits(&mut campaign, Blame::Refused, 1)[0] <= HOUR);
    }

    #[test]
    fn what_the_service_asked_for_is_never_shortened() {
        let now = any_moment();
        let failure = Failure { not_before: Some(now + HOUR * 3), ..Failure::new(Blame::Busy, "") };
        assert_eq!(Campaign::new(1).wait_after(&failure, now), HOUR * 3);
    }
}
