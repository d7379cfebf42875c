//! The service API (DPS service API §2): one request, one answer, and what a refusal means.

use std::sync::Arc;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::Policy;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{
    ClientMethodOptions, ClientOptions, Method, Pipeline, PipelineSendOptions, RawResponse, Request, Transport, Url,
};
use serde_json::{Value, json};

use crate::failure::{Answer, Blame, Failure};
use crate::http;
use crate::pace::{Cost, Pace};
use crate::patience::Patience;
use crate::permission::{Lack, Permission, Scheme};
use crate::sas::{PolicyKey, encode};
use crate::sign_in::SignedIn;

/// The stable version (DPS service API §1).
const API_VERSION: &str = "2021-10-01";
/// As many as a bulk may hold (DPS service API §1).
pub const BULK: usize = 10;
/// As many as we ask for on one page; the service may give fewer.
const PAGE: usize = 100;

const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const PAGE_SIZE: HeaderName = HeaderName::from_static("x-ms-max-item-count");
const IF_MATCH: HeaderName = HeaderName::from_static("if-match");

/// Individual enrollments, or groups of them: the same operations at two paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One device each.
    Individual,
    /// Many devices each.
    Group,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Individual => "enrollments",
            Self::Group => "enrollmentGroups",
        }
    }

    /// The member that names it.
    pub fn id_member(self) -> &'static str {
        match self {
            Self::Individual => "registrationId",
            Self::Group => "enrollmentGroupId",
        }
    }

    /// In words.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Individual => "enrollment",
            Self::Group => "enrollment group",
        }
    }

    fn read(self) -> Permission {
        match self {
            Self::Individual => Permission::EnrollmentsRead,
            Self::Group => Permission::GroupsRead,
        }
    }

    fn write(self) -> Permission {
        match self {
            Self::Individual => Permission::EnrollmentsWrite,
            Self::Group => Permission::GroupsWrite,
        }
    }

    fn delete(self) -> Permission {
        match self {
            Self::Individual => Permission::EnrollmentsDelete,
            Self::Group => Permission::GroupsDelete,
        }
    }
}

/// What a bulk does with its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bulk {
    /// Each must be new.
    Create,
    /// Each must have the ETag that comes with it.
    UpdateIfMatch,
}

/// One record of a bulk that the service did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which one.
    pub id: String,
    /// Six digits, the first three an HTTP status.
    pub code: i64,
    /// The service's words.
    pub words: String,
}

/// By what we ask.
#[derive(Debug)]
pub enum Credential {
    /// A token of Microsoft Entra ID.
    Entra(SignedIn, String),
    /// A policy's key.
    Key(PolicyKey),
}

/// A DPS instance that can be asked.
#[derive(Debug)]
pub struct Service {
    pipeline: Pipeline,
    host: String,
    scheme: Scheme,
}

/// A request, before it is sent.
struct Ask<'a> {
    permission: Permission,
    method: Method,
    path: String,
    body: Option<Value>,
    headers: Vec<(HeaderName, &'a str)>,
    cost: u32,
}

impl<'a> Ask<'a> {
    fn new(permission: Permission, method: Method, path: String) -> Self {
        Self { permission, method, path, body: None, headers: Vec::new(), cost: 1 }
    }

    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn header(mut self, name: HeaderName, value: Option<&'a str>) -> Self {
        self.headers.extend(value.map(|value| (name, value)));
        self
    }

    fn cost(self, cost: u32) -> Self {
        Self { cost, ..self }
    }
}

impl Service {
    /// The instance `host`, reached by `transport` at `rate` operations a minute.
    pub fn new(host: String, credential: Credential, transport: Transport, rate: u32) -> Self {
        let (scheme, auth): (_, Arc<dyn Policy>) = match credential {
            Credential::Entra(signed_in, scope) => {
                (Scheme::Entra, Arc::new(BearerTokenAuthorizationPolicy::new(signed_in.credential, [scope])))
            }
            Credential::Key(key) => (Scheme::PolicyKey, Arc::new(key)),
        };
        // A throttled minute and a short outage are waited for; longer ones are told.
        let options = ClientOptions {
            transport: Some(transport),
            retry: http::retries(8, Duration::from_secs(300)),
            ..ClientOptions::default()
        };
        let tries: Vec<Arc<dyn Policy>> = vec![Arc::new(Patience::new(host.clone())), Arc::new(Pace::new(rate)), auth];
        let (name, version) = (Some(env!("CARGO_PKG_NAME")), Some(env!("CARGO_PKG_VERSION")));
        Self { pipeline: Pipeline::new(name, version, options, Vec::new(), tries, None), host, scheme }
    }

    /// The instance's host name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// E1, G1: one record without its keys; `None` if there is none.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Option<Value>, Failure> {
        self.find(Ask::new(kind.read(), Method::Get, path(&[kind.path(), id]))).await
    }

    /// E2, G2: creates or replaces a record as a whole; with an ETag only if it still has that.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn put(&self, kind: Kind, id: &str, record: Value, etag: Option<&str>) -> Result<Value, Failure> {
        let ask = Ask::new(kind.write(), Method::Put, path(&[kind.path(), id])).body(record).header(IF_MATCH, etag);
        self.ask(ask).await.and_then(|(_, body)| json_of(&body))
    }

    /// E3, G3: deletes a record; with `*` whatever its ETag is.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn delete(&self, kind: Kind, id: &str, etag: &str) -> Result<(), Failure> {
        self.ask(Ask::new(kind.delete(), Method::Delete, path(&[kind.path(), id])).header(IF_MATCH, Some(etag))).await.map(drop)
    }

    /// E4, G4: the pages of a query.
    pub fn query(&self, kind: Kind, query: &str) -> Pages<'_> {
        let body = json!({ "query": query });
        Pages { service: self, permission: kind.read(), path: path(&[kind.path(), "query"]), body: Some(body), next: Some(None) }
    }

    /// E5, G5: creates or changes at most [`BULK`] records; those that were not taken.
    ///
    /// # Errors
    /// What the service or the way to it says of all of them.
    pub async fn bulk(&self, kind: Kind, mode: Bulk, records: Vec<Value>) -> Result<Vec<Rejected>, Failure> {
        let mode = match mode {
            Bulk::Create => "create",
            Bulk::UpdateIfMatch => "updateIfMatchETag",
        };
        let cost = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let body = json!({ "mode": mode, kind.path(): records });
        let (_, body) = self.ask(Ask::new(kind.write(), Method::Post, path(&[kind.path()])).body(body).cost(cost)).await?;
        let answer = json_of(&body)?;
        let errors = answer["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rejected: Vec<_> = errors.iter().map(|error| rejected(kind, error)).collect();
        if rejected.is_empty() && answer["isSuccessful"] != true {
            return Err(Failure::new(
                Blame::Refused,
                format!("{} says that a bulk failed, and not which of its records", self.host),
            ));
        }
        Ok(rejected)
    }

    /// E6, G6: the attestation with its keys; `None` if there is no such record.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn attestation(&self, kind: Kind, id: &str) -> Result<Option<Value>, Failure> {
        let path = path(&[kind.path(), id, "attestationmechanism"]);
        self.find(Ask::new(Permission::AttestationDetails, Method::Post, path)).await
    }

    /// R1: what became of a device's registration; `None` if it never registered.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn state(&self, id: &str) -> Result<Option<Value>, Failure> {
        self.find(Ask::new(Permission::StatesRead, Method::Get, path(&["registrations", id]))).await
    }

    /// R2: lets the service forget a registration.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn delete_state(&self, id: &str, etag: &str) -> Result<(), Failure> {
        let ask = Ask::new(Permission::StatesDelete, Method::Delete, path(&["registrations", id]));
        self.ask(ask.header(IF_MATCH, Some(etag))).await.map(drop)
    }

    /// R3: the registrations of a group's devices.
    pub fn states(&self, group: &str) -> Pages<'_> {
        let path = path(&["registrations", group, "query"]);
        Pages { service: self, permission: Permission::StatesRead, path, body: None, next: Some(None) }
    }

    async fn find(&self, ask: Ask<'_>) -> Result<Option<Value>, Failure> {
        match self.ask(ask).await {
            Ok((_, body)) => json_of(&body).map(Some),
            Err(failure) if failure.answer.as_ref().is_some_and(|answer| answer.status == 404) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<(Headers, Vec<u8>), Failure> {
        let url = format!("https://{}{}?api-version={API_VERSION}", self.host, ask.path);
        let url =
            Url::parse(&url).map_err(|error| Failure::new(Blame::Usage, format!("{:?} is no host name ({error})", self.host)))?;
        let mut request = Request::new(url, ask.method);
        request.insert_header("accept", "application/json");
        for (name, value) in ask.headers {
            request.insert_header(name, value.to_owned());
        }
        if let Some(body) = &ask.body {
            request.insert_header("content-type", "application/json; charset=utf-8");
            request.set_body(body.to_string());
        } else if ask.method == Method::Post {
            request.set_body(Vec::new());
        }
        let method = ClientMethodOptions::default();
        let context = method.context.with_value(Cost(ask.cost));
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let answer = self.pipeline.send(&context, &mut request, Some(options)).await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            let (_, headers, body) = answer.deconstruct();
            return Ok((headers, body.to_vec()));
        }
        Err(self.refusal(ask.permission, &answer))
    }

    fn unreachable(&self, error: &azure_core::Error) -> Failure {
        let blame = if http::is_untrusted(error) {
            Blame::Untrusted
        } else if *error.kind() == ErrorKind::Credential {
            Blame::Credential
        } else {
            Blame::Network
        };
        Failure::new(blame, format!("{} cannot be asked: {}", self.host, http::chain(error)))
    }

    fn refusal(&self, permission: Permission, answer: &RawResponse) -> Failure {
        let status = u16::from(answer.status());
        let body: Value = serde_json::from_slice(answer.body().as_ref()).unwrap_or_default();
        let said = body["message"].as_str().map(|message| format!(" ({})", printable(message))).unwrap_or_default();
        let found =
            Answer { status, error_code: body["errorCode"].as_i64(), tracking_id: body["trackingId"].as_str().map(printable) };
        let tracking = found.tracking_id.as_ref().map(|id| format!("\ntracking ID for Microsoft: {id}")).unwrap_or_default();
        let (blame, lack, meaning) = match status {
            401 | 403 => {
                let lack = Lack { permission, scheme: self.scheme, instance: self.host.clone() };
                let meaning = format!("\n{lack}");
                (Blame::Unauthorized, Some(lack), meaning)
            }
            404 => (Blame::Refused, None, ": there is no such record, or it is another instance's".to_owned()),
            409 => (Blame::Refused, None, ": somebody else is writing the same record; try again".to_owned()),
            412 => (Blame::Refused, None, ": the record was changed since it was read; look at it and try again".to_owned()),
            408 | 429 | 500.. => {
                (Blame::Network, None, ": the service is busy, for longer than we waited; try again later".to_owned())
            }
            _ => (Blame::Refused, None, String::new()),
        };
        let message = format!("{} answered {status}{said}{meaning}{tracking}", self.host);
        Failure { blame, message, answer: Some(found), lack }
    }
}

/// The pages of a list, read one after the other.
#[derive(Debug)]
pub struct Pages<'a> {
    service: &'a Service,
    permission: Permission,
    path: String,
    body: Option<Value>,
    /// Where to go on; the outer `None` is behind the last page.
    next: Option<Option<String>>,
}

impl Pages<'_> {
    /// The next page; `None` behind the last one. A page may be empty and not the last.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, Failure> {
        let Some(continuation) = self.next.take() else { return Ok(None) };
        let size = PAGE.to_string();
        let ask = Ask { body: self.body.clone(), ..Ask::new(self.permission, Method::Post, self.path.clone()) };
        let ask = ask.header(PAGE_SIZE, Some(&size)).header(CONTINUATION, continuation.as_deref());
        let (headers, body) = self.service.ask(ask).await?;
        self.next = headers.get_optional_string(&CONTINUATION).filter(|next| !next.is_empty()).map(Some);
        let Value::Array(page) = json_of(&body)? else {
            return Err(Failure::new(Blame::Refused, format!("{} answered something else than a list", self.service.host)));
        };
        Ok(Some(page))
    }

    /// Whether the last page has been read.
    pub fn is_at_end(&self) -> bool {
        self.next.is_none()
    }

    /// All that is left, or the first `limit` of it.
    ///
    /// # Errors
    /// What the service or the way to it says.
    pub async fn collect(mut self, limit: usize) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        while all.len() < limit {
            let Some(page) = self.next().await? else { break };
            all.extend(page);
        }
        all.truncate(limit);
        Ok(all)
    }
}

fn path(segments: &[&str]) -> String {
    segments.iter().map(|segment| format!("/{}", encode(segment))).collect()
}

fn rejected(kind: Kind, error: &Value) -> Rejected {
    Rejected {
        id: error[kind.id_member()].as_str().unwrap_or_default().to_owned(),
        code: error["errorCode"].as_i64().unwrap_or_default(),
        words: printable(error["errorStatus"].as_str().unwrap_or("no reason given")),
    }
}

fn json_of(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::new(Blame::Refused, format!("the service's answer is no JSON ({error})")))
}

/// What somebody else wrote, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
