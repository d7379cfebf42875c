//! What is kept of a TPM between two starts: its two public keys, and the wrapped hub key. None of it is secret.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The endorsement key and the storage key as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Who the TPM is.
    pub endorsement_key: PublicArea,
    /// Whose children the hub keys are.
    pub storage_key: StorageKey,
}

/// What the record keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The TPM's keys when the hub key was imported.
    #[serde(flatten)]
    pub keys: Keys,
    /// The key that signs for the hub.
    pub hub_key: HubKey,
}

/// The storage root key: where it is, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageKey {
    /// Its public area: name and template follow from it.
    pub public: PublicArea,
    /// Where it is kept, such as 0x81000001; `None` where something else sits there, and it is derived anew for each use.
    #[serde(with = "handle_text")]
    pub handle: Option<u32>,
}

/// A key that signs for a hub, in the TPM only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HubKey {
    /// Wrapped by the storage key: nobody but this TPM can use it.
    Wrapped {
        /// What kind of key it is.
        public: PublicArea,
        /// The content of its TPM2B_PRIVATE.
        #[serde(with = "base64_text")]
        private: Vec<u8>,
    },
    /// At a handle, where another program put it.
    Kept {
        /// What kind of key it is.
        public: PublicArea,
        /// Where it is.
        #[serde(with = "handle_text")]
        handle: u32,
    },
}

impl HubKey {
    /// Whether it is at a handle and nowhere else.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    /// What tells it from every other key.
    pub fn name(&self) -> Name {
        let (Self::Wrapped { public, .. } | Self::Kept { public, .. }) = self;
        public.name()
    }
}

impl fmt::Debug for HubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrapped { .. } => write!(f, "HubKey(wrapped, {})", self.name()),
            Self::Kept { handle, .. } => write!(f, "HubKey(at {handle:#010x}, {})", self.name()),
        }
    }
}

/// The name of an object: its hash algorithm, SHA-256, and the digest of its public area (TPM 2.0 Part 1, names).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(Vec<u8>);

impl Name {
    /// As the TPM has it: algorithm and digest.
    #[cfg(feature = "tpm")]
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    fn from_text(text: &str) -> Option<Self> {
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|_| pair.len() == 2));
        pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<_>>().map(Self)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom("not the name of an object, in hexadecimal"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A public area, TPMT_PUBLIC; as text it is the base64 of TPM2B_PUBLIC, as DPS and the record have it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicArea(Vec<u8>);

impl PublicArea {
    /// These bytes of a TPMT_PUBLIC, at most 65535.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// TPMT_PUBLIC.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// TPM2B_PUBLIC: with its length before it.
    pub fn sized(&self) -> Vec<u8> {
        let length = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        [&length.to_be_bytes(), self.0.as_slice()].concat()
    }

    /// Base64 of TPM2B_PUBLIC.
    pub fn text(&self) -> String {
        STANDARD.encode(self.sized())
    }

    /// Its name.
    pub fn name(&self) -> Name {
        Name([&[0x00, 0x0b], Sha256::digest(&self.0).as_slice()].concat())
    }

    fn from_text(text: &str) -> Option<Self> {
        let sized = STANDARD.decode(text).ok()?;
        let (length, area) = sized.split_first_chunk::<2>()?;
        (usize::from(u16::from_be_bytes(*length)) == area.len()).then(|| Self(area.to_vec()))
    }
}

impl fmt::Debug for PublicArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicArea({})", self.name())
    }
}

impl Serialize for PublicArea {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for PublicArea {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom("not the base64 of a TPM2B_PUBLIC"))
    }
}

/// Handles are written as everybody writes them: 0x81000001.
mod handle_text {
    use super::{Deserialize, Deserializer, Serializer};

    /// A handle that is there, or may be.
    pub(super) trait Handle: Sized + Copy {
        fn text(self) -> Option<String>;
        fn from(handle: Option<u32>) -> Option<Self>;
    }

    impl Handle for u32 {
        fn text(self) -> Option<String> {
            Some(format!("{self:#010x}"))
        }

        fn from(handle: Option<u32>) -> Option<Self> {
            handle
        }
    }

    impl Handle for Option<u32> {
        fn text(self) -> Option<String> {
            self.and_then(Handle::text)
        }

        fn from(handle: Option<u32>) -> Option<Self> {
            Some(handle)
        }
    }

    pub(super) fn serialize<H: Handle, S: Serializer>(handle: &H, serializer: S) -> Result<S::Ok, S::Error> {
        match handle.text() {
            Some(text) => serializer.serialize_str(&text),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, H: Handle, D: Deserializer<'de>>(deserializer: D) -> Result<H, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let wrong = || serde::de::Error::custom("not a handle such as 0x81000001");
        match text {
            Some(text) => H::from(Some(number(&text).ok_or_else(wrong)?)).ok_or_else(wrong),
            None => H::from(None).ok_or_else(wrong),
        }
    }
}

mod base64_text {
    use super::{Deserialize, Deserializer, Engine, STANDARD, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_record_keeps_is_written_for_people_and_read_again() {
        let public = |byte| PublicArea::new(vec![0, byte]);
        let storage_key = |handle| StorageKey { public: public(2), handle };
        let memory =
            |handle, hub_key| Memory { keys: Keys { endorsement_key: public(1), storage_key: storage_key(handle) }, hub_key };
        for (memory, text) in [
            (
                memory(Some(0x8100_0001), HubKey::Wrapped { public: public(3), private: vec![4] }),
                r#"{"endorsementKey":"AAIAAQ==","storageKey":{"public":"AAIAAg==","handle":"0x81000001"},"hubKey":{"wrapped":{"public":"AAIAAw==","private":"BA=="}}}"#,
            ),
            (
                memory(None, HubKey::Kept { public: public(3), handle: 0x8100_0100 }),
                r#"{"endorsementKey":"AAIAAQ==","storageKey":{"public":"AAIAAg==","handle":null},"hubKey":{"kept":{"public":"AAIAAw==","handle":"0x81000100"}}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&memory).unwrap(), text);
            assert_eq!(serde_json::from_str::<Memory>(text).unwrap(), memory);
        }
    }

    #[test]
    fn what_was_not_written_so_is_not_read() {
        for text in [
            r#"{"public":"AAIAAg==","handle":"81000001"}"#,
            r#"{"public":"AAMAAg==","handle":null}"#,
            r#"{"public":"AAIAAg==","handle":7}"#,
        ] {
            assert!(serde_json::from_str::<StorageKey>(text).is_err(), "{text}");
        }
        let name: Name = serde_json::from_str("\"000b01ff\"").unwrap();
        assert_eq!((name.to_string(), serde_json::to_string(&name).unwrap()), ("000b01ff".into(), "\"000b01ff\"".into()));
        for text in ["\"000\"", "\"zz\""] {
            assert!(serde_json::from_str::<Name>(text).is_err(), "{text}");
        }
    }
}
