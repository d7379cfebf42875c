//! What programs on the gateway ask the agent: HTTP/1.1 and JSON on two sockets in the runtime directory (docs/api.md).
//!
//! All is answered from the [`Desk`], at once, whatever the daemon is doing. Who may ask is said by the mode of each socket.

pub mod client;
mod connection;
mod message;
pub mod metrics;
mod rate;
mod routes;
mod seats;
mod socket;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::desk::Desk;
use crate::files;
use message::Answer;
pub use rate::Rate;
use routes::{Peer, Service};
pub use seats::Room;
use seats::{Seat, Seats};
pub use socket::{GROUP, Sockets, admin_socket, client_socket};

/// What keeps one client from being everybody's trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// On the client socket. Idle connections make room for new ones.
    pub clients: Room,
    /// On the admin socket.
    pub admins: Room,
    /// Of connections, for each user.
    pub connections: Rate,
    /// Of reports, for each user.
    pub reports: Rate,
}

impl Limits {
    /// Those of the daemon (docs/api.md, Limits).
    pub const USUAL: Self = Self {
        clients: Room { connections: 256, per_user: 128 },
        admins: Room { connections: 32, per_user: 32 },
        connections: Rate { at_once: 100, pace: Duration::from_millis(200) },
        reports: Rate { at_once: 5, pace: Duration::from_secs(60) },
    };
}

/// So many who find no room are told so at a time. The next one waits to be let in.
const TURNED_AWAY: usize = 16;
/// After a failure to let somebody in, such as too many open files.
const BREATH: Duration = Duration::from_millis(100);
/// When the agent stops, answers that are on their way get so long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The metrics in the runtime directory are at most so old.
const TEXTFILE_PACE: Duration = Duration::from_secs(10);

/// Serves both sockets from the desk until `stop` ends; then those who wait for an assignment are told that the agent stops, and the
/// sockets are removed. `metrics.prom` in the `runtime` directory is there meanwhile. `clock` is the machine's, for the
/// time in which there is no assignment and so no clock of its own.
pub async fn serve(
    sockets: Sockets,
    desk: Arc<Desk>,
    clock: Clock,
    limits: Limits,
    runtime: &Path,
    stop: impl Future<Output = ()>,
) {
    let [clients, admins] = [limits.clients, limits.admins].map(|room| Arc::new(Seats::new(room)));
    let service = Arc::new(Service::new(desk, clock, limits, [Arc::clone(&clients), Arc::clone(&admins)]));
    let mut doors = [Door::new(&sockets.client, false, clients, &service), Door::new(&sockets.admin, true, admins, &service)];
    {
        let [client, admin] = &mut doors;
        tokio::select! {
            () = client.open() => {}
            () = admin.open() => {}
            () = keep_textfile(runtime, &service) => {}
            () = stop => {}
        }
    }
    service.stop();
    // Of an agent that is not there nobody should read that all is well.
    let _ = std::fs::remove_file(runtime.join(metrics::FILE));
    let [client, admin] = &mut doors;
    let _ = timeout(LAST_WORDS, async { tokio::join!(client.close(), admin.close()) }).await;
}

/// One socket and those who have come in through it.
struct Door<'s> {
    listener: &'s UnixListener,
    is_admin: bool,
    seats: Arc<Seats>,
    service: &'s Arc<Service>,
    inside: JoinSet<()>,
    turned_away: Arc<Semaphore>,
}

impl<'s> Door<'s> {
    fn new(listener: &'s UnixListener, is_admin: bool, seats: Arc<Seats>, service: &'s Arc<Service>) -> Self {
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
        Self { listener, is_admin, seats, service, inside: JoinSet::new(), turned_away }
    }

    /// Lets in whoever comes. Does not end.
    async fn open(&mut self) {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => self.received(accepted.map(|(stream, _)| stream)).await,
                Some(_) = self.inside.join_next() => {}
            }
        }
    }

    async fn received(&mut self, accepted: io::Result<UnixStream>) {
        let known = accepted.and_then(|stream| Peer::of(&stream, self.is_admin).map(|peer| (stream, peer)));
        let (stream, peer) = match known {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!("a client cannot be let in: {error}");
                return sleep(BREATH).await;
            }
        };
        match self.seats.take(peer.uid, self.service.clock.instant()) {
            Some(seat) => self.seat(stream, seat, peer),
            None => self.turn_away(stream, peer).await,
        }
    }

    fn seat(&mut self, stream: UnixStream, seat: Seat, peer: Peer) {
        let service = Arc::clone(self.service);
        self.inside.spawn(async move {
            let answer = |request| service.answer(request, peer);
            connection::converse(stream, &seat, service.clock, answer).await;
        });
    }

    async fn turn_away(&mut self, stream: UnixStream, peer: Peer) {
        tracing::info!("{peer} finds no room: each connection there may be is waiting for an answer");
        let Ok(permit) = Arc::clone(&self.turned_away).acquire_owned().await else { return };
        self.inside.spawn(async move {
            let full = "each connection that this user, or all together, may have is waiting for an answer; try again later";
            connection::turn_away(stream, &Answer::refused(503, full).retry_after(1)).await;
            drop(permit);
        });
    }

    /// Lets everybody go in peace.
    async fn close(&mut self) {
        self.seats.close();
        while self.inside.join_next().await.is_some() {}
    }
}

/// Keeps `metrics.prom` in the runtime directory, for collectors that read files. It is written when something has happened, and
/// not otherwise.
async fn keep_textfile(runtime: &Path, service: &Service) {
    let path = runtime.join(metrics::FILE);
    let (mut status, mut served) = (service.desk.watch_status(), service.desk.watch());
    let mut told = false;
    loop {
        status.mark_unchanged();
        served.mark_unchanged();
        let failed = files::replace(&path, service.metrics().as_bytes(), 0o644).err();
        if let Some(error) = failed.as_ref().filter(|_| !told) {
            tracing::warn!("the metrics cannot be kept: {error}");
        }
        told = failed.is_some();
        tokio::select! {
            _ = status.changed() => {}
            _ = served.changed() => {}
            () = service.asked() => {}
        }
        sleep(TEXTFILE_PACE).await;
    }
}
