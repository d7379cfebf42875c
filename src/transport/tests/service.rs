//! Whole conversations with the emulator: connections, credentials, transcripts.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::{Config as Emulated, Emulator};

use futures_util::FutureExt;

use super::*;
use crate::id::OperationId;

const KEY: [u8; 32] = [7; 32];

/// An emulator, and a gateway that is configured for it.
pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) config: Config,
    pub(crate) attestation: Attestation,
    pub(crate) transcript: Transcript,
    transcript_file: PathBuf,
}

impl World {
    /// `enrollment` is TOML for the emulator's enrollment, `settings` for the agent's configuration.
    pub(crate) fn new(enrollment: &str, settings: &str) -> Self {
        Self::with_key(KEY, enrollment, settings)
    }

    fn with_key(key: [u8; 32], enrollment: &str, settings: &str) -> Self {
        let enrolled = STANDARD.encode(KEY);
        let text = format!(
            "[service]\nid_scope = \"0ne1\"\n[[enrollment]]\nregistration_id = \"gw-0001\"\nprimary_key = \"{enrolled}\"\n{enrollment}\n"
        );
        let emulator = Emulator::start(Emulated::from_toml(&text).unwrap()).unwrap();
        let ca = scratch("ca.pem", emulator.ca_pem().as_bytes());
        let key = scratch("key", STANDARD.encode(key).as_bytes());
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let (mqtt, https) = (emulator.mqtt_port(), emulator.https_port());
        let text = format!(
            "dps.host = \"localhost\"\ndps.id_scope = \"0ne1\"\ndps.mqtt_port = {mqtt}\ndps.https_port = {https}\ndps.ca_file = {ca:?}\n\
             attestation.method = \"symmetric-key\"\nattestation.registration_id = \"gw-0001\"\nattestation.key_file = {key:?}\n\
             hub.mqtt_port = {mqtt}\nhub.https_port = {https}\n{settings}\n"
        );
        let config = Config::from_layers(vec![("config.toml".into(), text)], &|_| None).unwrap().config;
        let attestation = Attestation::open(&config.attestation, Path::new("/"), None, None).now_or_never().unwrap().unwrap();
        let transcript_file = scratch("transcript", b"");
        let transcript = Transcript::to_file(&transcript_file).unwrap();
        Self { emulator, config, attestation, transcript, transcript_file }
    }

    fn service(&self) -> Service<'_> {
        Service::new(&self.config, &self.attestation, clock(), &self.transcript, br#"{"registrationId":"gw-0001"}"#.to_vec())
            .unwrap()
    }

    /// What our own transcript says, without its first line.
    pub(crate) fn said(&self) -> Vec<String> {
        std::fs::read_to_string(&self.transcript_file).unwrap().lines().skip(1).map(str::to_owned).collect()
    }
}

pub(crate) const LIMITS: Limits = Limits { connect: PATIENT, reply: PATIENT, until: None };

fn connection(via: Via, number: u32) -> Connection {
    Connection { via, slot: KeySlot::Primary, number }
}

fn operation(answer: &Answer) -> OperationId {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body["operationId"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_transport_registers_and_asks_on_one_connection() {
    for via in [Via::Mqtt, Via::MqttWs, Via::Https] {
        let world = World::new("", "");
        let mut service = world.service();
        let first = service.exchange(&connection(via, 1), &Request::Register, LIMITS).await.unwrap();
        assert_eq!(first.status, 202, "{via}");
        let operation = operation(&first);
        let second = service.exchange(&connection(via, 1), &Request::Query(operation.clone()), LIMITS).await.unwrap();
        assert_eq!(second.status, 200, "{via}");
        service.close().await;
        let opening: &[&str] = match via {
            Via::Https => &[],
            Via::Mqtt | Via::MqttWs => &["< connack 0", "> subscribe", "< suback"],
        };
        let mut expected = vec![format!("> connect {via}")];
        expected.extend(opening.iter().map(ToString::to_string));
        expected.extend(["> register".to_owned(), format!("> query {operation}"), "> disconnect".to_owned()]);
        assert_eq!(world.said(), expected);
    }
}

#[tokio::test]
async fn another_connection_ends_the_one_before_it_in_order() {
    let world = World::new("", "");
    let mut service = world.service();
    for number in [1, 2] {
        assert_eq!(service.exchange(&connection(Via::Mqtt, number), &Request::Register, LIMITS).await.unwrap().status, 202);
    }
    assert_eq!(world.said()[5..7], ["> disconnect", "> connect mqtt"]);
    let connects = world.emulator.transcript("gw-0001").iter().filter(|line| line.starts_with("> connect")).count();
    assert_eq!(connects, 2);
}

#[tokio::test]
async fn a_wrong_key_is_refused_over_every_transport() {
    for via in [Via::Mqtt, Via::MqttWs, Via::Https] {
        let world = World::with_key([8; 32], "", "");
        let answer = world.service().exchange(&connection(via, 1), &Request::Register, LIMITS).await.unwrap();
        assert_eq!(answer.status, 401, "{via}");
    }
}

#[tokio::test]
async fn after_an_error_the_connection_is_gone_and_the_next_exchange_opens_one() {
    let world = World::new("faults = [\"register: drop\"]", "");
    let mut service = world.service();
    let lost = service.exchange(&connection(Via::Mqtt, 1), &Request::Register, LIMITS).await.unwrap_err();
    assert!(matches!(lost, Lost::Unreachable { stage: Stage::Reply, .. }), "{lost:?}");
    assert_eq!(service.exchange(&connection(Via::Mqtt, 1), &Request::Register, LIMITS).await.unwrap().status, 202);
    let said = world.said();
    assert!(said[5].starts_with("! reply the connection to localhost:"), "{said:?}");
    assert_eq!(said[6], "> connect mqtt");
}

#[tokio::test]
async fn an_exchange_that_is_given_up_takes_the_connection_with_it() {
    let world = World::new("faults = [\"register: silence\"]", "");
    let mut service = world.service();
    {
        let first = connection(Via::Mqtt, 1);
        let exchange = service.exchange(&first, &Request::Register, LIMITS);
        let heard = async {
            while !world.emulator.wait_for_line("gw-0001", "> register", Duration::ZERO) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = exchange => panic!("{answer:?}"),
            () = heard => {}
        }
    }
    assert_eq!(service.exchange(&connection(Via::Mqtt, 1), &Request::Register, LIMITS).await.unwrap().status, 202);
    assert_eq!(world.said().iter().filter(|line| *line == "> connect mqtt").count(), 2);
}

#[tokio::test]
async fn limits_are_told_with_what_was_allowed() {
    let world = World::new("faults = [\"register: silence\"]", "");
    let limits = Limits { connect: PATIENT, reply: BRIEF, until: None };
    let lost = world.service().exchange(&connection(Via::Https, 1), &Request::Register, limits).await.unwrap_err();
    let place = format!("localhost:{}", world.emulator.https_port());
    assert_eq!(lost, Lost::Unreachable { stage: Stage::Reply, why: format!("no answer within 0.7 s from {place}") });
    assert_eq!(world.said().last().unwrap(), &format!("! reply no answer within 0.7 s from {place}"));
}

#[tokio::test]
async fn an_exchange_of_several_replies_ends_with_the_patience_all_the_same() {
    let world = World::new("faults = [\"register: silence\"]", "");
    let until = clock().instant() + BRIEF;
    let (mut service, connection) = (world.service(), connection(Via::Mqtt, 1));
    let ended = service.exchange(&connection, &Request::Register, Limits { until: Some(until), ..LIMITS });
    // Twice the limit, and far from the three minutes that three silent replies may take.
    let lost = tokio::time::timeout(PATIENT / 2, ended).await.unwrap().unwrap_err();
    assert!(matches!(lost, Lost::Unreachable { .. }), "{lost:?}");
}

#[test]
fn a_connection_serves_fifty_minutes_by_either_clock() {
    let clock = clock();
    let now = Opened::now(&clock);
    let fifty = CONNECTION_LIFE.as_secs();
    assert!(!now.is_old(&clock));
    assert!(!Opened { seconds: now.seconds - fifty + 60, ..now }.is_old(&clock));
    assert!(Opened { seconds: now.seconds - fifty, ..now }.is_old(&clock));
    // A clock that was set back says nothing.
    assert!(!Opened { seconds: now.seconds + fifty, ..now }.is_old(&clock));
    if let Some(earlier) = now.instant.checked_sub(CONNECTION_LIFE) {
        assert!(Opened { instant: earlier, ..now }.is_old(&clock));
    }
}
