//! Which of the services on one port a request is for.

use super::Request;
use super::dps;
use crate::answer::Answer;
use crate::fault::{Lie, Stage};
use crate::registration::{lie_alone, padded};
use crate::service::Service;
use crate::{entra, service_api};
use rustls_pki_types::CertificateDer;

/// A call of one of them.
#[derive(Debug)]
pub(super) enum Route {
    /// A device's.
    Device(dps::Route),
    /// A back end's.
    Api(service_api::Call),
    /// For an access token, or what one is verified with.
    Entra(entra::Call),
}

impl Route {
    /// Reads the path; the error is the answer to what is no call.
    pub(super) fn of(request: &Request) -> Result<Self, Answer> {
        if let Some(call) = service_api::Call::of(request) {
            return Ok(Self::Api(call));
        }
        match entra::Call::of(request) {
            Some(call) => Ok(Self::Entra(call)),
            None => dps::Route::of(request).map(Self::Device),
        }
    }

    /// The device that it is of, for faults of that device.
    pub(super) fn device(&self) -> Option<&str> {
        match self {
            Self::Device(route) => Some(&route.registration_id),
            Self::Api(_) | Self::Entra(_) => None,
        }
    }

    /// Whose its lines in the transcript are.
    pub(super) fn speaker(&self) -> &str {
        match self {
            Self::Device(route) => &route.registration_id,
            Self::Api(_) => service_api::SPEAKER,
            Self::Entra(_) => entra::SPEAKER,
        }
    }

    /// The stage of its faults.
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Device(route) => route.stage(),
            Self::Api(_) => Stage::ServiceApi,
            Self::Entra(_) => Stage::Entra,
        }
    }

    /// Writes down that it was asked.
    pub(super) fn say(&self, service: &Service, request: &Request) {
        match self {
            Self::Device(route) => service.note(&route.registration_id, route.asks()),
            Self::Api(_) | Self::Entra(_) => {
                service.say(Some(self.speaker()), format!("> {} {}", request.method, request.path));
            }
        }
    }

    /// Answers it; `certificates` are those of the handshake.
    pub(super) fn answer(
        &self,
        service: &Service,
        request: &Request,
        certificates: &[CertificateDer<'static>],
        lie: Option<&Lie>,
    ) -> Answer {
        let answer = match self {
            Self::Device(route) => return route.answer(service, request, certificates, lie),
            Self::Api(_) | Self::Entra(_) if lie.is_some_and(Lie::stands_alone) => lie.and_then(lie_alone),
            Self::Api(call) => Some(call.answer(service, request)),
            Self::Entra(call) => Some(call.answer(service, request)),
        };
        padded(answer.unwrap_or_else(|| Answer::error(500_000, "No answer.")), lie)
    }
}
