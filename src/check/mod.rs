//! Looks for what stands in the way of a registration, step by step, and changes nothing: neither on disk nor at DPS. Only a TPM is
//! given its keys where it has none yet, as any other verb would.

mod clock;
mod network;
mod offline;
mod service;
#[cfg(test)]
mod tests;
mod tpm;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::blame::Blame;
use crate::config::{Config, Source};

/// So long each step on the network may take.
const STEP: Duration = Duration::from_secs(10);

/// What is looked at. The names are stable: other programs read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// The configuration files.
    Config,
    /// `[state] directory`
    StateDirectory,
    /// `[runtime] directory`
    RuntimeDirectory,
    /// The TPM, where the device proves itself by one.
    Tpm,
    /// What is at `ek_handle`.
    TpmEk,
    /// What is at `srk_handle`.
    TpmSrk,
    /// What is at `identity_handle`, where one is configured.
    TpmIdentity,
    /// Keys and certificates: there, safe, and of use.
    Credentials,
    /// When the client certificate is valid.
    Certificate,
    /// The name under which this device registers.
    RegistrationId,
    /// The record of the last assignment.
    Record,
    /// This machine's clock.
    Clock,
    /// The name lookup.
    Dns,
    /// The proxy on the way.
    Proxy,
    /// A TCP connection to DPS.
    Tcp,
    /// TLS with DPS.
    Tls,
    /// What DPS says of this device.
    Dps,
    /// The assigned hub.
    Hub,
}

impl Id {
    /// The name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::StateDirectory => "state-directory",
            Self::RuntimeDirectory => "runtime-directory",
            Self::Tpm => "tpm",
            Self::TpmEk => "tpm-ek",
            Self::TpmSrk => "tpm-srk",
            Self::TpmIdentity => "tpm-identity",
            Self::Credentials => "credentials",
            Self::Certificate => "certificate",
            Self::RegistrationId => "registration-id",
            Self::Record => "record",
            Self::Clock => "clock",
            Self::Dns => "dns",
            Self::Proxy => "proxy",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dps => "dps",
            Self::Hub => "hub",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong there.
    Ok,
    /// A registration can work, and somebody should look at it.
    Warning,
    /// No registration can work, and whom to blame for it.
    Failed(Blame),
    /// It could not have told anything.
    Skipped,
}

impl Outcome {
    /// The word in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed(_) => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub id: Id,
    /// How it ended.
    pub outcome: Outcome,
    /// What was tried.
    pub tried: String,
    /// What came of it; for a skipped check the reason.
    pub found: String,
    /// What to do, unless all is well.
    pub cure: Option<String>,
}

impl Check {
    fn new(id: Id, outcome: Outcome, tried: impl Into<String>, found: impl Into<String>) -> Self {
        Self { id, outcome, tried: tried.into(), found: found.into(), cure: None }
    }

    fn ok(id: Id, tried: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(id, Outcome::Ok, tried, found)
    }

    fn skipped(id: Id, tried: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(id, Outcome::Skipped, tried, reason)
    }

    fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }

    /// A member of `checks` in `check --json`.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id.name(),
            "result": self.outcome.word(),
            "tried": self.tried,
            "found": self.found,
            "cure": self.cure,
        })
    }
}

/// One line for people, and the cure on the next.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was found may be a list of errors.
        let found = self.found.trim_end().replace('\n', &format!("\n{:28}", ""));
        write!(f, "{:8} {:18} {}: {found}", self.outcome.word(), self.id.name(), self.tried)?;
        match &self.cure {
            Some(cure) => write!(f, "\n{:28}-> {cure}", ""),
            None => Ok(()),
        }
    }
}

/// What the machine gives to the examination, as arguments.
pub struct Examined<'a> {
    /// Which configuration.
    pub source: Source,
    /// The environment, for the proxy.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// `/` outside tests: where hardware names are looked up.
    pub root: PathBuf,
    /// systemd's `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// Only what needs no network.
    pub offline: bool,
}

/// All checks in their order, each told to `tell` as soon as it has ended.
pub async fn examine<'t>(examined: Examined<'_>, tell: &'t mut dyn FnMut(&Check)) -> Findings<'t> {
    let mut findings = Findings { checks: Vec::new(), tell };
    let Some(config) = findings.configuration(&examined) else {
        findings.without_configuration(examined.offline);
        return findings;
    };
    let local = findings.offline(&config, &examined).await;
    if !examined.offline {
        findings.online(&config, local).await;
    }
    findings
}

/// What the checks have found so far.
pub struct Findings<'t> {
    checks: Vec<Check>,
    tell: &'t mut dyn FnMut(&Check),
}

impl Findings<'_> {
    /// 0 unless a check has failed; then the exit code of the first one's blame.
    pub fn exit_code(&self) -> u8 {
        let failed = self.checks.iter().find_map(|check| match check.outcome {
            Outcome::Failed(blame) => Some(blame),
            Outcome::Ok | Outcome::Warning | Outcome::Skipped => None,
        });
        failed.map_or(0, Blame::exit_code)
    }

    /// `{"ok", "checks"}`, as `check --json` prints it.
    pub fn to_json(&self) -> Value {
        let checks: Vec<Value> = self.checks.iter().map(Check::to_json).collect();
        json!({ "ok": self.exit_code() == 0, "checks": checks })
    }

    fn add(&mut self, check: Check) {
        (self.tell)(&check);
        self.checks.push(check);
    }

    fn without_configuration(&mut self, offline: bool) {
        use Id::*;
        let local = [StateDirectory, RuntimeDirectory, Credentials, Certificate, RegistrationId, Record, Clock];
        let remote = [Dns, Proxy, Tcp, Tls, Dps, Hub];
        for id in local.into_iter().chain(remote.into_iter().filter(|_| !offline)) {
            self.add(Check::skipped(id, "nothing", "without a valid configuration it is not known what to look at"));
        }
    }

    async fn online(&mut self, config: &Config, local: offline::Local) {
        let way = self.network(config, &local).await;
        self.service(config, &local, &way).await;
        self.hub(config, &local).await;
    }
}
