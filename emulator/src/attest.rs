//! The checks of a device's proof: tokens against keys, certificate chains against what is enrolled.

use crate::challenge::{Tpm, newest};
use crate::config::{Attestation, Kinder};
use crate::sas::{self, Token};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::SystemTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a client shows.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// The text of a token, as in an MQTT password or an `Authorization` header.
    Token(String),
    /// The chain of the TLS handshake, leaf first; possibly empty.
    Certificates(Vec<CertificateDer<'static>>),
}

/// Why a client is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("neither a token nor a certificate")]
    Nothing,
    #[error("another kind of credential is enrolled")]
    OtherKind,
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is for another resource")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the signature does not verify")]
    Signature,
    #[error("the certificate is refused: {0}")]
    Certificate(String),
    #[error("that is no registration ID")]
    Name,
    #[error("unknown ID scope")]
    Scope,
    #[error("unknown registration ID")]
    Device,
    #[error("the token has no skn")]
    KeyName,
    #[error("no challenge was asked for")]
    Unchallenged,
    #[error("another endorsement key is enrolled")]
    EndorsementKey,
    #[error("these keys are not those of the challenge")]
    OtherKeys,
    #[error("a TPM proves itself over HTTPS only")]
    Transport,
    #[error("the identity is disabled at the hub")]
    Disabled,
    #[error("the identity has not reached the hub yet")]
    NotYet,
}

/// What a token must be made for.
#[derive(Debug, Clone)]
pub(crate) struct Audience {
    resource: String,
    /// What `skn` may say; it may be missing, since Microsoft's Python client never sends it (DPS device API §18).
    key_name: Option<&'static str>,
}

impl Audience {
    /// A registration (DPS device API §4.1).
    pub(crate) fn registration(scope: &str, registration_id: &str) -> Self {
        Self { resource: format!("{scope}/registrations/{registration_id}"), key_name: Some("registration") }
    }

    /// A device at its hub (hub connection §3): no key name, since the key is the device's own.
    pub(crate) fn hub(hub: &str, device_id: &str) -> Self {
        Self { resource: format!("{hub}/devices/{device_id}"), key_name: None }
    }
}

/// What one device has to show, at DPS and at its hub.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// A token signed with one of these keys.
    Keys(Vec<Vec<u8>>),
    /// One of these very certificates.
    Certificate(Vec<CertificateDer<'static>>),
    /// A certificate that one of these CAs issued, itself or through intermediates that the client sends.
    IssuedBy(Vec<CertificateDer<'static>>),
    /// At DPS: a token signed with the key of the newest challenge.
    Tpm(Box<Tpm>),
    /// At a hub: a token signed with the last of the keys that a TPM was given.
    HubKeys(Vec<Vec<u8>>),
}

impl Proof {
    /// What an individual enrollment asks for.
    pub(crate) fn individual(attestation: &Attestation) -> Self {
        match attestation {
            Attestation::SymmetricKey(keys) => Self::Keys(keys.clone()),
            Attestation::X509(certificates) => Self::Certificate(certificates.clone()),
            Attestation::Tpm(key) => Self::Tpm(Box::new(Tpm::new((**key).clone()))),
        }
    }

    /// What a group asks for from the member `registration_id`.
    pub(crate) fn member(attestation: &Attestation, registration_id: &str) -> Self {
        match attestation {
            Attestation::SymmetricKey(keys) => {
                Self::Keys(keys.iter().map(|key| sas::derived_key(key, registration_id)).collect())
            }
            Attestation::X509(authorities) => Self::IssuedBy(authorities.clone()),
            Attestation::Tpm(_) => Self::individual(attestation),
        }
    }

    /// Checks `shown` for `audience`; a certificate's common name must be `name`, where one is given.
    pub(crate) fn admits(
        &self,
        shown: &Credential,
        audience: &Audience,
        name: Option<&str>,
        kinder: &[Kinder],
    ) -> Result<(), Refusal> {
        match (self, shown) {
            (Self::Keys(keys), Credential::Token(text)) => signed(&valid_token(text, audience, kinder)?, keys, kinder),
            (Self::HubKeys(keys), Credential::Token(text)) => {
                let keys = newest(keys, kinder.contains(&Kinder::HubKey));
                signed(&valid_token(text, audience, kinder)?, keys, kinder)
            }
            (Self::Tpm(tpm), Credential::Token(text)) => {
                let token = valid_token(text, audience, kinder)?;
                let keys = tpm.registration_keys(kinder);
                match (keys.is_empty(), &token.key_name) {
                    (true, _) => Err(Refusal::Unchallenged),
                    (false, None) if !kinder.contains(&Kinder::KeyName) => Err(Refusal::KeyName),
                    (false, _) => signed(&token, &keys, kinder),
                }
            }
            (Self::Keys(_) | Self::HubKeys(_) | Self::Tpm(_), Credential::Certificates(_)) => Err(Refusal::OtherKind),
            (Self::Certificate(_) | Self::IssuedBy(_), Credential::Token(_)) => Err(Refusal::OtherKind),
            (Self::Certificate(enrolled), Credential::Certificates(chain)) => {
                let leaf = leaf(chain, name, kinder)?;
                let same = enrolled.contains(leaf) || kinder.contains(&Kinder::Thumbprint);
                if same { Ok(()) } else { Err(certificate("its thumbprint is not the enrolled one")) }
            }
            (Self::IssuedBy(authorities), Credential::Certificates(chain)) => {
                let leaf = leaf(chain, name, kinder)?;
                if kinder.contains(&Kinder::Chain) { Ok(()) } else { chain_to(authorities, leaf, &chain[1..]) }
            }
        }
    }
}

fn signed<K: AsRef<[u8]>>(token: &Token, keys: &[K], kinder: &[Kinder]) -> Result<(), Refusal> {
    let signed = keys.iter().any(|key| token.is_signed_with(key.as_ref()));
    if signed || kinder.contains(&Kinder::Signature) { Ok(()) } else { Err(Refusal::Signature) }
}

/// Reads a token and checks all of it but the signature.
pub(crate) fn valid_token(text: &str, audience: &Audience, kinder: &[Kinder]) -> Result<Token, Refusal> {
    let token = Token::parse(text).ok_or(Refusal::Malformed)?;
    if token.key_name.is_some() && token.key_name.as_deref() != audience.key_name {
        return Err(Refusal::Malformed);
    }
    // Without regard to case: a client that lower-cases the resource is let in by the service (DPS device API §4.1).
    if !token.resource.eq_ignore_ascii_case(&audience.resource) && !kinder.contains(&Kinder::Audience) {
        return Err(Refusal::Audience);
    }
    if token.expiry <= now().as_secs() && !kinder.contains(&Kinder::Expiry) {
        return Err(Refusal::Expired);
    }
    Ok(token)
}

pub(crate) fn now() -> std::time::Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The leaf, if it is valid today and bears `name`.
fn leaf<'a>(
    chain: &'a [CertificateDer<'static>],
    name: Option<&str>,
    kinder: &[Kinder],
) -> Result<&'a CertificateDer<'static>, Refusal> {
    let leaf = chain.first().ok_or_else(|| certificate("none was sent"))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| certificate("it is no X.509"))?;
    if !parsed.validity().is_valid() && !kinder.contains(&Kinder::Expiry) {
        return Err(certificate("it is not valid today"));
    }
    let cn = parsed.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
    match name {
        Some(name) if !cn.eq_ignore_ascii_case(name) && !kinder.contains(&Kinder::Cn) => {
            Err(certificate("its common name is not the registration ID"))
        }
        _ => Ok(leaf),
    }
}

fn chain_to(
    authorities: &[CertificateDer<'_>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Refusal> {
    let refused = |error: webpki::Error| certificate(&format!("{error:?}"));
    let anchors = authorities.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(refused)?;
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        intermediates,
        UnixTime::since_unix_epoch(now()),
        webpki::KeyUsage::client_auth(),
        None,
        None,
    )
    .map(drop)
    .map_err(refused)
}

fn certificate(reason: &str) -> Refusal {
    Refusal::Certificate(reason.to_owned())
}
