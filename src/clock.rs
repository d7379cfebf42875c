//! The two clocks of the machine, and the floor below which the one on the wall is not believed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// When this binary was built, in seconds since 1970: the earliest honest time (`SOURCE_DATE_EPOCH` where the build set it).
pub const BUILT: u64 = parse(env!("DPS_AGENT_BUILT"));

/// A gateway has no battery clock: after a power cut it may believe in 1970, or in the day its image was made. Below the
/// floor tokens are not made, and TLS judges certificates by the floor.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    floor: u64,
}

impl Clock {
    /// The floor is the later of the build date and `known_good`, the last time that was known to be right (seconds since 1970).
    pub fn with_floor(known_good: Option<u64>) -> Self {
        Self { floor: BUILT.max(known_good.unwrap_or(0)) }
    }

    /// Monotonic time, for waits and deadlines.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Seconds since 1970 by the machine's clock, never below the floor.
    pub fn now(&self) -> u64 {
        Self::wall().max(self.floor)
    }

    /// How far the machine's clock is below the floor; `None` if it can be believed.
    pub fn below_floor(&self) -> Option<Duration> {
        let behind = self.floor.saturating_sub(Self::wall());
        (behind > 0).then(|| Duration::from_secs(behind))
    }

    /// Seconds since 1970 by the machine's clock, believable or not: for telling people what it says.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    pub fn wall() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

const fn parse(digits: &str) -> u64 {
    let bytes = digits.as_bytes();
    let (mut value, mut at) = (0, 0);
    while at < bytes.len() {
        value = value * 10 + (bytes[at] - b'0') as u64;
        at += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_later_of_build_date_and_last_known_good() {
        let far = Clock::wall() + 1_000_000;
        assert_eq!(Clock::with_floor(Some(far)).now(), far);
        assert_eq!(Clock::with_floor(Some(1)).floor, BUILT);
    }

    #[test]
    fn a_clock_below_its_floor_is_known_for_it() {
        assert_eq!(Clock::with_floor(None).below_floor(), None);
        let behind = Clock::with_floor(Some(Clock::wall() + 1_000_000)).below_floor().unwrap();
        assert!(behind > Duration::from_secs(999_000), "{behind:?}");
    }
}
