//! Taking over a device that another program provisioned: its hub key is in the TPM already.

use std::time::Duration;

use super::prove::{Standing, Verdict};
use super::{Agent, Deadline, Obtained, limits};
use crate::attestation::Key;
use crate::blame::Blame;
use crate::failure::Failure;
use crate::id::{DeviceId, HostName, RegistrationId};
use crate::protocol::registration::Registered;
use crate::protocol::{Answer, Assignment, KeySlot, Lost, Refusal, Reply, Request, Via, wire};
use crate::record::Record;
use crate::transport::Service;

/// Whose key is said to be in the TPM.
#[derive(Debug, Clone)]
pub struct Given {
    /// The hub that accepts it.
    pub hub: HostName,
    /// The device's name there; the registration ID if it is not told.
    pub device_id: Option<DeviceId>,
}

impl Agent {
    /// Makes the key at `identity_handle` this agent's own, without a registration, if the hub accepts it. Where nobody says for
    /// which hub it is, DPS is asked how the device stands there.
    pub async fn take_over(&self, given: Option<Given>, patience: Duration) -> Result<Record, Failure> {
        let end = Deadline::after(&self.clock(), patience);
        self.store.prepare()?;
        let _alone = self.alone(end).await?;
        self.believable_clock(end).await?;
        let memory = self.attestation.found().await?;
        let assignment = match given {
            Some(given) => self.assignment_given(given)?,
            None => self.look_up(end).await?,
        };
        let key = Key::Hub(memory.hub_key.clone());
        match self.try_hub(&self.probe()?, &assignment, &key, end).await? {
            Verdict::Adopt(Standing::Proven) => {}
            Verdict::Adopt(_) => return Err(Failure::new(Blame::Network, unasked(&assignment))),
            Verdict::Refused(refusal) => return Err(Failure::new(Blame::Refused, not_its_key(&assignment, &refusal))),
        }
        let obtained =
            Obtained { registered: Registered { assignment, via: Via::Https, slot: KeySlot::Primary }, memory: Some(memory) };
        let previous = self.remembered()?.and_then(Record::adopted);
        self.adopt(&obtained, Standing::Proven, previous.as_ref()).await
    }

    fn assignment_given(&self, Given { hub, device_id }: Given) -> Result<Assignment, Failure> {
        let own = self.attestation.registration_id().as_str();
        let device_id = match device_id {
            Some(device_id) => device_id,
            None => own.parse().map_err(|error| Failure::new(Blame::Usage, format!("--device-id is needed: {error}")))?,
        };
        Ok(Assignment { hub, device_id, substatus: None, payload: None, updated: None, key: None })
    }

    /// What DPS knows of the device, without changing it. Whether it tells a TPM so is UNCONFIRMED.
    pub(super) async fn look_up(&self, end: Deadline) -> Result<Assignment, Failure> {
        let id = self.attestation.registration_id();
        let mut service = self.service()?;
        self.progress.doing(format_args!("asking {} where {id} is assigned", self.config.dps.host));
        let answer = match self.attestation.is_challenged() {
            true => self.look_up_challenged(&mut service, id, end).await?,
            false => self.ask(&mut service, end).await?,
        };
        match answer.status {
            200 => wire::looked_up(&answer, id).map_err(lost),
            _ => {
                let refusal = wire::refusal(&answer, None);
                Err(Failure::new(refusal.blame(), format!("{refusal}; or say it yourself with --hub and --device-id")))
            }
        }
    }

    async fn look_up_challenged(&self, service: &mut Service<'_>, id: &RegistrationId, end: Deadline) -> Result<Answer, Failure> {
        let challenge = self.ask(service, end).await?;
        match wire::decode(&Request::Challenge, &challenge, id, self.clock().now()).map_err(lost)? {
            Reply::Challenged(key) => service.answer(&key).await?,
            Reply::Refused(refusal) => return Err(Failure::new(refusal.blame(), refusal.to_string())),
            Reply::Pending { .. } | Reply::Assigned(_) => {}
        }
        self.ask(service, end).await
    }

    pub(super) async fn ask(&self, service: &mut Service<'_>, end: Deadline) -> Result<Answer, Failure> {
        service.lookup(KeySlot::Primary, limits(end.moment())).await.map_err(lost)
    }
}

fn lost(lost: Lost) -> Failure {
    Failure::new(lost.blame(), lost.to_string())
}

fn unasked(Assignment { hub, .. }: &Assignment) -> String {
    format!("the hub {hub} could not be asked, and a key is taken over only when the hub has accepted it; nothing was changed")
}

fn not_its_key(Assignment { hub, device_id, .. }: &Assignment, refusal: &Refusal) -> String {
    format!(
        "the hub {hub} does not accept the key in the TPM as {device_id} ({refusal}); nothing was changed; \
         `dps-agent provision` registers the device"
    )
}
