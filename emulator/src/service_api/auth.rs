//! Who calls the service API: a shared access policy (service API §4) or a principal of Entra ID (§5). Nobody else: a device's token
//! is none of a policy's.

use super::access::Operation;
use crate::attest::now;
use crate::config::{Client, Kinder, Policy};
use crate::entra;
use crate::sas::Token;
use crate::service::Service;

/// Whoever has proved to be somebody.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller<'a> {
    Policy(&'a Policy),
    Principal(&'a Client),
}

/// Why a caller is refused; what it is told is the same for all of one status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("no Authorization header")]
    Nothing,
    #[error("Authorization is neither SharedAccessSignature nor Bearer")]
    Scheme,
    #[error("the shared access signature is malformed")]
    Malformed,
    #[error("no policy is called {0}")]
    Policy(String),
    #[error("the token is for another resource")]
    Resource,
    #[error("the token has expired")]
    Expired,
    #[error("the signature does not verify")]
    Signature,
    #[error("the access token is refused: {0}")]
    Bearer(#[from] entra::Refused),
    #[error("policy {0} lacks a right for {1}")]
    Right(String, &'static str),
    #[error("no role of {0} allows {1}")]
    Permission(String, &'static str),
}

impl Service {
    /// Finds out who calls `path` (as received).
    pub(super) fn caller(&self, authorization: Option<&str>, path: &str) -> Result<Caller<'_>, Denied> {
        let text = authorization.ok_or(Denied::Nothing)?;
        if text.starts_with("SharedAccessSignature ") {
            return self.policy(text, path).map(Caller::Policy);
        }
        let bearer = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
        let (_, token) = bearer.ok_or(Denied::Scheme)?;
        Ok(Caller::Principal(self.api.principal(token.trim(), &self.config.kinder)?))
    }

    fn policy(&self, text: &str, path: &str) -> Result<&Policy, Denied> {
        let token = Token::parse(text).ok_or(Denied::Malformed)?;
        let name = token.key_name.clone().ok_or(Denied::Malformed)?;
        let policy = self.api.config.policies.iter().find(|policy| policy.name == name).ok_or(Denied::Policy(name))?;
        if !self.is_for(&token.resource, path) && !self.is_kinder(Kinder::Audience) {
            return Err(Denied::Resource);
        }
        if token.expiry <= now().as_secs() && !self.is_kinder(Kinder::Expiry) {
            return Err(Denied::Expired);
        }
        let signed = policy.keys.iter().any(|key| token.is_signed_with(key));
        if signed || self.is_kinder(Kinder::Signature) { Ok(policy) } else { Err(Denied::Signature) }
    }

    /// A token is for the instance host, or for a part of its paths.
    fn is_for(&self, resource: &str, path: &str) -> bool {
        let (resource, asked) = (resource.to_lowercase(), format!("{}{path}", self.api.config.host).to_lowercase());
        asked.strip_prefix(&resource).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether the caller may do this.
    pub(super) fn allow(&self, caller: Caller<'_>, operation: Operation) -> Result<(), Denied> {
        let permission = operation.permission();
        match caller {
            Caller::Policy(policy) if operation.rights().iter().all(|right| policy.rights.contains(right)) => Ok(()),
            Caller::Policy(policy) => Err(Denied::Right(policy.name.clone(), permission)),
            Caller::Principal(client) if self.api.config.place.allows(&client.assignments, operation) => Ok(()),
            Caller::Principal(client) => Err(Denied::Permission(client.client_id.clone(), permission)),
        }
    }
}

impl Denied {
    /// A Bearer token without the permission gets 401 or 403, which one is UNCONFIRMED; everything else 401.
    pub(super) fn status(&self, not_allowed: u16) -> u16 {
        match self {
            Self::Permission(..) => not_allowed,
            Self::Nothing
            | Self::Scheme
            | Self::Malformed
            | Self::Policy(_)
            | Self::Resource
            | Self::Expired
            | Self::Signature
            | Self::Bearer(_)
            | Self::Right(..) => 401,
        }
    }
}
