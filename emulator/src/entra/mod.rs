//! A small identity provider in the manner of Microsoft Entra ID: it gives out access tokens for the service API and verifies them.

mod grant;
mod jwt;
pub(crate) mod managed;

use crate::answer::Answer;
use crate::attest::now;
use crate::config::{self, Client, Kinder};
use crate::http::Request;
use crate::pki::{Key, PkiError};
use crate::service::Service;
use grant::{Fault, Proven};
use jwt::{Jwt, Signer};
use serde_json::{Value, json};

/// Whose the lines of a transcript are.
pub(crate) const SPEAKER: &str = "entra";

/// The identity provider of one tenant.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) config: config::Entra,
    signer: Signer,
    /// `https://host[:port]/tenant`
    base: String,
}

/// Why an access token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("there is no identity provider")]
    NoProvider,
    #[error("it is malformed")]
    Malformed,
    #[error("the provider's key has not signed it")]
    Signature,
    #[error("another issuer made it")]
    Issuer,
    #[error("it is for another audience")]
    Audience,
    #[error("it is not valid now")]
    Time,
    #[error("its principal is unknown")]
    Principal,
}

impl Provider {
    /// A provider that clients reach at `port`.
    pub(crate) fn new(config: config::Entra, key: &Key, port: u16) -> Result<Self, PkiError> {
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let base = format!("https://{}{port}/{}", config.host, config.tenant);
        Ok(Self { config, signer: Signer::new(key)?, base })
    }

    /// What the tokens name as their issuer.
    pub(crate) fn issuer(&self) -> String {
        format!("{}/v2.0", self.base)
    }

    fn token_endpoint(&self) -> String {
        format!("{}/oauth2/v2.0/token", self.base)
    }

    /// The client behind an access token for `audience`: all of it is verified.
    pub(crate) fn principal(&self, token: &str, audience: &str, kinder: &[Kinder]) -> Result<&Client, Refused> {
        let token = Jwt::parse(token).ok_or(Refused::Malformed)?;
        let signed = token.header("alg") == "RS256"
            && token.header("kid") == self.signer.key_id()
            && token.is_signed_with(self.signer.public());
        if !signed && !kinder.contains(&Kinder::Signature) {
            return Err(Refused::Signature);
        }
        if token.claim("iss") != self.issuer() || token.claim("tid") != self.config.tenant {
            return Err(Refused::Issuer);
        }
        if token.claim("aud") != audience && !kinder.contains(&Kinder::Audience) {
            return Err(Refused::Audience);
        }
        if !token.is_valid_at(now().as_secs()) && !kinder.contains(&Kinder::Expiry) {
            return Err(Refused::Time);
        }
        self.config.clients.iter().find(|client| client.object_id == token.claim("oid")).ok_or(Refused::Principal)
    }

    /// An access token of `client` for `resource`, and the second since 1970 in which it ends.
    fn access_token(&self, client: &Client, resource: &str) -> Option<(String, u64)> {
        let now = now().as_secs();
        let end = now + self.config.token_lifetime;
        let token = self.signer.sign(&json!({
            "aud": resource,
            "iss": self.issuer(),
            "iat": now,
            "nbf": now,
            "exp": end,
            "azp": client.client_id,
            "appid": client.client_id,
            "oid": client.object_id,
            "sub": client.object_id,
            "tid": self.config.tenant,
            "idtyp": "app",
            "ver": "2.0",
        }));
        Some((token?, end))
    }

    /// OpenID Connect Discovery 1.0.
    fn metadata(&self) -> Value {
        json!({
            "issuer": self.issuer(),
            "authorization_endpoint": format!("{}/oauth2/v2.0/authorize", self.base),
            "token_endpoint": self.token_endpoint(),
            "jwks_uri": format!("{}/discovery/v2.0/keys", self.base),
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        })
    }

    /// What clients ask of the public cloud's authority about another one.
    fn discovery(&self) -> Value {
        let host = self.base.split('/').nth(2).unwrap_or_default();
        json!({
            "tenant_discovery_endpoint": format!("{}/.well-known/openid-configuration", self.issuer()),
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        })
    }
}

/// A call of the identity provider.
#[derive(Debug)]
pub(crate) struct Call {
    tenant: String,
    page: Page,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Token,
    Metadata,
    Keys,
    Discovery,
}

impl Call {
    /// Reads the path. `None`: it is no path of the provider.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let parts: Vec<&str> = request.path.split('/').skip(1).collect();
        let (tenant, page) = match parts.as_slice() {
            [tenant, "oauth2", "v2.0", "token"] => (tenant, Page::Token),
            [tenant, "v2.0", ".well-known", "openid-configuration"] => (tenant, Page::Metadata),
            [tenant, "discovery", "v2.0", "keys"] => (tenant, Page::Keys),
            [tenant, "discovery", "instance"] => (tenant, Page::Discovery),
            _ => return None,
        };
        Some(Self { tenant: (*tenant).to_owned(), page })
    }

    /// Answers it.
    pub(crate) fn answer(&self, service: &Service, request: &Request) -> Answer {
        let Some(provider) = &service.api.entra else {
            return Answer::raw(404, Vec::new());
        };
        let known = self.page == Page::Discovery || self.tenant.eq_ignore_ascii_case(&provider.config.tenant);
        if !known {
            return Fault::Tenant.answer(&self.tenant);
        }
        let method = if self.page == Page::Token { "POST" } else { "GET" };
        if request.method != method {
            return Answer::raw(405, Vec::new());
        }
        match self.page {
            Page::Metadata => Answer::json(200, &provider.metadata()),
            Page::Keys => Answer::json(200, &json!({"keys": [provider.signer.jwk()]})),
            Page::Discovery => Answer::json(200, &provider.discovery()),
            Page::Token => provider.token(service, request),
        }
    }
}

impl Provider {
    fn token(&self, service: &Service, request: &Request) -> Answer {
        let granted = self.grant(request, &service.api.config.audience);
        if let Err(fault) = &granted {
            service.say(Some(SPEAKER), format!("# refused: {fault}"));
        }
        match granted.and_then(|granted| self.given(&granted).ok_or(Fault::Signing)) {
            Ok(body) => Answer::json(200, &body),
            Err(fault) => fault.answer(&self.config.tenant),
        }
    }

    /// The numbers are numbers here, unlike those of a managed identity (service API §6.4).
    fn given(&self, granted: &Proven<'_>) -> Option<Value> {
        let (token, _) = self.access_token(granted.client, &granted.resource)?;
        let seconds = self.config.token_lifetime;
        Some(json!({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token}))
    }
}
