//! What changes under a running daemon: configuration, keys, the record, and the clock.

use std::rc::Rc;
use std::time::Duration;

use super::Daemon;
use super::watch::{Changed, Watched};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::config::Config;
use crate::desk::{Served, days_left};
use crate::event;
use crate::lifecycle::Uptime;
use crate::record::Record;

/// So many days before its end a certificate is spoken of, once a day.
const DAYS_TO_RENEW: i64 = 30;

impl Daemon<'_> {
    /// SIGHUP: a configuration that cannot be used changes nothing. Whether what is at work has become pointless.
    pub(super) async fn reload(&mut self) -> bool {
        match (self.setting.load)() {
            Ok(config) if config == *self.agent.config() => {
                tracing::info!(message_id = event::CONFIGURATION_READ, "the configuration was read again and is the same");
                self.reopen(config).await
            }
            Ok(config) => {
                tracing::info!(message_id = event::CONFIGURATION_READ, "the configuration was read again and has changed");
                self.reopen(config).await
            }
            Err(failure) => {
                tracing::error!("{failure}");
                tracing::error!(
                    message_id = event::CONFIGURATION_REFUSED,
                    "this configuration is not used; the one before stays"
                );
                false
            }
        }
    }

    /// Opens the identity anew. The old one stays where that fails, or where nothing is different.
    async fn reopen(&mut self, config: Config) -> bool {
        let agent = match Agent::open(config, self.setting.surroundings(&self.desk), Duration::ZERO).await {
            Ok(agent) => agent,
            Err(failure) => {
                tracing::error!("{failure}");
                tracing::error!("what was opened before stays in use");
                return false;
            }
        };
        let is_the_same = agent.about() == self.agent.about() && agent.config() == self.agent.config();
        self.agent = Rc::new(agent);
        if is_the_same {
            // A second key may be another one all the same.
            self.serve_by(|_| true);
            return false;
        }
        self.watched = Watched::new(self.agent.watched());
        self.keep.forget();
        self.settle().await;
        true
    }

    /// Configuration, identity or record are other ones than before: what fits is served, and what does not is made anew. Until
    /// then the old assignment serves.
    async fn settle(&mut self) {
        self.introduce();
        let now = Clock::uptime();
        match self.agent.current() {
            Ok(Some(record)) => {
                self.life.changed(true, now);
                if let Err(failure) = self.agent.hand_off(&record).await {
                    self.failed(&failure);
                }
                self.serve(record);
            }
            Ok(None) => self.life.changed(false, now),
            Err(failure) => {
                self.life.changed(false, now);
                self.failed(&failure);
            }
        }
        self.watched.refresh();
    }

    /// Looks at what may have changed without anybody telling us. Whether what is at work has become pointless.
    pub(super) async fn round(&mut self) -> bool {
        let now = Clock::uptime();
        if self.wall.was_set() {
            tracing::info!("the machine's clock was set");
            self.agent.believe_the_machine();
            self.life.clock_was_set(now);
            self.serve_by_the_clock();
        }
        self.desk.tell(|status| status.clock = self.agent.clock_verdict());
        self.speak_of_certificate(now);
        self.keep.write_now_and_then(&self.life, &self.agent.about(), now);
        match self.watched.what_changed(&self.agent.store().path()) {
            Changed::Nothing => false,
            Changed::Identity => {
                tracing::info!("a key or certificate file has changed");
                self.reopen(self.agent.config().clone()).await
            }
            Changed::Record => {
                self.follow_record().await;
                false
            }
        }
    }

    /// Another `dps-agent` has written the record: a verb of an operator.
    async fn follow_record(&mut self) {
        let is_served = |record: &Record| self.desk.served().is_some_and(|served| served.record == *record);
        if !matches!(self.agent.current(), Ok(Some(record)) if is_served(&record)) {
            tracing::info!("the record was changed by another process");
            self.settle().await;
        }
    }

    /// Tokens go by the clock that was found to be right last.
    pub(super) fn serve_by_the_clock(&self) {
        self.desk.tell(|status| status.clock = self.agent.clock_verdict());
        self.serve_by(|served| served.clock != self.agent.clock());
    }

    /// The same record by the agent that is in use now, where that is needed and it is of the same identity.
    fn serve_by(&self, is_needed: impl FnOnce(&Served) -> bool) {
        let identity = self.agent.attestation().fingerprint();
        let old = self.desk.served().filter(|served| served.record.identity == identity && is_needed(served));
        if let Some(served) = old {
            self.desk.serve(Some(self.agent.served(served.record.clone())));
        }
    }

    fn speak_of_certificate(&mut self, now: Uptime) {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let Some(validity) = self.agent.attestation().validity() else { return };
        let left = days_left(validity, self.agent.clock().now());
        let is_said = self.warned_of_certificate.is_some_and(|last| now < last + DAY);
        if left < DAYS_TO_RENEW && !is_said {
            self.warned_of_certificate = Some(now);
            let registration_id = self.agent.attestation().registration_id().as_str();
            tracing::warn!(
                message_id = event::CERTIFICATE_ENDS,
                registration_id,
                days_left = left,
                "the client certificate has {left} days left; put a new one in place"
            );
        }
    }
}
