//! The hand-off beside the loop: files are made whenever they are due, and systemd is answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use crate::clock::Clock;
use crate::desk::{Desk, Given, Served};
use crate::handoff::{Handoff, Made, Outcome, credentials};

/// The longest sleep: the clock may be set meanwhile, and the machine may be suspended.
const LONGEST_NAP: Duration = Duration::from_secs(300);

/// Hands over to who does not ask at the sockets, for ever.
pub(super) async fn over(desk: Arc<Desk>, credential: Option<UnixListener>) -> Infallible {
    let answering = async {
        if let Some(listener) = credential {
            credentials::serve(listener, Arc::clone(&desk)).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        never = files(&desk) => never,
        never = answering => never,
    }
}

async fn files(desk: &Desk) -> Infallible {
    let mut handoff = Handoff::new(crate::agent::seed());
    let mut news = desk.watch();
    loop {
        let served = news.borrow_and_update().clone();
        if let Some(served) = &served {
            handoff.render(served).await.iter().for_each(|made| note(desk, served, made));
        }
        // Until something is due, or something else is served.
        loop {
            let now = served.as_ref().map_or_else(Clock::wall, |served| served.clock.now());
            let left = handoff.next(now).unwrap_or(LONGEST_NAP);
            if left.is_zero() {
                break;
            }
            tokio::select! {
                _ = news.changed() => break,
                () = tokio::time::sleep(left.min(LONGEST_NAP)) => {}
            }
        }
    }
}

fn note(desk: &Desk, served: &Served, made: &Made) {
    if matches!(made.outcome, Ok(Outcome::Written)) {
        desk.note_given(Given {
            by: format!("template {}", made.template),
            uid: None,
            pid: None,
            at: served.clock.now(),
            generation: served.record.generation,
        });
    }
}
