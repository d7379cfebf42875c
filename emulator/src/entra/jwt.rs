//! JSON Web Tokens (RFC 7519), signed with RSA keys: made with the provider's own key, verified with any.

use crate::pki::{Key, PkiError};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use ring::{digest, signature};
use serde_json::{Value, json};

/// A key that signs.
pub(crate) struct Signer {
    key: RsaKeyPair,
    key_id: String,
    modulus: String,
    exponent: String,
}

impl Signer {
    /// Signs with this key, which must be an RSA one.
    pub(crate) fn new(key: &Key) -> Result<Self, PkiError> {
        let key = RsaKeyPair::from_pkcs8(key.der().secret_der()).map_err(|_| PkiError::NotRsa)?;
        let public: PublicKeyComponents<Vec<u8>> = PublicKeyComponents::from(key.public_key());
        let modulus = URL_SAFE_NO_PAD.encode(&public.n);
        let thumbprint = digest::digest(&digest::SHA256, &public.n);
        let key_id = URL_SAFE_NO_PAD.encode(thumbprint.as_ref());
        Ok(Self { key, key_id, modulus, exponent: URL_SAFE_NO_PAD.encode(&public.e) })
    }

    /// A token with these claims; `None` if the key cannot sign.
    pub(crate) fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let text = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).ok()?;
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    pub(crate) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key as clients and services look it up (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id, "n": self.modulus, "e": self.exponent})
    }

    /// The public key, PKCS#1 DER.
    pub(crate) fn public(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Signer({})", self.key_id)
    }
}

/// A token as it was received.
#[derive(Debug)]
pub(crate) struct Jwt {
    header: Value,
    claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Jwt {
    /// Takes it apart; `None` if it has no three parts of JSON, JSON and base64.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).ok().filter(Value::is_object);
        Some(Self { header: json(header)?, claims: json(claims)?, signed: signed.to_owned(), signature: decode(signature)? })
    }

    /// A text of the header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.header[name].as_str().unwrap_or_default()
    }

    /// A text among the claims; empty if there is none.
    pub(crate) fn claim(&self, name: &str) -> &str {
        self.claims[name].as_str().unwrap_or_default()
    }

    /// Whether `now`, in seconds since 1970, is in its time: `exp` must be there, `nbf` may be.
    pub(crate) fn is_valid_at(&self, now: u64) -> bool {
        let begun = self.claims["nbf"].as_u64().is_none_or(|begin| begin <= now + SKEW);
        begun && self.claims["exp"].as_u64().is_some_and(|end| now < end)
    }

    /// Whether the key with this PKCS#1 DER signed it, with an algorithm that such a key has.
    pub(crate) fn is_signed_with(&self, public: &[u8]) -> bool {
        let algorithm: &'static dyn signature::VerificationAlgorithm = match self.header("alg") {
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            "PS256" => &RSA_PSS_2048_8192_SHA256,
            _ => return false,
        };
        UnparsedPublicKey::new(algorithm, public).verify(self.signed.as_bytes(), &self.signature).is_ok()
    }
}

/// How far another machine's clock may be ahead, in seconds.
const SKEW: u64 = 300;

/// RFC 7515 §2: without padding.
fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// Reads a thumbprint, which Microsoft's Rust client writes in the other alphabet of base64, with padding.
pub(super) fn thumbprint(text: &str) -> Option<Vec<u8>> {
    decode(text).or_else(|| STANDARD.decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Algorithm;

    fn resigned(signer: &Signer, header: &Value, claims: &Value) -> String {
        let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let mut signature = vec![0; signer.key.public().modulus_len()];
        signer.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn signed_by_one_key_and_no_other_with_no_other_algorithm() {
        let [own, other] = [(), ()].map(|()| Signer::new(&Key::generate(Algorithm::Rsa2048).unwrap()).unwrap());
        let token = Jwt::parse(&own.sign(&json!({"a": "b"})).unwrap()).unwrap();
        assert_eq!((token.claim("a"), token.claim("c"), token.header("kid")), ("b", "", own.key_id()));
        assert!(token.is_signed_with(own.public()) && !token.is_signed_with(other.public()));
        for algorithm in ["none", "HS256", "RS512", "PS256", ""] {
            let token = Jwt::parse(&resigned(&own, &json!({"alg": algorithm}), &json!({}))).unwrap();
            assert!(!token.is_signed_with(own.public()), "{algorithm}");
        }
        assert!(Signer::new(&Key::generate(Algorithm::EcP256).unwrap()).is_err());
    }

    #[test]
    fn from_nbf_until_exp() {
        let token = |claims: Value| Jwt { header: json!({}), claims, signed: String::new(), signature: Vec::new() };
        let both = token(json!({"nbf": 1000, "exp": 2000}));
        let valid: Vec<u64> = [699, 700, 1500, 1999, 2000].into_iter().filter(|now| both.is_valid_at(*now)).collect();
        assert_eq!(valid, [700, 1500, 1999], "five minutes before nbf, too");
        assert!(token(json!({"exp": 2000})).is_valid_at(0));
        assert!(!token(json!({"nbf": 1000})).is_valid_at(1500), "exp must be there");
        assert!(!token(json!({"exp": "2000"})).is_valid_at(1500));
    }
}
