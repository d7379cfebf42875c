//! Attestation by a TPM 2.0: the endorsement key says who we are, and the keys that the service wraps for it sign.

use std::path::Path;

use super::{AttestationError, secret_of};
use crate::config::TpmSettings;
use crate::secret::Secret;
use crate::tpm::{Auths, Keys, Memory, Tpm};

/// The TPM and its two public keys, as they are now.
#[derive(Debug)]
pub struct Attended {
    pub(super) tpm: Tpm,
    pub(super) keys: Keys,
}

impl Attended {
    /// Opens the TPM and finds its keys. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`.
    pub async fn open(
        settings: &TpmSettings,
        credentials: Option<&Path>,
        remembered: Option<&Memory>,
    ) -> Result<Self, AttestationError> {
        let tpm = closed(settings, credentials)?;
        let keys = tpm.attend(remembered).await?;
        Ok(Self { tpm, keys })
    }
}

/// The TPM with its passwords, not opened yet.
pub fn closed(settings: &TpmSettings, credentials: Option<&Path>) -> Result<Tpm, AttestationError> {
    let secret = |source| secret_of(source, credentials).map(|(_, text)| password(&text));
    let auths = Auths {
        owner: settings.owner_auth.as_ref().map(secret).transpose()?,
        endorsement: settings.endorsement_auth.as_ref().map(secret).transpose()?,
    };
    Ok(Tpm::new(settings.clone(), auths))
}

/// What a file says without the line break that editors put at its end.
fn password(text: &Secret<Vec<u8>>) -> Secret<Vec<u8>> {
    let text = text.expose().as_slice();
    let line = text.strip_suffix(b"\n").map_or(text, |line| line.strip_suffix(b"\r").unwrap_or(line));
    Secret::new(line.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_break_at_its_end_is_no_part_of_a_password() {
        for (text, expected) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b"two\nlines\n\n", b"two\nlines\n"),
            (b"secret\r", b"secret\r"),
            (b"\n", b""),
            (b"", b""),
        ] {
            assert_eq!(password(&Secret::new(text.to_vec())).expose(), expected, "{text:?}");
        }
    }
}
