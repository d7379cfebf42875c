//! The provisioning service over HTTPS (DPS device API §6).

use super::Request;
use super::check_form;
use crate::answer::Answer;
use crate::attest::{Credential, Refusal};
use crate::fault::{Lie, Stage};
use crate::names::percent_decode;
use crate::requests::Request as Asks;
use crate::service::{Service, Via};
use rustls_pki_types::CertificateDer;

/// Which call a request makes.
#[derive(Debug)]
pub(super) struct Route {
    scope: String,
    pub(super) registration_id: String,
    call: Call,
    /// It has no token and shows a TPM's keys: it asks for a challenge.
    is_challenge: bool,
}

#[derive(Debug)]
enum Call {
    Register,
    Query(String),
    Lookup,
}

impl Call {
    fn method(&self) -> &'static str {
        match self {
            Self::Register => "PUT",
            Self::Query(_) => "GET",
            Self::Lookup => "POST",
        }
    }
}

impl Route {
    /// Reads the path; the error is the answer to what is no call.
    pub(super) fn of(request: &Request) -> Result<Self, Answer> {
        let refused = |code, message| Err(Answer::error(code, message));
        let segments: Option<Vec<String>> = request.path.split('/').skip(1).map(percent_decode).collect();
        let Some(segments) = segments else {
            return refused(400_000, "The path is not percent-encoded UTF-8.");
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (scope, id, call) = match segments.as_slice() {
            [_, "registrations", "", ..] | [_, "registrations"] => {
                return refused(405_000, "The registration ID is missing.");
            }
            [scope, "registrations", id] => (scope, id, Call::Lookup),
            [scope, "registrations", id, "register"] => (scope, id, Call::Register),
            [scope, "registrations", id, "operations", operation] => (scope, id, Call::Query((*operation).to_owned())),
            _ => return refused(404_000, "No such resource."),
        };
        let is_challenge = matches!(call, Call::Register | Call::Lookup) && shows_a_tpm(request);
        Ok(Self { scope: (*scope).to_owned(), registration_id: (*id).to_owned(), call, is_challenge })
    }

    /// The stage of its faults.
    pub(super) fn stage(&self) -> Stage {
        match self.call {
            _ if self.is_challenge => Stage::Challenge,
            Call::Register => Stage::Register,
            Call::Query(_) => Stage::Query,
            Call::Lookup => Stage::Lookup,
        }
    }

    /// What it asks for, to be written down.
    pub(super) fn asks(&self) -> Asks<'_> {
        match &self.call {
            Call::Register if self.is_challenge => Asks::Challenge,
            Call::Register => Asks::Register,
            Call::Query(operation) => Asks::Query(operation),
            Call::Lookup => Asks::Lookup,
        }
    }

    /// Answers it. Error codes other than 401000, 401002, 404201 and 404203 are UNCONFIRMED (DPS device API §7.3).
    pub(super) fn answer(
        &self,
        service: &Service,
        request: &Request,
        certificates: &[CertificateDer<'static>],
        lie: Option<&Lie>,
    ) -> Answer {
        let id = &self.registration_id;
        let checked = self.check_form(service, request).and_then(|()| match self.is_challenge {
            true => Err(service.challenge(&self.scope, id, &request.body, lie)),
            false => self.check_proof(service, request, certificates),
        });
        if let Err(answer) = checked {
            return answer;
        }
        service.with(|state| {
            if let Some(device) = state.device(id) {
                device.via = Some(Via::Https);
            }
        });
        let mut answer = match &self.call {
            Call::Register => service.register(id, &request.body, lie),
            Call::Query(operation) => service.query(id, operation, lie),
            Call::Lookup => service.lookup(id, &request.body, lie),
        };
        if answer.status == 202 {
            answer.headers.push(("Location", self.location(request)));
        }
        answer
    }

    fn check_form(&self, service: &Service, request: &Request) -> Result<(), Answer> {
        check_form(service, request, &[self.call.method()]).map_err(|(code, message)| Answer::error(code, message))
    }

    fn check_proof(&self, service: &Service, request: &Request, certificates: &[CertificateDer<'static>]) -> Result<(), Answer> {
        let credential = credential(request, certificates).map_err(|refusal| Answer::refusal(&refusal))?;
        let admitted = service.admit(Via::Https, &self.scope, &self.registration_id, &credential);
        admitted.map_err(|refusal| Answer::refusal(&refusal))
    }

    /// As observed: the register call, without query and operation.
    fn location(&self, request: &Request) -> String {
        let host = request.header("host").unwrap_or_default();
        let path = request.path.split("/operations/").next().unwrap_or_default();
        let path = path.strip_suffix("/register").unwrap_or(path);
        format!("https://{host}{path}/register")
    }
}

fn shows_a_tpm(request: &Request) -> bool {
    let body: Option<serde_json::Value> = serde_json::from_slice(&request.body).ok();
    request.header("authorization").is_none() && body.is_some_and(|body| !body["tpm"].is_null())
}

/// A token in `Authorization`, or else the certificates of the handshake. The device API knows no other scheme.
fn credential(request: &Request, certificates: &[CertificateDer<'static>]) -> Result<Credential, Refusal> {
    match request.header("authorization") {
        Some(token) if token.starts_with("SharedAccessSignature ") => Ok(Credential::Token(token.to_owned())),
        Some(_) => Err(Refusal::Malformed),
        None => Ok(Credential::Certificates(certificates.to_vec())),
    }
}
