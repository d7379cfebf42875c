//! The service API: enrollments, groups and registration states on the instance host, for back ends and never for devices.

pub(crate) mod access;
mod auth;
mod body;
mod bulk;
mod enrollments;
mod page;
mod rate;
mod record;
mod registrations;
mod view;

use crate::answer::Answer;
use crate::config;
use crate::entra::{Provider, Refused};
use crate::http::{Request, check_form};
use crate::names::{parameter, percent_decode};
use crate::service::{Service, State};
use access::{Kind, Operation};
use auth::{Caller, Denied};
use body::{Body, Known};
use bulk::Bulk;
use enrollments::{Condition, Obstacle};
use page::{List, Page};
use serde_json::{Value, json};
use std::time::Instant;

pub(crate) use rate::Rate;
pub(crate) use record::Record;

/// Whose the lines of a transcript are.
pub(crate) const SPEAKER: &str = "service-api";

/// What the service API works with.
#[derive(Debug)]
pub(crate) struct ServiceApi {
    pub(crate) config: config::ServiceApi,
    pub(crate) entra: Option<Provider>,
    /// The hubs that enrollments can name.
    pub(crate) hubs: Vec<String>,
}

impl ServiceApi {
    /// The principal behind an access token.
    fn principal(&self, token: &str, kinder: &[config::Kinder]) -> Result<&config::Client, Refused> {
        let provider = self.entra.as_ref().ok_or(Refused::NoProvider)?;
        provider.principal(token, &self.config.audience, kinder)
    }
}

/// A call, as far as its address says.
#[derive(Debug)]
pub(crate) struct Call {
    target: Target,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// E1 to E3, G1 to G3.
    One(Kind, String),
    /// E4, G4.
    Query(Kind),
    /// E5, G5.
    Bulk(Kind),
    /// E6, G6.
    Details(Kind, String),
    /// R1, R2.
    State(String),
    /// R3.
    States(String),
    Unknown,
}

impl Call {
    /// Reads the path, without regard to case and to a slash at its end (service API §2). `None`: it is no path of this API.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let path = request.path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<String> = path.split('/').map(percent_decode).collect::<Option<_>>()?;
        let (first, rest) = parts.split_first()?;
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let target = match first.to_lowercase().as_str() {
            "enrollments" => Target::of(Kind::Individual, &rest),
            "enrollmentgroups" => Target::of(Kind::Group, &rest),
            "registrations" => Target::of_states(&rest),
            _ => return None,
        };
        Some(Self { target })
    }

    /// Answers it, in this order: its form, who calls, what the rate lets through, what the caller may do, and then the call itself.
    pub(crate) fn answer(&self, service: &Service, request: &Request) -> Answer {
        let answer = self.check_form(service, request).and_then(|()| self.run(service, request));
        answer.unwrap_or_else(|refused| refused)
    }

    fn check_form(&self, service: &Service, request: &Request) -> Result<(), Answer> {
        let host = request.header("host").unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        if !host.eq_ignore_ascii_case(&service.api.config.host) {
            return Err(error(404_000, "No such service."));
        }
        let methods = self.target.methods();
        if methods.is_empty() {
            return Err(error(404_000, "No such resource."));
        }
        check_form(service, request, methods).map_err(|(code, message)| error(code, message))
    }

    fn run(&self, service: &Service, request: &Request) -> Result<Answer, Answer> {
        let denied = |denied: Denied| refusal(service, &denied);
        let caller = service.caller(request.header("authorization"), &request.path).map_err(denied)?;
        let version = parameter(&request.query, "api-version").unwrap_or_default();
        let run = Run { service, request, caller, version };
        match (&self.target, request.method.as_str()) {
            (Target::One(kind, id), "GET") => run.get(*kind, id),
            (Target::One(kind, id), "PUT") => run.put(*kind, id),
            (Target::One(kind, id), _) => run.delete(*kind, id),
            (Target::Query(kind), _) => run.query(*kind),
            (Target::Bulk(kind), _) => run.bulk(*kind),
            (Target::Details(kind, id), _) => run.details(*kind, id),
            (Target::State(id), "GET") => run.state(id),
            (Target::State(id), _) => run.delete_state(id),
            (Target::States(group), _) => run.states(group),
            (Target::Unknown, _) => Err(error(404_000, "No such resource.")),
        }
    }
}

impl Target {
    fn of(kind: Kind, rest: &[&str]) -> Self {
        match rest {
            [] => Self::Bulk(kind),
            [query] if query.eq_ignore_ascii_case("query") => Self::Query(kind),
            [id] => Self::One(kind, (*id).to_owned()),
            [id, details] if details.eq_ignore_ascii_case("attestationmechanism") => Self::Details(kind, (*id).to_owned()),
            _ => Self::Unknown,
        }
    }

    fn of_states(rest: &[&str]) -> Self {
        match rest {
            [id] => Self::State((*id).to_owned()),
            [group, query] if query.eq_ignore_ascii_case("query") => Self::States((*group).to_owned()),
            _ => Self::Unknown,
        }
    }

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::One(..) => &["GET", "PUT", "DELETE"],
            Self::State(_) => &["GET", "DELETE"],
            Self::Query(_) | Self::Bulk(_) | Self::Details(..) | Self::States(_) => &["POST"],
            Self::Unknown => &[],
        }
    }
}

/// A call by somebody who is known.
struct Run<'a> {
    service: &'a Service,
    request: &'a Request,
    caller: Caller<'a>,
    version: String,
}

impl Run<'_> {
    /// Lets `count` operations through that the caller may do.
    fn begin(&self, operation: Operation, count: u32) -> Result<(), Answer> {
        let limit = self.service.api.config.operations_per_minute;
        let taken = self.service.with(|state| state.rate.take(count, limit, Instant::now()));
        if let Err(seconds) = taken {
            let answer = error(429_001, "Throttled."); // code UNCONFIRMED, DPS device API §7.3
            return Err(Answer { retry_after: Some(seconds.to_string()), ..answer });
        }
        self.service.allow(self.caller, operation).map_err(|denied| refusal(self.service, &denied))
    }

    fn get(&self, kind: Kind, id: &str) -> Result<Answer, Answer> {
        self.begin(Operation::Read(kind), 1)?;
        found(self.service.look(|state| state.enrollment(kind, id)))
    }

    fn put(&self, kind: Kind, id: &str) -> Result<Answer, Answer> {
        self.begin(Operation::Write(kind), 1)?;
        let wrong = |message: String| error(400_000, &message);
        let body = Body::read(serde_json::from_slice(&self.request.body).unwrap_or_default()).map_err(wrong)?;
        if !body.id(kind).is_some_and(|named| named.eq_ignore_ascii_case(id)) {
            return Err(wrong("The ID in the body is not the one in the address.".to_owned()));
        }
        self.service.with(|state| {
            let certificates = state.certificates(kind, id);
            let wanted = body.checked(&self.known(kind, &certificates)).map_err(wrong)?;
            self.condition().check(state.etag(kind, id)).map_err(obstructed)?;
            state.put(kind, wanted);
            found(state.enrollment(kind, id))
        })
    }

    fn delete(&self, kind: Kind, id: &str) -> Result<Answer, Answer> {
        self.begin(Operation::Delete(kind), 1)?;
        self.service.with(|state| {
            self.condition().check_old(state.etag(kind, id)).map_err(obstructed)?;
            state.delete(kind, id);
            Ok(Answer::raw(204, Vec::new()))
        })
    }

    fn query(&self, kind: Kind) -> Result<Answer, Answer> {
        self.begin(Operation::Read(kind), 1)?;
        let list = match kind {
            Kind::Individual => List { name: "enrollments", item_type: "enrollment" },
            Kind::Group => List { name: "enrollmentGroups", item_type: "enrollmentGroup" },
        };
        check_query(&self.request.body, list.name)?;
        let page = self.page(&list)?;
        let answer = |state: &State| page.answer(&list, state.enrollments(kind), |id| state.enrollment(kind, id));
        Ok(self.service.look(answer))
    }

    fn bulk(&self, kind: Kind) -> Result<Answer, Answer> {
        let bulk = Bulk::read(&self.request.body, kind).map_err(|message| error(400_000, &message))?;
        let count = if self.service.api.config.bulk_is_one { 1 } else { bulk.size() };
        self.begin(bulk.operation(kind), count)?;
        let result = self.service.with(|state| bulk.run(state, &self.known(kind, &[])));
        Ok(Answer::json(200, &result))
    }

    fn details(&self, kind: Kind, id: &str) -> Result<Answer, Answer> {
        self.begin(Operation::ReadDetails, 1)?;
        found(self.service.look(|state| state.attestation(kind, id)))
    }

    fn state(&self, id: &str) -> Result<Answer, Answer> {
        self.begin(Operation::ReadState, 1)?;
        found(self.service.look(|state| state.registration(id)))
    }

    fn delete_state(&self, id: &str) -> Result<Answer, Answer> {
        self.begin(Operation::DeleteState, 1)?;
        let condition = self.condition();
        let deleted = self.service.with(|state| state.delete_registration(id, condition));
        deleted.map(|()| Answer::raw(204, Vec::new())).map_err(obstructed)
    }

    fn states(&self, group: &str) -> Result<Answer, Answer> {
        self.begin(Operation::ReadState, 1)?;
        let name = format!("registrations {}", group.to_lowercase());
        let list = List { name: &name, item_type: "registrationState" };
        let page = self.page(&list)?;
        self.service.look(|state| {
            let ids = state.registrations(group).ok_or_else(|| obstructed(Obstacle::Missing))?;
            Ok(page.answer(&list, ids, |id| state.registration(id)))
        })
    }

    fn page(&self, list: &List<'_>) -> Result<Page, Answer> {
        let largest = self.service.api.config.page_size;
        Page::asked(self.request, list, largest).map_err(|message| error(400_000, &message))
    }

    fn condition(&self) -> Condition<'_> {
        Condition::if_match(self.request.header("if-match"))
    }

    fn known<'a>(&'a self, kind: Kind, certificates: &'a [rustls_pki_types::CertificateDer<'static>]) -> Known<'a> {
        let ServiceApi { config, hubs, .. } = &self.service.api;
        Known { kind, hubs, authorities: &config.authorities, certificates, api_version: &self.version }
    }
}

/// Only the form that the documents show is understood; that there are filters is UNCONFIRMED.
fn check_query(body: &[u8], list: &str) -> Result<(), Answer> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let query = body["query"].as_str().unwrap_or_default();
    let words: Vec<&str> = query.split_whitespace().collect();
    let fits =
        words.len() == 4 && words.iter().zip(["SELECT", "*", "FROM", list]).all(|(own, word)| own.eq_ignore_ascii_case(word));
    if fits { Ok(()) } else { Err(error(400_000, &format!("The query is not: SELECT * FROM {list}"))) }
}

/// A record, or that there is none.
fn found(record: Option<Value>) -> Result<Answer, Answer> {
    record.map(|record| Answer::json(200, &record)).ok_or_else(|| obstructed(Obstacle::Missing))
}

fn obstructed(obstacle: Obstacle) -> Answer {
    error(obstacle.code(), obstacle.message())
}

/// What a refused caller is told says nothing of why; the transcript does.
fn refusal(service: &Service, denied: &Denied) -> Answer {
    service.say(Some(SPEAKER), format!("# refused: {denied}"));
    match denied.status(service.api.config.not_allowed) {
        403 => error(403_000, "Forbidden"),
        _ => error(401_000, "Unauthorized"),
    }
}

/// An error object of the service API (§2.3).
fn error(code: u32, message: &str) -> Answer {
    let mut answer = Answer::error(code, message);
    if let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) {
        body["info"] = json!({});
        answer.body = body.to_string().into_bytes();
    }
    answer
}
