//! From settings to the configuration: each table understood, and what cannot stand together refused.

use std::path::{Path, PathBuf};

use super::problem::{ConfigErrors, Origin, Problem, Report, Reported};
use super::proxy::Variables;
use super::schema::{self, Key};
use super::settings::{Found, Settings, missing};
use super::{Config, Dps, Gateway, Hub, Payload, Trust, Verify};
use crate::id::{HostName, IdScope, InvalidId};
use crate::protocol::Via;

/// The configuration that the settings make, and the warnings about it.
pub(super) fn understand(
    settings: &Settings,
    main: &Path,
    variables: &Variables,
    report: Report,
) -> Result<(Config, Vec<Problem>), ConfigErrors> {
    let mut reader = Reader { settings, main, report, warnings: Vec::new() };
    match reader.config(variables) {
        Ok(config) => reader.report.verdict().map(|_| (config, reader.warnings)),
        Err(reported) => Err(reader.report.into_errors(reported)),
    }
}

/// Understands settings and collects everything that is wrong with them.
pub(super) struct Reader<'s> {
    pub(super) settings: &'s Settings,
    /// The file that should hold what is missing.
    main: &'s Path,
    report: Report,
    warnings: Vec<Problem>,
}

impl<'s> Reader<'s> {
    // Every part is read before the first `?`, so that all problems come to light together.
    fn config(&mut self, variables: &Variables) -> Result<Config, Reported> {
        let dps = self.dps();
        let trust = self.trust();
        let proxy = self.proxy(variables);
        let attestation = self.profile();
        let hub = self.hub();
        let trust_service_date = self.settings.flag(schema::TRUST_SERVICE_DATE);
        let state_directory = self.directory(schema::STATE_DIRECTORY);
        let runtime_directory = self.directory(schema::RUNTIME_DIRECTORY);
        let handoff = self.handoff();
        Ok(Config {
            dps: dps?,
            attestation: attestation?,
            hub: hub?,
            trust: trust?,
            proxy: proxy?,
            trust_service_date: trust_service_date?.is_some(),
            state_directory: state_directory?,
            runtime_directory: runtime_directory?,
            handoff: handoff?,
        })
    }

    fn dps(&mut self) -> Result<Dps, Reported> {
        let host = self.required(schema::HOST, "write a host name").and_then(|found| self.host_name(found));
        let id_scope = self.id_scope();
        let routes = self.routes();
        let mqtt_port = self.port(schema::MQTT_PORT);
        let https_port = self.port(schema::HTTPS_PORT);
        let api_version = self.api_version();
        let payload = self.payload();
        Ok(Dps {
            host: host?,
            id_scope: id_scope?,
            routes: routes?.to_vec(),
            mqtt_port: mqtt_port?,
            https_port: https_port?,
            api_version: api_version?,
            payload: payload?,
        })
    }

    fn routes(&mut self) -> Result<&'static [Via], Reported> {
        let routes =
            self.word(schema::TRANSPORT, &[("auto", &AUTO[..]), ("mqtt", &MQTT), ("mqtt-ws", &MQTT_WS), ("https", &HTTPS)])?;
        let method = self.optional(schema::METHOD).ok().flatten().filter(|method| method.text == "tpm");
        match (method, self.optional(schema::TRANSPORT)?) {
            (Some(_), _) if routes.contains(&Via::Https) => Ok(&HTTPS),
            (Some(method), Some(found)) => Err(self.wrong(found, https_only(method, found))),
            (Some(_) | None, _) => Ok(routes),
        }
    }

    fn id_scope(&mut self) -> Result<IdScope, Reported> {
        let found = self
            .required(schema::ID_SCOPE, "write id_scope = \"0ne00000000\" as the overview page of your DPS instance shows it")?;
        found.text.parse().map_err(|invalid: InvalidId| self.invalid(found, &invalid))
    }

    fn api_version(&mut self) -> Result<String, Reported> {
        let found = self.required(schema::API_VERSION, "write api_version = \"2021-06-01\"")?;
        if is_api_version(found.text) {
            return Ok(found.text.to_owned());
        }
        Err(self.wrong(found, "not an API version; write a date as 2021-06-01, or 2021-11-01-preview"))
    }

    fn payload(&mut self) -> Result<Option<Payload>, Reported> {
        let inline = self.optional(schema::PAYLOAD);
        let file = self.optional(schema::PAYLOAD_FILE);
        match (inline?, file?) {
            (Some(inline), Some(file)) => Err(self.both(inline, file)),
            (Some(inline), None) => self.inline_payload(inline).map(Some),
            (None, file) => Ok(file.map(|file| Payload::File(PathBuf::from(file.text)))),
        }
    }

    fn inline_payload(&mut self, found: Found<'_>) -> Result<Payload, Reported> {
        serde_json::from_str(found.text).map(Payload::Inline).map_err(|error| {
            self.wrong(found, format!("is not JSON: {error} of the text between the quotes; correct it, or use payload_file"))
        })
    }

    fn trust(&mut self) -> Result<Trust, Reported> {
        let file = self.optional(schema::CA_FILE);
        let only = self.settings.flag(schema::CA_ONLY);
        match (file?, only?) {
            (None, None) => Ok(Trust::System),
            (Some(file), None) => Ok(Trust::SystemAnd(PathBuf::from(file.text))),
            (Some(file), Some(_)) => Ok(Trust::Only(PathBuf::from(file.text))),
            (None, Some(origin)) => Err(self.report.add(Problem {
                origin: origin.clone(),
                key: Some(schema::CA_ONLY.to_name()),
                message:
                    "nothing would be trusted without ca_file; name a file of root certificates in ca_file, or remove ca_only"
                        .to_owned(),
            })),
        }
    }

    fn hub(&mut self) -> Result<Hub, Reported> {
        let routes = self.hub_routes();
        let mqtt_port = self.port(schema::HUB_MQTT_PORT);
        let https_port = self.port(schema::HUB_HTTPS_PORT);
        let verify = self.word(schema::VERIFY, &[("on-change", Verify::OnChange), ("never", Verify::Never)]);
        let gateway = self.gateway();
        Ok(Hub { routes: routes?.to_vec(), mqtt_port: mqtt_port?, https_port: https_port?, verify: verify?, gateway: gateway? })
    }

    fn hub_routes(&mut self) -> Result<&'static [Via], Reported> {
        if let Some(found) = self.optional(schema::HUB_TRANSPORT)?.filter(|found| found.text == "https") {
            return Err(self.wrong(
                found,
                "the proof is an MQTT connection, which HTTPS cannot make; write \"mqtt-ws\", which uses the same port",
            ));
        }
        self.word(schema::HUB_TRANSPORT, &[("auto", &AUTO_HUB[..]), ("mqtt", &MQTT), ("mqtt-ws", &MQTT_WS)])
    }

    fn gateway(&mut self) -> Result<Option<Gateway>, Reported> {
        let host = self.optional(schema::GATEWAY_HOST);
        let ca_file = self.optional(schema::GATEWAY_CA_FILE);
        match (host?, ca_file?) {
            (Some(host), ca_file) => {
                let host = self.host_name(host)?;
                Ok(Some(Gateway { host, ca_file: ca_file.map(|file| PathBuf::from(file.text)) }))
            }
            (None, Some(file)) => Err(self
                .wrong(file, "is of no use without gateway_host; write gateway_host, or use [dps] ca_file for the hub itself")),
            (None, None) => Ok(None),
        }
    }

    fn directory(&mut self, key: Key) -> Result<PathBuf, Reported> {
        self.required(key, "write a directory").map(|found| PathBuf::from(found.text))
    }

    fn port(&mut self, key: Key) -> Result<u16, Reported> {
        self.settings.port(key, self.main, &mut self.report)
    }

    fn host_name(&mut self, found: Found<'_>) -> Result<HostName, Reported> {
        found.text.parse().map_err(|invalid: InvalidId| match bare_host(found.text) {
            Some(host) => self.wrong(
                found,
                format!(
                    "holds more than a host name; write only {} = \"{}\", ports have keys of their own",
                    found.key.name,
                    host.in_url()
                ),
            ),
            None => self.invalid(found, &invalid),
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: Key, words: &[(&'static str, T)]) -> Result<T, Reported> {
        let names = || words.iter().map(|(name, _)| *name);
        let found = self.required(key, "write one of the words it takes")?;
        if let Some((_, meaning)) = words.iter().find(|(name, _)| *name == found.text) {
            return Ok(*meaning);
        }
        let near = schema::nearest(found.text, names()).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let choice = names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        Err(self.wrong(found, format!("unknown value; write one of {choice}{near}")))
    }

    /// What was written for the key, if anything.
    pub(super) fn optional(&self, key: Key) -> Result<Option<Found<'s>>, Reported> {
        self.settings.text(key)
    }

    /// What was written for the key; without it there is nothing to go on.
    pub(super) fn required(&mut self, key: Key, cure: &str) -> Result<Found<'s>, Reported> {
        self.settings.text(key)?.ok_or_else(|| self.missing(key, cure))
    }

    /// Reports that a key has to be there.
    pub(super) fn missing(&mut self, key: Key, cure: &str) -> Reported {
        self.report.add(missing(key, self.main, cure))
    }

    /// Reports a problem of whatever kind.
    pub(super) fn add(&mut self, problem: Problem) -> Reported {
        self.report.add(problem)
    }

    /// Reports what is wrong with a value.
    pub(super) fn wrong(&mut self, found: Found<'_>, message: impl Into<String>) -> Reported {
        self.report.add(problem(found, message))
    }

    /// Reports a value that breaks the rule of its kind. The value is not quoted, it may be a key in the wrong line.
    pub(super) fn invalid(&mut self, found: Found<'_>, invalid: &InvalidId) -> Reported {
        self.wrong(found, format!("does not fit; {}", invalid.rule()))
    }

    /// Reports something that works and may still not be meant.
    pub(super) fn warn(&mut self, found: Found<'_>, message: impl Into<String>) {
        self.warnings.push(problem(found, message));
    }

    /// Reports two keys that cannot stand together, at the one that came later.
    pub(super) fn both(&mut self, one: Found<'_>, other: Found<'_>) -> Reported {
        let (later, earlier) = if self.settings.is_later(one.key, other.key) { (one, other) } else { (other, one) };
        let name = earlier.key.name;
        self.wrong(
            later,
            format!("cannot stand beside {name} of {}; keep one of them{}", earlier.origin, take_back(later, earlier)),
        )
    }
}

/// How a drop-in gets rid of what a file below it wrote.
pub(super) fn take_back(later: Found<'_>, earlier: Found<'_>) -> String {
    match (later.origin, earlier.origin) {
        (Origin::Line { path: upper, .. }, Origin::Line { path: lower, .. }) if upper != lower => {
            format!("; {} = \"\" in {} takes the other back", earlier.key.name, upper.display())
        }
        _ => String::new(),
    }
}

/// DPS device API, TPM over MQTT.
fn https_only(method: Found<'_>, transport: Found<'_>) -> String {
    format!(
        "DPS takes a TPM over HTTPS only, and {} says method = \"tpm\"; write \"https\" or \"auto\"{}",
        method.origin,
        take_back(method, transport)
    )
}

fn problem(found: Found<'_>, message: impl Into<String>) -> Problem {
    Problem { origin: found.origin.clone(), key: Some(found.key.to_name()), message: message.into() }
}

const AUTO: [Via; 3] = [Via::Mqtt, Via::MqttWs, Via::Https];
const MQTT: [Via; 1] = [Via::Mqtt];
const MQTT_WS: [Via; 1] = [Via::MqttWs];
const HTTPS: [Via; 1] = [Via::Https];
const AUTO_HUB: [Via; 2] = [Via::Mqtt, Via::MqttWs];

/// `YYYY-MM-DD` or `YYYY-MM-DD-preview`.
fn is_api_version(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let shape = |(at, c): (usize, char)| if matches!(at, 4 | 7) { c == '-' } else { c.is_ascii_digit() };
    date.len() == 10 && date.chars().enumerate().all(shape)
}

/// The host within something that was pasted as a URL or with a port.
fn bare_host(text: &str) -> Option<HostName> {
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let without_port = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(host, _)| host);
    without_port.parse().ok()
}
