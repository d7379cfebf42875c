//! The service's rate: so many operations a minute, over all callers (service API §1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A little less than a minute, so that the network's jitter cannot break what a client paces well.
const WINDOW: Duration = Duration::from_secs(58);

/// What was let through lately.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When, and how many operations.
    taken: VecDeque<(Instant, u32)>,
    /// How many calls were answered 429.
    pub(crate) throttled: u64,
}

impl Rate {
    /// Lets `operations` through, or says after how many seconds there will be room for them.
    pub(super) fn take(&mut self, operations: u32, limit: u32, now: Instant) -> Result<(), u64> {
        self.taken.retain(|(at, _)| now.duration_since(*at) < WINDOW);
        let taken: u32 = self.taken.iter().map(|(_, operations)| operations).sum();
        if taken.saturating_add(operations) <= limit {
            self.taken.push_back((now, operations));
            return Ok(());
        }
        self.throttled += 1;
        Err(self.room(taken.saturating_add(operations) - limit, now))
    }

    /// When the oldest operations, `missing` of them, are out of the window.
    fn room(&self, mut missing: u32, now: Instant) -> u64 {
        for (at, operations) in &self.taken {
            missing = missing.saturating_sub(*operations);
            if missing == 0 {
                return (WINDOW.saturating_sub(now.duration_since(*at))).as_secs() + 1;
            }
        }
        WINDOW.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rate.take(60, 100, at(0)), Ok(()));
        assert_eq!(rate.take(40, 100, at(10)), Ok(()));
        assert_eq!(rate.take(1, 100, at(20)), Err(39), "58 s after the first, and one to be sure");
        assert_eq!(rate.take(61, 100, at(20)), Err(49));
        assert_eq!(rate.take(60, 100, at(58)), Ok(()));
        assert_eq!((rate.take(101, 100, at(500)), rate.throttled), (Err(58), 3));
    }
}
