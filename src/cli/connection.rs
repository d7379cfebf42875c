//! `connection` and `token`: what a program needs to connect to the hub. The daemon is asked; without one it is made from what is
//! here, without a word to anybody.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::json;

use super::args::{self, Cli};
use super::daemon::{Door, ask};
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
use crate::secret::Secret;
use crate::transcript::Transcript;

/// `connection`
pub async fn connection(cli: &Cli, options: &args::Token) -> Ended {
    let config = load(cli)?;
    let line = match from_daemon(&config, options).await? {
        Some(line) => line,
        None => {
            let (record, attestation, clock) = recall(&config).await?;
            connection::make(&config, &attestation, &record, clock, options.expiry_in).await?.to_json()
        }
    };
    let text = if cli.json { Secret::new(line_of(&line)?.to_owned()) } else { in_words(&line)? };
    output::print(text.expose())?;
    if cli.json {
        output::print("\n")?;
    }
    Ok(0)
}

/// `token`
pub async fn token(cli: &Cli, options: &args::Token) -> Ended {
    let config = load(cli)?;
    if matches!(config.attestation, Profile::X509 { .. }) {
        return Err(Failure::new(Blame::Usage, connection::CERTIFICATE));
    }
    let token = match from_daemon(&config, options).await? {
        Some(line) => given(&line)?,
        None => minted(&config, options).await?,
    };
    if cli.json {
        output::print_json(&json!({
            "token": token.token.expose(),
            "expiresAt": token.expires_at,
            "assignedHub": token.hub,
            "deviceId": token.device_id,
        }))?;
    } else {
        output::print(&format!("{}\n", token.token.expose()))?;
    }
    Ok(0)
}

struct Token {
    token: Secret<String>,
    expires_at: String,
    hub: String,
    device_id: String,
}

/// What the daemon hands out, as one line of JSON; `None` if there is no daemon.
async fn from_daemon(config: &Config, options: &args::Token) -> Result<Option<Secret<Vec<u8>>>, Failure> {
    let wish = json!({ "client": "device", "expiresIn": options.expiry_in.as_secs() });
    let reply = ask(config, Door::Client, "POST", "/v1/connection", &wish).await?;
    reply.map(|reply| reply.success().map(|reply| reply.body)).transpose()
}

fn given(line: &Secret<Vec<u8>>) -> Result<Token, Failure> {
    let Given { password, expires_at, hub, device_id, .. } = understood(line)?;
    let (Some(token), Some(expires_at)) = (password, expires_at) else {
        return Err(Failure::new(Blame::Usage, connection::CERTIFICATE));
    };
    Ok(Token { token: Secret::new(token), expires_at, hub, device_id })
}

async fn minted(config: &Config, options: &args::Token) -> Result<Token, Failure> {
    let (record, attestation, clock) = recall(config).await?;
    let (token, expires_at) = connection::token(&attestation, &record, clock, options.expiry_in).await?;
    Ok(Token { token, expires_at: rfc3339(expires_at), hub: record.assigned_hub, device_id: record.device_id })
}

/// The recorded assignment of this device, and what signs for it.
async fn recall(config: &Config) -> Result<(Record, Attestation, Clock), Failure> {
    let record = recorded(config)?.ok_or_else(not_provisioned)?;
    let Surroundings { root, credentials, .. } = surroundings(Transcript::log_only(), Progress::Silent);
    let attestation = Attestation::recall(&config.attestation, &root, credentials.as_deref(), record.tpm.as_ref()).await?;
    if !is_ours(&record, config, &attestation) {
        return Err(not_provisioned());
    }
    let clock = Clock::with_floor(Some(record.assigned_at));
    Ok((record, attestation, clock))
}

fn not_provisioned() -> Failure {
    let message = "not provisioned yet: no assignment is recorded for this device, so there is no hub to make a token for; `dps-agent provision` registers it";
    Failure::new(Blame::Network, message)
}

fn is_ours(record: &Record, config: &Config, attestation: &Attestation) -> bool {
    record.belongs_to(config.dps.id_scope.as_str(), attestation.registration_id().as_str(), &attestation.fingerprint())
}

/// A connection as the daemon writes it: what is shown here of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    host: String,
    port: u16,
    client_id: String,
    username: String,
    password: Option<String>,
    expires_at: Option<String>,
    certificate_file: Option<String>,
    private_key_file: Option<String>,
    ca_file: String,
    hub: String,
    device_id: String,
}

fn understood(line: &Secret<Vec<u8>>) -> Result<Given, Failure> {
    serde_json::from_slice(line.expose())
        .map_err(|error| Failure::new(Blame::Peer, format!("the daemon's connection is not understood: {error}")))
}

fn line_of(line: &Secret<Vec<u8>>) -> Result<&str, Failure> {
    let text = std::str::from_utf8(line.expose());
    text.map(str::trim_end).map_err(|_| Failure::new(Blame::Peer, "the daemon's connection is no text"))
}

fn in_words(line: &Secret<Vec<u8>>) -> Result<Secret<String>, Failure> {
    let given = understood(line)?;
    let password = given.password.map(Secret::new);
    let port = given.port.to_string();
    let rows = [
        ("host", Some(given.host.as_str())),
        ("port", Some(port.as_str())),
        ("client ID", Some(given.client_id.as_str())),
        ("user name", Some(given.username.as_str())),
        ("password", password.as_ref().map(|password| password.expose().as_str())),
        ("expires at", given.expires_at.as_deref()),
        ("certificate", given.certificate_file.as_deref()),
        ("private key", given.private_key_file.as_deref()),
        ("trusted CAs", Some(given.ca_file.as_str())),
    ];
    // Room enough: where it grew, it would leave a copy behind.
    let mut text = String::with_capacity(line.expose().len() + 512);
    for (name, value) in rows {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<12} {value}");
        }
    }
    Ok(Secret::new(text))
}
