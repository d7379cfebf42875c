//! What DPS says of this device, asked in a way that changes nothing, and whether the assigned hub can be reached.

use serde_json::Value;

use super::network::{Way, dialer, lost_at, walk};
use super::offline::Local;
use super::{Check, Findings, Id, Outcome, STEP, clock};
use crate::attestation::Attestation;
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::{Config, Gateway, Hub};
use crate::failure::with_causes;
use crate::id::HostName;
use crate::protocol::registration::Connection;
use crate::protocol::{Answer, KeySlot, Reply, Request, Via, wire};
use crate::record::{Record, Store};
use crate::tls;
use crate::transcript::Transcript;
use crate::transport::{Failure, Limits, Service};

const LIMITS: Limits = Limits { connect: STEP, reply: STEP, until: None };

const REFUSED_CREDENTIAL: &str = "the key or certificate may not be the enrolled one, or may have expired; the clock may be wrong; an IP \
     filter of the DPS instance may exclude this address (DPS does not say which); or something on the way has taken the client \
     certificate off";

const UNCHALLENGED: &str = "compare the endorsement key of the enrollment with the one that `dps-agent identity` prints; an IP filter of \
     the DPS instance may exclude this address (DPS does not say which)";

impl Findings<'_> {
    pub(super) async fn service(&mut self, config: &Config, local: &Local, way: &Way) {
        let tried = format!("ask {} for this device", config.dps.host);
        let Some(attestation) = &local.attestation else {
            return self.add(Check::skipped(Id::Dps, tried, "there is no usable credential to show, see above"));
        };
        // The lookup tells the most, so it is tried even where registrations go another way.
        let by_https = way.is_open(Via::Https, &config.dps);
        let by_mqtt = config.dps.routes.iter().find(|via| **via != Via::Https && way.is_open(**via, &config.dps));
        if !by_https && by_mqtt.is_none() {
            return self.add(Check::skipped(Id::Dps, tried, "no way to it is open, see above"));
        }
        let transcript = Transcript::log_only();
        let body = wire::register_body(attestation.registration_id(), None, attestation.shown_keys().as_ref());
        let service = match Service::new(config, attestation, local.clock, &transcript, body) {
            Ok(service) => service,
            Err(error) => return self.add(Check::skipped(Id::Dps, tried, with_causes(&error))),
        };
        if attestation.is_challenged() {
            return self.challenge(service, attestation, config).await;
        }
        match by_mqtt.filter(|_| !by_https) {
            Some(via) => self.knock(service, attestation, *via, config).await,
            None => self.look_up(service, attestation, config, local).await,
        }
    }

    async fn look_up(&mut self, mut service: Service<'_>, attestation: &Attestation, config: &Config, local: &Local) {
        let tried = format!("ask {} over https how {} stands there", config.dps.host, attestation.registration_id());
        let mut answer = service.lookup(KeySlot::Primary, LIMITS).await;
        let refused = answer.as_ref().is_ok_and(|answer| answer.status == 401);
        if refused && attestation.has_second_key() {
            let second = service.lookup(KeySlot::Secondary, LIMITS).await;
            if second.as_ref().is_ok_and(|answer| answer.status != 401) {
                let found = "it refuses the primary key and accepts the secondary one";
                self.add(Check::new(Id::Dps, Outcome::Warning, tried.clone(), found).cure("put the new primary key in place"));
            }
            answer = second;
        }
        match answer {
            Err(lost) => self.add(lost_at(Id::Dps, tried, &lost)),
            Ok(answer) => {
                self.add(standing(tried, &answer, local.record.as_ref()));
                let host = config.dps.host.as_str();
                clock::against(answer.date.as_deref(), Clock::wall(), host).into_iter().for_each(|check| self.add(check));
            }
        }
    }

    /// A TPM is challenged before it can ask anything. Nothing is registered by that: only who answers registers.
    async fn challenge(&mut self, mut service: Service<'_>, attestation: &Attestation, config: &Config) {
        let host = config.dps.host.as_str();
        let tried = format!("let {host} challenge the TPM of {}", attestation.registration_id());
        // A new challenge may end the one that a registration is about to answer.
        let lock = Store::new(&config.state_directory).try_lock();
        if let Ok(None) = lock {
            return self.add(Check::skipped(Id::Dps, tried, "another dps-agent is registering now, and this might disturb it"));
        }
        let connection = Connection { via: Via::Https, slot: KeySlot::Primary, number: 1 };
        let answer = match service.exchange(&connection, &Request::Challenge, LIMITS).await {
            Ok(answer) => answer,
            Err(lost) => return self.add(lost_at(Id::Dps, tried, &lost)),
        };
        let check = match wire::decode(&Request::Challenge, &answer, attestation.registration_id(), Clock::wall()) {
            Ok(Reply::Challenged(key)) => match service.answer(&key).await {
                Ok(()) => Check::ok(Id::Dps, tried, "it is enrolled with this endorsement key: the TPM can answer"),
                Err(error) => super::tpm::unanswered(tried, &error),
            },
            Ok(_) => not_challenged(tried, &answer),
            Err(lost) => lost_at(Id::Dps, tried, &lost),
        };
        self.add(check);
        service.close().await;
        clock::against(answer.date.as_deref(), Clock::wall(), host).into_iter().for_each(|check| self.add(check));
    }

    async fn knock(&mut self, mut service: Service<'_>, attestation: &Attestation, via: Via, config: &Config) {
        let tried = format!("connect to {} over {via} as {}", config.dps.host, attestation.registration_id());
        let connection = Connection { via, slot: KeySlot::Primary, number: 1 };
        self.add(match service.knock(&connection, LIMITS).await {
            Ok(()) => Check::ok(
                Id::Dps,
                tried,
                "it lets us in and subscribe; whether it takes the key, it may say only at a registration",
            ),
            Err(Failure::Lost(lost)) => lost_at(Id::Dps, tried, &lost),
            Err(Failure::Refused(answer)) => refused(tried, &answer),
        });
    }

    pub(super) async fn hub(&mut self, config: &Config, local: &Local) {
        let Some(record) = &local.record else {
            return self.add(Check::skipped(Id::Hub, "nothing", "no assignment is recorded for this device"));
        };
        let Some(host) = hub_host(config, record) else {
            return self.add(Check::skipped(Id::Hub, "nothing", "the recorded hub is no host name"));
        };
        let also = config.hub.gateway.as_ref().and_then(|gateway| gateway.ca_file.as_deref());
        let certificate = local.attestation.as_ref().and_then(Attestation::certificate);
        let tls = match tls::client(&config.trust, also, certificate, local.clock) {
            Ok(tls) => tls,
            Err(error) => {
                let failed = Check::new(Id::Hub, Outcome::Failed(error.blame()), format!("reach {host}"), with_causes(&error));
                return self.add(failed.cure("correct gateway_ca_file in [hub], or ca_file in [dps]"));
            }
        };
        let dialer = dialer(config, local, &tls);
        let mut paths = Vec::new();
        for port in hub_ports(&config.hub) {
            paths.push(walk(&dialer, &host, port, local.clock).await);
        }
        let open = paths.iter().any(super::network::Path::is_open);
        for path in paths {
            let tried = format!("TCP and TLS with {host}:{}", path.port);
            const NO_LOGIN: &str = "not logged in: a hub lets a device in once, and that connection belongs to the programs here";
            self.add(path.check(Id::Hub, tried, NO_LOGIN, open));
        }
    }
}

/// What the answer to a registration status lookup means.
pub(super) fn standing(tried: String, answer: &Answer, record: Option<&Record>) -> Check {
    match answer.status {
        200 => known(tried, &answer.body, record),
        404 if record.is_none() => Check::new(
            Id::Dps,
            Outcome::Warning,
            tried,
            "it knows no registration of this device: it has never registered, or is not enrolled",
        )
        .cure("this is as it should be before the first registration; else look at the enrollment, id_scope and registration_id"),
        404 => Check::new(Id::Dps, Outcome::Warning, tried, "it does not know this device any more, though there is a record")
            .cure("look whether the enrollment was removed; `dps-agent provision --force` registers anew"),
        _ => refused(tried, answer),
    }
}

fn known(tried: String, body: &[u8], record: Option<&Record>) -> Check {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let hub = body["assignedHub"].as_str().and_then(|hub| hub.parse::<HostName>().ok());
    let failed = |outcome, found: &str, cure: &str| Check::new(Id::Dps, outcome, tried.clone(), found).cure(cure);
    match (body["status"].as_str(), hub) {
        (Some("assigned"), Some(hub)) => match record.filter(|record| record.assigned_hub != hub.as_str()) {
            None => Check::ok(Id::Dps, tried, format!("assigned to {hub}")),
            Some(record) => {
                let found = format!("assigned to {hub}, and the record here says {}", record.assigned_hub);
                failed(Outcome::Warning, &found, "`dps-agent provision --force` registers anew")
            }
        },
        (Some("disabled"), _) => failed(Outcome::Failed(Blame::Refused), "the enrollment is disabled", "enable it in DPS"),
        (Some("failed"), _) => {
            failed(Outcome::Warning, "the last registration failed there", "look at allocation policy and linked hubs in DPS")
        }
        (Some("assigning" | "unassigned"), _) => Check::ok(Id::Dps, tried, "it is enrolled and has no hub yet"),
        (_, _) => failed(Outcome::Failed(Blame::Peer), "an answer that makes no sense", "find out who answers there"),
    }
}

/// Why there is no challenge: most often nobody has enrolled this device, or another endorsement key.
pub(super) fn not_challenged(tried: String, answer: &Answer) -> Check {
    let check = refused(tried, answer);
    match answer.status {
        404 => check.cure("enroll it: `dps-agent identity` prints what DPS has to know"),
        401 | 403 => check.cure(UNCHALLENGED),
        _ => check,
    }
}

fn refused(tried: String, answer: &Answer) -> Check {
    let refusal = wire::refusal(answer, None);
    let blame = refusal.blame();
    let cure = if blame == Blame::Unauthorized {
        REFUSED_CREDENTIAL
    } else if blame == Blame::Busy {
        "try again later"
    } else {
        "look at id_scope, registration_id and api_version"
    };
    Check::new(Id::Dps, Outcome::Failed(blame), tried, refusal.to_string()).cure(cure)
}

/// The host that TLS goes to.
fn hub_host(config: &Config, record: &Record) -> Option<HostName> {
    match &config.hub.gateway {
        Some(Gateway { host, .. }) => Some(host.clone()),
        None => record.assigned_hub.parse().ok(),
    }
}

fn hub_ports(hub: &Hub) -> Vec<u16> {
    let port = |via: &Via| match via {
        Via::Mqtt => hub.mqtt_port,
        Via::MqttWs | Via::Https => hub.https_port,
    };
    let mut ports: Vec<u16> = hub.routes.iter().map(port).collect();
    ports.dedup();
    ports
}
