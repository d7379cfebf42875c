//! The transports against the emulator, and against peers that misbehave below the protocol.

use std::path::{Path, PathBuf};

use dps_emulator::{Config as EmulatorConfig, Emulator};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::*;
use crate::config::Trust;
use crate::id::HostName;

const KEY: &[u8] = b"a key of the tests, thirty-two b";

fn clock() -> Clock {
    Clock::with_floor(None)
}

fn emulator(faults: &str) -> Emulator {
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, KEY);
    let text = format!(
        "[service]\nid_scope = \"0ne00000000\"\n[[enrollment]]\nregistration_id = \"gw-0001\"\nprimary_key = \"{key}\"\nfaults = [{faults}]\n"
    );
    Emulator::start(EmulatorConfig::from_toml(&text).unwrap()).unwrap()
}

/// A directory that is removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("dps-agent-{}-{:x}", std::process::id(), getrandom::u64().unwrap()));
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn dialer(ca: &Path) -> Dialer {
    Dialer { tls: tls::client(&Trust::Only(ca.to_owned()), None, None, clock()).unwrap(), proxy: None, certified: false }
}

fn token() -> Secret<String> {
    let audience = Audience::registration(&"0ne00000000".parse().unwrap(), &"gw-0001".parse().unwrap());
    let expiry = clock().now() + 3600;
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(audience.to_sign(expiry).as_bytes());
    audience.token(&mac.finalize().into_bytes(), expiry)
}

fn hello() -> mqtt::Hello {
    mqtt::Hello {
        client_id: "gw-0001".to_owned(),
        user_name: "0ne00000000/registrations/gw-0001/api-version=2021-06-01&ClientVersion=dps-agent%2F1".to_owned(),
        password: Some(token()),
        clean_session: true,
    }
}

fn within(seconds: u64) -> Deadline {
    Deadline::after(&clock(), Duration::from_secs(seconds))
}

const REGISTER: &[u8] = br#"{"registrationId":"gw-0001"}"#;

#[tokio::test]
async fn registers_over_mqtt() {
    let emulator = emulator("");
    let scratch = Scratch::new();
    let dialer = dialer(&scratch.file("ca.pem", emulator.ca_pem().as_bytes()));
    let host: HostName = "localhost".parse().unwrap();
    let address = mqtt::Address { via: Via::Mqtt, host: &host, port: emulator.mqtt_port() };
    let transcript = Transcript::log_only();
    let mut session = mqtt::open(&dialer, address, hello(), within(10), &transcript).await.map_err(|f| format!("{f:?}")).unwrap();
    session.subscribe(within(10)).await.unwrap();
    let answer = session.ask(&Request::Register, REGISTER, within(10)).await.unwrap();
    assert_eq!(answer.status, 202);
    assert!(!session.has_ended());
    session.disconnect().await;
    println!("{:#?} {answer:?}", emulator.transcript_all());
}
