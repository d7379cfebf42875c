//! Who is measured: the agent and the two SDK clients, each as a command that registers one device, and the agent's mere start.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::demo::AgentConfig;
use crate::emulator::ID_SCOPE;
use crate::hub::Credential;
use crate::judges::sdk::Sdk;
use crate::{Done, credentials};

pub const DEVICE: &str = "bench-gateway";

/// A program that registers a device.
#[derive(Debug, Clone)]
pub enum Contestant {
    Agent(PathBuf),
    /// The agent that says its version: what every verb costs, whatever it does.
    Start(PathBuf),
    Sdk(Sdk),
}

/// Where and how it registers.
#[derive(Debug)]
pub struct Task<'a> {
    pub transport: &'a str,
    pub key: &'a str,
    pub roots: &'a Path,
    pub directory: &'a Path,
}

impl Contestant {
    /// The agent and both SDKs.
    pub fn all(agent: &Path) -> [Self; 3] {
        [Self::Agent(agent.to_owned()), Self::Sdk(Sdk::Python), Self::Sdk(Sdk::Node)]
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Agent(_) => "dps-agent",
            Self::Start(_) => "dps-agent --version",
            Self::Sdk(Sdk::Python) => "Python SDK",
            Self::Sdk(Sdk::Node) => "Node SDK",
        }
    }

    /// Whether this is what it says when it is done.
    pub fn is_answer(&self, said: &str) -> bool {
        match self {
            Self::Start(_) => said.starts_with("dps-agent "),
            Self::Agent(_) | Self::Sdk(_) => said.contains("\"assignedHub\"") && said.ends_with('}'),
        }
    }

    /// Python's client has no HTTPS, and asks for TLS 1.2 and nothing else.
    pub fn speaks(&self, transport: &str, tls: &str) -> bool {
        !matches!(self, Self::Sdk(Sdk::Python)) || (transport != "https" && tls == "1.2")
    }

    /// A command that registers from scratch over ports 8883 and 443 of localhost and prints one JSON object.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn command(&self, task: &Task<'_>) -> Done<Command> {
        let mut command = match self {
            Self::Agent(agent) => {
                let home = task.directory.join("agent");
                let _record_of_the_run_before = std::fs::remove_dir_all(&home);
                let config = AgentConfig {
                    registration_id: DEVICE,
                    transport: task.transport,
                    ports: (8883, 443),
                    roots: task.roots,
                    verify: "never",
                };
                let file = config.write(&Credential::SymmetricKey(task.key.to_owned()), &home)?;
                let mut command = Command::new(agent);
                command.args(["provision", "--json", "--timeout", "60s", "--config"]).arg(file);
                command
            }
            Self::Start(agent) => {
                let mut command = Command::new(agent);
                command.arg("--version");
                command
            }
            Self::Sdk(sdk) => {
                let file = task.directory.join("subject.json");
                let subject = json!({
                    "idScope": ID_SCOPE, "registrationId": DEVICE, "transport": task.transport,
                    "roots": task.roots, "key": task.key,
                });
                credentials::write_secret(&file, &subject.to_string())?;
                sdk.script(if *sdk == Sdk::Python { "register.py" } else { "register.js" }, &file, task.roots)
            }
        };
        command.stdin(Stdio::null()).stderr(Stdio::null()).env("NO_PROXY", "localhost");
        Ok(command)
    }
}
