//! Who is measured: the agent and the two SDK clients, each as a command that registers one device.

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
            Self::Sdk(Sdk::Python) => "Python SDK",
            Self::Sdk(Sdk::Node) => "Node SDK",
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
