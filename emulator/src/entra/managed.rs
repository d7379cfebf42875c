//! The managed-identity endpoints of a VM and of App Service: plain HTTP on a machine's own address (service API §6.1, §6.2).

use super::{Provider, SPEAKER};
use crate::answer::Answer;
use crate::config::Client;
use crate::http::{Reader, Request, to_bytes};
use crate::names::parameter;
use crate::service::Service;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const VM: &str = "/metadata/identity/oauth2/token";
const APP_SERVICE: &str = "/msi/token";

/// Serves one connection to its end.
pub(crate) async fn connection(service: Arc<Service>, mut stream: TcpStream) {
    let mut reader = Reader::default();
    while let Ok(request) = reader.next(&mut stream).await {
        service.say(Some(SPEAKER), format!("> {} {}", request.method, request.path));
        let answer = service
            .api
            .entra
            .as_ref()
            .map_or_else(|| Answer::raw(404, Vec::new()), |provider| provider.managed(&service, &request));
        service.say_answer(Some(SPEAKER), &answer);
        if stream.write_all(&to_bytes(&answer, request.keep_alive)).await.is_err() || !request.keep_alive {
            return;
        }
    }
}

impl Provider {
    fn managed(&self, service: &Service, request: &Request) -> Answer {
        let refused = match request.path.as_str() {
            VM => self.check_vm(request),
            APP_SERVICE => self.check_app_service(request),
            _ => return Answer::raw(404, Vec::new()),
        };
        let given = refused.and_then(|()| self.identity_token(request, &service.api.config.audience));
        given.unwrap_or_else(|refused| refused)
    }

    fn check_vm(&self, request: &Request) -> Result<(), Answer> {
        let asked = request.header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if !asked || request.header("x-forwarded-for").is_some() {
            return Err(refusal(400, "invalid_request", "Required metadata header not specified, or X-Forwarded-For is there"));
        }
        check(request, &["2018-02-01", "2019-08-01", "2021-02-01"])
    }

    fn check_app_service(&self, request: &Request) -> Result<(), Answer> {
        if request.header("x-identity-header") != Some(&self.config.identity_header) {
            return Err(refusal(401, "unauthorized", "X-IDENTITY-HEADER is missing or wrong"));
        }
        check(request, &["2019-08-01"])
    }

    fn identity_token(&self, request: &Request, audience: &str) -> Result<Answer, Answer> {
        let resource = parameter(&request.query, "resource").unwrap_or_default();
        if resource.trim_end_matches('/') != audience {
            return Err(refusal(400, "invalid_resource", "AADSTS500011: the resource is not found in the tenant"));
        }
        let unknown = || refusal(400, "invalid_request", "Identity not found");
        let client = self.identity(request).ok_or_else(unknown)?;
        let body = self.identity_body(client, audience).ok_or_else(|| refusal(500, "unknown", "No token"))?;
        Ok(Answer::json(200, &body))
    }

    /// The identity that is asked for by an ID, or the machine's own: the first one.
    fn identity(&self, request: &Request) -> Option<&Client> {
        let mut managed = self.config.clients.iter().filter(|client| client.managed);
        let by = |name: &str| parameter(&request.query, name);
        match (by("client_id"), by("object_id").or_else(|| by("principal_id"))) {
            (Some(id), _) => managed.find(|client| client.client_id.eq_ignore_ascii_case(&id)),
            (None, Some(id)) => managed.find(|client| client.object_id.eq_ignore_ascii_case(&id)),
            (None, None) => managed.next(),
        }
    }

    /// Its numbers are texts (service API §6.1).
    fn identity_body(&self, client: &Client, audience: &str) -> Option<Value> {
        let (token, end) = self.access_token(client, audience)?;
        let seconds = self.config.token_lifetime;
        Some(json!({
            "access_token": token,
            "client_id": client.client_id,
            "expires_in": seconds.to_string(),
            "expires_on": end.to_string(),
            "ext_expires_in": seconds.to_string(),
            "not_before": end.saturating_sub(seconds).to_string(),
            "resource": audience,
            "token_type": "Bearer",
        }))
    }
}

fn check(request: &Request, versions: &[&str]) -> Result<(), Answer> {
    if request.method != "GET" {
        return Err(Answer::raw(405, Vec::new()));
    }
    match parameter(&request.query, "api-version") {
        Some(version) if versions.contains(&version.as_str()) => Ok(()),
        Some(_) | None => Err(refusal(400, "bad_request_102", "The api-version is missing or unknown")),
    }
}

fn refusal(status: u16, error: &str, description: &str) -> Answer {
    Answer::json(status, &json!({"error": error, "error_description": description}))
}
