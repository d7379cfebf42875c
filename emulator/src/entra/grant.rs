//! The token endpoint: what a client shows for itself, and what is wrong with it (service API §6.4).

use super::Provider;
use super::jwt::{Jwt, thumbprint};
use crate::answer::{Answer, guid, timestamp};
use crate::attest::now;
use crate::config::{Client, Federated};
use crate::http::Request;
use crate::names::parameter;
use ring::digest;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Resources for which every tenant gives out tokens, whether or not there is anything to be had with them.
const OTHER_RESOURCES: [&str; 2] = ["https://management.azure.com", "https://vault.azure.net"];
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client that has shown who it is, and what it wants a token for.
pub(super) struct Proven<'a> {
    pub(super) client: &'a Client,
    pub(super) resource: String,
}

/// Why there is no token. Numbers and words are in the manner of Entra ID; of the words clients must not make anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the tenant is not found")]
    Tenant,
    #[error("the request body must contain {0}")]
    Missing(&'static str),
    #[error("the grant type is not client_credentials")]
    GrantType,
    #[error("the application is not found in the tenant")]
    Client,
    #[error("the scope does not end in /.default")]
    Scope,
    #[error("the resource is not found in the tenant")]
    Resource,
    #[error("the client secret is invalid")]
    Secret,
    #[error("the client assertion does not verify")]
    Assertion,
    #[error("the client assertion is not within its valid time range")]
    AssertionTime,
    #[error("the client assertion has another audience")]
    AssertionAudience,
    #[error("no federated identity matches the assertion's issuer")]
    Issuer,
    #[error("no federated identity matches the assertion's subject")]
    Subject,
    #[error("no federated identity matches the assertion's audience")]
    FederatedAudience,
    #[error("the token cannot be signed")]
    Signing,
}

impl Fault {
    fn code(self) -> (u16, &'static str, u32) {
        match self {
            Self::Tenant => (400, "invalid_request", 90_002),
            Self::Missing(_) => (400, "invalid_request", 900_144),
            Self::GrantType => (400, "unsupported_grant_type", 70_003),
            Self::Client => (400, "unauthorized_client", 700_016),
            Self::Scope => (400, "invalid_scope", 1_002_012),
            Self::Resource => (400, "invalid_resource", 500_011),
            Self::Secret => (401, "invalid_client", 7_000_215),
            Self::Assertion => (401, "invalid_client", 700_027),
            Self::AssertionTime => (401, "invalid_client", 700_024),
            Self::AssertionAudience => (401, "invalid_client", 700_023),
            Self::Issuer => (401, "invalid_client", 700_211),
            Self::Subject => (401, "invalid_client", 700_213),
            Self::FederatedAudience => (401, "invalid_client", 700_212),
            Self::Signing => (500, "server_error", 90_033),
        }
    }

    pub(super) fn answer(self, tenant: &str) -> Answer {
        let (status, error, code) = self.code();
        let (trace, correlation, time) = (guid(), guid(), timestamp());
        let body = json!({
            "error": error,
            "error_description": format!("AADSTS{code}: {self}. Tenant: {tenant} Trace ID: {trace}"),
            "error_codes": [code],
            "timestamp": time,
            "trace_id": trace,
            "correlation_id": correlation,
        });
        Answer::json(status, &body)
    }
}

impl Provider {
    /// Checks a request for a token; `audience` is that of the service API.
    pub(super) fn grant(&self, request: &Request, audience: &str) -> Result<Proven<'_>, Fault> {
        let form = String::from_utf8_lossy(&request.body).replace('+', "%20");
        let field = |name: &'static str| parameter(&form, name).filter(|value| !value.is_empty());
        if field("grant_type").ok_or(Fault::Missing("grant_type"))? != "client_credentials" {
            return Err(Fault::GrantType);
        }
        let client_id = field("client_id").ok_or(Fault::Missing("client_id"))?;
        let scope = field("scope").ok_or(Fault::Missing("scope"))?;
        let client = self.client(&client_id).ok_or(Fault::Client)?;
        match (field("client_secret"), field("client_assertion")) {
            (Some(secret), _) if client.secret.as_ref() == Some(&secret) => {}
            (Some(_), _) => return Err(Fault::Secret),
            (None, Some(_)) if field("client_assertion_type").as_deref() != Some(ASSERTION) => {
                return Err(Fault::Missing("client_assertion_type"));
            }
            (None, Some(assertion)) => self.check_assertion(client, &assertion)?,
            (None, None) => return Err(Fault::Missing("client_assertion or client_secret")),
        }
        let resource = scope.strip_suffix("/.default").ok_or(Fault::Scope)?.to_owned();
        let known = resource == audience || OTHER_RESOURCES.contains(&resource.as_str());
        if known { Ok(Proven { client, resource }) } else { Err(Fault::Resource) }
    }

    pub(super) fn client(&self, client_id: &str) -> Option<&Client> {
        self.config.clients.iter().find(|client| client.client_id.eq_ignore_ascii_case(client_id))
    }

    /// An assertion is the client's own, signed with its certificate's key, or another issuer's that stands for it.
    fn check_assertion(&self, client: &Client, text: &str) -> Result<(), Fault> {
        let assertion = Jwt::parse(text).ok_or(Fault::Assertion)?;
        let is_own = assertion.claim("iss").eq_ignore_ascii_case(&client.client_id);
        match (&client.certificate, &client.federated) {
            (Some(certificate), _) if is_own => self.check_own(client, certificate, &assertion),
            (_, Some(federated)) => check_federated(federated, &assertion),
            (_, None) => Err(Fault::Issuer),
        }
    }

    fn check_own(&self, client: &Client, certificate: &CertificateDer<'_>, assertion: &Jwt) -> Result<(), Fault> {
        if !is_named(certificate, assertion) || !is_signed(certificate, assertion) {
            return Err(Fault::Assertion);
        }
        // The token endpoint today, the issuer in older documents.
        let audience = assertion.claim("aud").trim_end_matches('/');
        if audience != self.token_endpoint() && audience != self.issuer() {
            return Err(Fault::AssertionAudience);
        }
        if !assertion.claim("sub").eq_ignore_ascii_case(&client.client_id) {
            return Err(Fault::Subject);
        }
        in_time(assertion)
    }
}

fn check_federated(federated: &Federated, assertion: &Jwt) -> Result<(), Fault> {
    if assertion.claim("iss") != federated.issuer {
        return Err(Fault::Issuer);
    }
    if assertion.claim("sub") != federated.subject {
        return Err(Fault::Subject);
    }
    if assertion.claim("aud") != federated.audience {
        return Err(Fault::FederatedAudience);
    }
    if !is_signed(&federated.key, assertion) {
        return Err(Fault::Assertion);
    }
    in_time(assertion)
}

fn in_time(assertion: &Jwt) -> Result<(), Fault> {
    if assertion.is_valid_at(now().as_secs()) { Ok(()) } else { Err(Fault::AssertionTime) }
}

/// Whether the header names this certificate, by its SHA-256 or its SHA-1.
fn is_named(certificate: &CertificateDer<'_>, assertion: &Jwt) -> bool {
    let thumbprints = [("x5t#S256", &digest::SHA256), ("x5t", &digest::SHA1_FOR_LEGACY_USE_ONLY)];
    let is = |(name, algorithm): (&str, &'static digest::Algorithm)| {
        thumbprint(assertion.header(name)).is_some_and(|named| named == digest::digest(algorithm, certificate).as_ref())
    };
    thumbprints.into_iter().any(is)
}

fn is_signed(certificate: &CertificateDer<'_>, token: &Jwt) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, parsed)| token.is_signed_with(&parsed.public_key().subject_public_key.data))
}
