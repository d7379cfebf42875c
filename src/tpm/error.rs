//! What can go wrong with a TPM: a name, a cause in words and a cure for each.

use std::time::Duration;

use thiserror::Error;

use crate::blame::Blame;

/// Why the TPM did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TpmError {
    /// The feature `tpm` is off.
    #[error(
        "this dps-agent was built without TPM support; install one that was built with the feature \"tpm\", or use another method"
    )]
    NotBuilt,
    /// `tcti` names no way to a TPM.
    #[error(
        "tcti \"{0}\" names no way to a TPM; write device:/dev/tpmrm0, tabrmd:bus_type=system, or for a simulator swtpm:host=…,port=…"
    )]
    UnknownTcti(String),
    /// libtss2 is not installed, too old or damaged.
    #[error(
        "the TPM library cannot be loaded ({0}); install tpm2-tss 2.4.6 or newer (Debian: libtss2-esys-3.0.2-0 and libtss2-tctildr0), or use another method"
    )]
    NotLoaded(String),
    /// The library behind `tcti` is not installed.
    #[error("the library for tcti \"{tcti}\" is not installed: install {package}")]
    NoLibrary {
        /// As configured.
        tcti: String,
        /// Debian's package.
        package: String,
    },
    /// There is no TPM, or not yet.
    #[error("no TPM at {0}; it may still be starting. If it stays away, enable it in the firmware, or correct tcti")]
    Absent(String),
    /// The device node does not let us in.
    #[error("{device} is not open to this user; {}", admission(.device, .group))]
    Forbidden {
        /// The device node.
        device: String,
        /// Its group: a name, or a number where it has none.
        group: String,
    },
    /// Somebody else has the TPM for himself.
    #[error("{0} is in use by another program; use device:/dev/tpmrm0, which many can share")]
    InUse(String),
    /// The TPM has had no time for two seconds.
    #[error("the TPM is busy with itself (response code {0:#x}); try again in a minute")]
    Busy(u32),
    /// The TPM does not answer.
    #[error("the TPM has not answered for {} s; another program may hold it, or it needs a power cycle", .0.as_secs())]
    Silent(Duration),
    /// The connection to the TPM ended.
    #[error("the connection to the TPM broke: {0}; try again, and look at the kernel's log for \"tpm\"")]
    Broken(String),
    /// An answer of the TPM contradicts itself, or its signature is wrong.
    #[error(
        "an answer of the TPM was altered on its way, or makes no sense ({0}); try again, and suspect the bus if it stays so"
    )]
    Garbled(String),
    /// A hierarchy has a password, and none is configured.
    #[error("the TPM's {hierarchy} hierarchy has a password; write it into the file that {hierarchy}_auth_file names")]
    AuthMissing {
        /// `owner` or `endorsement`.
        hierarchy: &'static str,
    },
    /// The password of a hierarchy is not the one that is configured.
    #[error("the TPM's {hierarchy} hierarchy has another password than {hierarchy}_auth_file, or none; correct the file")]
    AuthWrong {
        /// `owner` or `endorsement`.
        hierarchy: &'static str,
    },
    /// The firmware, or an operator, has switched a hierarchy off until the next start.
    #[error("the TPM's {hierarchy} hierarchy is switched off; switch it on in the firmware's settings, and restart the gateway")]
    Disabled {
        /// `owner` or `endorsement`.
        hierarchy: &'static str,
    },
    /// The password of a hierarchy cannot be one.
    #[error("the TPM cannot have a password of {0} bytes, 64 are the most; correct {1}_auth_file")]
    AuthTooLong(usize, &'static str),
    /// The storage key at its handle has a password.
    #[error("the storage key at {0:#010x} has a password of its own; set srk_handle to a free handle such as 0x81000002")]
    StorageAuth(u32),
    /// Too many wrong passwords were tried, by whomever.
    #[error("the TPM is locked after too many wrong passwords{}; wait, or reset it with tpm2_dictionarylockout --clear-lockout", left(.0))]
    LockedOut(Option<Duration>),
    /// No room for objects or sessions.
    #[error(
        "the TPM has no free memory for {0}; use device:/dev/tpmrm0, or end the program that fills it (tpm2_flushcontext -t -l)"
    )]
    OutOfMemory(&'static str),
    /// No room for what is to be kept.
    #[error(
        "the TPM has no room to keep another object; free a handle that nobody needs (tpm2_getcap handles-persistent, tpm2_evictcontrol)"
    )]
    StorageFull,
    /// The TPM has found a fault in itself.
    #[error(
        "the TPM is in failure mode: it has found a fault in itself; power-cycle the gateway, and replace the TPM if it stays so"
    )]
    Failed,
    /// The TPM wants to test itself first.
    #[error("the TPM has not tested itself; run tpm2_selftest --fulltest, or restart the gateway")]
    Untested,
    /// Nobody has started the TPM.
    #[error("nobody has started the TPM since its reset; that is the firmware's or the kernel's work (tpm2_startup -c by hand)")]
    NotStarted,
    /// The TPM cannot do what is needed.
    #[error("the TPM does not know how {0}; DPS needs a TPM 2.0 with RSA-2048 and HMAC-SHA256")]
    Incapable(&'static str),
    /// Another answer than any of the above.
    #[error("the TPM refuses {doing}: response code {code:#x}, which \"tpm2_rc_decode {code:#x}\" explains")]
    Refused {
        /// What was asked for.
        doing: &'static str,
        /// The response code.
        code: u32,
    },
    /// The peer's key cannot be activated, imported or loaded: it was made for another TPM, or is damaged.
    #[error("the TPM does not accept the key that DPS sent: {0}")]
    Rejected(String),
    /// The hub key cannot be loaded any more: the TPM was cleared, or this is another one.
    #[error("the TPM does not load the hub key any more: {0}; `dps-agent provision --force` registers the device again")]
    Lost(String),
    /// The endorsement key is not the one that the verb was asked to use.
    #[error("the TPM's endorsement key is no longer the one that was read before; start again")]
    Changed,
    /// Nothing to adopt.
    #[error("nothing is kept at identity_handle {0:#010x}; provision this device instead of adopting a key")]
    NothingFound(u32),
    /// Nothing that can be adopted.
    #[error(
        "{kind} is kept at identity_handle {handle:#010x}, not a key that signs with HMAC-SHA256; set another identity_handle"
    )]
    Unsuitable {
        /// The handle.
        handle: u32,
        /// What is there.
        kind: &'static str,
    },
    /// A verb that needs `identity_handle`.
    #[error("identity_handle is \"none\"; set it, 0x81000100 being where Microsoft's C client keeps its key")]
    NoHandle,
    /// The text to sign does not fit into one command.
    #[error("a TPM signs 1024 bytes at once, and the text has {0}; use shorter IDs")]
    TooLong(usize),
}

impl TpmError {
    /// Whom to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NotBuilt | Self::UnknownTcti(_) | Self::NotLoaded(_) | Self::NoLibrary { .. } | Self::NoHandle => {
                Blame::Configuration
            }
            Self::Forbidden { .. }
            | Self::AuthMissing { .. }
            | Self::AuthWrong { .. }
            | Self::AuthTooLong(..)
            | Self::StorageAuth(_) => Blame::Credential,
            Self::Rejected(_) => Blame::Peer,
            Self::Absent(_)
            | Self::InUse(_)
            | Self::Busy(_)
            | Self::Silent(_)
            | Self::Broken(_)
            | Self::Garbled(_)
            | Self::LockedOut(_)
            | Self::Disabled { .. }
            | Self::OutOfMemory(_)
            | Self::StorageFull
            | Self::Failed
            | Self::Untested
            | Self::NotStarted
            | Self::Incapable(_)
            | Self::Refused { .. }
            | Self::Lost(_)
            | Self::Changed
            | Self::NothingFound(_)
            | Self::Unsuitable { .. }
            | Self::TooLong(_) => Blame::Tpm,
        }
    }

    /// Whether there is no TPM, or not yet: worth waiting for.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

fn admission(device: &str, group: &str) -> String {
    match group {
        "root" | "0" => "give it to the group tss (Debian: install tpm-udev), and add the agent's user to that".to_owned(),
        group => format!(
            "add the agent's user to the group {group} (in the unit: SupplementaryGroups={group}, DeviceAllow={device} rw)"
        ),
    }
}

fn left(time: &Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!(" for at most {} s more", time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variant, what it says and whom it blames.
    #[test]
    fn each_error_has_a_cause_and_a_cure() {
        use TpmError as E;
        let device = "/dev/tpmrm0".to_owned();
        let forbidden = |group: &str| E::Forbidden { device: device.clone(), group: group.to_owned() };
        let (owner, text) = ("owner", String::new);
        let table: [(TpmError, Blame, &str); 32] = [
            (E::NotBuilt, Blame::Configuration, "was built without TPM support; install one that was built with"),
            (E::UnknownTcti("x".to_owned()), Blame::Configuration, "tcti \"x\" names no way to a TPM; write device:/dev/tpmrm0"),
            (
                E::NotLoaded("l.so: no such file".to_owned()),
                Blame::Configuration,
                "cannot be loaded (l.so: no such file); install tpm2-tss 2.4.6 or newer (Debian: libtss2-esys-3.0.2-0 and libtss2-tctildr0)",
            ),
            (E::NoLibrary { tcti: text(), package: "p".to_owned() }, Blame::Configuration, "is not installed: install p"),
            (E::NoHandle, Blame::Configuration, "identity_handle is \"none\"; set it"),
            (
                forbidden("tss"),
                Blame::Credential,
                "/dev/tpmrm0 is not open to this user; add the agent's user to the group tss (in the unit: SupplementaryGroups=tss, DeviceAllow=/dev/tpmrm0 rw)",
            ),
            (
                forbidden("root"),
                Blame::Credential,
                "is not open to this user; give it to the group tss (Debian: install tpm-udev)",
            ),
            (
                E::AuthMissing { hierarchy: owner },
                Blame::Credential,
                "has a password; write it into the file that owner_auth_file names",
            ),
            (
                E::AuthWrong { hierarchy: owner },
                Blame::Credential,
                "another password than owner_auth_file, or none; correct the file",
            ),
            (E::AuthTooLong(65, owner), Blame::Credential, "a password of 65 bytes, 64 are the most; correct owner_auth_file"),
            (E::StorageAuth(0x8100_0001), Blame::Credential, "at 0x81000001 has a password of its own; set srk_handle to a free"),
            (E::Rejected("it is bad".to_owned()), Blame::Peer, "the TPM does not accept the key that DPS sent: it is bad"),
            (
                E::Absent(device.clone()),
                Blame::Tpm,
                "no TPM at /dev/tpmrm0; it may still be starting. If it stays away, enable it in",
            ),
            (E::InUse(device.clone()), Blame::Tpm, "is in use by another program; use device:/dev/tpmrm0, which many can share"),
            (E::Busy(0x922), Blame::Tpm, "the TPM is busy with itself (response code 0x922); try again in a minute"),
            (
                E::Silent(Duration::from_secs(180)),
                Blame::Tpm,
                "has not answered for 180 s; another program may hold it, or it needs",
            ),
            (
                E::Broken("why".to_owned()),
                Blame::Tpm,
                "the connection to the TPM broke: why; try again, and look at the kernel's log",
            ),
            (E::Garbled("why".to_owned()), Blame::Tpm, "was altered on its way, or makes no sense (why); try again, and suspect"),
            (
                E::LockedOut(Some(Duration::from_secs(9))),
                Blame::Tpm,
                "too many wrong passwords for at most 9 s more; wait, or reset it",
            ),
            (
                E::LockedOut(None),
                Blame::Tpm,
                "the TPM is locked after too many wrong passwords; wait, or reset it with tpm2_dictionarylockout",
            ),
            (
                E::OutOfMemory("sessions"),
                Blame::Tpm,
                "has no free memory for sessions; use device:/dev/tpmrm0, or end the program",
            ),
            (E::StorageFull, Blame::Tpm, "has no room to keep another object; free a handle that nobody needs"),
            (
                E::Disabled { hierarchy: owner },
                Blame::Tpm,
                "owner hierarchy is switched off; switch it on in the firmware's settings",
            ),
            (E::Failed, Blame::Tpm, "is in failure mode: it has found a fault in itself; power-cycle the gateway"),
            (E::Untested, Blame::Tpm, "has not tested itself; run tpm2_selftest --fulltest"),
            (
                E::NotStarted,
                Blame::Tpm,
                "nobody has started the TPM since its reset; that is the firmware's or the kernel's work",
            ),
            (E::Incapable("to count"), Blame::Tpm, "the TPM does not know how to count; DPS needs a TPM 2.0 with RSA-2048"),
            (
                E::Refused { doing: "to count", code: 0x9a2 },
                Blame::Tpm,
                "refuses to count: response code 0x9a2, which \"tpm2_rc_decode 0x9a2\"",
            ),
            (
                E::Lost("it is gone".to_owned()),
                Blame::Tpm,
                "the TPM does not load the hub key any more: it is gone; `dps-agent provision --force` registers the device again",
            ),
            (E::Changed, Blame::Tpm, "endorsement key is no longer the one that was read before; start again"),
            (E::NothingFound(0x8100_0100), Blame::Tpm, "nothing is kept at identity_handle 0x81000100; provision this device"),
            (E::TooLong(1025), Blame::Tpm, "a TPM signs 1024 bytes at once, and the text has 1025; use shorter IDs"),
        ];
        for (error, blame, words) in table {
            assert_eq!(error.blame(), blame, "{error}");
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.is_absent(), matches!(error, E::Absent(_)));
        }
        let unsuitable = E::Unsuitable { handle: 0x8100_0100, kind: "an ECC key" };
        assert_eq!(
            (unsuitable.blame(), unsuitable.to_string().as_str()),
            (
                Blame::Tpm,
                "an ECC key is kept at identity_handle 0x81000100, not a key that signs with HMAC-SHA256; set another identity_handle"
            )
        );
    }
}
