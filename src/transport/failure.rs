//! What an error on a connection means: the network, the certificate, nonsense, or in truth an answer.

use std::error::Error;
use std::io;

use crate::protocol::{Answer, Lost, Stage};
use crate::tls;
use crate::transcript::Transcript;

/// The end of an attempt without an answer to the question itself.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer.
    Lost(Lost),
    /// An answer all the same: the peer refused us before it heard the question.
    Refused(Answer),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// Whom we talk to, and whether TLS gives it our certificate: without that, its errors cannot be understood.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// `host:port`
    pub(crate) place: String,
    /// Without the port, as the certificate should have it.
    pub(crate) host: String,
    /// We prove ourselves by a client certificate.
    pub(crate) certified: bool,
}

impl Peer {
    /// What an error means that came at this stage. An `InvalidData` that is not about TLS is nonsense by our own decoders.
    pub(crate) fn failure(&self, error: &(dyn Error + 'static), stage: Stage) -> Failure {
        let tls = tls::cause(error);
        if let Some(words) = tls.filter(|_| self.certified).and_then(tls::refusal) {
            return Failure::Refused(refused_certificate(&words));
        }
        match (tls, error.downcast_ref::<io::Error>()) {
            (Some(tls), _) if stage == Stage::Tls => tls::lost(tls, &self.host).into(),
            (None, Some(io)) if io.kind() == io::ErrorKind::InvalidData => Lost::Nonsense(innermost(io)).into(),
            _ => self.broken(&innermost(error), stage).into(),
        }
    }

    /// The stage of a hang-up before the first answer, on a transport where TLS lies below HTTP.
    ///
    /// IIS-style front ends may ask for the client certificate in a second handshake (renegotiation), which rustls does not do, and
    /// then reset. UNCONFIRMED whether DPS does that on HTTPS or WebSocket; the documents do not say.
    pub(crate) fn stage_of_hang_up(&self, otherwise: Stage) -> Stage {
        if self.certified { Stage::Certificate } else { otherwise }
    }

    fn broken(&self, what: &str, stage: Stage) -> Lost {
        let place = &self.place;
        let why = match stage {
            Stage::Certificate => format!(
                "{place} hung up before its first answer ({what}); if it wants the client certificate in a second handshake, \
                 which this transport cannot give: use transport = \"mqtt\", where the first one asks for it"
            ),
            Stage::Tls => format!("the TLS handshake with {place} failed: {what}"),
            Stage::Resolve | Stage::Connect | Stage::Proxy | Stage::Open | Stage::Reply => {
                format!("the connection to {place} broke: {what}")
            }
        };
        unreachable(stage, why)
    }
}

/// The network failed at this stage.
pub(crate) fn unreachable(stage: Stage, why: String) -> Lost {
    Lost::Unreachable { stage, why }
}

/// Writes what was lost into the transcript.
pub(crate) fn note(transcript: &Transcript, lost: &Lost) {
    let word = match lost {
        Lost::Unreachable { stage, .. } => stage.word(),
        Lost::Untrusted { .. } => "untrusted",
        Lost::NotYetValid { .. } => "not-yet-valid",
        Lost::Nonsense(_) => "nonsense",
        Lost::Tpm(_) => "tpm",
        // Nothing happened on any connection.
        Lost::Credential(_) => return,
    };
    transcript.line(format_args!("! {word} {}", lost.to_string().escape_debug()));
}

/// The alert, in the form in which the service itself would refuse a certificate.
fn refused_certificate(words: &str) -> Answer {
    let body = serde_json::json!({ "message": words }).to_string().into_bytes();
    Answer { status: 401, body, ..Answer::default() }
}

/// The deepest cause says it best: the layers above add only who carried it.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        // TLS and HTTP have paragraphs for this.
        Some(io::ErrorKind::UnexpectedEof) => "it was closed at the other end".to_owned(),
        _ => error.to_string(),
    }
}
