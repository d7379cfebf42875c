//! Where the endorsement key and the storage key are, how they are made where they are not, and what is foreign.

use super::esys::{Hierarchy, Object};
use super::fault::Fault;
use super::session::{Session, explain};
use super::{PublicArea, StorageKey, TpmError, template};
use crate::config::EkUnique;

/// A key that is ready for use.
pub(super) struct Located {
    pub(super) object: Object,
    pub(super) public: PublicArea,
    /// Where it is kept, if it is.
    pub(super) handle: Option<u32>,
    /// Whether `object` takes up room that is to be given back.
    pub(super) is_transient: bool,
}

/// One of the two keys: what it has to look like, and where it belongs.
struct Wanted<'k> {
    what: &'static str,
    /// What the TPM is asked, for messages.
    keeping: &'static str,
    handle: u32,
    is_ours: fn(&PublicArea) -> bool,
    /// The key as it was the last time.
    known: Option<&'k PublicArea>,
    /// The setting that moves it elsewhere.
    setting: &'static str,
}

/// What is at a handle.
enum Found {
    Nothing,
    Foreign,
    Ours(Object, PublicArea),
}

impl Session<'_> {
    /// The endorsement key: at its handle, or made and kept there.
    pub(super) fn endorsement_key(&mut self, known: Option<&PublicArea>) -> Result<Located, TpmError> {
        let wanted = Wanted {
            what: "the endorsement key",
            keeping: "to keep the endorsement key",
            handle: self.shared.settings.ek_handle,
            is_ours: PublicArea::is_endorsement_key,
            known,
            setting: "ek_handle",
        };
        self.locate(&wanted, Self::derive_endorsement_key)
    }

    /// The storage key: at its handle, or made and kept there.
    pub(super) fn storage_key(&mut self, known: Option<&PublicArea>) -> Result<Located, TpmError> {
        let wanted = Wanted {
            what: "the storage key",
            keeping: "to keep the storage key",
            handle: self.shared.settings.srk_handle,
            is_ours: PublicArea::is_storage_key,
            known,
            setting: "srk_handle",
        };
        self.locate(&wanted, |session| session.derive_storage_key(known))
    }

    /// Exactly this endorsement key.
    pub(super) fn same_endorsement_key(&mut self, public: &PublicArea) -> Result<Located, TpmError> {
        let handle = self.shared.settings.ek_handle;
        match self.at_hand(handle, public)? {
            Some(key) => Ok(key),
            None => self.derive_endorsement_key()?.hold_to(public).ok_or(TpmError::Changed),
        }
    }

    /// Exactly this storage key: at its handle, or derived again as a transient object. Another seed gives another key: then the TPM
    /// was cleared.
    pub(super) fn same_storage_key(&mut self, key: &StorageKey) -> Result<Located, TpmError> {
        let handle = key.handle.unwrap_or(self.shared.settings.srk_handle);
        let lost = || TpmError::Lost(CLEARED.to_owned());
        match self.at_hand(handle, &key.public)? {
            Some(key) => Ok(key),
            None => self.derive_storage_key(Some(&key.public))?.hold_to(&key.public).ok_or_else(lost),
        }
    }

    /// What is at a handle, if it is just this; or what was saved of it when it was made.
    fn at_hand(&mut self, handle: u32, public: &PublicArea) -> Result<Option<Located>, TpmError> {
        let kept = self.named(handle, public)?;
        let kept = kept.map(|object| Located { object, public: public.clone(), handle: Some(handle), is_transient: false });
        Ok(kept.or_else(|| self.recall(public)))
    }

    /// Makes a transient key.
    pub(super) fn derive(
        &mut self,
        hierarchy: Hierarchy,
        template: &PublicArea,
        doing: &'static str,
    ) -> Result<Located, TpmError> {
        let authorization = self.authorize(hierarchy)?;
        match self.esys.create_primary(hierarchy, template, authorization) {
            Ok((object, public)) => Ok(Located { object, public, handle: None, is_transient: true }),
            Err(fault) => Err(self.refusal(hierarchy, doing, fault)),
        }
    }

    /// Makes a transient object persistent.
    pub(super) fn persist(&mut self, object: Object, handle: u32, doing: &'static str) -> Result<(), TpmError> {
        let authorization = self.authorize(Hierarchy::Owner)?;
        let done = self.esys.evict_control(object, handle, authorization);
        done.map_err(|fault| self.refusal(Hierarchy::Owner, doing, fault))
    }

    /// What is at a handle, if it is just this.
    pub(super) fn named(&mut self, handle: u32, public: &PublicArea) -> Result<Option<Object>, TpmError> {
        let Some(object) = self.find(handle)? else { return Ok(None) };
        let name = self.esys.name(object).map_err(|fault| explain("to name a key", fault))?;
        Ok((name == public.name()).then_some(object))
    }

    pub(super) fn find(&mut self, handle: u32) -> Result<Option<Object>, TpmError> {
        self.esys.find(handle).map_err(|fault| explain("to look at a handle", fault))
    }

    fn derive_endorsement_key(&mut self) -> Result<Located, TpmError> {
        let template = match self.shared.settings.ek_unique {
            EkUnique::Empty => template::endorsement_empty(),
            EkUnique::Tcg => self.manufacturers_template()?.unwrap_or_else(|| template::endorsement(&[])),
        };
        self.derive(Hierarchy::Endorsement, &template, "to make the endorsement key")
    }

    /// Makes the storage key, if possible the one that is known: with 256 zero bytes in its template as we do, or with none as other
    /// programs do. Where neither gives that, the TPM was cleared, and there is nothing to lose.
    fn derive_storage_key(&mut self, known: Option<&PublicArea>) -> Result<Located, TpmError> {
        const DOING: &str = "to make the storage key";
        let Some(known) = known.filter(|known| known.is_storage_key()) else {
            return self.derive(Hierarchy::Owner, &template::storage(), DOING);
        };
        let made = self.derive(Hierarchy::Owner, &template::like(known), DOING)?;
        if made.public == *known {
            return Ok(made);
        }
        let other = self.derive(Hierarchy::Owner, &template::like_without_unique(known), DOING)?;
        let (right, wrong) = if other.public == *known { (other, made) } else { (made, other) };
        self.flush(wrong.object)?;
        Ok(right)
    }

    fn locate(
        &mut self,
        wanted: &Wanted<'_>,
        make: impl FnOnce(&mut Self) -> Result<Located, TpmError>,
    ) -> Result<Located, TpmError> {
        let found = self.look(wanted)?;
        if let Found::Ours(object, public) = found {
            return Ok(Located { object, public, handle: Some(wanted.handle), is_transient: false });
        }
        let mut made = match wanted.known.and_then(|known| self.recall(known)) {
            Some(recalled) => recalled,
            None => make(self)?,
        };
        if matches!(found, Found::Nothing) && self.keep(wanted, &made)? {
            made.handle = Some(wanted.handle);
        } else {
            self.save(&made);
        }
        Ok(made)
    }

    /// Keeps in this process, wrapped by the TPM, what the TPM itself cannot keep: to make it again may take a minute.
    fn save(&mut self, made: &Located) {
        let mut saved = self.shared.saved();
        if saved.iter().any(|(public, _)| *public == made.public) {
            return;
        }
        if let Ok(context) = self.esys.save(made.object) {
            saved.truncate(MOST_SAVED - 1);
            saved.insert(0, (made.public.clone(), context));
        }
    }

    /// Loads what was saved; a TPM that was reset or cleared since does not take it.
    fn recall(&mut self, public: &PublicArea) -> Option<Located> {
        let context = self.shared.saved().iter().find(|(saved, _)| saved == public)?.1.clone();
        match self.esys.restore(context) {
            Ok(object) => Some(Located { object, public: public.clone(), handle: None, is_transient: true }),
            Err(_) => {
                self.shared.saved().retain(|(saved, _)| saved != public);
                None
            }
        }
    }

    fn look(&mut self, wanted: &Wanted<'_>) -> Result<Found, TpmError> {
        let Some(object) = self.find(wanted.handle)? else { return Ok(Found::Nothing) };
        let name = self.esys.name(object).map_err(|fault| explain("to show a key", fault))?;
        if let Some(known) = wanted.known.filter(|known| known.name() == name) {
            return Ok(Found::Ours(object, known.clone()));
        }
        let public = match self.esys.read_public(object) {
            Ok(public) if (wanted.is_ours)(&public) => return Ok(Found::Ours(object, public)),
            Ok(public) => Some(public),
            Err(Fault::UNUSABLE) => None,
            Err(fault) => return Err(explain("to show a key", fault)),
        };
        let kind = public.map_or("an object of unknown type", |public| public.kind());
        self.warn_once(wanted.handle, || wanted.warn_of_foreign(kind));
        Ok(Found::Foreign)
    }

    /// Keeps a new key at its handle if the owner lets us; without that the key is made anew each time, which is slow and works.
    fn keep(&mut self, wanted: &Wanted<'_>, made: &Located) -> Result<bool, TpmError> {
        match self.persist(made.object, wanted.handle, wanted.keeping) {
            Ok(()) => Ok(true),
            Err(
                error @ (TpmError::AuthMissing { .. }
                | TpmError::AuthWrong { .. }
                | TpmError::AuthTooLong(..)
                | TpmError::LockedOut(_)
                | TpmError::StorageFull),
            ) => {
                self.warn_once(wanted.handle, || wanted.warn_of_transience(&error));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Located {
    fn hold_to(self, public: &PublicArea) -> Option<Self> {
        (self.public == *public).then_some(self)
    }
}

/// An endorsement and a storage key, before and after the TPM was cleared.
const MOST_SAVED: usize = 4;
const CLEARED: &str = "the TPM was cleared, or it is another one: its storage key has changed";

impl Wanted<'_> {
    fn warn_of_foreign(&self, kind: &str) {
        tracing::warn!(
            "{kind} sits at TPM handle {:#010x} where {} belongs; it is left alone, and {} is made anew at each start, which is slow: \
             set {} to a free handle",
            self.handle,
            self.what,
            self.what,
            self.setting
        );
    }

    fn warn_of_transience(&self, error: &TpmError) {
        tracing::warn!(
            "{} cannot be kept at TPM handle {:#010x} and is made anew at each start, which is slow: {error}",
            self.what,
            self.handle
        );
    }
}
