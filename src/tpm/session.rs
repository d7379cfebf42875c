//! One verb's session with the TPM: how it is opened, how rights are shown, and what each refusal means.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::esys::{Authorization, Esys, Hierarchy, Object, Saved};
use super::fault::{About, Fault};
use super::{Auths, PublicArea, TpmError, reach, template};
use crate::config::TpmSettings;

/// What all verbs share: the configuration, and what was warned of already.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: TpmSettings,
    auths: Auths,
    warned: Mutex<BTreeSet<u32>>,
    saved: Mutex<Vec<(PublicArea, Saved)>>,
    is_tidy: AtomicBool,
}

/// An open TPM for one verb. Whatever the verb's end, all that it has loaded is flushed.
pub(super) struct Session<'s> {
    pub(super) esys: Esys,
    pub(super) shared: &'s Shared,
    salted: Option<Authorization>,
    refused: Vec<Hierarchy>,
}

/// TPM_PT_PERMANENT and its bit inLockout.
const PERMANENT: u32 = 0x200;
const IN_LOCKOUT: u32 = 1 << 9;
const LOCKOUT_COUNTER: u32 = 0x20e;
const MAX_AUTH_FAIL: u32 = 0x20f;
const LOCKOUT_INTERVAL: u32 = 0x210;
/// TPM_RC_HIERARCHY.
const HIERARCHY: u32 = 0x85;
/// Sessions and transient objects.
const VOLATILE: [u32; 2] = [0x0200_0000, 0x8000_0000];

impl Shared {
    pub(super) fn new(settings: TpmSettings, auths: Auths) -> Self {
        Self { settings, auths, warned: Mutex::default(), saved: Mutex::default(), is_tidy: AtomicBool::new(false) }
    }

    /// Keys that the TPM does not keep, as it has wrapped them.
    pub(super) fn saved(&self) -> MutexGuard<'_, Vec<(PublicArea, Saved)>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn password(&self, hierarchy: Hierarchy) -> &[u8] {
        let password = match hierarchy {
            Hierarchy::Owner => &self.auths.owner,
            Hierarchy::Endorsement => &self.auths.endorsement,
            Hierarchy::Null => &None,
        };
        let bytes = password.as_ref().map_or(&[][..], |password| password.expose());
        // A TPM takes trailing zeros off its passwords (TPM 2.0 Part 1, authorization values).
        &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
    }
}

impl<'s> Session<'s> {
    /// Opens the TPM; where nobody manages it, tidies up behind a predecessor that was killed.
    pub(super) fn open(shared: &'s Shared) -> Result<Self, TpmError> {
        let tcti = &shared.settings.tcti;
        reach::look(tcti)?;
        let esys = Esys::open(tcti).map_err(|fault| reach::explain(tcti, fault))?;
        let mut session = Self { esys, shared, salted: None, refused: Vec::new() };
        // What is there later is our own, or of a program that is at work now.
        if !reach::is_managed(tcti) && !shared.is_tidy.load(Ordering::Relaxed) {
            session.tidy()?;
            shared.is_tidy.store(true, Ordering::Relaxed);
        }
        Ok(session)
    }

    /// How to show the right to use a hierarchy. A password goes only as the key of an HMAC, in a session that is salted to a key
    /// of this TPM; one that was refused is not tried again.
    pub(super) fn authorize(&mut self, hierarchy: Hierarchy) -> Result<Authorization, TpmError> {
        let password = self.shared.password(hierarchy);
        if password.is_empty() {
            return Ok(Authorization::EMPTY);
        }
        if self.refused.contains(&hierarchy) {
            return Err(TpmError::AuthWrong { hierarchy: hierarchy.word() });
        }
        let session = match self.salted {
            Some(session) => session,
            None => self.start_salted()?,
        };
        let too_long = |_| TpmError::AuthTooLong(password.len(), hierarchy.word());
        self.esys.set_auth(hierarchy, password).map_err(too_long)?;
        Ok(session)
    }

    /// What a refusal means where a hierarchy's right was shown.
    pub(super) fn refusal(&mut self, hierarchy: Hierarchy, doing: &'static str, fault: Fault) -> TpmError {
        if fault.tpm() == Some((HIERARCHY, About::Handle(1))) {
            return TpmError::Disabled { hierarchy: hierarchy.word() };
        }
        if !fault.is_wrong_auth() {
            return explain(doing, fault);
        }
        let is_missing = self.shared.password(hierarchy).is_empty();
        self.refused.push(hierarchy);
        let hierarchy = hierarchy.word();
        if is_missing { TpmError::AuthMissing { hierarchy } } else { TpmError::AuthWrong { hierarchy } }
    }

    /// Adds to an error what the TPM can tell of it.
    pub(super) fn detail(&mut self, error: TpmError) -> TpmError {
        if error == TpmError::LockedOut(None) { TpmError::LockedOut(self.lock().ok().flatten().flatten()) } else { error }
    }

    /// Removes an object before the verb's end, to make room.
    pub(super) fn flush(&mut self, object: Object) -> Result<(), TpmError> {
        self.esys.flush(object).map_err(|fault| explain("to flush an object", fault))
    }

    /// Says something about a handle once in this process.
    pub(super) fn warn_once(&self, handle: u32, warning: impl FnOnce()) {
        if self.shared.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(handle) {
            warning();
        }
    }

    fn start_salted(&mut self) -> Result<Authorization, TpmError> {
        const DOING: &str = "to start a salted session";
        self.hold_to_lockout()?;
        let made = self.esys.create_primary(Hierarchy::Null, &template::salt(), Authorization::EMPTY);
        let (salt, _) = made.map_err(|fault| explain(DOING, fault))?;
        let session = self.esys.start_salted(salt).map_err(|fault| explain(DOING, fault))?;
        self.flush(salt)?;
        self.salted = Some(session);
        Ok(session)
    }

    /// A locked TPM is asked for nothing that needs a password: a refusal might lock it for longer.
    fn hold_to_lockout(&mut self) -> Result<(), TpmError> {
        let lock = self.lock().map_err(|fault| explain("to tell whether it is locked", fault))?;
        lock.map_or(Ok(()), |left| Err(TpmError::LockedOut(left)))
    }

    /// If the TPM is locked: for how long at most, where it says so.
    pub(super) fn lock(&mut self) -> Result<Option<Option<Duration>>, Fault> {
        let properties = self.esys.properties(PERMANENT, 0x12)?;
        let value = |wanted| properties.iter().find_map(|(tag, value)| (*tag == wanted).then_some(*value));
        if value(PERMANENT).unwrap_or(0) & IN_LOCKOUT == 0 {
            return Ok(None);
        }
        let over = value(LOCKOUT_COUNTER).zip(value(MAX_AUTH_FAIL)).map(|(failed, most)| failed.saturating_sub(most) + 1);
        let left = over.zip(value(LOCKOUT_INTERVAL)).map(|(over, interval)| u64::from(over) * u64::from(interval));
        Ok(Some(left.map(Duration::from_secs)))
    }

    /// Flushes what a process that was killed has left: nobody else does it on a TPM without a resource manager.
    fn tidy(&mut self) -> Result<(), TpmError> {
        for first in VOLATILE {
            let left = self.esys.handles(first).map_err(|fault| explain("to list its handles", fault))?;
            for handle in left.into_iter().filter(|handle| handle >> 24 == first >> 24 || first == VOLATILE[0]) {
                // It may be gone already, or somebody else's after all.
                let _ = self.esys.flush_foreign(handle);
            }
        }
        Ok(())
    }
}

impl Hierarchy {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Endorsement => "endorsement",
            Self::Null => "null",
        }
    }
}

/// What a response code means that says nothing about the command in particular.
pub(super) fn explain(doing: &'static str, fault: Fault) -> TpmError {
    let code = fault.code();
    if fault.tcti().is_some() {
        return TpmError::Broken(format!("it was asked {doing} (code {code:#x} of tpm2-tss)"));
    }
    if fault.is_garbled() {
        return TpmError::Garbled(format!("it was asked {doing}; code {code:#x} of tpm2-tss"));
    }
    match fault.tpm() {
        Some((0x100, About::Command)) => TpmError::NotStarted,
        Some((0x101, About::Command)) => TpmError::Failed,
        Some((0x153, About::Command)) => TpmError::Untested,
        Some((0x14b, About::Command)) => TpmError::StorageFull,
        Some((0x143, About::Command)) => TpmError::Incapable(doing),
        Some((0x902 | 0x904 | 0x906, _)) => TpmError::OutOfMemory("objects"),
        Some((0x903 | 0x905, _)) => TpmError::OutOfMemory("sessions"),
        Some((0x921, _)) => TpmError::LockedOut(None),
        _ if fault.is_busy() => TpmError::Busy(code),
        _ => TpmError::Refused { doing, code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_response_code_has_its_error() {
        let broken = "it was asked to count (code 0xa000a of tpm2-tss)".to_owned();
        let garbled = "it was asked to count; code 0x7001b of tpm2-tss".to_owned();
        for (code, error) in [
            (0x100, TpmError::NotStarted),
            (0x101, TpmError::Failed),
            (0x153, TpmError::Untested),
            (0x14b, TpmError::StorageFull),
            (0x143, TpmError::Incapable("to count")),
            (0x000b_0143, TpmError::Incapable("to count")),
            (0x902, TpmError::OutOfMemory("objects")),
            (0x903, TpmError::OutOfMemory("sessions")),
            (0x904, TpmError::OutOfMemory("objects")),
            (0x905, TpmError::OutOfMemory("sessions")),
            (0x921, TpmError::LockedOut(None)),
            (0x922, TpmError::Busy(0x922)),
            (0x000b_0922, TpmError::Busy(0x000b_0922)),
            (0x9a2, TpmError::Refused { doing: "to count", code: 0x9a2 }),
            (0x000a_000a, TpmError::Broken(broken)),
            (0x0007_001b, TpmError::Garbled(garbled)),
        ] {
            assert_eq!(explain("to count", Fault::new(code)), error, "{code:#x}");
        }
    }
}
