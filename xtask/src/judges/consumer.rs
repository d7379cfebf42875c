//! The cases of a program on the gateway: one and the same, on Microsoft's Python SDK, sends telemetry through the assigned hub and
//! survives the end of its token and a move to another hub, whatever the attestation.

use std::path::Path;
use std::process::Command;

use super::gateway::{Attestation, DEVICE, Gateway, HUBS, Process, Programs};
use super::sdk::Sdk;
use crate::Done;
use crate::workspace;

/// The life of a token that is to be survived, in seconds.
const LIFE: &str = "8";
/// The SDK makes a new token two minutes before the old one ends: this one is renewed after five seconds.
const LIFE_OF_THE_SDKS: &str = "125";
/// Later than 80 % of the life of the token in a file, and not its end.
const HOURS: u32 = 20;
const FILE: &str = "hub.env";
/// So many messages are telemetry that flows.
const SOME: usize = 3;

/// Where the program has its connection from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Socket,
    Environment,
}

/// One gateway and its program.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    source: Source,
    attestation: Attestation,
}

/// Both sources, all attestations.
pub fn all() -> Vec<Case> {
    let cases = |source| Attestation::ALL.map(|attestation| Case { source, attestation });
    [Source::Socket, Source::Environment].into_iter().flat_map(cases).collect()
}

impl Case {
    /// Client, transport, attestation and what is special.
    pub fn columns(&self) -> [String; 4] {
        let special = match self.source {
            Source::Socket => "telemetry-by-socket",
            Source::Environment => "telemetry-by-hub.env",
        };
        ["python", "mqtt", self.attestation.name(), special].map(str::to_owned)
    }

    /// The inner result says in words what happened.
    ///
    /// # Errors
    /// If a program cannot be run.
    pub fn judge(&self, programs: &Programs, directory: &Path) -> Done<Result<String, String>> {
        let gateway = Gateway::start(programs, self.attestation, self.handoff(), directory)?;
        let told = match self.source {
            Source::Socket => self.by_socket(&gateway),
            Source::Environment => self.by_environment(&gateway),
        };
        Ok(told.map_err(|error| format!("{error}\n{}", gateway.emulator.whole_transcript().unwrap_or_default())))
    }

    /// The agent's configuration: nothing for the socket.
    fn handoff(&self) -> &'static str {
        match (self.source, self.attestation) {
            (Source::Socket, _) => "",
            (Source::Environment, Attestation::SymmetricKey) => {
                "[handoff.template.app]\nsource = \"hub.env\"\nfile = \"hub.env\"\nexport_key = true\n"
            }
            (Source::Environment, Attestation::X509 | Attestation::Tpm) => {
                "[handoff.template.app]\nsource = \"hub.env\"\nfile = \"hub.env\"\n"
            }
        }
    }

    /// One process from the beginning to the end.
    fn by_socket(&self, gateway: &Gateway) -> Done<String> {
        let mut command = program();
        command.arg("--socket").arg(gateway.socket()).args(["--life", LIFE]);
        let program = Process::start(&mut command, &gateway.home().join("program.log"))?;
        self.years(gateway, &program).map_err(|error| format!("{error}\n{}", program.last_words()).into())
    }

    fn years(&self, gateway: &Gateway, program: &Process) -> Done<String> {
        gateway.await_messages(HUBS[0], SOME, program)?;
        let expiry = match self.attestation {
            Attestation::X509 => "a certificate has no such end",
            Attestation::SymmetricKey | Attestation::Tpm => {
                gateway.wait("the end of a token", || expired(gateway))?;
                gateway.await_messages(HUBS[0], SOME, program)?;
                "its token expired"
            }
        };
        gateway.emulator.command(&format!("move {DEVICE} {}", HUBS[1]))?;
        gateway.await_messages(HUBS[1], SOME, program)?;
        let registrations = gateway.emulator.command(&format!("requests {DEVICE}"))?["registrations"].clone();
        if registrations != 2 {
            return Err(format!("{registrations} registrations, not one for each hub").into());
        }
        Ok(format!("telemetry at {}, {expiry}, moved, telemetry at {}: one process, two registrations", HUBS[0], HUBS[1]))
    }

    /// A process for each file, as a service manager would have it that is told by a path unit.
    fn by_environment(&self, gateway: &Gateway) -> Done<String> {
        gateway.wait(FILE, || Ok(gateway.rendered(FILE).is_ok()))?;
        let program = self.with_environment(gateway)?;
        gateway.await_messages(HUBS[0], SOME, &program)?;
        let (life, program) = self.token_of_the_file(gateway, program)?;
        let before = gateway.rendered(FILE)?;
        gateway.emulator.command(&format!("move {DEVICE} {}", HUBS[1]))?;
        gateway.agent("reprovision")?;
        gateway.await_other(FILE, &before)?;
        drop(program);
        let program = self.with_environment(gateway)?;
        gateway.await_messages(HUBS[1], SOME, &program)?;
        Ok(format!("telemetry at {}, {life}, moved, a new file, telemetry at {}", HUBS[0], HUBS[1]))
    }

    /// What becomes of the credential while the device stays where it is.
    fn token_of_the_file(&self, gateway: &Gateway, program: Process) -> Done<(&'static str, Process)> {
        match self.attestation {
            Attestation::X509 => Ok(("a certificate has no such end", program)),
            Attestation::SymmetricKey => {
                gateway.wait("a token that the SDK renewed", || Ok(connections(gateway)? >= 2))?;
                gateway.await_messages(HUBS[0], SOME, &program)?;
                Ok(("the SDK renewed its token", program))
            }
            Attestation::Tpm => {
                let before = gateway.rendered(FILE)?;
                gateway.pass(HOURS)?;
                gateway.await_other(FILE, &before)?;
                drop(program);
                let program = self.with_environment(gateway)?;
                gateway.await_messages(HUBS[0], SOME, &program)?;
                Ok(("20 hours later a file with a new token", program))
            }
        }
    }

    /// A shell reads the file, as systemd would.
    fn with_environment(&self, gateway: &Gateway) -> Done<Process> {
        let script = program();
        let mut command = Command::new("sh");
        command.args(["-c", r#"set -a; . "$1"; shift; exec "$@""#, "sh"]).arg(gateway.home().join("run/handoff").join(FILE));
        command.arg(script.get_program()).args(script.get_args()).arg("--environment");
        if self.attestation == Attestation::SymmetricKey {
            command.args(["--life", LIFE_OF_THE_SDKS]);
        }
        Process::start(&mut command, &gateway.home().join("program.log"))
    }
}

fn program() -> Command {
    let mut command = Command::new(Sdk::Python.interpreter());
    command.arg(workspace::root().join("tests/judges/python/telemetry.py"));
    command
}

fn expired(gateway: &Gateway) -> Done<bool> {
    Ok(gateway.emulator.transcript(DEVICE)?.iter().any(|line| line == "! expired"))
}

/// How often the first hub has let the device in.
fn connections(gateway: &Gateway) -> Done<u64> {
    let identities = gateway.emulator.command("identities")?;
    let of_hub = identities.as_array().and_then(|all| all.iter().find(|identity| identity["hub"] == HUBS[0]));
    Ok(of_hub.and_then(|identity| identity["connections"].as_u64()).unwrap_or_default())
}
