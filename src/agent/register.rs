//! One registration: the loop that does what the steps of the core ask for.

use std::path::Path;

use serde_json::Value;

use super::{Agent, Deadline, Obtained, limits, seed};
use crate::blame::Blame;
use crate::config::Payload;
use crate::failure::Failure;
use crate::protocol::registration::{self, Errand, Exchange, Import, Policy, Registered, Step};
use crate::protocol::{Lost, Via, wire};
use crate::record::Record;
use crate::tpm::Memory;
use crate::transport::{Service, note};

impl Agent {
    pub(super) async fn register(&self, end: Deadline, previous: Option<&Record>) -> Result<Obtained, Failure> {
        let shown = self.attestation.shown_keys();
        let body = wire::register_body(self.attestation.registration_id(), self.payload()?.as_ref(), shown.as_ref());
        let mut service = Service::new(&self.config, &self.attestation, self.clock(), &self.transcript, body)?;
        let mut step = registration::begin(self.policy(end)?, self.clock().instant());
        let mut memory = None;
        let done = loop {
            step = match step {
                Step::Exchange(exchange) => self.exchange(&mut service, exchange).await,
                Step::Import(import) => {
                    self.expect_the_worst_of(previous)?;
                    self.import(&mut service, import, &mut memory).await
                }
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
        let registered = self.conclude(done.map_err(Failure::from))?;
        Ok(Obtained { registered, memory })
    }

    /// From here on the service may give the TPM another hub key and let the old one go. Whoever starts after a power cut has to
    /// know that, whatever it cut.
    fn expect_the_worst_of(&self, previous: Option<&Record>) -> Result<(), Failure> {
        match previous.filter(|record| self.is_settled(record)) {
            None => Ok(()),
            Some(_) if self.remembered()?.is_some_and(|record| record.unfinished) => Ok(()),
            Some(record) => Ok(self.store.write(&Record { unfinished: true, ..record.clone() })?),
        }
    }

    async fn import(&self, service: &mut Service<'_>, import: Import, memory: &mut Option<Memory>) -> Step {
        self.progress.doing(format_args!("giving the key that {} sent to the TPM", self.config.dps.host));
        let done = match import.errand() {
            Errand::Answer => service.answer(import.key()).await,
            Errand::Keep => self.attestation.import(import.key()).await.map(|imported| *memory = Some(imported)),
        };
        match done {
            Ok(()) => {
                self.transcript.line(format_args!("= {}", import.errand().word()));
                import.imported()
            }
            Err(error) => {
                let lost = Lost::from(error);
                note(&self.transcript, &lost);
                import.lost(lost, self.clock().instant())
            }
        }
    }

    async fn exchange(&self, service: &mut Service<'_>, exchange: Exchange) -> Step {
        let connection = exchange.connection();
        let id = self.attestation.registration_id();
        self.progress.doing(format_args!("asking {} for {id} over {}", self.config.dps.host, connection.via));
        let now = self.clock().instant();
        let limits = limits(exchange.patience_left(now).and_then(|left| now.checked_add(left)));
        let answer = service.exchange(&connection, exchange.request(), limits).await;
        let reply = answer.and_then(|answer| {
            self.transcript.answer(&answer);
            self.note_time(&answer);
            wire::decode(exchange.request(), &answer, id, self.clock().now())
                .inspect_err(|nonsense| note(&self.transcript, nonsense))
        });
        match reply {
            Ok(reply) => exchange.replied(reply, self.clock().instant()),
            Err(lost) => exchange.lost(lost, self.clock().instant()),
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
        let challenged = self.attestation.is_challenged();
        Ok(Policy { patience: end.left(&self.clock()), routes, second_key, challenged, seed: seed() })
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
