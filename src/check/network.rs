//! The way to a host, one step after the other: name lookup, proxy, TCP, TLS.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use super::offline::Local;
use super::{Check, Findings, Id, Outcome, STEP};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::{Config, Dps, Proxy};
use crate::id::HostName;
use crate::protocol::{Lost, Stage, Via};
use crate::tls;
use crate::transport::{Deadline, Dialer, Failure, look_up, place};

/// The ports of DPS that can be reached, up to the end of the TLS handshake.
pub(super) struct Way {
    open: Vec<u16>,
}

impl Way {
    /// Whether this transport gets through.
    pub(super) fn is_open(&self, via: Via, dps: &Dps) -> bool {
        self.open.contains(&port(via, dps))
    }
}

/// Why every later step is of no use.
const NOBODY_TO_TRUST: &str = "there is nobody to trust, see above";

impl Findings<'_> {
    pub(super) async fn network(&mut self, config: &Config, local: &Local) -> Way {
        let host = &config.dps.host;
        let Some(tls) = &local.tls else {
            for id in [Id::Dns, Id::Proxy, Id::Tcp, Id::Tls] {
                self.add(Check::skipped(id, format!("reach {host}"), NOBODY_TO_TRUST));
            }
            return Way { open: Vec::new() };
        };
        let dialer = dialer(config, local, tls);
        let mut paths = Vec::new();
        for port in ports(config) {
            paths.push(if self.has_address(&dialer, host, port, local.clock).await {
                walk(&dialer, host, port, local.clock).await
            } else {
                unnamed(&dialer, host, port)
            });
        }
        let open = paths.iter().filter(|path| path.is_open()).map(|path| path.port).collect::<Vec<_>>();
        if paths.iter().all(|path| path.proxy.is_none()) {
            self.add(Check::skipped(Id::Proxy, "nothing", without_proxy(config)));
        }
        if paths.iter().all(|path| path.proxy.is_some()) {
            self.add(Check::skipped(Id::Tcp, "nothing", format!("the proxy connects to {host}")));
        }
        for path in paths {
            path.checks(!open.is_empty()).into_iter().for_each(|check| self.add(check));
        }
        Way { open }
    }

    /// Whether the name of the host, or of its proxy, has an address. A name is looked up once.
    async fn has_address(&mut self, dialer: &Dialer, host: &HostName, port: u16, clock: Clock) -> bool {
        let host = dialer.proxy_for(host, port).map_or(host, |proxy| &proxy.host);
        let tried = format!("look up {host}");
        if let Some(known) = self.checks.iter().find(|check| check.id == Id::Dns && check.tried == tried) {
            return !matches!(known.outcome, Outcome::Failed(_));
        }
        let check = name(host, tried, clock).await;
        let has_address = !matches!(check.outcome, Outcome::Failed(_));
        self.add(check);
        has_address
    }
}

async fn name(host: &HostName, tried: String, clock: Clock) -> Check {
    if host.as_str().parse::<IpAddr>().is_ok() {
        return Check::skipped(Id::Dns, tried, "it is an address");
    }
    match look_up(host, 0, Deadline::after(&clock, STEP)).await {
        Ok(addresses) => {
            let mut found: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            found.dedup();
            Check::ok(Id::Dns, tried, found.join(", "))
        }
        Err(lost) => lost_at(Id::Dns, tried, &lost),
    }
}

/// How far one port let us come.
pub(super) struct Path {
    pub(super) port: u16,
    place: String,
    proxy: Option<String>,
    tcp: Step,
    tls: Step,
}

enum Step {
    Done(String),
    Lost(Lost),
    NotTried(&'static str),
}

/// TCP and TLS to this port, through the proxy if there is one.
pub(super) async fn walk(dialer: &Dialer, host: &HostName, port: u16, clock: Clock) -> Path {
    let path = |tcp, tls| Path { tcp, tls, ..unnamed(dialer, host, port) };
    let tcp = match dialer.reach(host, port, Deadline::after(&clock, STEP)).await {
        Ok(tcp) => tcp,
        Err(lost) => return path(Step::Lost(lost), Step::NotTried("there is no connection")),
    };
    let reached = tcp.peer_addr().map_or_else(|_| "connected".to_owned(), |address| format!("connected to {address}"));
    let tls = match dialer.secure(tcp, host, port, Deadline::after(&clock, STEP)).await {
        Ok(stream) => Step::Done(tls::describe(stream.get_ref().1)),
        Err(Failure::Lost(lost)) => Step::Lost(lost),
        // The handshake itself is done when the peer judges our certificate.
        Err(Failure::Refused(_)) => Step::Done("it refuses our client certificate".to_owned()),
    };
    path(Step::Done(reached), tls)
}

fn unnamed(dialer: &Dialer, host: &HostName, port: u16) -> Path {
    const REASON: &str = "the name cannot be looked up";
    let proxy = dialer.proxy_for(host, port).map(proxy_name);
    Path { port, place: place(host, port), proxy, tcp: Step::NotTried(REASON), tls: Step::NotTried(REASON) }
}

impl Path {
    pub(super) fn is_open(&self) -> bool {
        matches!((&self.tcp, &self.tls), (Step::Done(_), Step::Done(_)))
    }

    /// Two lines. Where another port is open a closed one is no more than a warning.
    fn checks(self, another_is_open: bool) -> [Check; 2] {
        let (id, tried) = match &self.proxy {
            None => (Id::Tcp, format!("connect to {}", self.place)),
            Some(proxy) => (Id::Proxy, format!("ask {proxy} for {}", self.place)),
        };
        let tls = format!("TLS with {}", self.place);
        [(id, tried, self.tcp), (Id::Tls, tls, self.tls)].map(|(id, tried, step)| step.check(id, tried, another_is_open))
    }

    /// One line for both steps.
    pub(super) fn check(self, id: Id, tried: String, done: &str, another_is_open: bool) -> Check {
        let worst = match (self.tcp, self.tls) {
            (Step::Done(_), Step::Done(found)) => Step::Done(format!("{found}; {done}")),
            (Step::Done(_), tls) => tls,
            (tcp, _) => tcp,
        };
        worst.check(id, tried, another_is_open)
    }
}

impl Step {
    fn check(self, id: Id, tried: String, another_is_open: bool) -> Check {
        match self {
            Self::Done(found) => Check::ok(id, tried, found),
            Self::NotTried(reason) => Check::skipped(id, tried, reason),
            Self::Lost(lost) => {
                let check = lost_at(id, tried, &lost);
                let is_minor = another_is_open && lost.blame() == Blame::Network;
                Check { outcome: if is_minor { Outcome::Warning } else { check.outcome }, ..check }
            }
        }
    }
}

/// The line for what was lost, with its cure.
pub(super) fn lost_at(id: Id, tried: String, lost: &Lost) -> Check {
    let (found, cure) = match lost {
        Lost::Unreachable { stage, why } => (why.clone(), network_cure(*stage).to_owned()),
        Lost::Untrusted { host, why } => untrusted(host, why),
        Lost::NotYetValid { .. } => (lost.to_string(), "set this machine's clock".to_owned()),
        Lost::Nonsense(_) => (lost.to_string(), "find out who answers there: it may not be the service".to_owned()),
        Lost::Credential(why) => (why.clone(), "correct the file that is named".to_owned()),
        Lost::Tpm(why) => (why.clone(), "see docs/tpm.md".to_owned()),
    };
    Check::new(id, Outcome::Failed(lost.blame()), tried, found).cure(cure)
}

const fn network_cure(stage: Stage) -> &'static str {
    match stage {
        Stage::Resolve => "look at the spelling of the host, and at the name server in /etc/resolv.conf",
        Stage::Connect => {
            "look at cable, route and firewall: this port must be open outwards; transport = \"auto\" tries 443 too"
        }
        Stage::Proxy => "look at proxy and proxy_credentials_file in [dps], and at the log of the proxy",
        Stage::Tls => "something on the way may cut TLS off: a firewall, a proxy, or a port where another service answers",
        Stage::Certificate => "use transport = \"mqtt\", where the first handshake asks for the certificate",
        Stage::Open | Stage::Reply => "try again; if it stays like this, find out who answers there",
    }
}

/// The message of a strange issuer holds its cure; a certificate with a wrong date does not.
fn untrusted(host: &str, why: &str) -> (String, String) {
    let (fact, cure) = match why.split_once("; ") {
        Some((fact, cure)) if !cure.starts_with("our clock") => (fact, cure),
        _ => (why, "look at the clock; if it is right, whoever runs the service must renew the certificate"),
    };
    (format!("the certificate of {host} is not trusted: {fact}"), cure.to_owned())
}

pub(super) fn dialer(config: &Config, local: &Local, tls: &Arc<ClientConfig>) -> Dialer {
    let certified = local.attestation.as_ref().is_some_and(|attestation| attestation.certificate().is_some());
    Dialer { tls: Arc::clone(tls), proxy: config.proxy.clone(), certified }
}

fn ports(config: &Config) -> Vec<u16> {
    let mut ports: Vec<u16> = config.dps.routes.iter().map(|via| port(*via, &config.dps)).collect();
    ports.dedup();
    ports
}

const fn port(via: Via, dps: &Dps) -> u16 {
    match via {
        Via::Mqtt => dps.mqtt_port,
        Via::MqttWs | Via::Https => dps.https_port,
    }
}

fn without_proxy(config: &Config) -> &'static str {
    if config.proxy.is_some() { "NO_PROXY takes this host out" } else { "none is configured" }
}

fn proxy_name(proxy: &Proxy) -> String {
    format!("the proxy {}", place(&proxy.host, proxy.port))
}
