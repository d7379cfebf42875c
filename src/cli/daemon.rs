//! How the verbs ask the daemon, and `reprovision`, which does nothing else.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Cli;
use super::output;
use super::verbs::{Ended, load};
use crate::api::client::{self, Reply};
use crate::api::{admin_socket, client_socket};
use crate::blame::Blame;
use crate::config::Config;
use crate::failure::Failure;

/// A TPM may be at work for somebody else first.
const PATIENCE: Duration = Duration::from_secs(60);

/// At which of its sockets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door {
    Client,
    Admin,
}

impl Door {
    fn path(self, config: &Config) -> PathBuf {
        match self {
            Self::Client => client_socket(&config.runtime_directory),
            Self::Admin => admin_socket(&config.runtime_directory),
        }
    }
}

/// What the daemon of this configuration answers; `None` if there is none.
pub(super) async fn ask(config: &Config, door: Door, method: &str, target: &str, body: &Value) -> Result<Option<Reply>, Failure> {
    client::ask(&door.path(config), method, target, body, PATIENCE).await
}

/// The same for a question whose answer may come so much later.
pub(super) async fn wait_for(config: &Config, target: &str, longer: Duration) -> Result<Option<Reply>, Failure> {
    client::ask(&Door::Client.path(config), "GET", target, &Value::Null, PATIENCE.saturating_add(longer)).await
}

/// `reprovision`
pub async fn reprovision(cli: &Cli) -> Ended {
    let config = load(cli)?;
    let reply = ask(&config, Door::Admin, "POST", "/v1/reprovision", &json!({})).await?;
    let answer = reply.ok_or_else(|| no_daemon(&config))?.success()?.json()?;
    if cli.json {
        output::print_json(&answer)?;
    } else {
        output::print("the daemon registers anew now; `dps-agent status` tells how it goes\n")?;
    }
    Ok(0)
}

fn no_daemon(config: &Config) -> Failure {
    let what = format!(
        "no dps-agent runs here: nobody listens at {}; start it (dps-agent run), or `dps-agent provision --force` registers without one",
        Door::Admin.path(config).display()
    );
    Failure::new(Blame::Network, what)
}
