//! Constant, random and cunning adversaries on a virtual clock: no registration spins, storms or outlives its patience.

use super::*;

/// Plays one adversary to the end on a virtual clock. Each exchange takes no time at all: the worst case for a spin.
pub(super) fn exhaust(policy: Policy, mut adversary: impl FnMut(&Exchange) -> Result<Reply, Lost>) -> (Trouble, u32) {
    let start = any_moment();
    let (mut now, mut exchanges, patience) = (start, 0, policy.patience);
    let mut step = begin(policy, now);
    loop {
        step = match step {
            Step::Exchange(exchange) => {
                exchanges += 1;
                assert!(exchanges < 10_000, "it spins");
                match adversary(&exchange) {
                    Ok(reply) => exchange.replied(reply, now),
                    Err(lost) => exchange.lost(lost, now),
                }
            }
            Step::Pause(pause) => {
                now += pause.length();
                assert!(now - start < patience, "it waits past its patience");
                pause.elapsed()
            }
            Step::Import(import) => import.imported(),
            Step::Done(Ok(_)) => panic!("nobody has assigned anything"),
            Step::Done(Err(gave_up)) => return (gave_up.trouble, exchanges),
        };
    }
}

pub(super) fn refused(status: u16, code: Option<u32>, retry_after: Option<Duration>) -> Reply {
    Reply::Refused(Refusal { status, connack: None, final_status: None, code, tracking_id: None, message: None, retry_after })
}

pub(super) fn pending(retry_after: Option<Duration>) -> Reply {
    Reply::Pending { operation: "4.d".parse().unwrap(), retry_after }
}

/// Everything that can be said to an exchange, short of an assignment.
pub(super) fn repertoire() -> Vec<Result<Reply, Lost>> {
    let waits = [None, Some(0), Some(1), Some(50), Some(u64::MAX)].map(|wait| wait.map(Duration::from_secs));
    let mut all = Vec::new();
    for wait in waits {
        all.push(Ok(pending(wait)));
        for (status, code) in
            [(400, None), (401, None), (404, Some(404_203)), (404, Some(404_201)), (409, None), (429, None), (503, None)]
        {
            all.push(Ok(refused(status, code, wait)));
        }
    }
    for stage in [Stage::Resolve, Stage::Connect, Stage::Proxy, Stage::Tls, Stage::Open, Stage::Certificate, Stage::Reply] {
        all.push(Err(Lost::Unreachable { stage, why: String::new() }));
    }
    all.push(Err(Lost::Nonsense(String::new())));
    all.push(Err(Lost::NotYetValid { host: String::new(), why: String::new() }));
    all.push(Err(Lost::Untrusted { host: String::new(), why: String::new() }));
    all
}

#[test]
fn a_constant_adversary_is_survived() {
    for said in repertoire() {
        for second_key in [false, true] {
            let policy = Policy { second_key, ..policy(ALL, 600) };
            let (_, exchanges) = exhaust(policy, |_| said.clone());
            assert!(exchanges <= 302, "{exchanges} exchanges in 600 s against {said:?}");
        }
    }
}

#[test]
fn an_assignment_without_end_is_asked_for_at_the_allowed_rate() {
    let (trouble, exchanges) = exhaust(policy(MQTT, 600), |_| Ok(pending(Some(Duration::ZERO))));
    assert_eq!((trouble, exchanges), (Trouble::StillAssigning, 300));
}

#[test]
fn an_operation_lost_each_time_does_not_storm() {
    let lost_each_time = |exchange: &Exchange| match exchange.request() {
        Request::Challenge | Request::Register => Ok(pending(None)),
        Request::Query(_) => Ok(refused(404, Some(404_203), None)),
    };
    let (_, exchanges) = exhaust(policy(MQTT, 600), lost_each_time);
    assert!(exchanges <= 40, "{exchanges}");
}

#[test]
fn a_random_adversary_is_survived() {
    let repertoire = repertoire();
    for seed in 0..2_000 {
        let mut random = Backoff::new(Duration::ZERO, Duration::ZERO, seed);
        let policy = Policy { second_key: seed % 2 == 0, seed, ..policy(ALL, 3_600) };
        exhaust(policy, |_| {
            let at = random.fraction_of(Duration::from_nanos(repertoire.len() as u64 - 1)).as_nanos();
            repertoire[usize::try_from(at).unwrap()].clone()
        });
    }
}

#[test]
fn a_dead_network_is_tried_until_the_patience_ends() {
    let patience = Duration::from_secs(60);
    for seed in 0..200 {
        let (mut now, mut tried) = (any_moment(), Duration::ZERO);
        let start = now;
        let mut step = begin(Policy { seed, ..policy(MQTT, 60) }, now);
        loop {
            step = match step {
                Step::Exchange(exchange) => {
                    tried = now - start;
                    exchange.lost(Lost::Unreachable { stage: Stage::Connect, why: String::new() }, now)
                }
                Step::Pause(pause) => {
                    now += pause.length();
                    pause.elapsed()
                }
                Step::Import(_) | Step::Done(_) => break,
            };
        }
        assert!(patience - tried <= Policy::LAST_TRY + Policy::FIRST_WAIT, "seed {seed}: the last try was after {tried:?}");
    }
}

#[test]
fn no_other_route_is_begun_when_the_patience_has_ended() {
    let now = any_moment();
    let Step::Exchange(exchange) = begin(policy(ALL, 10), now) else { panic!() };
    let silence = Lost::Unreachable { stage: Stage::Connect, why: "no answer within 10 s".to_owned() };
    let Step::Done(Err(gave_up)) = exchange.lost(silence.clone(), now + Duration::from_secs(10)) else { panic!() };
    assert_eq!(gave_up.trouble, Trouble::Lost(silence));
}

#[test]
fn a_last_try_that_our_own_patience_cuts_short_does_not_hide_the_trouble_before_it() {
    let start = any_moment();
    let Step::Exchange(exchange) = begin(policy(MQTT, 3), start) else { panic!() };
    let Step::Pause(pause) = exchange.replied(refused(429, Some(429_001), Some(Duration::from_secs(2))), start) else { panic!() };
    let Step::Exchange(exchange) = pause.elapsed() else { panic!() };
    let silence = Lost::Unreachable { stage: Stage::Reply, why: "no answer within 0.8 s".to_owned() };
    let Step::Done(Err(gave_up)) = exchange.lost(silence, start + Duration::from_secs(3)) else { panic!() };
    let Trouble::Refused(refusal) = gave_up.trouble else { panic!() };
    assert_eq!(refusal.code, Some(429_001));
}

#[test]
fn a_patience_without_end_has_none() {
    let Step::Exchange(exchange) = begin(Policy { patience: Duration::MAX, ..policy(MQTT, 0) }, any_moment()) else { panic!() };
    assert_eq!(exchange.patience_left(any_moment()), None);
}
