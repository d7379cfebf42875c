//! Connections against the published ones, and against what goes wrong.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::pki::{Algorithm, Leaf, VALID};
use serde_json::{Value, json};

use super::*;
use crate::transport::tests::scratch;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap()
}

/// The key of the published examples.
const KEY: &str = "hTUUURcibF5BNRAhZjMcrLQ6mpSM4d767jtb+Sxxax0=";

fn config(settings: &str) -> Config {
    let text = format!("dps.id_scope = '0ne1'\ndps.ca_file = '/roots.pem'\ndps.ca_only = true\n{settings}\n");
    Config::from_layers(vec![("config.toml".into(), text)], &|_| None).unwrap().config
}

fn key_file(key: &str) -> PathBuf {
    let path = scratch("key", key.as_bytes());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn with_key(settings: &str) -> Config {
    let (primary, secondary) = (key_file(KEY), key_file(&STANDARD.encode([7; 32])));
    config(&format!(
        "attestation.method = 'symmetric-key'\nattestation.registration_id = 'gw'\nattestation.key_file = {primary:?}\n\
         attestation.secondary_key_file = {secondary:?}\n{settings}"
    ))
}

async fn open(config: &Config) -> Attestation {
    Attestation::open(&config.attestation, Path::new("/"), None, None).await.unwrap()
}

fn record() -> Record {
    Record {
        registration_id: "gw".into(),
        assigned_hub: "contoso.azure-devices.net".into(),
        device_id: "my-device-01".into(),
        ..Record::example()
    }
}

fn clock() -> Clock {
    Clock::with_floor(None)
}

fn parsed(connection: &Connection) -> Value {
    serde_json::from_slice(connection.to_json().expose()).unwrap()
}

#[tokio::test]
async fn a_device_with_a_key_gets_what_is_published_and_a_token_that_was_just_made() {
    let config = with_key("");
    let attestation = open(&config).await;
    let before = clock().now();
    let connection = make(&config, &attestation, &record(), clock(), USUAL_LIFE).await.unwrap();
    let ends = connection.expires_at().unwrap();
    assert!((before + 3600..=clock().now() + 3600).contains(&ends), "{ends}");
    let hub = Audience::device(&connection.hub, &connection.device_id);
    let token = attestation.token(&hub, &Key::Enrolled(KeySlot::Primary), ends).await.unwrap().unwrap();
    let published = &vectors()["hub_mqtt"][0];
    assert_eq!(
        parsed(&connection),
        json!({
            "generation": 3, "host": published["host"], "port": published["port"], "clientId": published["client_id"],
            "username": published["username"], "password": token.expose(), "expiresAt": rfc3339(ends),
            "certificateFile": null, "privateKeyFile": null, "caFile": "/roots.pem",
            "webSocket": {"port": 443, "path": "/$iothub/websocket"},
            "hub": "contoso.azure-devices.net", "deviceId": "my-device-01", "gatewayHost": null,
        })
    );
    let signed = token.expose().split_once("&sig=").unwrap().0;
    assert_eq!(signed, published["password"].as_str().unwrap().split_once("&sig=").unwrap().0);
}

#[tokio::test]
async fn a_gateway_takes_the_connection_and_the_hub_stays_in_user_name_and_token() {
    let config = with_key("hub.gateway_host = 'edge.local'\nhub.mqtt_port = 8884\nhub.https_port = 8443");
    let connection = make(&config, &open(&config).await, &record(), clock(), USUAL_LIFE).await.unwrap();
    let shown = parsed(&connection);
    let text = |member: &str| shown[member].as_str().unwrap().to_owned();
    assert_eq!(
        (text("host"), text("gatewayHost"), text("hub")),
        ("edge.local".into(), "edge.local".into(), "contoso.azure-devices.net".into())
    );
    assert_eq!(text("username"), "contoso.azure-devices.net/my-device-01/?api-version=2021-04-12");
    assert!(text("password").starts_with("SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fmy-device-01&"));
    assert_eq!((&shown["port"], &shown["webSocket"]["port"]), (&json!(8884), &json!(8443)));
}

#[tokio::test]
async fn a_device_with_a_certificate_gets_its_files_and_no_password_whatever_the_clock() {
    let leaf = Leaf::self_signed("gw", Algorithm::EcP256, VALID).unwrap();
    let (chain, key) = (scratch("chain.pem", leaf.chain_pem.as_bytes()), key_file(&leaf.key.pkcs8_pem()));
    let config = config(&format!(
        "attestation.method = 'x509'\nattestation.certificate_file = {chain:?}\nattestation.private_key_file = {key:?}"
    ));
    let behind = Clock::with_floor(Some(Clock::wall() + 1_000_000));
    let connection = make(&config, &open(&config).await, &record(), behind, USUAL_LIFE).await.unwrap();
    let shown = parsed(&connection);
    assert_eq!((&shown["password"], &shown["expiresAt"]), (&Value::Null, &Value::Null));
    assert_eq!((&shown["certificateFile"], &shown["privateKeyFile"]), (&json!(chain), &json!(key)));
    assert_eq!(shown["username"], "contoso.azure-devices.net/my-device-01/?api-version=2021-04-12");
    let failure = token(&open(&config).await, &record(), clock(), USUAL_LIFE).await.unwrap_err();
    assert_eq!((failure.blame, &*failure.message), (Blame::Usage, CERTIFICATE));
}

#[tokio::test]
async fn the_key_that_the_service_accepted_signs() {
    let config = with_key("");
    let attestation = open(&config).await;
    let second = Record { key: "secondary".into(), ..record() };
    for (record, slot) in [(record(), KeySlot::Primary), (second, KeySlot::Secondary)] {
        let connection = make(&config, &attestation, &record, clock(), USUAL_LIFE).await.unwrap();
        let hub = Audience::device(&connection.hub, &connection.device_id);
        let by_this = attestation.token(&hub, &Key::Enrolled(slot), connection.expires_at().unwrap()).await.unwrap().unwrap();
        assert_eq!(connection.password().unwrap().expose(), by_this.expose());
    }
}

#[tokio::test]
async fn no_token_lives_longer_than_a_day() {
    let config = with_key("");
    let connection = make(&config, &open(&config).await, &record(), clock(), Duration::MAX).await.unwrap();
    assert!(connection.expires_at().unwrap() <= clock().now() + 86_400);
}

#[tokio::test]
async fn a_clock_that_is_certainly_behind_makes_no_token() {
    let config = with_key("");
    let behind = Clock::with_floor(Some(Clock::wall() + 1_000_000));
    let failure = make(&config, &open(&config).await, &record(), behind, USUAL_LIFE).await.unwrap_err();
    assert_eq!(failure.blame, Blame::Clock);
    let seconds =
        failure.message.strip_prefix("the clock is ").unwrap().strip_suffix(" s behind the earliest time it can be; set it");
    assert!((999_000..=1_000_000).contains(&seconds.unwrap().parse::<u64>().unwrap()), "{failure}");
}

#[tokio::test]
async fn a_record_without_a_hub_is_named_with_its_cure() {
    let config = with_key("");
    for broken in
        [Record { assigned_hub: "https://hub/".into(), ..record() }, Record { device_id: "two words".into(), ..record() }]
    {
        let failure = make(&config, &open(&config).await, &broken, clock(), USUAL_LIFE).await.unwrap_err();
        let message = "the record names no usable hub or device; `dps-agent provision --force` makes it anew";
        assert_eq!((failure.blame, &*failure.message), (Blame::Storage, message));
    }
}

#[tokio::test]
async fn no_token_is_in_what_is_logged() {
    let config = with_key("");
    let connection = make(&config, &open(&config).await, &record(), clock(), USUAL_LIFE).await.unwrap();
    let (logged, token) = (format!("{connection:?}"), connection.password().unwrap().expose());
    let signature = token.split_once("&sig=").unwrap().1.split_once('&').unwrap().0;
    assert!(!logged.contains(signature) && logged.contains(&format!("Secret({} bytes)", token.len())), "{logged}");
}
