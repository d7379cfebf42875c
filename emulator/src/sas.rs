//! Shared access signatures and derived device keys, recomputed from what was received (DPS device API §4).

use crate::names::percent_decode;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

/// A shared access signature as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// `sr` exactly as received: it is what was signed, whatever its encoding.
    pub signed_resource: String,
    /// `sr` decoded.
    pub resource: String,
    /// `sig` decoded.
    pub signature: Vec<u8>,
    /// `se` as received, decimal digits.
    pub expiry_text: String,
    /// `se` in seconds since 1970, UTC.
    pub expiry: u64,
    /// `skn`, which some clients leave out.
    pub key_name: Option<String>,
}

impl Token {
    /// Reads `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`, in any order. `None` when a field is missing, unknown
    /// or there twice, or when the signature is not percent-encoded base64.
    pub fn parse(text: &str) -> Option<Self> {
        let fields = text.strip_prefix("SharedAccessSignature ")?;
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=')?;
            let place = match name {
                "sr" => &mut sr,
                "sig" => &mut sig,
                "se" => &mut se,
                "skn" => &mut skn,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let (sr, se) = (sr?, se?);
        Some(Self {
            signed_resource: sr.to_owned(),
            resource: percent_decode(sr)?,
            signature: signature(sig?)?,
            expiry_text: se.to_owned(),
            expiry: se.bytes().all(|byte| byte.is_ascii_digit()).then(|| se.parse().ok())??,
            key_name: skn.map(str::to_owned),
        })
    }

    /// Whether `key` (the decoded one) made this signature.
    pub fn is_signed_with(&self, key: &[u8]) -> bool {
        let text = format!("{}\n{}", self.signed_resource, self.expiry_text);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes(), &self.signature).is_ok()
    }
}

/// The key of one member of a symmetric-key group: HMAC-SHA256 of the registration ID as spelled (DPS device API §4.3).
pub fn derived_key(group_key: &[u8], registration_id: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, group_key);
    hmac::sign(&key, registration_id.as_bytes()).as_ref().to_vec()
}

fn signature(encoded: &str) -> Option<Vec<u8>> {
    if encoded.contains(['+', '/', '=']) {
        return None;
    }
    STANDARD.decode(percent_decode(encoded)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap()
    }

    fn key(case: &Value, name: &str) -> Vec<u8> {
        STANDARD.decode(case[name].as_str().unwrap()).unwrap()
    }

    #[test]
    fn tokens_of_the_vectors_verify_with_their_key_and_with_no_other() {
        for case in vectors()["sas_tokens"].as_array().unwrap() {
            let token = Token::parse(case["token"].as_str().unwrap()).unwrap();
            assert_eq!(token.resource, case["resource_uri"], "{case}");
            assert_eq!(token.expiry, case["se"].as_u64().unwrap(), "{case}");
            assert_eq!(token.key_name.as_deref(), case["skn"].as_str(), "{case}");
            assert!(token.is_signed_with(&key(case, "key_b64")), "{case}");
            assert!(!token.is_signed_with(b"another key of some bytes"), "{case}");
            if case["matches_published"] == false {
                let published = Token::parse(case["published_token"].as_str().unwrap()).unwrap();
                assert!(!published.is_signed_with(&key(case, "key_b64")), "{case}");
            }
        }
    }

    #[test]
    fn derived_keys_of_the_vectors() {
        for case in vectors()["derived_device_keys"].as_array().unwrap() {
            let derived = derived_key(&key(case, "group_key_b64"), case["registration_id"].as_str().unwrap());
            assert_eq!(STANDARD.encode(derived), case["derived_key_b64"], "{case}");
        }
    }

    #[test]
    fn what_is_no_token() {
        for text in [
            "",
            "Bearer x",
            "SharedAccessSignature ",
            "SharedAccessSignature sr=a&sig=YQ%3D%3D",
            "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=x",
            "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=+1",
            "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=",
            "SharedAccessSignature sr=a&sig=YQ==&se=1",
            "SharedAccessSignature sr=a&sig=YQ&se=1",
            "SharedAccessSignature sr=a&sr=a&sig=YQ%3D%3D&se=1",
            "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=1&x=y",
            "SharedAccessSignature sr=a%&sig=YQ%3D%3D&se=1",
        ] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
