//! The one table that decides what happens after a failure, and the waits between tries.

use std::time::Duration;

use super::{Lost, Refusal, Request, Stage};
use crate::blame::Blame;

/// What a failure asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same request once more, after a wait.
    Again,
    /// The same request by another transport at once; after a wait when all have been tried.
    AnotherRoute,
    /// The same request with the device's other key at once, or with a new challenge; the end when both were refused.
    AnotherKey,
    /// The operation is gone: register anew, after a wait.
    Anew,
    /// A new connection after a wait; the third time in a row is the end.
    Strike,
    /// The end.
    Stop,
}

impl Refusal {
    /// Whom to blame, and so what to do. A final answer of `failed` is judged by the error code within it.
    pub fn blame(&self) -> Blame {
        let status = match (&self.final_status, self.code) {
            (Some(_), Some(code)) => code.checked_div(1000).unwrap_or(0),
            (Some(_), None) => 400,
            (None, _) => u32::from(self.status),
        };
        match status {
            // Inside a final answer a 401 is between the service and its hub: no key of ours mends it.
            401 | 403 if self.final_status.is_none() => Blame::Unauthorized,
            408 | 409 | 425 | 429 | 500.. => Blame::Busy,
            _ => Blame::Refused,
        }
    }

    /// What a refusal of this request asks for.
    pub fn verdict(&self, request: &Request) -> Verdict {
        let lost_operation = self.status == 404 && self.code.is_none_or(|code| code == 404_203);
        match (self.blame(), request) {
            (Blame::Refused, Request::Query(_)) if lost_operation => Verdict::Anew,
            (Blame::Unauthorized, Request::Register | Request::Query(_)) => Verdict::AnotherKey,
            // Nothing was shown yet, so there is nothing else to show.
            (Blame::Unauthorized, Request::Challenge) => Verdict::Stop,
            (Blame::Busy, Request::Challenge | Request::Register | Request::Query(_)) => Verdict::Again,
            (
                Blame::Refused
                | Blame::Usage
                | Blame::Configuration
                | Blame::Credential
                | Blame::Network
                | Blame::Clock
                | Blame::Hub
                | Blame::Untrusted
                | Blame::Peer
                | Blame::Tpm
                | Blame::Unwritable
                | Blame::Storage,
                Request::Challenge | Request::Register | Request::Query(_),
            ) => Verdict::Stop,
        }
    }
}

impl Lost {
    /// Whom to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unreachable { .. } => Blame::Network,
            Self::Untrusted { .. } => Blame::Untrusted,
            Self::NotYetValid { .. } => Blame::Clock,
            Self::Nonsense(_) => Blame::Peer,
            Self::Credential(_) => Blame::Credential,
            Self::Tpm(_) => Blame::Tpm,
        }
    }

    /// What a failed exchange asks for.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable { stage: Stage::Reply, .. } | Self::NotYetValid { .. } => Verdict::Again,
            // Not authenticated yet, so another transport takes nothing back.
            Self::Unreachable { .. } => Verdict::AnotherRoute,
            Self::Nonsense(_) => Verdict::Strike,
            Self::Untrusted { .. } | Self::Credential(_) | Self::Tpm(_) => Verdict::Stop,
        }
    }
}

/// Exponential back-off with full jitter: each wait is anywhere between nothing and a bound that doubles.
#[derive(Debug, Clone)]
pub struct Backoff {
    bound: Duration,
    first: Duration,
    most: Duration,
    random: u64,
}

impl Backoff {
    /// Bounds from `first`, doubling up to `most`. The same seed gives the same waits.
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Self { bound: first, first, most, random: seed }
    }

    /// The next wait.
    pub fn wait(&mut self) -> Duration {
        let wait = self.fraction_of(self.bound);
        self.bound = self.bound.saturating_mul(2).min(self.most);
        wait
    }

    /// The longest that the next wait can be.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// Begins again at the first bound: something worked.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }

    /// Anywhere between nothing and `whole`.
    pub fn fraction_of(&mut self, whole: Duration) -> Duration {
        // SplitMix64: jitter needs to differ between devices, not to be secret.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = f64::from((mixed >> 32) as u32) / f64::from(u32::MAX);
        whole.mul_f64(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: Option<u32>) -> Refusal {
        Refusal { status, connack: None, final_status: None, code, tracking_id: None, message: None, retry_after: None }
    }

    #[test]
    fn each_status_has_its_blame() {
        for (status, blame) in [
            (400, Blame::Refused),
            (401, Blame::Unauthorized),
            (403, Blame::Unauthorized),
            (404, Blame::Refused),
            (405, Blame::Refused),
            (408, Blame::Busy),
            (409, Blame::Busy),
            (412, Blame::Refused),
            (415, Blame::Refused),
            (425, Blame::Busy),
            (428, Blame::Refused),
            (429, Blame::Busy),
            (500, Blame::Busy),
            (503, Blame::Busy),
            (599, Blame::Busy),
        ] {
            assert_eq!(refusal(status, None).blame(), blame, "{status}");
        }
    }

    #[test]
    fn a_final_answer_is_judged_by_the_code_within_it() {
        let ended = |word: &str, code| Refusal { final_status: Some(word.into()), ..refusal(200, code) }.blame();
        assert_eq!(ended("failed", Some(400_207)), Blame::Refused);
        assert_eq!(ended("failed", Some(429_001)), Blame::Busy);
        assert_eq!(ended("failed", Some(500_000)), Blame::Busy);
        assert_eq!(ended("failed", Some(401_000)), Blame::Refused);
        assert_eq!(ended("disabled", None), Blame::Refused);
        assert_eq!(ended("no such word", None), Blame::Refused);
    }

    #[test]
    fn a_lost_operation_is_registered_anew_but_a_lost_device_is_not() {
        let query = Request::Query("4.2".parse().unwrap());
        assert_eq!(refusal(404, Some(404_203)).verdict(&query), Verdict::Anew);
        assert_eq!(refusal(404, None).verdict(&query), Verdict::Anew);
        assert_eq!(refusal(404, Some(404_201)).verdict(&query), Verdict::Stop);
        assert_eq!(refusal(404, Some(404_203)).verdict(&Request::Register), Verdict::Stop);
    }

    #[test]
    fn another_route_is_tried_only_before_authentication() {
        let at = |stage| Lost::Unreachable { stage, why: String::new() }.verdict();
        for before in [Stage::Resolve, Stage::Connect, Stage::Proxy, Stage::Tls, Stage::Open, Stage::Certificate] {
            assert_eq!(at(before), Verdict::AnotherRoute, "{before:?}");
        }
        assert_eq!(at(Stage::Reply), Verdict::Again);
    }

    #[test]
    fn waits_double_up_to_their_bound_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300), 7);
        for bound in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert_eq!(backoff.bound, Duration::from_secs(bound));
            assert!(backoff.wait() <= Duration::from_secs(bound));
        }
        backoff.reset();
        assert_eq!(backoff.bound, Duration::from_secs(1));
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1), 1);
        let waits: Vec<_> = (0..1000).map(|_| backoff.wait().as_millis()).collect();
        let below = |bound| waits.iter().filter(|wait| **wait < bound).count();
        // A thousand even draws: each tenth holds a hundred, give or take.
        for tenth in 1..=9 {
            let found = below(tenth * 100);
            let expected = usize::try_from(tenth).unwrap() * 100;
            assert!(found.abs_diff(expected) < 60, "{found} of 1000 waits are below {tenth}00 ms");
        }
    }
}
