//! Attestation by a symmetric key: the enrollment's own, or one that was derived from a group key off the device.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{AttestationError, secret_of};
use crate::config::KeySource;
use crate::secret::Secret;

/// A key of 16 to 64 bytes (DPS device API, keys).
#[derive(Debug)]
pub struct SymmetricKey(Secret<Vec<u8>>);

impl SymmetricKey {
    /// Reads base64 text from where the source says. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`.
    pub fn open(source: &KeySource, credentials: Option<&Path>) -> Result<Self, AttestationError> {
        let (path, text) = secret_of(source, credentials)?;
        Self::parse(text.expose()).map_err(|why| AttestationError::NoSymmetricKey { origin: path, why })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err("it is empty".into());
        }
        if text.windows(16).any(|part| part == b"SharedAccessKey=") {
            return Err("it is a connection string; write only what follows SharedAccessKey=".into());
        }
        let key = Secret::new(STANDARD.decode(text).map_err(|_| {
            // The decoder's own words would quote a byte of the key.
            "it is not base64; put the key there as the portal shows it, on one line"
        })?);
        match key.expose().len() {
            16..=64 => Ok(Self(key)),
            other => Err(format!("it is base64 of {other} bytes, and a key has 16 to 64")),
        }
    }

    /// HMAC-SHA256 of the text.
    pub fn sign(&self, text: &str) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose()).expect("any length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// The key as it is written in a connection string.
    pub(super) fn text(&self) -> Secret<String> {
        Secret::new(STANDARD.encode(self.0.expose()))
    }

    /// 64 bits that change with the key and cannot be turned back into it.
    pub fn fingerprint(&self) -> String {
        self.sign("dps-agent: which key is this").iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::sas::Audience;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap()
    }

    #[test]
    fn tokens_equal_the_published_and_computed_ones() {
        let mut compared = 0;
        for case in vectors()["sas_tokens"].as_array().unwrap() {
            let text = |name: &str| case[name].as_str().unwrap_or_default();
            // The lower-case spelling is other clients' choice; the service signs what it receives.
            if text("sr_encoding") != "upper-hex" {
                continue;
            }
            let audience = match text("resource_uri").split_once("/registrations/") {
                Some((scope, id)) => Audience::registration(&scope.parse().unwrap(), &id.parse().unwrap()),
                None => match text("resource_uri").split_once("/devices/") {
                    Some((hub, device)) if !device.contains('/') => {
                        Audience::device(&hub.parse().unwrap(), &device.parse().unwrap())
                    }
                    _ => continue,
                },
            };
            let se = case["se"].as_u64().unwrap();
            let key = SymmetricKey::parse(text("key_b64").as_bytes()).unwrap();
            assert_eq!(audience.to_sign(se), text("string_to_sign"), "{}", text("id"));
            assert_eq!(audience.token(&key.sign(&audience.to_sign(se)), se).expose(), text("token"), "{}", text("id"));
            compared += 1;
        }
        assert_eq!(compared, 11);
    }

    #[test]
    fn keys_derived_from_group_keys_equal_the_published_ones() {
        let mut compared = 0;
        for case in vectors()["derived_device_keys"].as_array().unwrap() {
            let text = |name: &str| case[name].as_str().unwrap();
            let Ok(group) = SymmetricKey::parse(text("group_key_b64").as_bytes()) else { continue };
            assert_eq!(STANDARD.encode(group.sign(text("registration_id"))), text("derived_key_b64"), "{}", text("id"));
            compared += 1;
        }
        assert!(compared >= 8, "{compared}");
    }

    #[test]
    fn what_is_no_key_is_refused_without_quoting_it() {
        for (text, why) in [
            ("", "it is empty"),
            ("\n", "it is empty"),
            ("not base64!", "it is not base64; put the key there as the portal shows it, on one line"),
            (
                "HostName=h;DeviceId=d;SharedAccessKey=hTUUURcibF5BNRAhZjMcrLQ6mpSM4d767jtb+Sxxax0=",
                "it is a connection string; write only what follows SharedAccessKey=",
            ),
            ("AAAA", "it is base64 of 3 bytes, and a key has 16 to 64"),
            (&*STANDARD.encode([0; 65]), "it is base64 of 65 bytes, and a key has 16 to 64"),
        ] {
            assert_eq!(SymmetricKey::parse(text.as_bytes()).unwrap_err(), why, "{text:?}");
        }
        assert!(SymmetricKey::parse(b" hTUUURcibF5BNRAhZjMcrLQ6mpSM4d767jtb+Sxxax0=\n").is_ok());
    }

    #[test]
    fn a_fingerprint_changes_with_the_key_and_is_not_of_it() {
        let of = |byte| SymmetricKey(Secret::new(vec![byte; 32])).fingerprint();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(of(1).len(), 16);
    }
}
