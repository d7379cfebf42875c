//! A client certificate as Microsoft Entra ID takes it: a short-lived text that its key signs (DPS service API §6.4), for
//! `azure_identity`'s `ClientAssertionCredential`.
//!
//! The crate's own credential for certificates needs OpenSSL. This gives its general one the same text, made with `ring`.

use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::clock;
use crate::failure::{Blame, Failure};
use crate::secret;

/// In seconds; Microsoft's page says five to ten minutes.
const LIFETIME: u64 = 600;

/// Signs assertions for one application.
pub struct CertificateAssertion {
    client_id: String,
    audience: String,
    thumbprint: String,
    key: RsaKeyPair,
}

impl CertificateAssertion {
    /// `file` holds the certificate and its RSA key, both in PEM; `audience` is the URL of the token endpoint.
    ///
    /// # Errors
    /// If the file cannot be read, is open to others, or lacks one of the two.
    pub fn read(file: &Path, client_id: &str, audience: &str) -> Result<Self, Failure> {
        let text = secret::read(file)?;
        let wrong = |what: &str| Failure::new(Blame::Credential, format!("{}: {what}", file.display()));
        let certificate =
            CertificateDer::from_pem_slice(text.expose().as_bytes()).map_err(|_| wrong("no CERTIFICATE section in it"))?;
        let key = PrivateKeyDer::from_pem_slice(text.expose().as_bytes()).map_err(|_| wrong("no PRIVATE KEY section in it"))?;
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(_) | _ => return Err(wrong("its key is no RSA key, and Entra ID takes no other")),
        };
        let key = key.map_err(|error| wrong(&format!("its key is no RSA key of 2048 bits or more ({error})")))?;
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate));
        Ok(Self { client_id: client_id.to_owned(), audience: audience.to_owned(), thumbprint, key })
    }

    fn sign(&self, now: u64) -> Result<String, ring::error::Unspecified> {
        let mut unique = [0; 16];
        SystemRandom::new().fill(&mut unique)?;
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint }));
        let claims = part(json!({
            "aud": self.audience, "iss": self.client_id, "sub": self.client_id, "jti": URL_SAFE_NO_PAD.encode(unique),
            "iat": now, "nbf": now, "exp": now.saturating_add(LIFETIME),
        }));
        let message = format!("{header}.{claims}");
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[async_trait]
impl ClientAssertion for CertificateAssertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let failed =
            |_| azure_core::Error::with_message(azure_core::error::ErrorKind::Credential, "the certificate's key does not sign");
        self.sign(clock::now()).map_err(failed)
    }
}

impl fmt::Debug for CertificateAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAssertion").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}
