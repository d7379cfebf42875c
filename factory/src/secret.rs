//! Keys: read from files, the environment or the standard input, never from an argument list; made, derived, and kept in files of our own.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::failure::{Blame, Failure};

/// As much as a file with a secret may hold, in bytes.
const LIMIT: usize = 64 * 1024;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Takes it, without the white space around it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The text. Whoever asks for it knows where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretText({} bytes)", self.0.len())
    }
}

/// Reads a secret: from the standard input (`-`), or from a file that is not open to others.
///
/// # Errors
/// Names the file and the cure.
pub fn read(path: &Path) -> Result<SecretText, Failure> {
    let failed = |what: &str| Failure::new(Blame::Credential, format!("{}: {what}", path.display()));
    let mut text = String::new();
    let limit = u64::try_from(LIMIT).unwrap_or(u64::MAX);
    if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text).map_err(|error| failed(&error.to_string()))?;
    } else {
        let file = fs::File::open(path).map_err(|error| failed(&error.to_string()))?;
        let mode = file.metadata().map_err(|error| failed(&error.to_string()))?.permissions().mode();
        // The rule of the agent for its own keys: the owner's, and at most readable for the group.
        if mode & 0o027 != 0 {
            return Err(failed(&format!("its mode {:04o} opens it to others; chmod 600 it", mode & 0o7777)));
        }
        file.take(limit).read_to_string(&mut text).map_err(|error| failed(&error.to_string()))?;
    }
    if text.trim().is_empty() { Err(failed("it is empty")) } else { Ok(SecretText::new(&text)) }
}

/// A symmetric key of 16 to 64 bytes (DPS device API §4.2).
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Understands base64. The error does not quote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = STANDARD.decode(text.trim()).map_err(|_| "it is not base64".to_owned())?;
        if (16..=64).contains(&key.len()) { Ok(Self(key)) } else { Err(format!("it has {} bytes, not 16 to 64", key.len())) }
    }

    /// Reads one from a file or the standard input.
    ///
    /// # Errors
    /// Names the file and what is wrong, not the key.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let wrong = |wrong: String| Failure::new(Blame::Credential, format!("{}: a symmetric key: {wrong}", path.display()));
        Self::parse(read(path)?.expose()).map_err(wrong)
    }

    /// A new one, 32 random bytes.
    pub fn make() -> Result<Self, Failure> {
        let mut bytes = vec![0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Failure::new(Blame::Unwritable, "this machine gives no random numbers"))?;
        Ok(Self(bytes))
    }

    /// The device's key under this group key (DPS device API §4.3). The exact spelling of the registration ID counts.
    pub fn derive(&self, registration_id: &str) -> Self {
        Self(self.sign(registration_id))
    }

    /// HMAC-SHA256 of the text.
    pub fn sign(&self, text: &str) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), text.as_bytes()).as_ref().to_vec()
    }

    /// The same 64 bits by which `dps-agent identity` tells keys apart (docs/json.md).
    pub fn fingerprint(&self) -> String {
        self.sign("dps-agent: which key is this").iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Base64, as files and enrollments hold it. Whoever asks for it knows where it goes.
    pub fn expose(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_key_is_the_published_one() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap();
        let cases = vectors["derived_device_keys"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let text = |name: &str| case[name].as_str().unwrap();
            let derived = Key::parse(text("group_key_b64")).unwrap().derive(text("registration_id"));
            assert_eq!(derived.expose(), text("derived_key_b64"));
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_its_length_is_checked() {
        let key = Key::make().unwrap();
        assert_eq!(format!("{key:?}"), "Key(32 bytes)");
        assert_ne!(key, Key::make().unwrap());
        assert_eq!(format!("{:?}", SecretText::new(" x\n")), "SecretText(1 bytes)");
        assert_eq!(Key::parse("AAAA").unwrap_err(), "it has 3 bytes, not 16 to 64");
        assert_eq!(Key::parse("%").unwrap_err(), "it is not base64");
    }
}
