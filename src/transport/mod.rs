//! One question, one answer: turns a request into bytes on a connection and what comes back into an answer.

mod deadline;
mod dial;
mod failure;
mod https;
mod mqtt;
mod proxy;
mod topic;
mod websocket;

use std::time::{Duration, Instant};

use crate::attestation::{Attestation, AttestationError, Key};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::Config;
use crate::id::OperationId;
use crate::protocol::registration::Connection;
use crate::protocol::sas::{Audience, percent_encode};
use crate::protocol::{Answer, AuthenticationKey, KeySlot, Lost, Request, Via};
use crate::secret::Secret;
use crate::tls::{self, TlsError};
use crate::transcript::Transcript;

pub(crate) use deadline::Deadline;
pub(crate) use dial::{Dialer, look_up, place};
pub(crate) use failure::{Failure, note};
pub(crate) use mqtt::{Address, Hello, open};

/// Product and version, as the service's logs should show them.
pub const AGENT: &str = concat!("dps-agent/", env!("CARGO_PKG_VERSION"));

/// The path of a WebSocket, the same at DPS and at a hub (IoT Hub, MQTT over WebSocket).
pub const WEB_SOCKET_PATH: &str = "/$iothub/websocket";

/// How long a peer may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// A token for DPS lives this long, in seconds.
const TOKEN_LIFE: u64 = 60 * 60;

/// A connection that was opened with a token serves this long; the next exchange gets a new connection and a new token.
const CONNECTION_LIFE: Duration = Duration::from_secs(50 * 60);

/// How long the peer may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection: from the name lookup to CONNACK, or on HTTPS to the end of the TLS handshake.
    pub connect: Duration,
    /// For each reply after that.
    pub reply: Duration,
    /// The moment at which whoever waits for all this loses patience, if there is one: nothing goes on after it.
    pub until: Option<Instant>,
}

impl Limits {
    pub(crate) fn to_connect(self, clock: &Clock) -> Deadline {
        Deadline::after(clock, self.left_of(self.connect, clock))
    }

    fn to_reply(self, clock: &Clock) -> Deadline {
        Deadline::after(clock, self.left_of(self.reply, clock))
    }

    fn left_of(&self, allowed: Duration, clock: &Clock) -> Duration {
        self.until.map_or(allowed, |until| allowed.min(until.saturating_duration_since(clock.instant())))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), reply: Duration::from_secs(10), until: None }
    }
}

/// DPS as this device sees it: asked one thing at a time, over one connection at most.
///
/// Nothing is tried twice here: after the first error the connection is gone, and the caller decides what comes next.
/// A future of [`Service::exchange`] may be dropped at any time; the connection goes with it.
pub struct Service<'a> {
    config: &'a Config,
    attestation: &'a Attestation,
    clock: Clock,
    transcript: &'a Transcript,
    register_body: Vec<u8>,
    dialer: Dialer,
    /// What answers the service's last challenge.
    answer: Option<Secret<String>>,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    opened: Opened,
    line: Line,
}

enum Line {
    Mqtt(mqtt::Session),
    Https(https::Session),
}

/// When a connection was opened, by both clocks: the monotonic one sleeps with the machine, the other one can be set.
#[derive(Clone, Copy)]
struct Opened {
    instant: Instant,
    seconds: u64,
}

impl<'a> Service<'a> {
    /// Opens no connection yet. `register_body` is the JSON body of the register call.
    ///
    /// # Errors
    /// If there is nobody to trust: see [`TlsError`].
    pub fn new(
        config: &'a Config,
        attestation: &'a Attestation,
        clock: Clock,
        transcript: &'a Transcript,
        register_body: Vec<u8>,
    ) -> Result<Self, TlsError> {
        let tls = tls::client(&config.trust, None, attestation.certificate(), clock)?;
        let dialer = Dialer { tls, proxy: config.proxy.clone(), certified: attestation.certificate().is_some() };
        Ok(Self { config, attestation, clock, transcript, register_body, dialer, answer: None, open: None })
    }

    /// Asks, over this connection, and brings the answer. Opens the connection if it is not open, or if its token is about to
    /// end; closes another one that is. A refused CONNECT, WebSocket upgrade or client certificate is an answer too.
    pub async fn exchange(&mut self, connection: &Connection, request: &Request, limits: Limits) -> Result<Answer, Lost> {
        match self.attempt(connection, request, limits).await {
            Ok(answer) | Err(Failure::Refused(answer)) => Ok(answer),
            Err(Failure::Lost(lost)) => {
                note(self.transcript, &lost);
                Err(lost)
            }
        }
    }

    /// Signs the requests that follow with the key of this challenge.
    pub async fn answer(&mut self, challenge: &AuthenticationKey) -> Result<(), AttestationError> {
        let expiry = self.clock.now() + TOKEN_LIFE;
        self.answer = Some(self.attestation.answer(challenge, &self.audience(), expiry).await?);
        Ok(())
    }

    /// How the service sees this device now, over HTTPS: the registration status lookup (DPS device API, HTTPS), which changes
    /// nothing and costs nothing. 404 where the device has not registered yet.
    pub(crate) async fn lookup(&mut self, slot: KeySlot, limits: Limits) -> Result<Answer, Lost> {
        match self.attempt_lookup(slot, limits).await {
            Ok(answer) | Err(Failure::Refused(answer)) => {
                self.transcript.answer(&answer);
                self.close().await;
                Ok(answer)
            }
            Err(Failure::Lost(lost)) => {
                note(self.transcript, &lost);
                Err(lost)
            }
        }
    }

    async fn attempt_lookup(&mut self, slot: KeySlot, limits: Limits) -> Result<Answer, Failure> {
        let mut open = self.connect(&Connection { via: Via::Https, slot, number: 0 }, limits).await?;
        let Line::Https(session) = &mut open.line else { return Err(Lost::Nonsense("not an HTTPS connection".into()).into()) };
        self.transcript.line(format_args!("> lookup"));
        let call = https::Call { path: self.path(""), verb: https::Verb::Post(self.register_body.clone()) };
        let token = self.token(slot).await?;
        let answer = session.ask(call, token.as_ref().or(self.answer.as_ref()), limits.to_reply(&self.clock)).await?;
        self.open = Some(open);
        Ok(answer)
    }

    /// Whether DPS answers this way, with its certificate. It is told nothing.
    pub(crate) async fn reach(&self, via: Via, limits: Limits) -> Result<(), Failure> {
        let dps = &self.config.dps;
        let port = if via == Via::Mqtt { dps.mqtt_port } else { dps.https_port };
        self.dialer.dial(&dps.host, port, limits.to_connect(&self.clock)).await.map(drop)
    }

    /// A connection over MQTT up to the subscription, and its end: it asks for nothing and changes nothing.
    pub(crate) async fn knock(&mut self, connection: &Connection, limits: Limits) -> Result<(), Failure> {
        self.open = Some(self.connect(connection, limits).await?);
        self.close().await;
        Ok(())
    }

    /// Ends the connection in order, if there is one.
    pub async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.transcript.line(format_args!("> disconnect"));
            match open.line {
                Line::Mqtt(session) => session.disconnect().await,
                Line::Https(session) => session.close().await,
            }
        }
    }

    async fn attempt(&mut self, connection: &Connection, request: &Request, limits: Limits) -> Result<Answer, Failure> {
        let mut open = match self.usable(connection).await {
            Some(open) => open,
            None => self.connect(connection, limits).await?,
        };
        self.transcript.line(format_args!("> {request}"));
        let answer = match &mut open.line {
            Line::Mqtt(session) => session.ask(request, &self.register_body, limits.to_reply(&self.clock)).await?,
            Line::Https(session) => {
                let token = self.token(connection.slot).await?;
                let shown = token.as_ref().or(self.answer.as_ref()).filter(|_| *request != Request::Challenge);
                session.ask(self.call(request), shown, limits.to_reply(&self.clock)).await?
            }
        };
        self.open = Some(open);
        Ok(answer)
    }

    /// The open connection, if it is this one, young enough, and the peer has not hung up in the meantime. Nothing was asked
    /// then, so a new connection in its place repeats nothing.
    async fn usable(&mut self, connection: &Connection) -> Option<Open> {
        let open = self.open.as_mut()?;
        let hung_up = match &mut open.line {
            Line::Mqtt(session) => session.has_ended(),
            Line::Https(session) => session.has_ended(),
        };
        if hung_up {
            self.transcript.line(format_args!("# the service ended the idle connection"));
            self.open = None;
        } else if open.connection != *connection || open.opened.is_old(&self.clock) {
            self.close().await;
        }
        self.open.take()
    }

    async fn connect(&mut self, connection: &Connection, limits: Limits) -> Result<Open, Failure> {
        let dps = &self.config.dps;
        let opened = Opened::now(&self.clock);
        self.transcript.line(format_args!("> connect {}", connection.via));
        let line = match connection.via {
            Via::Https => {
                Line::Https(https::open(&self.dialer, &dps.host, dps.https_port, limits.to_connect(&self.clock)).await?)
            }
            via @ (Via::Mqtt | Via::MqttWs) => {
                let port = if via == Via::Mqtt { dps.mqtt_port } else { dps.https_port };
                let address = Address { via, host: &dps.host, port };
                let token = self.token(connection.slot).await?;
                let mut session =
                    open(&self.dialer, address, self.hello(token), limits.to_connect(&self.clock), self.transcript).await?;
                self.transcript.line(format_args!("> subscribe"));
                session.subscribe(limits.to_reply(&self.clock)).await?;
                self.transcript.line(format_args!("< suback"));
                Line::Mqtt(session)
            }
        };
        Ok(Open { connection: *connection, opened, line })
    }

    /// The CONNECT packet (DPS device API, MQTT, connect).
    fn hello(&self, password: Option<Secret<String>>) -> Hello {
        let (scope, id) = (&self.config.dps.id_scope, self.attestation.registration_id());
        let (version, agent) = (&self.config.dps.api_version, percent_encode(AGENT));
        Hello {
            client_id: id.to_string(),
            user_name: format!("{scope}/registrations/{id}/api-version={version}&ClientVersion={agent}"),
            password,
            clean_session: true,
        }
    }

    /// The HTTPS call for a request (DPS device API, HTTPS).
    fn call(&self, request: &Request) -> https::Call {
        match request {
            Request::Challenge | Request::Register => {
                https::Call { path: self.path("/register"), verb: https::Verb::Put(self.register_body.clone()) }
            }
            Request::Query(operation) => https::Call { path: self.path(&operation_path(operation)), verb: https::Verb::Get },
        }
    }

    /// The path of this device's registration, with what follows it.
    fn path(&self, rest: &str) -> String {
        let dps = &self.config.dps;
        let scope = percent_encode(dps.id_scope.as_str());
        let id = percent_encode(self.attestation.registration_id().as_str());
        let version = percent_encode(&dps.api_version);
        format!("/{scope}/registrations/{id}{rest}?api-version={version}")
    }

    fn audience(&self) -> Audience {
        Audience::registration(&self.config.dps.id_scope, self.attestation.registration_id())
    }

    /// A fresh token, or `None` where the client certificate in the handshake proves us, or the answer to a challenge.
    async fn token(&self, slot: KeySlot) -> Result<Option<Secret<String>>, Lost> {
        if self.attestation.is_challenged() {
            return Ok(None);
        }
        credential(self.attestation, &self.audience(), &Key::Enrolled(slot), self.clock).await
    }
}

/// A token for this audience that lives an hour, made now; `None` where the client certificate proves us.
pub(crate) async fn credential(
    attestation: &Attestation,
    audience: &Audience,
    key: &Key,
    clock: Clock,
) -> Result<Option<Secret<String>>, Lost> {
    Ok(attestation.token(audience, key, clock.now() + TOKEN_LIFE).await?)
}

/// The peer's key may be at fault, the TPM, or what we were given.
impl From<AttestationError> for Lost {
    fn from(error: AttestationError) -> Self {
        let words = error.to_string();
        let blame = error.blame();
        if blame == Blame::Peer {
            Self::Nonsense(words)
        } else if blame == Blame::Tpm {
            Self::Tpm(words)
        } else {
            Self::Credential(words)
        }
    }
}

fn operation_path(operation: &OperationId) -> String {
    format!("/operations/{}", percent_encode(operation.as_str()))
}

impl Opened {
    fn now(clock: &Clock) -> Self {
        Self { instant: clock.instant(), seconds: clock.now() }
    }

    fn is_old(&self, clock: &Clock) -> bool {
        let awake = clock.instant().saturating_duration_since(self.instant);
        let by_the_wall = Duration::from_secs(clock.now().saturating_sub(self.seconds));
        awake.max(by_the_wall) >= CONNECTION_LIFE
    }
}

#[cfg(test)]
pub(crate) mod tests;
