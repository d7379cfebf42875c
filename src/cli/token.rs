//! `token`: a token for the hub, minted from what is here, without a word to anybody.

use serde_json::json;

use super::args::{self, Cli};
use super::output;
use super::verbs::{Ended, load, recorded, surroundings};
use crate::agent::Surroundings;
use crate::attestation::Attestation;
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::{Config, Profile};
use crate::connection;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::record::{Record, rfc3339};
use crate::transcript::Transcript;

/// `token`
pub async fn token(cli: &Cli, options: &args::Token) -> Ended {
    let config = load(cli)?;
    if matches!(config.attestation, Profile::X509 { .. }) {
        return Err(Failure::new(Blame::Usage, connection::CERTIFICATE));
    }
    let record = recorded(&config)?.ok_or_else(not_provisioned)?;
    let Surroundings { root, credentials, .. } = surroundings(Transcript::log_only(), Progress::Silent);
    let attestation = Attestation::recall(&config.attestation, &root, credentials.as_deref(), record.tpm.as_ref()).await?;
    if !is_ours(&record, &config, &attestation) {
        return Err(not_provisioned());
    }
    let clock = Clock::with_floor(Some(record.assigned_at));
    let (token, expires_at) = connection::token(&attestation, &record, clock, options.expiry_in).await?;
    if cli.json {
        output::print_json(&json!({
            "token": token.expose(),
            "expiresAt": rfc3339(expires_at),
            "assignedHub": record.assigned_hub,
            "deviceId": record.device_id,
        }))?;
    } else {
        output::print(&format!("{}\n", token.expose()))?;
    }
    Ok(0)
}

fn not_provisioned() -> Failure {
    let message = "not provisioned yet: no assignment is recorded for this device, so there is no hub to make a token for; `dps-agent provision` registers it";
    Failure::new(Blame::Network, message)
}

fn is_ours(record: &Record, config: &Config, attestation: &Attestation) -> bool {
    record.belongs_to(config.dps.id_scope.as_str(), attestation.registration_id().as_str(), &attestation.fingerprint())
}
