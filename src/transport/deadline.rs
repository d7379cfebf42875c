//! The moment by which a peer must have done its part.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::protocol::{Lost, Stage};

/// A moment, and how long was allowed, for the words when it has passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    allowed: Duration,
}

impl Deadline {
    /// That long from now.
    pub(crate) fn after(clock: &Clock, allowed: Duration) -> Self {
        Self { at: Instant::from_std(clock.instant()) + allowed, allowed }
    }

    /// What the future brings, or, if it brings nothing in time, that `whom` was silent at this stage.
    pub(crate) async fn bound<T>(&self, stage: Stage, whom: &str, future: impl Future<Output = T>) -> Result<T, Lost> {
        let late = |_| {
            // What was left of a patience is seldom a round number.
            let seconds = (self.allowed.as_secs_f64() * 10.0).round() / 10.0;
            let why = format!("no answer within {seconds} s from {whom}");
            Lost::Unreachable { stage, why }
        };
        tokio::time::timeout_at(self.at, future).await.map_err(late)
    }
}
