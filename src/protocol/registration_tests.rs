//! Conversations in the notation of `docs/transcript.md`, and adversaries, against the steps of a registration.

use super::*;
use crate::id::RegistrationId;
use crate::protocol::{Answer, Stage, wire};

/// Plays a transcript: each `>`, `pause` and `=` must be what the core does; each `<` and `!` is what it is told.
struct Play {
    now: Instant,
    step: Option<Step>,
    connection: Option<Connection>,
    id: RegistrationId,
}

#[expect(clippy::disallowed_methods, reason = "any moment will do to begin with; none is asked for again")]
fn any_moment() -> Instant {
    Instant::now()
}

fn policy(routes: &[Via], seconds: u64) -> Policy {
    Policy { patience: Duration::from_secs(seconds), routes: routes.to_vec(), second_key: false, seed: 1 }
}

fn play(policy: Policy, transcript: &str) {
    let now = any_moment();
    let step = Some(begin(policy, now));
    let mut play = Play { now, step, connection: None, id: "gw-0001".parse().unwrap() };
    for (number, line) in transcript.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let known = |prefix: &str| line.strip_prefix(prefix);
        if let Some(via) = known("> connect ") {
            play.connects(via, line);
        } else if let Some(request) = known("> ") {
            play.asks(request, number);
        } else if let Some(answer) = known("< ") {
            play.hears(answer);
        } else if let Some(loss) = known("! ") {
            play.loses(loss);
        } else if let Some(length) = known("pause ") {
            play.pauses(length, number);
        } else {
            play.ends(known("= ").expect("a line of the notation"));
            return;
        }
    }
    panic!("the transcript has no end");
}

impl Play {
    fn exchange(&mut self) -> Exchange {
        match self.step.take() {
            Some(Step::Exchange(exchange)) => exchange,
            other => panic!("not an exchange: {other:?}"),
        }
    }

    fn connects(&mut self, via: &str, line: &str) {
        let exchange = self.exchange();
        let connection = exchange.connection();
        assert_ne!(self.connection, Some(connection), "no new connection at {line:?}");
        let slot = if connection.slot == KeySlot::Secondary { " secondary" } else { "" };
        assert_eq!(format!("{}{slot}", connection.via), via);
        self.connection = Some(connection);
        self.step = Some(Step::Exchange(exchange));
    }

    fn asks(&mut self, request: &str, number: usize) {
        let exchange = self.exchange();
        assert_eq!(self.connection, Some(exchange.connection()), "line {number}: a connection that the transcript does not have");
        assert_eq!(exchange.request().to_string(), request, "line {number}");
        self.step = Some(Step::Exchange(exchange));
    }

    fn hears(&mut self, line: &str) {
        let exchange = self.exchange();
        let answer = parse_answer(line);
        self.step = Some(match wire::decode(exchange.request(), &answer, &self.id, 0) {
            Ok(reply) => exchange.replied(reply, self.now),
            Err(lost) => exchange.lost(lost, self.now),
        });
    }

    fn loses(&mut self, line: &str) {
        let (word, why) = line.split_once(' ').unwrap_or((line, ""));
        let host = || "h".to_owned();
        let why = why.to_owned();
        let lost = match word {
            "untrusted" => Lost::Untrusted { host: host(), why },
            "not-yet-valid" => Lost::NotYetValid { host: host(), why },
            "nonsense" => Lost::Nonsense(why),
            "credential" => Lost::Credential(why),
            stage => {
                let all =
                    [Stage::Resolve, Stage::Connect, Stage::Proxy, Stage::Tls, Stage::Open, Stage::Certificate, Stage::Reply];
                let stage = all.into_iter().find(|s| s.word() == stage).expect("a stage");
                Lost::Unreachable { stage, why }
            }
        };
        self.step = Some(self.exchange().lost(lost, self.now));
    }

    /// `pause 3` is exactly that; `pause ..3` is at most, `pause 3..` at least that and a tenth more at most.
    fn pauses(&mut self, length: &str, number: usize) {
        let Some(Step::Pause(pause)) = self.step.take() else { panic!("line {number}: no pause") };
        let seconds = |text: &str| Duration::from_secs_f64(text.parse().unwrap());
        let (least, most) = match (length.strip_prefix(".."), length.strip_suffix("..")) {
            (Some(most), _) => (Duration::ZERO, seconds(most)),
            (_, Some(least)) => (seconds(least), seconds(least).mul_f64(1.1)),
            (None, None) => (seconds(length), seconds(length)),
        };
        assert!((least..=most).contains(&pause.length()), "line {number}: a pause of {:?}", pause.length());
        self.now += pause.length();
        self.step = Some(pause.elapsed());
    }

    fn ends(self, line: &str) {
        let said = match self.step {
            Some(Step::Done(Ok(registered))) => {
                format!("assigned {} {}", registered.assignment.hub, registered.assignment.device_id)
            }
            Some(Step::Done(Err(gave_up))) => format!("gave-up {}", gave_up.trouble.blame()),
            other => panic!("not the end: {other:?}"),
        };
        assert_eq!(said, line);
    }
}

fn parse_answer(line: &str) -> Answer {
    if let Some(code) = line.strip_prefix("connack ") {
        return Answer::refused_connect(code.parse().unwrap());
    }
    let (status, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (retry_after, body) = match rest.strip_prefix("retry-after=") {
        Some(rest) => rest.split_once(' ').map_or((Some(rest), ""), |(wait, body)| (Some(wait), body)),
        None => (None, rest),
    };
    Answer {
        status: status.parse().unwrap(),
        retry_after: retry_after.map(str::to_owned),
        body: body.into(),
        ..Answer::default()
    }
}

const MQTT: &[Via] = &[Via::Mqtt];
const ALL: &[Via] = &[Via::Mqtt, Via::MqttWs, Via::Https];

#[test]
fn a_registration_that_goes_as_documented() {
    play(
        policy(MQTT, 60),
        r#"> connect mqtt
           > register
           < 202 retry-after=3 {"operationId":"4.d","status":"assigning"}
           pause 3
           > query 4.d
           < 202 {"operationId":"4.d","status":"assigning"}
           pause 2
           > query 4.d
           < 200 {"operationId":"4.d","status":"assigned","registrationState":{"assignedHub":"h.net","deviceId":"gw-0001"}}
           = assigned h.net gw-0001"#,
    );
}

#[test]
fn a_poll_is_never_faster_than_two_seconds() {
    play(
        policy(MQTT, 60),
        r#"> connect mqtt
           > register
           < 202 retry-after=0 {"operationId":"4.d","status":"assigning"}
           pause 2
           > query 4.d
           < 202 retry-after=abc {"operationId":"4.d","status":"unassigned"}
           pause 2
           > query 4.d
           < 200 {"operationId":"","status":"disabled"}
           = gave-up refused"#,
    );
}

#[test]
fn a_throttling_service_is_obeyed_and_then_asked_the_same() {
    play(
        policy(MQTT, 10_000),
        r#"> connect mqtt
           > register
           < 429 retry-after=20
           pause 20..
           > register
           < 202 {"operationId":"4.d","status":"assigning"}
           pause 2
           > query 4.d
           < 503 retry-after=301
           pause 301..
           > connect mqtt
           > query 4.d
           < 500
           pause ..2
           > query 4.d
           < 200 {"status":"assigned","registrationState":{"assignedHub":"h.net","deviceId":"d"}}
           = assigned h.net d"#,
    );
}

#[test]
fn a_wish_that_reaches_past_our_patience_ends_it_at_once_and_is_remembered() {
    let now = any_moment();
    let Step::Exchange(exchange) = begin(policy(MQTT, 60), now) else { panic!() };
    let answer = parse_answer("429 retry-after=3600");
    let reply = wire::decode(exchange.request(), &answer, &"gw".parse().unwrap(), 0).unwrap();
    let Step::Done(Err(gave_up)) = exchange.replied(reply, now) else { panic!() };
    assert_eq!(gave_up.trouble.blame(), Blame::Busy);
    let wait = gave_up.not_before.unwrap() - now;
    assert!((3600..=3960).contains(&wait.as_secs()), "{wait:?}");
}

#[test]
fn a_network_that_fails_before_authentication_is_tried_by_every_route_in_turn() {
    play(
        policy(ALL, 60),
        r#"> connect mqtt
           > register
           ! connect refused
           > connect mqtt-ws
           > register
           ! proxy 403
           > connect https
           > register
           ! tls closed
           pause ..1
           > connect mqtt
           > register
           ! resolve no such name
           > connect mqtt-ws
           > register
           < 202 {"operationId":"4.d","status":"assigning"}
           pause 2
           > query 4.d
           ! reply closed
           pause ..1
           > connect mqtt-ws
           > query 4.d
           ! open silence
           > connect https
           > query 4.d
           < 200 {"status":"assigned","registrationState":{"assignedHub":"h.net","deviceId":"d"}}
           = assigned h.net d"#,
    );
}

#[test]
fn the_second_key_is_tried_when_the_first_is_refused() {
    let two_keys = || Policy { second_key: true, ..policy(MQTT, 60) };
    play(
        two_keys(),
        r#"> connect mqtt
           < connack 5
           > connect mqtt secondary
           > register
           < 202 {"operationId":"4.d","status":"assigning"}
           pause 2
           > query 4.d
           < 401 {"errorCode":401000}
           > connect mqtt
           > query 4.d
           < 401 {"errorCode":401000}
           = gave-up unauthorized"#,
    );
    play(
        two_keys(),
        r#"> connect mqtt
           > register
           < 401 {"errorCode":401000}
           > connect mqtt secondary
           < connack 5
           = gave-up unauthorized"#,
    );
}

#[test]
fn refusals_for_good_end_it_at_once() {
    for (answer, blame) in [
        (r#"404 {"errorCode":404201}"#, "refused"),
        ("400", "refused"),
        ("connack 2", "refused"),
        ("401", "unauthorized"),
        ("403", "unauthorized"),
        (r#"200 {"status":"failed","registrationState":{"errorCode":400207}}"#, "refused"),
        (r#"200 {"status":"disabled","operationId":""}"#, "refused"),
        (r#"200 {"status":"sunk"}"#, "refused"),
    ] {
        play(policy(MQTT, 60), &format!("> connect mqtt\n> register\n< {answer}\n= gave-up {blame}"));
    }
}

#[test]
fn losses_for_good_end_it_at_once() {
    for (loss, blame) in [("untrusted", "untrusted"), ("credential", "credential")] {
        play(policy(ALL, 60), &format!("> connect mqtt\n> register\n! {loss} x\n= gave-up {blame}"));
    }
}

#[test]
fn the_third_answer_in_a_row_that_makes_no_sense_is_the_end() {
    play(
        policy(MQTT, 60),
        r#"> connect mqtt
           > register
           < 200 <html>
           pause ..1
           > connect mqtt
           > register
           ! nonsense x
           pause ..2
           > connect mqtt
           > register
           < 429
           pause ..4
           > register
           < 302
           pause ..8
           > connect mqtt
           > register
           < 200 {}
           pause ..16
           > connect mqtt
           > register
           < 204
           = gave-up peer"#,
    );
}

#[test]
fn an_operation_that_is_gone_is_registered_anew() {
    play(
        policy(MQTT, 60),
        r#"> connect mqtt
           > register
           < 202 {"operationId":"4.d","status":"assigning"}
           pause 2
           > query 4.d
           < 404 {"errorCode":404203}
           pause ..1
           > register
           < 200 {"status":"assigned","registrationState":{"assignedHub":"h.net","deviceId":"d"}}
           = assigned h.net d"#,
    );
}

#[test]
fn a_certificate_of_tomorrow_is_tried_again_today() {
    play(
        policy(MQTT, 60),
        r#"> connect mqtt
           > register
           ! not-yet-valid x
           pause ..1
           > connect mqtt
           > register
           < 200 {"status":"assigned","registrationState":{"assignedHub":"h.net","deviceId":"d"}}
           = assigned h.net d"#,
    );
}

/// Plays one adversary to the end on a virtual clock. Each exchange takes no time at all: the worst case for a spin.
fn exhaust(policy: Policy, mut adversary: impl FnMut(&Exchange) -> Result<Reply, Lost>) -> (Trouble, u32) {
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
            Step::Done(Ok(_)) => panic!("nobody has assigned anything"),
            Step::Done(Err(gave_up)) => return (gave_up.trouble, exchanges),
        };
    }
}

fn refused(status: u16, code: Option<u32>, retry_after: Option<Duration>) -> Reply {
    Reply::Refused(Refusal { status, connack: None, final_status: None, code, tracking_id: None, message: None, retry_after })
}

fn pending(retry_after: Option<Duration>) -> Reply {
    Reply::Pending { operation: "4.d".parse().unwrap(), retry_after }
}

/// Everything that can be said to an exchange, short of an assignment.
fn repertoire() -> Vec<Result<Reply, Lost>> {
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
        Request::Register => Ok(pending(None)),
        Request::Query(_) => Ok(refused(404, Some(404_203), None)),
    };
    let (_, exchanges) = exhaust(policy(MQTT, 600), lost_each_time);
    assert!(exchanges <= 602, "{exchanges}");
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
                Step::Done(_) => break,
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
