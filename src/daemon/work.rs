//! A task of the lifecycle while it is at work.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Renewal};
use crate::campaign::Campaign;
use crate::desk::{Counts, Desk, State, Status};
use crate::event;
use crate::failure::Failure;
use crate::lifecycle::{Task, Tried, Why};
use crate::record::Record;

/// No task takes as long (a registration's patience is [`Campaign::PATIENCE`]), unless something in it will never come about.
const LONGEST: Duration = Duration::from_secs(3600);

/// A task at work, and its end.
pub(super) struct Work {
    registers: bool,
    begun: Instant,
    future: Pin<Box<dyn Future<Output = Done>>>,
}

/// What a task has brought.
pub(super) enum Done {
    Registered(Result<Record, Failure>),
    Looked(bool),
    TriedHub(Result<(Tried, Option<Record>), Failure>),
    AskedDps(bool),
    LookedUp(Option<bool>),
}

impl Work {
    pub(super) fn begin(task: Task, agent: &Rc<Agent>, desk: &Arc<Desk>) -> Self {
        let (agent, desk) = (Rc::clone(agent), Arc::clone(desk));
        let record = desk.served().map(|served| served.record.clone());
        let begun = agent.clock().instant();
        let future: Pin<Box<dyn Future<Output = Done>>> = match (task, record) {
            (Task::Register(why), _) => Box::pin(async move { Done::Registered(register(why, &agent, &desk).await) }),
            (Task::AskDps, _) => Box::pin(async move { Done::AskedDps(agent.reaches_dps().await) }),
            (Task::LookAtHub, Some(record)) => Box::pin(async move { Done::Looked(agent.reaches_hub(&record).await) }),
            (Task::TryHub, Some(record)) => Box::pin(async move { Done::TriedHub(agent.try_hub_of(&record).await) }),
            (Task::LookUp, Some(record)) => Box::pin(async move { Done::LookedUp(agent.has_moved(&record).await) }),
            // Without an assignment there is no hub to look at, and nothing has moved.
            (Task::LookAtHub, None) => Box::pin(async { Done::Looked(true) }),
            (Task::TryHub, None) => Box::pin(async { Done::TriedHub(Ok((Tried::Unreachable, None))) }),
            (Task::LookUp, None) => Box::pin(async { Done::LookedUp(None) }),
        };
        Self { registers: matches!(task, Task::Register(_)), begun, future }
    }

    pub(super) fn registers(&self) -> bool {
        self.registers
    }

    /// Whether it can only be lost: a start anew will do better. For the clock it may wait for ever.
    pub(super) fn is_stuck(&self, status: &Status, now: Instant) -> bool {
        let since = self.begun.max(status.since);
        status.state != State::WaitingForClock && now.saturating_duration_since(since) > LONGEST
    }

    pub(super) async fn done(&mut self) -> Done {
        self.future.as_mut().await
    }
}

async fn register(why: Why, agent: &Agent, desk: &Desk) -> Result<Record, Failure> {
    believable_clock(agent, desk).await;
    Counts::add(&desk.counts.registrations);
    desk.enter(State::Registering, agent.clock().instant());
    desk.tell(|status| {
        status.attempts = status.attempts.saturating_add(1);
        status.next_attempt = None;
    });
    agent.provision(Campaign::PATIENCE, renewal(why)).await
}

const fn renewal(why: Why) -> Renewal {
    match why {
        Why::NoAssignment | Why::Changed => Renewal::IfNeeded,
        Why::Ordered | Why::HubGone | Why::Moved => Renewal::Anew,
        Why::HubRefuses => Renewal::Doubted,
    }
}

/// Below the floor of the clock nothing is tried, and nothing has failed: somebody will set it.
async fn believable_clock(agent: &Agent, desk: &Desk) {
    let Some(behind) = agent.clock().below_floor() else { return };
    desk.enter(State::WaitingForClock, agent.clock().instant());
    let why = format!("the clock is {} s behind the earliest time it can be; waiting for somebody to set it", behind.as_secs());
    // Said once: the log of a gateway whose clock nobody sets lies on flash.
    tracing::info!(message_id = event::CLOCK_BELOW_FLOOR, state = State::WaitingForClock.word(), "{why}");
    desk.tell(|status| (status.doing, status.clock, status.next_attempt) = (why, agent.clock_verdict(), None));
    while agent.clock().below_floor().is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    desk.tell(|status| status.clock = agent.clock_verdict());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn work(begun: Instant) -> Work {
        Work { registers: true, begun, future: Box::pin(std::future::pending()) }
    }

    #[test]
    fn a_task_is_lost_after_longer_than_any_takes_but_never_while_the_clock_is_waited_for() {
        let start = Clock::with_floor(None).instant();
        let after = |seconds| start + Duration::from_secs(seconds);
        let (desk, _orders) = Desk::new(start);
        let stuck = |seconds| work(after(10)).is_stuck(&desk.status(), after(seconds));
        assert_eq!((stuck(10 + 3600), stuck(10 + 3601)), (false, true));
        desk.enter(State::WaitingForClock, after(20));
        assert!(!stuck(1_000_000));
        desk.enter(State::Registering, after(1_000_000));
        assert_eq!((stuck(1_000_000 + 3600), stuck(1_000_000 + 3601)), (false, true));
    }
}
