//! What the desk tells, and to whom.

use super::*;
use crate::blame::Blame;

fn clock() -> Clock {
    Clock::with_floor(None)
}

#[test]
fn an_empty_desk_says_that_the_daemon_starts() {
    let (desk, _orders) = Desk::new(clock().instant());
    let said = desk.status_json(clock());
    assert_eq!((&said["state"], &said["provisioned"], &said["generation"]), (&json!("starting"), &json!(false), &json!(null)));
    assert_eq!(said["clock"], json!({"verdict": "good", "offsetSeconds": 0, "serviceTimeTrusted": false}));
}

#[test]
fn a_failure_is_told_with_its_blame_and_the_next_try() {
    let (desk, _orders) = Desk::new(clock().instant());
    let now = clock().instant();
    desk.tell(|status| {
        status.last_error = Some((Failure::new(Blame::Refused, "no"), now));
        status.next_attempt = Some(now + Duration::from_secs(3600));
    });
    let said = desk.status_json(clock());
    assert_eq!((&said["lastError"]["blame"], &said["lastError"]["exitCode"]), (&json!("refused"), &json!(69)));
    assert_eq!(said["nextAttemptInSeconds"], json!(3600));
}

#[test]
fn a_state_keeps_its_since_until_it_changes() {
    let then = clock().instant();
    let (desk, _orders) = Desk::new(then);
    desk.enter(State::Starting, then + Duration::from_secs(5));
    assert_eq!(desk.status().since, then);
    desk.enter(State::Waiting, then + Duration::from_secs(7));
    assert_eq!(desk.status().since, then + Duration::from_secs(7));
}

#[test]
fn who_listens_hears_of_what_is_new_and_of_nothing_else() {
    let now = clock().instant();
    let (desk, _orders) = Desk::new(now);
    let mut news = desk.watch_status();
    desk.tell(|status| status.plan(Some(now)));
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    desk.tell(|status| status.plan(Some(now + Duration::from_millis(10))));
    desk.enter(State::Starting, now + Duration::from_secs(1));
    assert!(!news.has_changed().unwrap());
    desk.tell(|status| status.plan(None));
    assert!(news.has_changed().unwrap());
}

#[test]
fn more_orders_than_there_is_room_for_are_refused() {
    let (desk, orders) = Desk::new(clock().instant());
    for _ in 0..WAITING_ORDERS {
        assert_eq!(desk.order(Order::Reprovision), Ok(()));
    }
    assert_eq!(desk.order(Order::Reprovision), Err(NotTaken::Busy));
    drop(orders);
    assert_eq!(desk.order(Order::Reprovision), Err(NotTaken::Stopping));
}

#[test]
fn days_are_whole_and_go_below_zero() {
    let validity = Validity { from: 0, until: 10 * 86_400 };
    assert_eq!(days_left(validity, 0), 10);
    assert_eq!(days_left(validity, 9 * 86_400 + 1), 0);
    assert_eq!(days_left(validity, 10 * 86_400 + 1), -1);
}
