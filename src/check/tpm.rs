//! The TPM: whether it answers and lets us in, whether it is locked, and what is at its handles.

use super::{Check, Examined, Findings, Id, Outcome};
use crate::attestation::{self, AttestationError};
use crate::blame::Blame;
use crate::config::{Config, Profile, TpmSettings};
use crate::tpm::{Examination, Occupant, TpmError};

impl Findings<'_> {
    /// Nothing where the device proves itself by something else.
    pub(super) async fn tpm(&mut self, config: &Config, examined: &Examined<'_>) {
        let Profile::Tpm { tpm: settings, .. } = &config.attestation else { return };
        let examination = attestation::examination(settings, examined.credentials.as_deref()).await;
        for check in told(settings, &examination) {
            self.add(check);
        }
    }
}

/// The lines about a TPM.
pub(super) fn told(settings: &TpmSettings, examination: &Result<Examination, AttestationError>) -> Vec<Check> {
    let tried = format!("ask {} what it is", settings.tcti);
    let found = match examination {
        Ok(found) => found,
        Err(AttestationError::Tpm(error)) => {
            let (fact, cure) = fault(error);
            let failed = Check::new(Id::Tpm, Outcome::Failed(error.blame()), tried, fact).cure(cure);
            return [vec![failed], unseen(settings)].concat();
        }
        Err(_) => {
            let skipped = Check::skipped(Id::Tpm, tried, "a password for it cannot be read, see below");
            return [vec![skipped], unseen(settings)].concat();
        }
    };
    let mut checks = vec![whole(tried, found)];
    let occupants = [Some(found.endorsement_key), Some(found.storage_key), found.identity];
    let occupied = places(settings).into_iter().zip(occupants.into_iter().flatten());
    checks.extend(occupied.map(|(place, occupant)| place.check(occupant)));
    checks
}

/// What is wrong and what to do, apart: the error's own words have both in one.
pub(super) fn fault(error: &TpmError) -> (String, String) {
    let words = error.to_string();
    match words.rsplit_once("; ") {
        Some((fact, cure)) => (fact.to_owned(), cure.to_owned()),
        None => (words, "look the error up in docs/tpm.md".to_owned()),
    }
}

fn unseen(settings: &TpmSettings) -> Vec<Check> {
    let skipped = |place: &Place| Check::skipped(place.id, place.tried(), "the TPM comes first");
    places(settings).iter().map(skipped).collect()
}

fn whole(tried: String, found: &Examination) -> Check {
    let name = if found.vendor.is_empty() { "a TPM that does not name its maker" } else { &found.vendor };
    match found.locked {
        None => Check::ok(Id::Tpm, tried, name),
        Some(left) => {
            let (fact, cure) = fault(&TpmError::LockedOut(left));
            Check::new(Id::Tpm, Outcome::Warning, tried, format!("{name}: {fact}")).cure(cure)
        }
    }
}

/// A handle and what belongs there.
struct Place {
    id: Id,
    handle: u32,
    setting: &'static str,
    what: &'static str,
    /// What happens while nothing is there.
    empty: &'static str,
    /// What happens while something else is there.
    foreign: &'static str,
}

/// In the order of [`Examination`].
fn places(settings: &TpmSettings) -> Vec<Place> {
    const MADE: &str = "nothing yet: the key is made and put there when it is needed first";
    const DERIVED: &str = "is left alone, and the key is made anew for each use, which is slow";
    let endorsement_key = Place {
        id: Id::TpmEk,
        handle: settings.ek_handle,
        setting: "ek_handle",
        what: "an endorsement key",
        empty: MADE,
        foreign: DERIVED,
    };
    let storage_key = Place {
        id: Id::TpmSrk,
        handle: settings.srk_handle,
        setting: "srk_handle",
        what: "a storage root key",
        empty: MADE,
        foreign: DERIVED,
    };
    let identity = settings.identity_handle.map(|handle| Place {
        id: Id::TpmIdentity,
        handle,
        setting: "identity_handle",
        what: "a key that signs",
        empty: "nothing yet: the hub key is put there after a registration",
        foreign: "is left alone, so programs that look there do not find the hub key",
    });
    [endorsement_key, storage_key].into_iter().chain(identity).collect()
}

impl Place {
    fn tried(&self) -> String {
        format!("look at handle {:#010x}", self.handle)
    }

    fn check(&self, occupant: Occupant) -> Check {
        match occupant {
            Occupant::Nothing => Check::ok(self.id, self.tried(), self.empty),
            Occupant::Fitting => Check::ok(self.id, self.tried(), self.what),
            Occupant::Foreign(kind) => {
                let found = format!("{kind} that belongs to somebody else; it {}", self.foreign);
                let cure =
                    format!("set {} in [attestation] to a free handle, or remove the object if nobody needs it", self.setting);
                Check::new(self.id, Outcome::Warning, self.tried(), found).cure(cure)
            }
        }
    }
}

/// What a wrong enrollment looks like from here: the challenge was made for another key.
pub(super) fn unanswered(tried: String, error: &AttestationError) -> Check {
    let AttestationError::Tpm(error) = error else {
        return Check::new(Id::Dps, Outcome::Failed(error.blame()), tried, error.to_string()).cure("look at the lines above");
    };
    if let TpmError::Rejected(_) = error {
        let failed = Check::new(Id::Dps, Outcome::Failed(Blame::Refused), tried, error.to_string());
        return failed.cure("enroll this endorsement key, which `dps-agent identity` prints");
    }
    let (fact, cure) = fault(error);
    Check::new(Id::Dps, Outcome::Failed(error.blame()), tried, fact).cure(cure)
}
