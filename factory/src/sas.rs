//! The key of a shared access policy, and the tokens that it signs (DPS service API §4): a new one for each request, for ten minutes.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::headers::AUTHORIZATION;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};

use crate::clock;
use crate::secret::Key;

/// In seconds, as the Azure CLI has it.
const LIFETIME: u64 = 600;

/// `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`, understood.
#[derive(Debug, Clone)]
pub struct PolicyKey {
    host: String,
    name: String,
    key: Key,
}

impl PolicyKey {
    /// Understands a connection string. The error does not quote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let part = |name: &str| {
            let part = text.trim().split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            part.filter(|value| !value.is_empty()).map(str::to_owned).ok_or_else(|| {
                format!("no {name}= in it; it is HostName=…;SharedAccessKeyName=…;SharedAccessKey=…, as the portal shows it")
            })
        };
        let key = Key::parse(&part("SharedAccessKey")?).map_err(|wrong| format!("its SharedAccessKey: {wrong}"))?;
        Ok(Self { host: part("HostName")?.to_ascii_lowercase(), name: part("SharedAccessKeyName")?, key })
    }

    /// The instance that the key belongs to.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn token(&self, now: u64) -> String {
        let resource = encode(self.host.split(':').next().unwrap_or_default());
        let expiry = now.saturating_add(LIFETIME);
        let signature =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, self.key.sign(&format!("{resource}\n{expiry}")));
        format!("SharedAccessSignature sr={resource}&sig={}&se={expiry}&skn={}", encode(&signature), encode(&self.name))
    }
}

#[async_trait]
impl Policy for PolicyKey {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header(AUTHORIZATION, self.token(clock::now()));
        match next.split_first() {
            Some((first, rest)) => first.send(context, request, rest).await,
            None => Err(azure_core::Error::with_message(azure_core::error::ErrorKind::Other, "nobody sends the request")),
        }
    }
}

/// Percent-encoding of everything but the characters that RFC 3986 calls unreserved.
pub fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_computed_one() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap();
        let case = vectors["sas_tokens"].as_array().unwrap().iter().find(|case| case["id"] == "dps-service-policy").unwrap();
        let text = |name: &str| case[name].as_str().unwrap();
        let policy =
            format!("HostName={};SharedAccessKeyName={};SharedAccessKey={}", text("resource_uri"), text("skn"), text("key_b64"));
        let now = case["se"].as_u64().unwrap() - LIFETIME;
        assert_eq!(PolicyKey::parse(&policy).unwrap().token(now), text("token"));
    }

    #[test]
    fn a_connection_string_that_lacks_something_is_not_quoted() {
        let lacking = PolicyKey::parse("HostName=h;SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ=").unwrap_err();
        assert!(lacking.starts_with("no SharedAccessKeyName= in it"), "{lacking}");
        let wrong = PolicyKey::parse("HostName=h;SharedAccessKeyName=n;SharedAccessKey=not base64").unwrap_err();
        assert_eq!(wrong, "its SharedAccessKey: it is not base64");
        assert!(
            !format!("{:?}", PolicyKey::parse("HostName=h;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ="))
                .contains("c2V")
        );
    }

    #[test]
    fn an_id_is_one_segment_of_a_path() {
        assert_eq!(encode("e0:12'(!)*/ä-._~"), "e0%3A12%27%28%21%29%2A%2F%C3%A4-._~");
    }
}
