//! What the service knows of one TPM: the challenges it was sent and the hub keys it was given (DPS device API §9).

use crate::answer::Answer;
use crate::attest::{Proof, Refusal};
use crate::config::Kinder;
use crate::fault::{BlobLie, Lie};
use crate::names::is_registration_id;
use crate::registration::{lie_alone, padded};
use crate::service::{Device, Service, State, Via};
use crate::tpm::{Blob, HmacKey, ParentKey, Tail, WrongPublic, random};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// One enrolled TPM.
#[derive(Debug, Clone)]
pub(crate) struct Tpm {
    enrolled: ParentKey,
    /// The newest last.
    challenges: Vec<Challenge>,
    /// The newest last.
    hub_keys: Vec<HmacKey>,
}

/// A key that only the TPM with these two keys can sign with.
#[derive(Debug, Clone)]
struct Challenge {
    key: HmacKey,
    shown: Shown,
}

/// The member `tpm` of a request.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    endorsement: ParentKey,
    storage: ParentKey,
}

impl Tpm {
    pub(crate) fn new(enrolled: ParentKey) -> Self {
        Self { enrolled, challenges: Vec::new(), hub_keys: Vec::new() }
    }

    /// The endorsement key of its enrollment.
    pub(crate) fn enrolled(&self) -> &ParentKey {
        &self.enrolled
    }

    /// How many challenges it was sent.
    pub(crate) fn challenges(&self) -> u64 {
        count(self.challenges.len())
    }

    /// How many hub keys it was given.
    pub(crate) fn hub_keys(&self) -> u64 {
        count(self.hub_keys.len())
    }

    /// The keys that a registration may be signed with: that of the newest challenge.
    pub(crate) fn registration_keys(&self, kinder: &[Kinder]) -> Vec<&[u8]> {
        let keys: Vec<&[u8]> = self.challenges.iter().map(|challenge| challenge.key.secret()).collect();
        newest(&keys, kinder.contains(&Kinder::Challenge)).to_vec()
    }

    /// What a hub asks for from now on.
    pub(crate) fn hub_proof(&self) -> Proof {
        Proof::HubKeys(self.hub_keys.iter().map(|key| key.secret().to_vec()).collect())
    }

    /// Makes a new hub key; its number. `None` when there are no random numbers.
    pub(crate) fn new_hub_key(&mut self) -> Option<usize> {
        self.hub_keys.push(HmacKey::random()?);
        Some(self.hub_keys.len() - 1)
    }

    /// The hub key `number`, wrapped for the TPM that answered the newest challenge. `None` where the TPM is to get none.
    pub(crate) fn hub_key(&self, number: usize, lie: Option<&Lie>) -> Option<String> {
        let shown = &self.challenges.last()?.shown;
        wrapped(self.hub_keys.get(number)?, shown, Tail::HubKey, lie)
    }

    /// Remembers a new challenge for this TPM, and answers with it.
    fn challenge(&mut self, shown: Shown, lie: Option<&Lie>, kinder: &[Kinder]) -> Result<Answer, Refusal> {
        if shown.endorsement != self.enrolled && !kinder.contains(&Kinder::EndorsementKey) {
            return Err(Refusal::EndorsementKey);
        }
        let Some(key) = HmacKey::random() else {
            return Ok(Answer::error(500_000, "No random numbers."));
        };
        let blob = wrapped(&key, &shown, Tail::Challenge, lie);
        self.challenges.push(Challenge { key, shown });
        Ok(answer(blob))
    }

    /// Whether a request that repeats the keys repeats those of the challenge. That it has to is UNCONFIRMED.
    fn repeats(&self, shown: &Shown, kinder: &[Kinder]) -> Result<(), Refusal> {
        let same = self.challenges.last().is_some_and(|challenge| challenge.shown == *shown);
        if same || kinder.contains(&Kinder::SameKeys) { Ok(()) } else { Err(Refusal::OtherKeys) }
    }
}

impl Service {
    /// Answers a call without a token that shows a TPM's keys. `body` is as received.
    pub(crate) fn challenge(&self, scope: &str, id: &str, body: &[u8], lie: Option<&Lie>) -> Answer {
        if let Some(answer) = lie.and_then(lie_alone) {
            return answer;
        }
        let known = self.look(|state| self.knows(state, scope, id));
        self.explain(id, &known);
        if let Err(refusal) = known {
            return Answer::refusal(&refusal);
        }
        let shown = self.body(id, body).and_then(|body| self.shown(&body["tpm"]));
        match shown {
            Ok(shown) => self.challenge_with(id, shown, lie),
            Err(message) => Answer::error(400_000, &message),
        }
    }

    /// Checks the keys in the body of a call that has been admitted, if they are a TPM's.
    pub(crate) fn same_keys(&self, id: &str, tpm: Option<&Value>) -> Result<(), Answer> {
        let (Some(shown), true) = (tpm, self.look(|state| state.tpm(id).is_some())) else {
            return Ok(());
        };
        let shown = self.shown(shown).map_err(|message| Answer::error(400_000, &message))?;
        let kinder = &self.config.kinder;
        let checked = self.look(|state| state.tpm(id).map_or(Ok(()), |tpm| tpm.repeats(&shown, kinder)));
        self.explain(id, &checked);
        checked.map_err(|refusal| Answer::refusal(&refusal))
    }

    fn challenge_with(&self, id: &str, shown: Shown, lie: Option<&Lie>) -> Answer {
        let kinder = &self.config.kinder;
        let challenged = self.with(|state| {
            let device = state.device(id).ok_or(Refusal::Device)?;
            device.via = Some(Via::Https);
            device.tpm_mut().ok_or(Refusal::OtherKind)?.challenge(shown, lie, kinder)
        });
        self.explain(id, &challenged);
        padded(challenged.unwrap_or_else(|refusal| Answer::refusal(&refusal)), lie)
    }

    fn knows(&self, state: &State, scope: &str, id: &str) -> Result<(), Refusal> {
        if !is_registration_id(id) {
            return Err(Refusal::Name);
        }
        if scope != self.config.id_scope {
            return Err(Refusal::Scope);
        }
        match state.find(id).and_then(|device| device.proof.as_ref()) {
            Some(Proof::Tpm(_)) => Ok(()),
            Some(Proof::Keys(_) | Proof::HubKeys(_) | Proof::Certificate(_) | Proof::IssuedBy(_)) => Err(Refusal::OtherKind),
            None => Err(Refusal::Device),
        }
    }

    /// What the service says to keys that it cannot wrap for is UNCONFIRMED; an ECC storage key is one.
    fn shown(&self, tpm: &Value) -> Result<Shown, String> {
        let key = |name: &str| {
            let text = tpm[name].as_str().ok_or_else(|| format!("tpm.{name} is missing."))?;
            parse(text).map_err(|wrong| format!("tpm.{name}: {wrong}."))
        };
        let (endorsement, storage) = (key("endorsementKey")?, key("storageRootKey")?);
        if self.is_kinder(Kinder::StorageKey) {
            return Ok(Shown { endorsement, storage });
        }
        let storage = storage.restricted().map_err(|wrong| format!("tpm.storageRootKey: {wrong}."))?;
        Ok(Shown { endorsement, storage })
    }
}

impl State {
    /// The TPM behind a registration ID, if that is how the device is enrolled.
    pub(crate) fn tpm(&self, registration_id: &str) -> Option<&Tpm> {
        self.find(registration_id).and_then(Device::tpm)
    }
}

impl Device {
    pub(crate) fn tpm(&self) -> Option<&Tpm> {
        match &self.proof {
            Some(Proof::Tpm(tpm)) => Some(tpm),
            Some(Proof::Keys(_) | Proof::HubKeys(_) | Proof::Certificate(_) | Proof::IssuedBy(_)) | None => None,
        }
    }

    pub(crate) fn tpm_mut(&mut self) -> Option<&mut Tpm> {
        match &mut self.proof {
            Some(Proof::Tpm(tpm)) => Some(tpm),
            Some(Proof::Keys(_) | Proof::HubKeys(_) | Proof::Certificate(_) | Proof::IssuedBy(_)) | None => None,
        }
    }
}

/// Reads a base64 TPM2B_PUBLIC.
pub(crate) fn parse(text: &str) -> Result<ParentKey, WrongPublic> {
    ParentKey::parse(&STANDARD.decode(text).map_err(|_| WrongPublic::Base64)?)
}

/// The last one, or all of them.
pub(crate) fn newest<T>(keys: &[T], all: bool) -> &[T] {
    let start = if all { 0 } else { keys.len().saturating_sub(1) };
    &keys[start..]
}

/// `authenticationKey`; `None` where a fault has it that there is none (or where there are no random numbers).
fn wrapped(key: &HmacKey, to: &Shown, tail: Tail, lie: Option<&Lie>) -> Option<String> {
    let blob = Blob::wrap(key, &to.endorsement, &to.storage, tail)?;
    let bytes = match lie {
        Some(Lie::Blob(BlobLie::None)) => return None,
        Some(Lie::Blob(BlobLie::Wrong)) => blob.scrambled()?.to_bytes(),
        Some(Lie::Blob(BlobLie::OtherEk)) => {
            let other = to.endorsement.of_another_tpm(random()?).ok()?;
            Blob::wrap(key, &other, &to.storage, tail)?.to_bytes()
        }
        Some(Lie::Blob(BlobLie::Truncated)) => {
            let bytes = blob.to_bytes();
            bytes[..bytes.len() / 2].to_vec()
        }
        Some(_) | None => blob.to_bytes(),
    };
    Some(STANDARD.encode(bytes))
}

/// 401 as the real service says it (DPS device API §9.1, §18); the text of `message` is UNCONFIRMED.
fn answer(blob: Option<String>) -> Answer {
    let mut body = json!({
        "message": "Authorization required.",
        "keyName": "registration",
        "unencryptedAuthenticationKey": null,
    });
    if let Some(blob) = blob {
        body["authenticationKey"] = blob.into();
    }
    Answer::json(401, &body)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
