//! The proof of a registration: tries of the hub until it has accepted the device, or refused it for long enough.

use std::time::Duration;

use super::{Agent, Deadline, Obtained, limits, seed};
use crate::attestation::Key;
use crate::blame::Blame;
use crate::config::Verify;
use crate::failure::Failure;
use crate::proof::{Attempt, Proof};
use crate::protocol::registration::Registered;
use crate::protocol::retry::Backoff;
use crate::protocol::{Assignment, Refusal, wire};
use crate::record::Record;

/// A new identity takes time to spread to its hub: so long a refusal is not yet the hub's last word.
const HUB_PATIENCE: Duration = Duration::from_secs(120);
/// After so many tries of a hub that refuses DPS is asked once more.
const TRIES_BEFORE_ANOTHER_REGISTRATION: u32 = 3;
/// A hub must not count as silent because our own patience has just ended.
const SHORTEST_TRY: Duration = Duration::from_secs(2);

impl Agent {
    /// Tries the hub with the new credential, where the configuration wants that and something is new.
    pub(super) async fn prove(
        &self,
        obtained: Obtained,
        previous: Option<&Record>,
        end: Deadline,
    ) -> Result<(Obtained, Standing), Failure> {
        let Assignment { hub, device_id, .. } = &obtained.registered.assignment;
        let same = |record: &&Record| {
            record.assigned_hub == hub.as_str() && record.device_id == device_id.as_str() && self.is_ours(record)
        };
        let is_known = |record: &Record| record.proof == Standing::Proven.word() && obtained.memory.is_none();
        match (self.config.hub.verify, previous.filter(same)) {
            (Verify::Never, _) => Ok((obtained, Standing::Unverified)),
            (Verify::OnChange, Some(record)) if is_known(record) => Ok((obtained, Standing::Proven)),
            (Verify::OnChange, _) => self.prove_until_accepted(obtained, previous, end).await,
        }
    }

    /// A refusal is repeated, since a new identity takes time to spread, with one more registration among the tries.
    async fn prove_until_accepted(
        &self,
        mut obtained: Obtained,
        previous: Option<&Record>,
        end: Deadline,
    ) -> Result<(Obtained, Standing), Failure> {
        let until = end.or_after(&self.clock(), HUB_PATIENCE);
        let probe = self.probe()?;
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(20), seed());
        let (mut tries, mut said) = (0, None);
        self.keep_untried(&obtained, previous)?;
        loop {
            tries += 1;
            let assignment = &obtained.registered.assignment;
            let refusal = match (self.try_hub(&probe, assignment, &obtained.key(), until).await?, said.take()) {
                (Verdict::Refused(refusal), _) => refusal,
                // The only word of this hub was no, and its silence takes nothing back.
                (Verdict::Adopt(Standing::Unproven), Some(refusal)) => refusal,
                (Verdict::Adopt(standing), _) => return Ok((obtained, standing)),
            };
            let wait = backoff.wait().max(Duration::from_millis(500));
            if wait >= until.left(&self.clock()) {
                return Err(hub_refuses(&obtained.registered, &refusal));
            }
            let hub = &assignment.hub;
            self.progress.wait(wait, &format_args!("the hub {hub} refuses the new identity so far")).await;
            if tries == TRIES_BEFORE_ANOTHER_REGISTRATION {
                obtained = self.register(until, None).await?;
                self.keep_untried(&obtained, previous)?;
            }
            said = Some(refusal);
        }
    }

    pub(super) fn probe(&self) -> Result<Proof<'_>, Failure> {
        Ok(Proof::new(&self.config, &self.attestation, self.clock(), &self.transcript)?)
    }

    pub(super) async fn try_hub(
        &self,
        probe: &Proof<'_>,
        assignment: &Assignment,
        key: &Key,
        end: Deadline,
    ) -> Result<Verdict, Failure> {
        let limits = limits(end.no_sooner_than(&self.clock(), SHORTEST_TRY).0);
        let hub = &assignment.hub;
        self.progress.doing(format_args!("trying the hub {hub} as {}", assignment.device_id));
        let verdict = match probe.try_hub(assignment, key, limits).await {
            Attempt::Proven => Verdict::Adopt(Standing::Proven),
            Attempt::Unreachable(lost) | Attempt::Busy(lost) => {
                tracing::warn!("the hub {hub} could not be reached: {lost}");
                Verdict::Adopt(Standing::Unproven)
            }
            Attempt::Refused(answer) => Verdict::Refused(wire::refusal(&answer, None)),
            Attempt::Untrusted(lost) | Attempt::Unable(lost) => return Err(Failure::new(lost.blame(), lost.to_string())),
        };
        self.transcript.line(format_args!("= {}", verdict.word()));
        Ok(verdict)
    }
}

/// The word that the record has for how far the hub was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Proven,
    Unproven,
    Unverified,
    /// Not tried yet: not adopted either.
    Untried,
}

impl Standing {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Unverified => "unverified",
            Self::Untried => Record::UNTRIED,
        }
    }
}

/// What a try of the hub means for the assignment.
pub(super) enum Verdict {
    Adopt(Standing),
    Refused(Refusal),
}

impl Verdict {
    const fn word(&self) -> &'static str {
        match self {
            Self::Adopt(proof) => proof.word(),
            Self::Refused(_) => "refused",
        }
    }
}

fn hub_refuses(registered: &Registered, refusal: &Refusal) -> Failure {
    let (hub, device) = (&registered.assignment.hub, &registered.assignment.device_id);
    let message = format!(
        "DPS has assigned {hub}, but that hub refuses {device} ({refusal}); a new identity takes \
         time to spread; else look whether the device is disabled there, or the hub does not trust the certificate's CA"
    );
    Failure::new(Blame::Hub, message)
}
