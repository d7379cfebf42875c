//! The daemon's patience, which has no end: how long to wait between one registration and the next.

use std::time::Duration;

use crate::blame::Blame;
use crate::protocol::retry::Backoff;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Waits between registrations. They grow while the same pace is called for, and begin again when another is.
#[derive(Debug)]
pub struct Campaign {
    pace: Pace,
    backoff: Backoff,
    seed: u64,
    failures: u32,
    last_blame: Option<Blame>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Nobody has said no: up to five minutes.
    Soon,
    /// Somebody may mend it any time: from a minute to six hours.
    Later,
    /// The service has said no for good, and half a million gateways may have heard it at once: from an hour to a day.
    Rarely,
}

impl Campaign {
    /// The patience of one registration within it.
    pub const PATIENCE: Duration = Duration::from_secs(600);

    /// No wait of ours is longer; one that the service asks for can be as long.
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

    /// A campaign that has not failed yet. The same seed gives the same waits.
    pub fn new(seed: u64) -> Self {
        Self { pace: Pace::Soon, backoff: Pace::Soon.backoff(seed), seed, failures: 0, last_blame: None }
    }

    /// How long to wait after a failure: full jitter, and never less than the service has asked for (`wish`).
    pub fn wait_after(&mut self, blame: Blame, wish: Duration) -> Duration {
        self.take_pace(Pace::of(blame));
        self.failures = self.failures.saturating_add(1);
        self.last_blame = Some(blame);
        let bound = self.backoff.bound();
        let wait = self.pace.spread(bound, self.backoff.wait());
        wait.max(wish).max(SECOND)
    }

    /// Something worked, or was changed: the next failure is the first one.
    pub fn begin_again(&mut self) {
        self.seed = self.seed.wrapping_add(1);
        *self = Self::new(self.seed);
    }

    /// As if there had been so many failures already, the last one for this reason.
    pub fn go_on(&mut self, blame: Blame, failures: u32) {
        self.take_pace(Pace::of(blame));
        // The bound has reached its end long before.
        for _ in 0..failures.min(32) {
            self.backoff.wait();
        }
        (self.failures, self.last_blame) = (failures, Some(blame));
    }

    /// How many failures there were in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whose fault the last one was.
    pub fn last_blame(&self) -> Option<Blame> {
        self.last_blame
    }

    fn take_pace(&mut self, pace: Pace) {
        if pace != self.pace {
            self.seed = self.seed.wrapping_add(1);
            (self.pace, self.backoff) = (pace, pace.backoff(self.seed));
        }
    }
}

impl Pace {
    fn of(blame: Blame) -> Self {
        match blame {
            Blame::Network | Blame::Busy => Self::Soon,
            Blame::Refused => Self::Rarely,
            // A clock that is wrong is wrong on a whole fleet, and each try with it reaches the service.
            Blame::Clock
            | Blame::Unauthorized
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
            Self::Later => (SECOND * 60, HOUR * 6),
            Self::Rarely => (HOUR, Campaign::LONGEST),
        };
        Backoff::new(first, most, seed)
    }

    /// Where one wait lies below its bound. A wait of next to nothing would be one more question than two a day.
    fn spread(self, bound: Duration, jittered: Duration) -> Duration {
        match self {
            Self::Soon | Self::Later => jittered,
            Self::Rarely => bound / 8 + jittered * 7 / 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(campaign: &mut Campaign, blame: Blame, times: usize) -> Vec<Duration> {
        (0..times).map(|_| campaign.wait_after(blame, Duration::ZERO)).collect()
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
        assert_eq!(Campaign::new(1).wait_after(Blame::Busy, HOUR * 3), HOUR * 3);
    }

    #[test]
    fn a_campaign_goes_on_where_another_process_left_it() {
        let mut campaign = Campaign::new(3);
        campaign.go_on(Blame::Refused, 9);
        assert_eq!((campaign.failures(), campaign.last_blame()), (9, Some(Blame::Refused)));
        let average = (0..400).map(|_| campaign.wait_after(Blame::Refused, Duration::ZERO).as_secs()).sum::<u64>() / 400;
        assert!((12 * 3600..15 * 3600).contains(&average), "{average}: the bound is a day already");
    }
}
