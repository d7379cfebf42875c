//! Whose fault a failure is: the one classification from which retry and exit code follow.

use std::fmt;
use std::process::ExitCode;

/// Who can mend a failure. Each has one exit code (sysexits(3)) and one word in JSON output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The command line was wrong: 64.
    Usage,
    /// The configuration is wrong: 78.
    Configuration,
    /// A key or certificate is missing, unreadable, readable by others, or cannot be understood: 77.
    Credential,
    /// The service refused the credential (401, 403). It may also be an IP filter, our clock, an interceptor: 77.
    Unauthorized,
    /// The network failed or somebody was silent: 75.
    Network,
    /// Our clock is below its floor, or a certificate is not valid yet: 75.
    Clock,
    /// The service is busy, throttles, or is still assigning; or another agent is at work here: 75.
    Busy,
    /// The assigned hub refuses the identity so far: 75.
    Hub,
    /// The service refuses this device for good: 69.
    Refused,
    /// The certificate of the peer is not to be trusted: somebody may sit in between: 76.
    Untrusted,
    /// The peer breaks the protocol: 76.
    Peer,
    /// The TPM is not there, is locked, or fails: 71.
    Tpm,
    /// The state or runtime directory cannot be written: 73.
    Unwritable,
    /// Reading or writing there failed: 74.
    Storage,
}

impl Blame {
    /// Every blame, in the order of the manual's table.
    pub const ALL: [Self; 14] = [
        Self::Usage,
        Self::Refused,
        Self::Tpm,
        Self::Unwritable,
        Self::Storage,
        Self::Network,
        Self::Clock,
        Self::Busy,
        Self::Hub,
        Self::Untrusted,
        Self::Peer,
        Self::Credential,
        Self::Unauthorized,
        Self::Configuration,
    ];

    /// The exit code of a verb that ended with this blame (sysexits(3)).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Refused => 69,
            Self::Tpm => 71,
            Self::Unwritable => 73,
            Self::Storage => 74,
            Self::Network | Self::Clock | Self::Busy | Self::Hub => 75,
            Self::Untrusted | Self::Peer => 76,
            Self::Credential | Self::Unauthorized => 77,
            Self::Configuration => 78,
        }
    }

    /// The word for it in JSON output and transcripts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Configuration => "configuration",
            Self::Credential => "credential",
            Self::Unauthorized => "unauthorized",
            Self::Network => "network",
            Self::Clock => "clock",
            Self::Busy => "busy",
            Self::Hub => "hub",
            Self::Refused => "refused",
            Self::Untrusted => "untrusted",
            Self::Peer => "peer",
            Self::Tpm => "tpm",
            Self::Unwritable => "unwritable",
            Self::Storage => "storage",
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl From<Blame> for ExitCode {
    fn from(blame: Blame) -> Self {
        Self::from(blame.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_the_same_table() {
        let manual = include_str!("../docs/exit-codes.md");
        let rows = manual.lines().filter(|line| line.starts_with("| ") && line.contains("| `")).count();
        assert_eq!(rows, Blame::ALL.len() + 1, "one row each, and the head");
        for blame in Blame::ALL {
            let row = format!("| {} | `{}` |", blame.exit_code(), blame.word());
            assert!(manual.contains(&row), "{row}");
        }
    }
}
