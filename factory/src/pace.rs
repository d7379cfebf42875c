//! Keeps to the service's limit of operations per minute (DPS service API §1), so that it never has to answer 429.
//!
//! Two rules. Requests are spread evenly, so that no second sees a burst. And within any sixty seconds, counted from the answers, no more
//! is spent than the rate: the service has counted a request before it answers it, however long that took to arrive. Whether a bulk
//! of ten is one operation or ten is UNCONFIRMED; the caller says what a request costs, and says ten.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use tokio::time::{Instant, sleep};

/// The window in which the service counts.
const WINDOW: Duration = Duration::from_secs(60);
/// How often we look whether an answer has come, if all that counts is still on its way.
const LOOK: Duration = Duration::from_millis(20);

/// How many operations a request is, in the context of a request. One, if nobody says.
#[derive(Debug, Clone, Copy)]
pub struct Cost(pub u32);

/// The pace of all requests of this process.
#[derive(Debug)]
pub struct Pace {
    /// Operations per minute.
    rate: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when each request counts: `None` while its answer is not there.
    spent: VecDeque<(u64, u32, Option<Instant>)>,
    numbers: u64,
    next: Option<Instant>,
}

impl Pace {
    /// `rate` is in operations per minute, and no less than a bulk costs.
    pub fn new(rate: u32) -> Self {
        Self { rate, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `cost` operations may begin; the number by which their end is told.
    async fn begin(&self, cost: u32) -> u64 {
        loop {
            let wait = match self.state().take(cost, self.rate, Instant::now()) {
                Ok(number) => return number,
                Err(wait) => wait,
            };
            sleep(wait).await;
        }
    }

    fn answered(&self, number: u64) {
        let now = Instant::now();
        let mut state = self.state();
        state.spent.iter_mut().filter(|(of, ..)| *of == number).for_each(|(.., since)| *since = Some(now));
    }
}

impl State {
    /// Spends, or says how long to wait before asking again.
    fn take(&mut self, cost: u32, rate: u32, now: Instant) -> Result<u64, Duration> {
        self.spent.retain(|(.., since)| since.is_none_or(|since| now.duration_since(since) <= WINDOW));
        if let Some(next) = self.next.filter(|next| *next > now) {
            return Err(next - now);
        }
        let spent: u32 = self.spent.iter().map(|(_, cost, _)| cost).sum();
        if spent + cost > rate && !self.spent.is_empty() {
            let oldest = self.spent.iter().filter_map(|(.., since)| *since).min();
            return Err(oldest.map_or(LOOK, |oldest| oldest + WINDOW + Duration::from_millis(1) - now));
        }
        self.numbers += 1;
        self.spent.push_back((self.numbers, cost, None));
        self.next = Some(now + WINDOW * cost / rate);
        Ok(self.numbers)
    }
}

#[async_trait]
impl Policy for Pace {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let number = self.begin(context.value::<Cost>().map_or(1, |cost| cost.0)).await;
        let answer = match next.split_first() {
            Some((first, rest)) => first.send(context, request, rest).await,
            None => Err(azure_core::Error::with_message(azure_core::error::ErrorKind::Other, "nobody sends the request")),
        };
        self.answered(number);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends requests of this cost, each answered after `latency`; when the service counted each, in virtual time.
    async fn send(pace: &Pace, requests: u32, cost: u32, latency: impl Fn(u32) -> Duration) -> Vec<Duration> {
        let began = Instant::now();
        let mut counted = Vec::new();
        for request in 0..requests {
            let number = pace.begin(cost).await;
            sleep(latency(request)).await;
            counted.push(began.elapsed());
            pace.answered(number);
        }
        counted
    }

    fn most_in_a_window(counted: &[Duration], cost: u32) -> u32 {
        let within = |from: Duration| counted.iter().filter(|at| **at >= from && **at <= from + WINDOW).count();
        counted.iter().map(|from| u32::try_from(within(*from)).unwrap() * cost).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn three_thousand_devices_in_bulks_of_ten_take_three_minutes_and_no_minute_sees_more_than_the_rate() {
        let counted = send(&Pace::new(1000), 300, 10, |_| Duration::from_millis(100)).await;
        assert_eq!(most_in_a_window(&counted, 10), 1000);
        let whole = *counted.last().unwrap();
        assert!(whole > Duration::from_secs(179) && whole < Duration::from_secs(182), "{whole:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_come_late_and_early_do_not_crowd_a_minute() {
        let latency = |request: u32| Duration::from_millis(u64::from(request * 7919 % 590));
        let counted = send(&Pace::new(1000), 400, 10, latency).await;
        assert_eq!(most_in_a_window(&counted, 10), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_spread_evenly() {
        let counted = send(&Pace::new(60), 10, 1, |_| Duration::ZERO).await;
        let gaps: Vec<_> = counted.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert!(gaps.iter().all(|gap| (1000..=1002).contains(gap)), "{gaps:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_dearer_than_the_rate_is_sent_all_the_same() {
        let counted = send(&Pace::new(5), 2, 10, |_| Duration::ZERO).await;
        assert_eq!(counted.len(), 2);
    }
}
