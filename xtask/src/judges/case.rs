//! The cases: an SDK, a transport, an attestation, and what is wrong with the credential, if anything.

use std::path::Path;

use serde_json::{Value, json};

use super::sdk::{self, Sdk};
use crate::Done;
use crate::credentials::{self, Authority, Certificate};
use crate::emulator::{Emulator, ID_SCOPE, Plan};

const DEVICE: &str = "judged-gateway";

/// One registration by an SDK client.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    sdk: Sdk,
    transport: &'static str,
    attempt: Attempt,
}

/// How the device comes, which decides what must become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    SymmetricKey,
    X509,
    WrongKey,
    ExpiredCertificate,
    UnknownId,
}

/// What a case needs before the emulator starts.
#[derive(Debug)]
struct Credentials {
    enrolled_key: String,
    shown_key: String,
    authority: Authority,
    certificate: Certificate,
}

/// Every case: Python has MQTT and WebSocket, Node has HTTPS as well.
pub fn all() -> Vec<Case> {
    let sdks = [(Sdk::Python, &["mqtt", "mqtt-ws"][..]), (Sdk::Node, &["mqtt", "mqtt-ws", "https"][..])];
    let attempts = [Attempt::SymmetricKey, Attempt::X509, Attempt::WrongKey, Attempt::ExpiredCertificate, Attempt::UnknownId];
    let transports = sdks.into_iter().flat_map(|(sdk, transports)| transports.iter().map(move |&transport| (sdk, transport)));
    transports.flat_map(|(sdk, transport)| attempts.map(|attempt| Case { sdk, transport, attempt })).collect()
}

impl Attempt {
    fn attestation(self) -> &'static str {
        match self {
            Self::SymmetricKey | Self::WrongKey | Self::UnknownId => "symmetric-key",
            Self::X509 | Self::ExpiredCertificate => "x509",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::SymmetricKey | Self::X509 => "good",
            Self::WrongKey => "wrong-key",
            Self::ExpiredCertificate => "expired-certificate",
            Self::UnknownId => "unknown-id",
        }
    }

    /// The error code that the emulator must have answered with; none if it must assign (DPS device API §7.3).
    fn refusal(self) -> Option<&'static str> {
        match self {
            Self::SymmetricKey | Self::X509 => None,
            Self::WrongKey => Some("401000"),
            Self::ExpiredCertificate => Some("401002"),
            Self::UnknownId => Some("404201"),
        }
    }
}

impl Case {
    /// Registers with an emulator of its own. The inner result says in words what happened.
    ///
    /// # Errors
    /// If the SDK or the emulator cannot be run.
    pub fn judge(&self, emulator: &Path, directory: &Path) -> Done<Result<String, String>> {
        let credentials = self.credentials(directory)?;
        let emulator = Emulator::start(emulator, &self.plan(&credentials), directory)?;
        let verdict = self.run(&credentials, &emulator, directory)?;
        if verdict.is_err() {
            eprintln!("---- {}: the emulator's transcript\n{}----", self.columns().join("/"), emulator.whole_transcript()?);
        }
        Ok(verdict)
    }

    /// SDK, transport, attestation and what is special.
    pub fn columns(&self) -> [String; 4] {
        [self.sdk.name(), self.transport, self.attempt.attestation(), self.attempt.name()].map(str::to_owned)
    }

    /// Makes keys and certificates under `directory`.
    fn credentials(&self, directory: &Path) -> Done<Credentials> {
        let authority = Authority::new(&directory.join("gateway"))?;
        let days = if self.attempt == Attempt::ExpiredCertificate { -1 } else { 1 };
        let certificate = authority.issue(DEVICE, days)?;
        let enrolled_key = credentials::symmetric_key()?;
        let shown_key = if self.attempt == Attempt::WrongKey { credentials::symmetric_key()? } else { enrolled_key.clone() };
        Ok(Credentials { enrolled_key, shown_key, authority, certificate })
    }

    /// The emulator that judges this case's client, on the SDKs' ports.
    fn plan(&self, credentials: &Credentials) -> Plan {
        let plan = Plan::on_ports(8883, 443);
        match self.attempt {
            Attempt::SymmetricKey | Attempt::WrongKey => plan.symmetric_key(DEVICE, &credentials.enrolled_key, ""),
            Attempt::UnknownId => plan.symmetric_key("another-gateway", &credentials.enrolled_key, ""),
            Attempt::X509 | Attempt::ExpiredCertificate => plan.x509_group("gateways", &credentials.authority.certificate(), ""),
        }
    }

    /// Registers, and sends a message with what the registration gave. The inner result says in words what happened.
    fn run(&self, credentials: &Credentials, emulator: &Emulator, directory: &Path) -> Done<Result<String, String>> {
        let subject = self.subject(credentials, emulator);
        let registered = self.script(self.sdk, "register", &subject, emulator, directory)?;
        match self.attempt.refusal() {
            Some(code) => refused(&registered, code, emulator),
            None if registered["error"].is_null() => self.send(&subject, &registered, emulator, directory),
            None => Ok(Err(format!("the SDK did not register: {}", text(&registered["error"])))),
        }
    }

    fn send(&self, subject: &Value, registered: &Value, emulator: &Emulator, directory: &Path) -> Done<Result<String, String>> {
        let (hub, device) = (text(&registered["assignedHub"]), text(&registered["deviceId"]));
        if (hub.as_str(), device.as_str()) != ("localhost", DEVICE) {
            return Ok(Err(format!("the SDK was given {hub} {device}")));
        }
        let mut subject = subject.clone();
        subject["assignedHub"] = hub.into();
        subject["deviceId"] = device.into();
        let sent = self.script(Sdk::Python, "send", &subject, emulator, directory)?;
        if sent["sent"] != true {
            return Ok(Err(format!("assigned, but the hub did not take the message: {}", text(&sent["error"]))));
        }
        let arrived = emulator.recorded(DEVICE, "> hub publish")?;
        Ok(if arrived { Ok("assigned, message arrived at the hub".into()) } else { Err("the message did not arrive".into()) })
    }

    fn script(&self, sdk: Sdk, verb: &str, subject: &Value, emulator: &Emulator, directory: &Path) -> Done<Value> {
        let file = directory.join(format!("{verb}.json"));
        credentials::write_secret(&file, &subject.to_string())?;
        let extension = if sdk == Sdk::Python { "py" } else { "js" };
        sdk::outcome(&sdk.script(&format!("{verb}.{extension}"), &file, &emulator.roots()))
    }

    fn subject(&self, credentials: &Credentials, emulator: &Emulator) -> Value {
        let mut subject = json!({
            "idScope": ID_SCOPE,
            "registrationId": DEVICE,
            "transport": self.transport,
            "roots": emulator.roots(),
        });
        if self.attempt.attestation() == "x509" {
            subject["certificate"] = json!(credentials.certificate.certificate);
            subject["privateKey"] = json!(credentials.certificate.private_key);
        } else {
            subject["key"] = credentials.shown_key.as_str().into();
        }
        subject
    }
}

/// Both sides must say so: the SDK raises, and the transcript holds the error code.
fn refused(registered: &Value, code: &str, emulator: &Emulator) -> Done<Result<String, String>> {
    let said = text(&registered["error"]);
    if said.is_empty() {
        return Ok(Err(format!("should have been refused with {code}, but: {registered}")));
    }
    let answered = emulator.whole_transcript()?.contains(&format!("\"errorCode\":{code}"));
    let short: String = said.chars().take(60).collect();
    Ok(if answered { Ok(format!("refused with {code}: {short}")) } else { Err(format!("refused, but not with {code}: {said}")) })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
