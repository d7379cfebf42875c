//! Conversations in the notation of `docs/transcript.md`, against the steps of a registration.

mod adversaries;
mod challenged;

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
    Policy { patience: Duration::from_secs(seconds), routes: routes.to_vec(), second_key: false, challenged: false, seed: 1 }
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
        } else if let Some(errand @ ("answered" | "imported")) = known("= ") {
            play.imports(errand);
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
            "tpm" => Lost::Tpm(why),
            stage => {
                let all =
                    [Stage::Resolve, Stage::Connect, Stage::Proxy, Stage::Tls, Stage::Open, Stage::Certificate, Stage::Reply];
                let stage = all.into_iter().find(|s| s.word() == stage).expect("a stage");
                Lost::Unreachable { stage, why }
            }
        };
        self.step = Some(match self.step.take() {
            Some(Step::Exchange(exchange)) => exchange.lost(lost, self.now),
            Some(Step::Import(import)) => import.lost(lost, self.now),
            other => panic!("nothing to lose: {other:?}"),
        });
    }

    fn imports(&mut self, errand: &str) {
        let Some(Step::Import(import)) = self.step.take() else { panic!("nothing to import") };
        assert_eq!(import.errand().word(), errand);
        self.step = Some(import.imported());
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

/// A peer that had no time to show its certificate once more takes nothing back.
#[test]
fn a_certificate_of_the_future_is_the_trouble_also_where_the_last_try_is_cut_short() {
    let now = any_moment();
    let Step::Exchange(exchange) = begin(policy(MQTT, 6), now) else { panic!() };
    let future = Lost::NotYetValid { host: "h".into(), why: "it begins later".into() };
    let Step::Pause(pause) = exchange.lost(future.clone(), now) else { panic!() };
    let Step::Exchange(exchange) = pause.elapsed() else { panic!() };
    let silence = Lost::Unreachable { stage: Stage::Tls, why: "no answer".into() };
    let Step::Done(Err(gave_up)) = exchange.lost(silence, now + Duration::from_secs(6)) else { panic!() };
    assert_eq!(gave_up.trouble, Trouble::Lost(future));
}

/// The first poll comes two seconds after the answer: with less than half a second left for it there is none.
#[test]
fn a_try_that_would_have_no_time_is_not_made() {
    for (patience, is_tried) in [(2_500, false), (2_501, true)] {
        let now = any_moment();
        let policy = Policy { patience: Duration::from_millis(patience), ..policy(MQTT, 0) };
        let Step::Exchange(exchange) = begin(policy, now) else { panic!() };
        let answer = parse_answer(r#"202 {"operationId":"4.d","status":"assigning"}"#);
        let reply = wire::decode(exchange.request(), &answer, &"gw".parse().unwrap(), 0).unwrap();
        match exchange.replied(reply, now) {
            Step::Pause(_) => assert!(is_tried, "{patience} ms"),
            Step::Done(Err(gave_up)) => {
                assert_eq!((gave_up.trouble, is_tried), (Trouble::StillAssigning, false), "{patience} ms");
            }
            other @ (Step::Exchange(_) | Step::Import(_) | Step::Done(Ok(_))) => panic!("{other:?}"),
        }
    }
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
