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
            expiry: se
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| se.parse().ok())??,
            key_name: skn.map(str::to_owned),
        })
    }

    /// Whether `key` (the decoded one) made this signature.
    pub fn is_signed_with(&self, key: &[u8]) -> bool {
        let text = format!("{}\n{}", self.signed_resource, self.expiry_text);
        hmac::verify(
            &hmac::Key::new(hmac::HMAC_SHA256, key),
            text.as_bytes(),
            &self.signature,
        )
        .is_ok()
    }
}

/// The key of one member of a symmetric-key group: HMAC-SHA256 of the registration ID as spelled (DPS device API §4.3).
pub fn derived_key(group_key: &[u8], registration_id: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, group_key);
    hmac::sign(&key, registration_id.as_bytes())
        .as_ref()
        .to_vec()
}

fn signature(encoded: &str) -> Option<Vec<u8>> {
    if encoded.contains(['+', '/', '=']) {
        return None;
    }
    STANDARD.decode(percent_decode(encoded)?).ok()
}
