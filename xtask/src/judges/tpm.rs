//! The cases with a TPM: Microsoft's Node client and tpm2-tools take the emulator's keys into a software TPM and use them.

use std::path::Path;

use serde_json::{Value, json};

use super::sdk::{self, Sdk};
use crate::Done;
use crate::credentials;
use crate::emulator::{Emulator, ID_SCOPE, Plan};
use crate::hub::{self, Hub};
use crate::tpm::tools::{Assigned, Device};
use crate::tpm::{Code, EK_HANDLE, Tpm};

const DEVICE: &str = "judged-gateway";

/// Who registers, and whether the TPM is the enrolled one.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    client: Client,
    enrolled: bool,
}

/// A client that takes keys into a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Microsoft's, in JavaScript.
    Node,
    /// The programs of tpm2-tools, one for each step.
    Tools,
}

/// The commands that a client sent to the TPM.
#[derive(Debug)]
pub struct Commands {
    /// From a TPM without keys to a hub key in it.
    pub first: Vec<Code>,
    /// The next registration with the same TPM.
    pub again: Vec<Code>,
    /// One connection to the hub: a token.
    pub token: Vec<Code>,
}

/// Every case; TPMs register over HTTPS alone.
pub fn all() -> Vec<Case> {
    let cases = |client| [true, false].map(|enrolled| Case { client, enrolled });
    [Client::Node, Client::Tools].into_iter().flat_map(cases).collect()
}

/// Counts the commands of two registrations and a message, with a TPM and an emulator of their own. The inner error says in words
/// what went wrong.
///
/// # Errors
/// If the client or the emulator cannot be run.
pub fn commands(client: Client, emulator: &Path, directory: &Path) -> Done<Result<Commands, String>> {
    let tpm = client.fresh_tpm(directory)?;
    let emulator = Emulator::start(emulator, &plan(&tpm.1), directory)?;
    Run { client, tpm: &tpm.0, emulator: &emulator, directory }.commands()
}

impl Case {
    /// Client, transport, attestation and what is special.
    pub fn columns(&self) -> [String; 4] {
        let special = if self.enrolled { "good" } else { "another-tpm" };
        [self.client.name(), "https", "tpm", special].map(str::to_owned)
    }

    /// Registers twice and sends a message, with an emulator of its own. The inner result says in words what happened.
    ///
    /// # Errors
    /// If the client or the emulator cannot be run.
    pub fn judge(&self, emulator: &Path, directory: &Path) -> Done<Result<String, String>> {
        let (tpm, key) = self.client.fresh_tpm(directory)?;
        let enrolled = if self.enrolled { key } else { another(directory)? };
        let emulator = Emulator::start(emulator, &plan(&enrolled), directory)?;
        let verdict = self.verdict(&tpm, &emulator, directory)?;
        if verdict.is_err() {
            eprintln!("---- {}: the emulator's transcript\n{}----", self.columns().join("/"), emulator.whole_transcript()?);
        }
        Ok(verdict)
    }

    fn verdict(&self, tpm: &Tpm, emulator: &Emulator, directory: &Path) -> Done<Result<String, String>> {
        let run = Run { client: self.client, tpm, emulator, directory };
        if !self.enrolled {
            return Ok(match run.register()? {
                Ok(assigned) => Err(format!("{} is let in with a TPM that is not enrolled", assigned.device)),
                Err(said) if emulator.whole_transcript()?.contains("\"errorCode\":401000") => {
                    Ok(format!("refused with 401000: {}", said.chars().take(60).collect::<String>()))
                }
                Err(said) => Err(format!("refused, but not with 401000: {said}")),
            });
        }
        Ok(run.commands()?.map(|commands| {
            let [first, again, token] = [&commands.first, &commands.again, &commands.token].map(Vec::len);
            format!("assigned, message arrived at the hub; TPM commands: {first} at first, {again} again, {token} for a token")
        }))
    }
}

/// A client with its TPM and its service.
struct Run<'a> {
    client: Client,
    tpm: &'a Tpm,
    emulator: &'a Emulator,
    directory: &'a Path,
}

impl Run<'_> {
    /// Two registrations and a message, with the commands that each takes.
    fn commands(&self) -> Done<Result<Commands, String>> {
        let _before = self.tpm.commands();
        if let Err(said) = self.register()? {
            return Ok(Err(format!("the client did not register: {said}")));
        }
        let first = self.tpm.commands();
        let assigned = match self.register()? {
            Ok(assigned) => assigned,
            Err(said) => return Ok(Err(format!("the client did not register again: {said}"))),
        };
        let again = self.tpm.commands();
        if let Err(said) = self.send(&assigned)? {
            return Ok(Err(format!("assigned, but the hub did not take the message: {said}")));
        }
        let token = self.tpm.commands();
        if !self.emulator.recorded(DEVICE, "> hub publish")? {
            return Ok(Err("the message did not arrive".into()));
        }
        Ok(Ok(Commands { first, again, token }))
    }

    fn register(&self) -> Done<Result<Assigned, String>> {
        if self.client == Client::Tools {
            return self.device().register();
        }
        let outcome = node("register", self.tpm, json!({}), self.directory)?;
        let text = |name: &str| outcome[name].as_str().map(str::to_owned);
        let assigned = text("assignedHub").zip(text("deviceId"));
        Ok(assigned.map(|(hub, device)| Assigned { hub, device }).ok_or_else(|| text("error").unwrap_or_default()))
    }

    fn send(&self, assigned: &Assigned) -> Done<Result<(), String>> {
        let Assigned { hub, device } = assigned;
        if self.client == Client::Tools {
            let token = self.device().sign(&format!("{hub}/devices/{device}"))?;
            let way = Hub { host: hub, port: self.emulator.mqtt_port, roots: self.emulator.roots() };
            return Ok(hub::send_as(&way, device, &token, None, "hello").map_err(|error| error.to_string()));
        }
        let outcome = node("send", self.tpm, json!({"assignedHub": hub, "deviceId": device}), self.directory)?;
        Ok(if outcome["sent"] == true { Ok(()) } else { Err(outcome["error"].to_string()) })
    }

    fn device(&self) -> Device<'_> {
        Device { tpm: self.tpm, registration_id: DEVICE, port: self.emulator.https_port, roots: self.emulator.roots() }
    }
}

impl Client {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Tools => "tpm2-tools",
        }
    }

    /// A TPM without keys, and the endorsement key that this client will make in it.
    fn fresh_tpm(self, directory: &Path) -> Done<(Tpm, String)> {
        let tpm = Tpm::start(&directory.join("tpm"))?;
        let key = self.endorsement_key(&tpm, directory)?;
        tpm.clear()?;
        Ok((tpm, key))
    }

    /// The endorsement key that this client will make: Microsoft's has a template of its own (DPS device API §9.2).
    fn endorsement_key(self, tpm: &Tpm, directory: &Path) -> Done<String> {
        match self {
            Self::Node => drop(node("keys", tpm, json!({}), directory)?),
            Self::Tools => tpm.tool(&format!("tpm2_createek -c {EK_HANDLE} -G rsa -u ek.pub"))?,
        }
        tpm.tool("tpm2_flushcontext -t")?;
        tpm.public(EK_HANDLE)
    }
}

/// On the ports that Microsoft's clients know.
fn plan(endorsement_key: &str) -> Plan {
    Plan::on_ports(8883, 443).tpm(DEVICE, endorsement_key, "")
}

/// The endorsement key of another TPM.
fn another(directory: &Path) -> Done<String> {
    Client::Tools.endorsement_key(&Tpm::start(&directory.join("another-tpm"))?, directory)
}

fn node(verb: &str, tpm: &Tpm, more: Value, directory: &Path) -> Done<Value> {
    let mut subject = json!({"verb": verb, "idScope": ID_SCOPE, "registrationId": DEVICE, "tpmPort": tpm.port()});
    if let (Some(subject), Value::Object(more)) = (subject.as_object_mut(), more) {
        subject.extend(more);
    }
    let file = directory.join(format!("{verb}.json"));
    credentials::write_secret(&file, &subject.to_string())?;
    sdk::outcome(&Sdk::Node.script("tpm.js", &file, &directory.join("roots.pem")))
}
