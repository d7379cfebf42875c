//! How often one user may ask for something: some at once, and then at a steady pace.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many at once, and another one each `pace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once after a long rest.
    pub at_once: u32,
    /// The time after which another one may come.
    pub pace: Duration,
}

/// What each user has left.
#[derive(Debug)]
pub(super) struct Meter {
    rate: Rate,
    /// When each would have all of it back.
    full_again: HashMap<u32, Instant>,
}

impl Meter {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, full_again: HashMap::new() }
    }

    /// Whether this user may ask now, and it counts; if not, how long to wait.
    pub(super) fn ask(&mut self, user: u32, now: Instant) -> Result<(), Duration> {
        // Who has all of it back need not be remembered.
        self.full_again.retain(|_, full| *full > now);
        let full = self.full_again.get(&user).copied().unwrap_or(now) + self.rate.pace;
        let allowed = now + self.rate.pace * self.rate.at_once;
        if full > allowed {
            return Err(full - allowed);
        }
        self.full_again.insert(user, full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn some_may_come_at_once_and_then_one_each_pace() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut meter = Meter::new(Rate { at_once: 3, pace: second });
        assert_eq!([0; 4].map(|_| meter.ask(7, start)), [Ok(()), Ok(()), Ok(()), Err(second)]);
        assert_eq!(meter.ask(8, start), Ok(()), "each user has his own");
        assert_eq!(meter.ask(7, start + second / 2), Err(second / 2));
        assert_eq!([0; 2].map(|_| meter.ask(7, start + second)), [Ok(()), Err(second)]);
        assert_eq!([0; 4].map(|_| meter.ask(7, start + second * 60)), [Ok(()), Ok(()), Ok(()), Err(second)]);
        assert_eq!(meter.full_again.len(), 1, "who has rested is forgotten");
    }
}
