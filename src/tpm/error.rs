//! What can go wrong with a TPM: a name, a cause in words and a cure for each.

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
    /// The peer's key cannot be activated, imported or loaded: it was made for another TPM, or is damaged.
    #[error("the TPM does not accept the key that DPS sent: {0}")]
    Rejected(String),
    /// The hub key cannot be loaded any more: the TPM was cleared, or this is another one.
    #[error("the TPM does not load the hub key any more: {0}")]
    Lost(String),
}

impl TpmError {
    /// Whether there is no TPM yet: some appear late.
    pub fn is_absent(&self) -> bool {
        false
    }

    /// Whom to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NotBuilt => Blame::Configuration,
            Self::Rejected(_) => Blame::Peer,
            Self::Lost(_) => Blame::Tpm,
        }
    }
}
