//! The text of shared access signature tokens (DPS device API, SAS tokens). Signing is an argument: no key comes here.

use crate::secret::Secret;

/// What a token gives access to, as it will stand in the token: percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    encoded: String,
    policy: Option<&'static str>,
}

impl Audience {
    /// A registration at DPS: `{idScope}/registrations/{registrationId}`, with `skn=registration`.
    pub fn registration(scope: &crate::id::IdScope, id: &crate::id::RegistrationId) -> Self {
        Self { encoded: percent_encode(&format!("{scope}/registrations/{id}")), policy: Some("registration") }
    }

    /// A device at its hub: `{hub}/devices/{deviceId}`, without `skn`.
    pub fn device(hub: &crate::id::HostName, device: &crate::id::DeviceId) -> Self {
        Self { encoded: percent_encode(&format!("{hub}/devices/{device}")), policy: None }
    }

    /// The text to be signed with HMAC-SHA256: the encoded resource exactly as the token has it, a newline, the expiry.
    pub fn to_sign(&self, expiry: u64) -> String {
        format!("{}\n{expiry}", self.encoded)
    }

    /// The token around a signature. `expiry` is in seconds since 1970 and must be the one that was signed.
    pub fn token(&self, signature: &[u8], expiry: u64) -> Secret<String> {
        let signature = Secret::new(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature));
        let signature = Secret::new(percent_encode(signature.expose()));
        let mut token = format!("SharedAccessSignature sr={}&sig={}&se={expiry}", self.encoded, signature.expose());
        if let Some(policy) = self.policy {
            token.push_str("&skn=");
            token.push_str(policy);
        }
        Secret::new(token)
    }
}

/// RFC 3986 percent-encoding with upper-case hex; letters, digits and `-._~` stay.
pub fn percent_encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}
