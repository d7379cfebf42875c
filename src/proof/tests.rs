//! The proof against the emulator's hub.

use dps_emulator::pki::{self, Algorithm, Authority, NOT_YET_VALID, VALID};
use rustls::version::TLS13;

use super::*;
use crate::config::Trust;
use crate::protocol::registration::Connection;
use crate::protocol::{KeySlot, Request};
use crate::transport::Service;
use crate::transport::tests::service::{LIMITS, World};
use crate::transport::tests::{scratch, silence, tls_peer_with};

const PRIMARY: Key = Key::Enrolled(KeySlot::Primary);

/// Registers, so that the hub knows the device, and tries the hub.
async fn attempt(world: &World) -> Attempt {
    register(world).await;
    let clock = Clock::with_floor(None);
    let proof = Proof::new(&world.config, &world.attestation, clock, &world.transcript).unwrap();
    proof.try_hub(&assignment("localhost"), &PRIMARY, LIMITS).await
}

async fn register(world: &World) {
    let clock = Clock::with_floor(None);
    let body = br#"{"registrationId":"gw-0001"}"#.to_vec();
    let unheard = Transcript::log_only();
    let mut service = Service::new(&world.config, &world.attestation, clock, &unheard, body).unwrap();
    let connection = Connection { via: Via::Https, slot: KeySlot::Primary, number: 1 };
    let answer = service.exchange(&connection, &Request::Register, LIMITS).await.unwrap();
    assert_eq!(answer.status, 200);
    service.close().await;
}

fn assignment(hub: &str) -> Assignment {
    Assignment {
        hub: hub.parse().unwrap(),
        device_id: "gw-0001".parse().unwrap(),
        substatus: None,
        payload: None,
        updated: None,
        key: None,
    }
}

/// An enrollment that is assigned in the first answer.
fn world(enrollment: &str, settings: &str) -> World {
    World::new(&format!("answer = \"at-once\"\n{enrollment}"), settings)
}

#[test]
fn connect_is_the_documented_one_and_spares_the_queue() {
    let hello = hello(&assignment("Hub.example.net"), None);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("Hub.example.net/gw-0001/?api-version=2021-04-12&DeviceClientType=dps-agent%2F{version}");
    assert_eq!((&*hello.client_id, hello.user_name, hello.clean_session), ("gw-0001", expected, false));
}

#[tokio::test]
async fn the_hub_lets_the_assigned_device_in() {
    for via in ["mqtt", "mqtt-ws"] {
        let world = world("", &format!("hub.transport = \"{via}\""));
        assert_eq!(attempt(&world).await, Attempt::Proven);
        assert_eq!(world.said(), [format!("> hub connect {via} localhost gw-0001"), "< connack 0".to_owned()]);
        let lines = world.emulator.transcript("gw-0001");
        assert!(lines.contains(&format!("> hub connect {via} localhost gw-0001")), "{lines:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_its_code_and_not_tried_on_another_route() {
    let world = world("faults = [\"hub: connack 5\"]", "");
    assert_eq!(attempt(&world).await, Attempt::Refused(Answer::refused_connect(5)));
    assert_eq!(world.said(), ["> hub connect mqtt localhost gw-0001", "< connack 5"]);
}

#[tokio::test]
async fn a_busy_hub_is_no_verdict() {
    let world = world("faults = [\"hub: connack 3\"]", "hub.transport = \"mqtt\"");
    let expected = Lost::Unreachable { stage: Stage::Open, why: "the hub is busy: CONNACK 3".to_owned() };
    assert_eq!(attempt(&world).await, Attempt::Busy(expected));
}

#[tokio::test]
async fn the_next_route_is_tried_where_the_first_is_closed() {
    let mut world = world("", "");
    // The discard port: nobody listens there.
    world.config.hub.mqtt_port = 9;
    assert_eq!(attempt(&world).await, Attempt::Proven);
    let said = world.said();
    assert_eq!(said[0], "> hub connect mqtt localhost gw-0001");
    assert!(said[1].starts_with("! connect localhost:9 cannot be reached: "), "{said:?}");
    assert_eq!(said[2..], ["> hub connect mqtt-ws localhost gw-0001", "< connack 0"]);
}

#[tokio::test]
async fn a_stranger_in_the_hubs_place_is_not_trusted_and_hears_nothing() {
    let stranger = Authority::root("Stranger", Algorithm::EcP256).unwrap();
    let key = pki::Key::generate(Algorithm::EcP256).unwrap();
    let chain = stranger.server(&key, &["localhost".to_owned()], VALID).unwrap();
    let port = tls_peer_with(tls::tests::server(&chain, &key.pkcs8_pem(), None, &[&TLS13]), silence).await;
    let mut world = world("", "");
    world.config.hub.mqtt_port = port;
    let Attempt::Untrusted(Lost::Untrusted { host, why }) = attempt(&world).await else { panic!("{:?}", world.said()) };
    assert_eq!(host, "localhost");
    assert!(why.contains("CN=Stranger"), "{why}");
    assert_eq!(world.said().len(), 2, "{:?}", world.said());
}

#[tokio::test]
async fn a_stranger_with_a_certificate_of_tomorrow_is_no_unreachable_hub() {
    let stranger = Authority::root("Stranger", Algorithm::EcP256).unwrap();
    let key = pki::Key::generate(Algorithm::EcP256).unwrap();
    let chain = stranger.server(&key, &["localhost".to_owned()], NOT_YET_VALID).unwrap();
    let port = tls_peer_with(tls::tests::server(&chain, &key.pkcs8_pem(), None, &[&TLS13]), silence).await;
    let mut world = world("", "");
    world.config.hub.mqtt_port = port;
    let Attempt::Untrusted(lost) = attempt(&world).await else { panic!("{:?}", world.said()) };
    assert_eq!(lost.blame(), crate::blame::Blame::Clock);
    assert_eq!(world.said().len(), 2, "{:?}", world.said());
}

#[tokio::test]
async fn a_parent_gateway_takes_the_connection_and_the_hub_keeps_its_name() {
    let mut world = world("hub = \"hub.example.net\"", "");
    register(&world).await;
    // Without the gateway's own CA nobody could be trusted now.
    let other = Authority::root("Other", Algorithm::EcP256).unwrap();
    world.config.trust = Trust::Only(scratch("other.pem", other.certificate_pem().as_bytes()));
    let ca_file = Some(scratch("gateway.pem", world.emulator.ca_pem().as_bytes()));
    world.config.hub.gateway = Some(Gateway { host: "localhost".parse().unwrap(), ca_file });
    let proof = Proof::new(&world.config, &world.attestation, Clock::with_floor(None), &world.transcript).unwrap();
    assert_eq!(proof.try_hub(&assignment("hub.example.net"), &PRIMARY, LIMITS).await, Attempt::Proven);
    assert_eq!(world.said(), ["> hub connect mqtt localhost gw-0001", "< connack 0"]);
    assert!(world.emulator.transcript("gw-0001").contains(&"> hub connect mqtt hub.example.net gw-0001".to_owned()));
}
