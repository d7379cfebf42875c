//! A typed session with a TPM 2.0 through tpm2-tss's ESAPI. The only file that names `tss_esapi`; it decides nothing.

use std::str::FromStr;
use std::time::Duration;

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::{CapabilityType, SessionType, Tss2ResponseCode};
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, PersistentTpmHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::{self, NvAuth, Provision};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Auth, CapabilityData, Data, Digest, EncryptedSecret, IdObject, MaxBuffer, Nonce, Private, Public, SymmetricDefinition,
    SymmetricDefinitionObject,
};
use tss_esapi::tcti_ldr::{DeviceConfig, TctiInfo, TctiNameConf};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::utils::TpmsContext;
use tss_esapi::{Context, Error};

use super::fault::Fault;
use super::memory::{Name, PublicArea};
use crate::secret::Secret;

/// An open TPM. What was loaded through it is flushed when it is dropped, and its connection closed.
pub(super) struct Esys {
    context: Context,
}

/// Something in the TPM that this connection knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object(ObjectHandle);

/// A transient object outside the TPM, wrapped by it until it is reset or cleared.
#[derive(Debug, Clone)]
pub(super) struct Saved(TpmsContext);

/// How the right to use an object or a hierarchy is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authorization(AuthSession);

impl Authorization {
    /// With the empty password. To be used only where no other one was set in this connection: it would be sent as it is.
    pub(super) const EMPTY: Self = Self(AuthSession::Password);
}

/// A hierarchy of the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hierarchy {
    /// What TPM2_Clear takes away.
    Owner,
    /// The privacy administrator's: the endorsement keys.
    Endorsement,
    /// Nobody's, gone with the next start.
    Null,
}

/// What may be read of an NV index without any right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NvIndex {
    /// Its place in the connection.
    pub(super) object: Object,
    /// How much it holds, in bytes.
    pub(super) size: usize,
    /// TPMA_NV.
    pub(super) attributes: u32,
}

/// How a wrapped key is taken in: the parts of TPM2_Import.
pub(super) struct Duplicate<'d> {
    /// The inner wrapping's key, AES in CFB mode, 16 bytes.
    pub(super) inner: &'d Secret<Vec<u8>>,
    /// TPMT_PUBLIC.
    pub(super) public: &'d PublicArea,
    /// The key in its wrappings.
    pub(super) private: &'d [u8],
    /// The outer wrapping's seed, to the storage key.
    pub(super) seed: &'d [u8],
}

type Sessions = (Option<AuthSession>, Option<AuthSession>, Option<AuthSession>);

const NO_SESSIONS: Sessions = (None, None, None);

impl Esys {
    /// Opens the TPM that `tcti` names.
    pub(super) fn open(tcti: &str) -> Result<Self, Fault> {
        // The wrapper reads all other names with regular expressions. `libtss2.c` takes the device's prefix off again.
        let name = TctiNameConf::Device(DeviceConfig::from_str(tcti)?);
        Ok(Self { context: Context::new(name)? })
    }

    /// Why libtss2 could not be loaded, after [`Fault::NOT_LOADED`] on this thread: the words of the system's loader.
    pub(super) fn why_not_loaded() -> String {
        let info = TctiInfo::get_info(TctiNameConf::Device(DeviceConfig::default()));
        info.map(|info| info.description().to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What is at a persistent handle; `None` if nothing is. One TPM2_ReadPublic.
    pub(super) fn find(&mut self, handle: u32) -> Result<Option<Object>, Fault> {
        let handle = TpmHandle::try_from(handle)?;
        match self.run(NO_SESSIONS, |context| context.tr_from_tpm_public(handle)) {
            Ok(object) => Ok(Some(Object(object))),
            Err(fault) if fault.is_no_such_handle() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The name of an object, as the TPM gave it. No command.
    pub(super) fn name(&mut self, object: Object) -> Result<Name, Fault> {
        Ok(Name::new(self.context.tr_get_name(object.0)?.value().to_vec()))
    }

    /// The public area of an object; [`Fault::UNUSABLE`] if it is of a kind that nobody here knows.
    pub(super) fn read_public(&mut self, object: Object) -> Result<PublicArea, Fault> {
        let (public, ..) = self.run(NO_SESSIONS, |context| context.read_public(object.key()))?;
        let area = area(&public)?;
        self.hold_to_name(object, area)
    }

    /// Derives a key from a hierarchy's seed.
    pub(super) fn create_primary(
        &mut self,
        hierarchy: Hierarchy,
        template: &PublicArea,
        authorization: Authorization,
    ) -> Result<(Object, PublicArea), Fault> {
        let template = public(template)?;
        let made = self.run(authorization.sessions(), |context| {
            context.create_primary(hierarchy.to_tss(), template.clone(), None, None, None, None)
        })?;
        let object = Object(made.key_handle.into());
        let area = area(&made.out_public)?;
        Ok((object, self.hold_to_name(object, area)?))
    }

    /// Makes a transient object persistent at `handle`, or takes away the persistent one there. The owner's right is needed.
    pub(super) fn evict_control(&mut self, object: Object, handle: u32, authorization: Authorization) -> Result<(), Fault> {
        let place = Persistent::Persistent(PersistentTpmHandle::new(handle)?);
        self.run(authorization.sessions(), |context| context.evict_control(Provision::Owner, object.0, place)).map(|_| ())
    }

    /// Starts a policy session, good for one use.
    pub(super) fn start_policy(&mut self) -> Result<Authorization, Fault> {
        self.start(None, SessionType::Policy)
    }

    /// Starts an HMAC session with a secret that only the TPM can know, `salt` being a decryption key in it.
    pub(super) fn start_salted(&mut self, salt: Object) -> Result<Authorization, Fault> {
        self.start(Some(salt.key()), SessionType::Hmac)
    }

    /// From here on `password` shows the right to use the hierarchy; with any session but [`Authorization::EMPTY`] as an HMAC's key.
    pub(super) fn set_auth(&mut self, hierarchy: Hierarchy, password: &[u8]) -> Result<(), Fault> {
        let object = ObjectHandle::from(hierarchy.to_tss());
        Ok(self.context.tr_set_auth(object, Auth::try_from(password).map_err(unfit)?)?)
    }

    /// Shows the right to use the endorsement hierarchy to a policy session: TPM2_PolicySecret.
    pub(super) fn policy_secret(&mut self, policy: Authorization, authorization: Authorization) -> Result<(), Fault> {
        let session = PolicySession::try_from(policy.0)?;
        self.run(authorization.sessions(), |context| {
            let nothing = Nonce::default;
            context.policy_secret(session, AuthHandle::Endorsement, nothing(), Digest::default(), nothing(), None)
        })?;
        Ok(())
    }

    /// Opens a credential that was made for the object `about` and the endorsement key `key`. The policy session is over after it.
    pub(super) fn activate(
        &mut self,
        about: Object,
        (key, policy): (Object, Authorization),
        credential: &[u8],
        secret: &[u8],
    ) -> Result<Secret<Vec<u8>>, Fault> {
        let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(false).build();
        self.context.tr_sess_set_attributes(policy.0, attributes, mask)?;
        let credential = IdObject::try_from(credential).map_err(unfit)?;
        let secret = EncryptedSecret::try_from(secret).map_err(unfit)?;
        let digest = self.run((Some(AuthSession::Password), Some(policy.0), None), |context| {
            context.activate_credential(about.key(), key.key(), credential.clone(), secret.clone())
        })?;
        self.forget(policy);
        Ok(Secret::new(digest.value().to_vec()))
    }

    /// Takes a key in; what comes back is the content of its TPM2B_PRIVATE under this parent.
    pub(super) fn import(&mut self, parent: Object, key: &Duplicate<'_>) -> Result<Vec<u8>, Fault> {
        let public = public(key.public)?;
        let inner = Data::try_from(key.inner.expose().as_slice()).map_err(unfit)?;
        let duplicate = Private::try_from(key.private).map_err(unfit)?;
        let seed = EncryptedSecret::try_from(key.seed).map_err(unfit)?;
        let private = self.run(Authorization::EMPTY.sessions(), |context| {
            let (inner, public) = (Some(inner.clone()), public.clone());
            let algorithm = SymmetricDefinitionObject::AES_128_CFB;
            context.import(parent.0, inner, public, duplicate.clone(), seed.clone(), algorithm)
        })?;
        Ok(private.value().to_vec())
    }

    /// Loads a key under its parent.
    pub(super) fn load(&mut self, parent: Object, area: &PublicArea, private: &[u8]) -> Result<Object, Fault> {
        let public = public(area)?;
        let private = Private::try_from(private).map_err(unfit)?;
        let loaded =
            self.run(Authorization::EMPTY.sessions(), |context| context.load(parent.key(), private.clone(), public.clone()))?;
        Ok(Object(loaded.into()))
    }

    /// HMAC-SHA256 of at most 1024 bytes.
    pub(super) fn hmac(&mut self, key: Object, text: &[u8]) -> Result<Vec<u8>, Fault> {
        let buffer = MaxBuffer::try_from(text).map_err(unfit)?;
        let digest =
            self.run(Authorization::EMPTY.sessions(), |context| context.hmac(key.0, buffer.clone(), HashingAlgorithm::Sha256))?;
        Ok(digest.value().to_vec())
    }

    /// Wraps a transient object for later; it stays loaded.
    pub(super) fn save(&mut self, object: Object) -> Result<Saved, Fault> {
        self.run(NO_SESSIONS, |context| context.context_save(object.0)).map(Saved)
    }

    /// Loads what was saved.
    pub(super) fn restore(&mut self, saved: Saved) -> Result<Object, Fault> {
        self.run(NO_SESSIONS, |context| context.context_load(saved.0.clone())).map(Object)
    }

    /// Removes a transient object from the TPM.
    pub(super) fn flush(&mut self, object: Object) -> Result<(), Fault> {
        self.run(NO_SESSIONS, |context| context.flush_context(object.0))
    }

    /// Removes what somebody else left in the TPM: a transient object or a session.
    pub(super) fn flush_foreign(&mut self, handle: u32) -> Result<(), Fault> {
        let handle = TpmHandle::try_from(handle)?;
        let object = self.run(NO_SESSIONS, |context| context.tr_from_tpm_public(handle))?;
        match self.context.flush_context(object) {
            // It is gone; the wrapper had it booked as something that is only closed.
            Err(Error::WrapperError(_)) => Ok(()),
            flushed => Ok(flushed?),
        }
    }

    /// The handles in use from `first` on, of its kind. At most 64.
    pub(super) fn handles(&mut self, first: u32) -> Result<Vec<u32>, Fault> {
        match self.run(NO_SESSIONS, |context| context.get_capability(CapabilityType::Handles, first, 64))? {
            (CapabilityData::Handles(handles), _) => Ok(handles.into_inner().into_iter().map(u32::from).collect()),
            _ => Err(Fault::MALFORMED),
        }
    }

    /// `count` properties of the TPM from `first` on: tag and value.
    pub(super) fn properties(&mut self, first: u32, count: u32) -> Result<Vec<(u32, u32)>, Fault> {
        match self.run(NO_SESSIONS, |context| context.get_capability(CapabilityType::TpmProperties, first, count))? {
            (CapabilityData::TpmProperties(properties), _) => {
                Ok(properties.into_iter().map(|property| (property.property().into(), property.value())).collect())
            }
            _ => Err(Fault::MALFORMED),
        }
    }

    /// An NV index; `None` if there is none.
    pub(super) fn nv_index(&mut self, handle: u32) -> Result<Option<NvIndex>, Fault> {
        let Some(object) = self.find(handle)? else { return Ok(None) };
        let (public, _) = self.run(NO_SESSIONS, |context| context.nv_read_public(object.0.into()))?;
        let attributes = public.attributes().try_into()?;
        Ok(Some(NvIndex { object, size: public.data_size(), attributes }))
    }

    /// Reads from an NV index, with the owner's right where there is an authorization for it, else with the index's own.
    pub(super) fn nv_read(
        &mut self,
        index: Object,
        owner: Option<Authorization>,
        (size, offset): (u16, u16),
    ) -> Result<Vec<u8>, Fault> {
        let reader = owner.map_or(NvAuth::NvIndex(index.0.into()), |_| NvAuth::Owner);
        let sessions = owner.unwrap_or(Authorization::EMPTY).sessions();
        let read = self.run(sessions, |context| context.nv_read(reader, index.0.into(), size, offset))?;
        Ok(read.value().to_vec())
    }

    fn start(&mut self, salt: Option<KeyHandle>, kind: SessionType) -> Result<Authorization, Fault> {
        let started = self.run(NO_SESSIONS, |context| {
            context.start_auth_session(salt, None, None, kind, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)
        })?;
        started.map(Authorization).ok_or(Fault::MALFORMED)
    }

    /// A session that has ended by being used. The wrapper would flush it once more.
    fn forget(&mut self, session: Authorization) {
        let mut handle = ObjectHandle::from(SessionHandle::from(session.0));
        // It complains that the session was to be flushed, and forgets it all the same.
        let _ = self.context.tr_close(&mut handle);
    }

    /// A name is the digest of what it names: if not, somebody has changed one of the two.
    fn hold_to_name(&mut self, object: Object, area: PublicArea) -> Result<PublicArea, Fault> {
        if self.name(object)? == area.name() { Ok(area) } else { Err(Fault::MALFORMED) }
    }

    /// One command. A TPM that is busy is asked again, for two seconds in all; libtss2 asks five times by itself each time.
    fn run<T>(&mut self, sessions: Sessions, mut command: impl FnMut(&mut Context) -> Result<T, Error>) -> Result<T, Fault> {
        for pause in [20, 60, 180, 500, 1200] {
            match self.context.execute_with_sessions(sessions, &mut command).map_err(Fault::from) {
                Err(fault) if fault.is_busy() => wait(Duration::from_millis(pause)),
                done => return done,
            }
        }
        self.context.execute_with_sessions(sessions, command).map_err(Fault::from)
    }
}

impl Object {
    fn key(self) -> KeyHandle {
        KeyHandle::from(self.0)
    }
}

impl Authorization {
    fn sessions(self) -> Sessions {
        (Some(self.0), None, None)
    }
}

impl Hierarchy {
    fn to_tss(self) -> resource_handles::Hierarchy {
        match self {
            Self::Owner => resource_handles::Hierarchy::Owner,
            Self::Endorsement => resource_handles::Hierarchy::Endorsement,
            Self::Null => resource_handles::Hierarchy::Null,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::WrapperError(_) | Error::Tss2Error(Tss2ResponseCode::Success) => Self::UNUSABLE,
            Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => Self::parse(&code.to_string()),
            Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => Self::parse(&code.to_string()),
        }
    }
}

fn area(public: &Public) -> Result<PublicArea, Fault> {
    Ok(PublicArea::new(public.marshall()?))
}

fn public(area: &PublicArea) -> Result<Public, Fault> {
    Public::unmarshall(area.bytes()).map_err(unfit)
}

fn unfit(_: Error) -> Fault {
    Fault::UNFIT
}

#[expect(clippy::disallowed_methods, reason = "this thread is the TPM's own, and a verb is not to be ended midway")]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}
