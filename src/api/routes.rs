//! Which request is answered by what.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::message::{Answer, Request};
use super::rate::Meter;
use super::seats::Seats;
use super::{Limits, metrics};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::connection;
use crate::desk::{Desk, Given, NotTaken, Order, Served, Trouble};
use crate::failure::Failure;

/// The longest that `wait` can be, in seconds.
const LONGEST_WAIT: u64 = 3600;

/// Who asks, as the kernel knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: Option<i32>,
    /// Through the admin socket.
    pub(super) is_admin: bool,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream, is_admin: bool) -> io::Result<Self> {
        let known = stream.peer_cred()?;
        Ok(Self { uid: known.uid(), gid: known.gid(), pid: known.pid(), is_admin })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} gid {} pid {}", self.uid, self.gid, self.pid.unwrap_or(0))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    Status,
    Assignment,
    Connection,
    Report,
    Reprovision,
    Metrics,
}

impl Route {
    const ALL: [Self; 6] = [Self::Status, Self::Assignment, Self::Connection, Self::Report, Self::Reprovision, Self::Metrics];

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Status => "/v1/status",
            Self::Assignment => "/v1/assignment",
            Self::Connection => "/v1/connection",
            Self::Report => "/v1/report",
            Self::Reprovision => "/v1/reprovision",
            Self::Metrics => "/metrics",
        }
    }

    const fn changes_something(self) -> bool {
        match self {
            Self::Status | Self::Assignment | Self::Metrics => false,
            Self::Connection | Self::Report | Self::Reprovision => true,
        }
    }

    const fn is_for_admins(self) -> bool {
        match self {
            Self::Status | Self::Assignment | Self::Connection | Self::Report => false,
            Self::Reprovision | Self::Metrics => true,
        }
    }

    /// The route of a request, or why there is none.
    fn of(request: &Request, peer: Peer) -> Result<Self, Answer> {
        let found = Self::ALL.into_iter().find(|route| route.path() == request.path);
        let route =
            found.ok_or_else(|| Answer::refused(404, format!("there is no {:?}; there is {}", request.path, Self::all())))?;
        if route.is_for_admins() && !peer.is_admin {
            return Err(Answer::refused(403, format!("{} is answered on the admin socket only", route.path())));
        }
        let methods = if route.changes_something() { "POST" } else { "GET, HEAD" };
        if methods.split(", ").any(|method| method == request.method) {
            Ok(route)
        } else {
            let why = format!("{} is not for {}; it understands {methods}", route.path(), request.method);
            Err(Answer::refused(405, why).allowing(methods))
        }
    }

    fn all() -> String {
        Self::ALL.map(Self::path).join(", ")
    }
}

/// What stands behind both sockets.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) desk: Arc<Desk>,
    pub(super) clock: Clock,
    connections: Mutex<Meter>,
    reports: Mutex<Meter>,
    tally: Mutex<BTreeMap<(Option<Route>, u16), u64>>,
    seats: [Arc<Seats>; 2],
    stopping: watch::Sender<bool>,
    asked: Notify,
}

impl Service {
    pub(super) fn new(desk: Arc<Desk>, clock: Clock, limits: Limits, seats: [Arc<Seats>; 2]) -> Self {
        Self {
            desk,
            clock,
            connections: Mutex::new(Meter::new(limits.connections)),
            reports: Mutex::new(Meter::new(limits.reports)),
            tally: Mutex::default(),
            seats,
            stopping: watch::Sender::new(false),
            asked: Notify::new(),
        }
    }

    /// Whoever waits is told that the agent stops.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends when somebody has been answered since the last time.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    pub(super) fn metrics(&self) -> String {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = tally.iter().map(|((route, status), count)| (route.map_or("none", Route::path), *status, *count));
        let sockets = ["client", "admin"].into_iter().zip(self.seats.each_ref().map(|seats| seats.counts()));
        metrics::text(&self.desk, self.clock, requests.collect(), sockets.collect())
    }

    pub(super) async fn answer(&self, request: Request, peer: Peer) -> Answer {
        let route = Route::of(&request, peer);
        let known = route.as_ref().ok().copied();
        let answer = match route {
            Ok(route) => self.perform(route, &request, peer).await.unwrap_or_else(|refusal| refusal),
            Err(refusal) => refusal,
        };
        tracing::debug!("{peer}: {} {} {}", request.method, request.path, answer.status);
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner).entry((known, answer.status)).or_default() += 1;
        self.asked.notify_one();
        answer
    }

    async fn perform(&self, route: Route, request: &Request, peer: Peer) -> Result<Answer, Answer> {
        match route {
            Route::Status => query(request, []).map(|[]| Answer::json(&self.desk.status_json(self.clock))),
            Route::Assignment => self.assignment(request).await,
            Route::Connection => self.connection(request, peer).await,
            Route::Report => self.report(request, peer),
            Route::Reprovision => self.reprovision(request, peer),
            Route::Metrics => query(request, []).map(|[]| Answer::text(metrics::MEDIA_TYPE, self.metrics())),
        }
    }

    /// The assignment, once it is another one than the client has.
    async fn assignment(&self, request: &Request) -> Result<Answer, Answer> {
        let [after, wait] = query(request, ["after", "wait"])?;
        let wait = wait.unwrap_or(0);
        if wait > LONGEST_WAIT {
            return Err(Answer::refused(400, format!("wait is {LONGEST_WAIT} seconds at most")));
        }
        let (mut served, mut stopping) = (self.desk.watch(), self.stopping.subscribe());
        // A device that was set back counts from 1 again: another generation is a new one, not only a higher one.
        let is_new = |served: &Option<Arc<Served>>| served.as_ref().is_some_and(|new| Some(new.record.generation) != after);
        let waited = tokio::select! {
            waited = served.wait_for(is_new) => waited.ok().and_then(|served| served.clone()),
            _ = stopping.wait_for(|stopping| *stopping) => return Err(stopped()),
            () = sleep(Duration::from_secs(wait)) => None,
        };
        match (waited, self.desk.served()) {
            (Some(served), _) => Ok(Answer::json(&served.record.public())),
            (None, Some(_)) => Ok(Answer::empty(304)),
            (None, None) => Err(self.unprovisioned()),
        }
    }

    async fn connection(&self, request: &Request, peer: Peer) -> Result<Answer, Answer> {
        let wish: Wish = body(request)?;
        let Wish { client: Client::Device, expires_in } = wish;
        let longest = connection::LONGEST_LIFE.as_secs();
        let life = expires_in.map_or(connection::USUAL_LIFE, Duration::from_secs);
        if life.is_zero() || life > connection::LONGEST_LIFE {
            return Err(Answer::refused(400, format!("expiresIn is a number of seconds from 1 to {longest}")));
        }
        let served = self.desk.served().ok_or_else(|| self.unprovisioned())?;
        self.within(&self.connections, peer)?;
        let Served { record, config, attestation, clock } = served.as_ref();
        let made = connection::make(config, attestation, record, *clock, life).await;
        let made = made.map_err(|failure| Answer::of(503, &failure.to_json()))?;
        self.note(peer, record.generation);
        Ok(Answer::secret(made.to_json()))
    }

    fn note(&self, peer: Peer, generation: u64) {
        if self.desk.last_given().is_none_or(|last| last.uid != Some(peer.uid)) {
            // The hub takes one connection of a device: two who are told here in turn throw each other out.
            tracing::info!("a connection was given to {peer}");
        }
        let at = self.clock.now();
        self.desk.note_given(Given { by: "socket".to_owned(), uid: Some(peer.uid), pid: peer.pid, at, generation });
    }

    fn report(&self, request: &Request, peer: Peer) -> Result<Answer, Answer> {
        let Report { generation, trouble } = body(request)?;
        self.within(&self.reports, peer)?;
        let trouble = match trouble {
            Reported::Refused => Trouble::Refused,
            Reported::Unreachable => Trouble::Unreachable,
        };
        tracing::info!("{peer} reports that the hub is {}", if trouble == Trouble::Refused { "refusing" } else { "unreachable" });
        self.order(Order::Report { generation, trouble })
    }

    fn reprovision(&self, request: &Request, peer: Peer) -> Result<Answer, Answer> {
        let Nothing {} = body(request)?;
        tracing::info!("{peer} asks for a new registration");
        self.order(Order::Reprovision)
    }

    fn order(&self, order: Order) -> Result<Answer, Answer> {
        let generation = self.desk.served().map(|served| served.record.generation);
        match self.desk.order(order) {
            Ok(()) => Ok(Answer::of(202, &json!({ "accepted": true, "generation": generation }))),
            Err(why @ NotTaken::Busy) => Err(Answer::refused(503, format!("{why}; try again later")).retry_after(10)),
            Err(NotTaken::Stopping) => Err(stopped()),
        }
    }

    fn within(&self, meter: &Mutex<Meter>, peer: Peer) -> Result<(), Answer> {
        let asked = meter.lock().unwrap_or_else(PoisonError::into_inner).ask(peer.uid, self.clock.instant());
        asked.map_err(|wait| {
            let seconds = wait.as_secs() + 1;
            Answer::refused(429, format!("uid {} asks too often; again in {seconds} s", peer.uid)).retry_after(seconds)
        })
    }

    /// There is nothing to hand out, and why.
    fn unprovisioned(&self) -> Answer {
        let status = self.desk.status_json(self.clock);
        let failure = Failure::new(Blame::Network, NOT_YET);
        let mut body = failure.to_json();
        body["status"] = status;
        Answer::of(503, &body).retry_after(10)
    }
}

const NOT_YET: &str = "the device is not provisioned yet; status tells why, and GET /v1/assignment?wait=SECONDS waits for it";

fn stopped() -> Answer {
    Answer::refused(503, "the agent is stopping").retry_after(5)
}

/// The values of these parameters; any other is refused.
fn query<const N: usize>(request: &Request, names: [&str; N]) -> Result<[Option<u64>; N], Answer> {
    let mut values = [None; N];
    for pair in request.query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let place = names.iter().position(|known| *known == name);
        let place = place.ok_or_else(|| Answer::refused(400, format!("{} knows no parameter {name:?}", request.path)))?;
        let value = text.parse::<u64>().ok().filter(|_| values[place].is_none());
        let wrong = || Answer::refused(400, format!("{name} is one whole number, such as {name}=30"));
        values[place] = Some(value.ok_or_else(wrong)?);
    }
    Ok(values)
}

/// The body as JSON; none at all is `{}`.
fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Answer> {
    query(request, [])?;
    if let Some(kind) = request.content_type.as_ref().filter(|kind| *kind != "application/json" && !request.body.is_empty()) {
        let why = format!("the body is {kind:?}; send JSON, with Content-Type: application/json (curl: --json)");
        return Err(Answer::refused(415, why));
    }
    let text = if request.body.is_empty() { b"{}" } else { request.body.trim_ascii_start() };
    // A list of the members' values would do too, for serde.
    if !text.starts_with(b"{") {
        return Err(Answer::refused(400, "the body is not understood: it is no JSON object"));
    }
    serde_json::from_slice(text).map_err(|error| Answer::refused(400, format!("the body is not understood: {error}")))
}

/// `POST /v1/connection`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wish {
    #[serde(default)]
    client: Client,
    /// How long the token is to live, in seconds.
    expires_in: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum Client {
    #[default]
    Device,
}

/// `POST /v1/report`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Report {
    generation: Option<u64>,
    trouble: Reported,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reported {
    Refused,
    Unreachable,
}

/// `POST /v1/reprovision`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}
