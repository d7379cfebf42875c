//! `token`: a token for the hub, minted from what is here, without a word to anybody.

use serde_json::json;

use super::args::{self, Cli};
use super::output;
use super::verbs::{Ended, load, recorded, surroundings};
use crate::agent::Surroundings;
use crate::attestation::{Attestation, Key};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::failure::Failure;
use crate::id::{DeviceId, HostName};
use crate::progress::Progress;
use crate::protocol::KeySlot;
use crate::protocol::sas::Audience;
use crate::record::{Record, rfc3339};
use crate::transcript::Transcript;

/// `token`
pub async fn token(cli: &Cli, options: &args::Token) -> Ended {
    let config = load(cli)?;
    if matches!(config.attestation, Profile::X509 { .. }) {
        return Err(Failure::new(Blame::Usage, CERTIFICATE));
    }
    let record = recorded(&config)?.ok_or_else(not_provisioned)?;
    let Surroundings { root, credentials, .. } = surroundings(Transcript::log_only(), Progress::Silent);
    let attestation = Attestation::recall(&config.attestation, &root, credentials.as_deref(), record.tpm.as_ref()).await?;
    if !is_ours(&record, &config, &attestation) {
        return Err(not_provisioned());
    }
    let expiry = now(&record)?.saturating_add(options.expiry_in.as_secs());
    let token = attestation.token(&audience(&record)?, &key(&record), expiry).await?;
    let token = token.ok_or_else(|| Failure::new(Blame::Usage, CERTIFICATE))?;
    if cli.json {
        output::print_json(&json!({
            "token": token.expose(),
            "expiresAt": rfc3339(expiry),
            "assignedHub": record.assigned_hub,
            "deviceId": record.device_id,
        }))?;
    } else {
        output::print(&format!("{}\n", token.expose()))?;
    }
    Ok(0)
}

const CERTIFICATE: &str = "with method = \"x509\" there are no tokens: the device shows certificate_file to the hub, with private_key_file, in the TLS handshake";

fn not_provisioned() -> Failure {
    let message = "not provisioned yet: no assignment is recorded for this device, so there is no hub to make a token for; `dps-agent provision` registers it";
    Failure::new(Blame::Network, message)
}

fn is_ours(record: &Record, config: &Config, attestation: &Attestation) -> bool {
    record.belongs_to(config.dps.id_scope.as_str(), attestation.registration_id().as_str(), &attestation.fingerprint())
}

/// The time; a token of a clock that is certainly behind would be one of the past.
fn now(record: &Record) -> Result<u64, Failure> {
    let clock = Clock::with_floor(Some(record.assigned_at));
    match clock.below_floor() {
        None => Ok(clock.now()),
        Some(behind) => {
            let message = format!("the clock is {} s behind the earliest time it can be; set it", behind.as_secs());
            Err(Failure::new(Blame::Clock, message))
        }
    }
}

fn audience(record: &Record) -> Result<Audience, Failure> {
    match (record.assigned_hub.parse::<HostName>(), record.device_id.parse::<DeviceId>()) {
        (Ok(hub), Ok(device)) => Ok(Audience::device(&hub, &device)),
        (Err(_), _) | (_, Err(_)) => Err(Failure::new(
            Blame::Storage,
            "the record names no usable hub or device; `dps-agent provision --force` makes it anew",
        )),
    }
}

/// The key that the service has accepted, or given.
fn key(record: &Record) -> Key {
    match (&record.tpm, record.key.as_str()) {
        (Some(memory), _) => Key::Hub(memory.hub_key.clone()),
        (None, "secondary") => Key::Enrolled(KeySlot::Secondary),
        (None, _) => Key::Enrolled(KeySlot::Primary),
    }
}
