//! The two clocks of the machine, and the floor below which the one on the wall is not believed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// When this binary was built, in seconds since 1970: the earliest honest time (`SOURCE_DATE_EPOCH` where the build set it).
pub const BUILT: u64 = parse(env!("DPS_AGENT_BUILT"));

/// A gateway has no battery clock: after a power cut it may believe in 1970, or in the day its image was made. Below the
/// floor tokens are not made, and TLS judges certificates by the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    floor: u64,
    told: Option<Told>,
}

/// What time somebody trustworthy said it was, in seconds since 1970, and when, by the time since the machine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    seconds: u64,
    at: Duration,
}

impl Clock {
    /// The floor is the later of the build date and `known_good`, the last time that was known to be right (seconds since 1970).
    pub fn with_floor(known_good: Option<u64>) -> Self {
        Self { floor: BUILT.max(known_good.unwrap_or(0)), told: None }
    }

    /// The same clock, which goes by the time that the service told just now (seconds since 1970) rather than by the machine's.
    #[must_use]
    pub fn told(self, seconds: u64) -> Self {
        Self { told: Some(Told { seconds, at: Self::uptime() }), ..self }
    }

    /// The same clock, which believes the machine again: somebody has set it.
    #[must_use]
    pub fn untold(self) -> Self {
        Self { told: None, ..self }
    }

    /// Time since the machine was started, sleep included: it never jumps, and never goes back.
    pub fn uptime() -> Duration {
        since_start(ClockId::Boottime)
    }

    /// The same without sleep: the time that systemd goes by.
    pub fn monotonic() -> Duration {
        since_start(ClockId::Monotonic)
    }

    /// Monotonic time, for waits and deadlines.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Seconds since 1970, never below the floor.
    pub fn now(&self) -> u64 {
        self.believed().max(self.floor)
    }

    fn believed(&self) -> u64 {
        let by_the_service = |told: Told| told.seconds.saturating_add(Self::uptime().saturating_sub(told.at).as_secs());
        self.told.map_or_else(Self::wall, by_the_service)
    }

    /// How far the machine's clock is below the floor; `None` if it can be believed.
    pub fn below_floor(&self) -> Option<Duration> {
        let behind = self.floor.saturating_sub(self.believed());
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

fn since_start(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::new(seconds, nanoseconds)
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

    #[test]
    fn a_time_that_was_told_goes_on_by_itself_and_can_be_taken_back() {
        let far = Clock::wall() + 1_000_000;
        let told = Clock::with_floor(Some(far)).told(far + 5);
        assert!((far + 5..far + 65).contains(&told.now()), "{told:?}");
        assert_eq!((told.below_floor(), told.untold().below_floor().is_some()), (None, true));
        assert_eq!(Clock::with_floor(None).told(1).now(), BUILT);
    }
}
