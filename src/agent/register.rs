//! One registration: the loop that does what the steps of the core ask for.

use std::path::Path;

use serde_json::Value;

use super::{Agent, Deadline, limits, seed};
use crate::blame::Blame;
use crate::config::Payload;
use crate::failure::Failure;
use crate::protocol::registration::{self, Exchange, Policy, Registered, Step};
use crate::protocol::{Via, wire};
use crate::transport::{Service, note};

impl Agent {
    pub(super) async fn register(&self, end: Deadline) -> Result<Registered, Failure> {
        let body = wire::register_body(self.attestation.registration_id(), self.payload()?.as_ref());
        let mut service = Service::new(&self.config, &self.attestation, self.clock, &self.transcript, body)?;
        let mut step = registration::begin(self.policy(end)?, self.clock.instant());
        let done = loop {
            step = match step {
                Step::Exchange(exchange) => self.exchange(&mut service, exchange).await,
                Step::Pause(pause) => {
                    self.transcript.line(format_args!("pause {:.3}", pause.length().as_secs_f64()));
                    if !pause.keeps() {
                        service.close().await;
                    }
                    self.progress.wait(pause.length(), pause.trouble()).await;
                    pause.elapsed()
                }
                Step::Done(done) => break done,
            };
        };
        service.close().await;
        self.conclude(done.map_err(Failure::from))
    }

    async fn exchange(&self, service: &mut Service<'_>, exchange: Exchange) -> Step {
        let connection = exchange.connection();
        let id = self.attestation.registration_id();
        self.progress.doing(format_args!("asking {} for {id} over {}", self.config.dps.host, connection.via));
        let now = self.clock.instant();
        let limits = limits(exchange.patience_left(now).and_then(|left| now.checked_add(left)));
        let answer = service.exchange(&connection, exchange.request(), limits).await;
        let reply = answer.and_then(|answer| {
            self.transcript.answer(&answer);
            wire::decode(exchange.request(), &answer, id, self.clock.now())
                .inspect_err(|nonsense| note(&self.transcript, nonsense))
        });
        match reply {
            Ok(reply) => exchange.replied(reply, self.clock.instant()),
            Err(lost) => exchange.lost(lost, self.clock.instant()),
        }
    }

    fn conclude(&self, done: Result<Registered, Failure>) -> Result<Registered, Failure> {
        match &done {
            Ok(registered) => {
                let assignment = &registered.assignment;
                self.transcript.line(format_args!("= assigned {} {}", assignment.hub, assignment.device_id));
            }
            Err(failure) => self.transcript.line(format_args!("= gave-up {}", failure.blame)),
        }
        done
    }

    fn policy(&self, end: Deadline) -> Result<Policy, Failure> {
        let mut routes = self.config.dps.routes.clone();
        // What worked last is tried first.
        if let Some(worked) = self.remembered()?.and_then(|record| Via::named(&record.transport)) {
            routes.sort_by_key(|via| *via != worked);
        }
        let second_key = self.attestation.has_second_key();
        Ok(Policy { patience: end.left(&self.clock), routes, second_key, seed: seed() })
    }

    fn payload(&self) -> Result<Option<Value>, Failure> {
        match &self.config.dps.payload {
            None => Ok(None),
            Some(Payload::Inline(value)) => Ok(Some(value.clone())),
            Some(Payload::File(path)) => read_payload(path).map(Some),
        }
    }
}

/// The custom allocation payload in this file.
pub(crate) fn read_payload(path: &Path) -> Result<Value, Failure> {
    /// In bytes: no message of DPS is larger.
    const LARGEST: u64 = 128 * 1024;
    let wrong = |why: String| Failure::new(Blame::Configuration, format!("dps.payload_file {}: {why}", path.display()));
    let found = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    // A pipe would be waited for, and a device may have no end.
    if !found.is_file() || found.len() > LARGEST {
        return Err(wrong("not a file of at most 128 KiB".to_owned()));
    }
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| wrong(format!("not JSON: {error}")))
}
