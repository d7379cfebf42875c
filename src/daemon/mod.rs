//! The daemon: serves what there is, and does what the [`Lifecycle`] asks for, for as long as the machine runs.
//!
//! One task is at work at a time. Whoever asks is answered from the [`Desk`] meanwhile.

mod change;
mod hand;
mod keep;
mod watch;
mod work;

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use crate::agent::{Agent, Surroundings};
use crate::api::{self, Sockets};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::Config;
use crate::desk::{Counts, Desk, Order, State, Status, Trouble};
use crate::event;
use crate::failure::Failure;
use crate::lifecycle::{Lifecycle, Uptime};
use crate::notify::Manager;
use crate::progress::{Progress, seconds};
use crate::record::{Record, rfc3339};
use crate::transcript::Transcript;
use keep::Keep;
use watch::{WallClock, Watched};
use work::{Done, Work};

/// How often files and clock are looked at.
const ROUND: Duration = Duration::from_secs(60);

/// What the machine gives to the daemon.
pub struct Setting<'s> {
    /// Reads the configuration: at the start, and at each SIGHUP.
    pub load: &'s dyn Fn() -> Result<Config, Failure>,
    /// `/` outside tests.
    pub root: PathBuf,
    /// systemd's `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
    /// Who wants to know how we are.
    pub manager: &'s Manager,
}

impl Setting<'_> {
    fn surroundings(&self, desk: &Arc<Desk>) -> Surroundings {
        Surroundings {
            root: self.root.clone(),
            credentials: self.credentials.clone(),
            transcript: Transcript::log_only(),
            progress: Progress::Daemon(Arc::clone(desk)),
        }
    }

    /// Tells the manager how we are while this is awaited: a TPM may come late, or never.
    async fn told_meanwhile<T>(&self, desk: &Desk, work: impl Future<Output = T>) -> T {
        let (mut news, mut work) = (desk.watch_status(), std::pin::pin!(work));
        loop {
            self.manager.alive();
            self.manager.tell(&news.borrow_and_update(), Clock::with_floor(None));
            tokio::select! {
                done = &mut work => return done,
                Ok(()) = news.changed() => {}
                () = tokio::time::sleep(ROUND.min(self.manager.longest_nap())) => {}
            }
        }
    }
}

/// Runs until `stop` ends.
///
/// # Errors
/// What keeps it from starting: the configuration, a key or certificate, its directories, another daemon.
pub async fn run(setting: Setting<'_>, stop: impl Future<Output = ()>) -> Result<(), Failure> {
    let no_signals = |error| Failure::new(Blame::Storage, format!("signals cannot be received: {error}"));
    let hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    let config = (setting.load)()?;
    let clock = Clock::with_floor(None);
    let (desk, orders) = Desk::new(clock.instant());
    let runtime = config.runtime_directory.clone();
    // Whoever asks is answered from here on, also while the TPM is waited for.
    let mut sockets = Sockets::bind(&runtime, &setting.root)?;
    let manager = setting.manager;
    manager.ready();
    let handing = hand::over(Arc::clone(&desk), sockets.take_credential());
    let (end, ended) = oneshot::channel::<()>();
    let serving = api::serve(sockets, Arc::clone(&desk), clock, api::Limits::USUAL, &runtime, async {
        let _ = ended.await;
    });
    let living = async {
        let ended = tokio::select! {
            () = stop => {
                manager.stopping();
                Ok(())
            }
            failed = live(setting, config, desk, orders, hangup) => failed.map(|never| match never {}),
        };
        drop(end);
        ended
    };
    tokio::select! {
        (ended, ()) = async { tokio::join!(living, serving) } => ended,
        never = handing => match never {},
    }
}

async fn live(
    setting: Setting<'_>,
    config: Config,
    desk: Arc<Desk>,
    orders: Receiver<Order>,
    hangup: Signal,
) -> Result<Infallible, Failure> {
    let opening = Agent::open(config, setting.surroundings(&desk), Duration::MAX);
    let agent = setting.told_meanwhile(&desk, opening).await?;
    Daemon::new(setting, desk, orders, hangup, agent).live().await
}

struct Daemon<'s> {
    setting: Setting<'s>,
    desk: Arc<Desk>,
    orders: Receiver<Order>,
    hangup: Signal,
    agent: Rc<Agent>,
    life: Lifecycle,
    keep: Keep,
    watched: Watched,
    wall: WallClock,
    warned_of_certificate: Option<Uptime>,
}

impl<'s> Daemon<'s> {
    fn new(setting: Setting<'s>, desk: Arc<Desk>, orders: Receiver<Order>, hangup: Signal, agent: Agent) -> Self {
        let keep = Keep::new(agent.store(), &setting.root);
        let watched = Watched::new(agent.watched());
        let life = Lifecycle::new(false, crate::agent::seed(), Clock::uptime());
        let (wall, agent) = (WallClock::now(), Rc::new(agent));
        Self { setting, desk, orders, hangup, agent, life, keep, watched, wall, warned_of_certificate: None }
    }

    async fn live(mut self) -> Result<Infallible, Failure> {
        self.take_stock().await;
        let (mut work, mut news) = (None, self.desk.watch_status());
        loop {
            if work.is_none() {
                work = self.begin_what_is_due();
            }
            self.tell_state(work.as_ref());
            self.tell_manager(&news.borrow_and_update(), work.as_ref());
            let nap = self.nap(work.as_ref());
            tokio::select! {
                done = at_work(&mut work) => {
                    work = None;
                    self.finish(done).await;
                }
                Some(order) = self.orders.recv() => self.take(order, work.as_ref()),
                Some(()) = self.hangup.recv() => {
                    self.setting.manager.reloading();
                    if self.reload().await { work = None }
                    self.setting.manager.ready();
                }
                Ok(()) = news.changed() => {}
                () = tokio::time::sleep(nap) => if self.round().await { work = None },
            }
        }
    }

    /// What is there serves at once, with no network, before anything else is done.
    async fn take_stock(&mut self) {
        let now = Clock::uptime();
        self.introduce();
        match self.agent.current() {
            Ok(Some(record)) => match self.agent.hand_off(&record).await {
                Ok(()) => {
                    self.life = Lifecycle::new(true, crate::agent::seed(), now);
                    self.serve(record);
                }
                Err(failure) => {
                    self.serve(record);
                    self.failed(&failure);
                }
            },
            Ok(None) => {
                if let Some(record) = self.agent.adopted() {
                    // Why it could not be published is told when the next one is.
                    let _ = self.agent.publish(&record);
                    self.serve(record);
                }
                self.keep.resume(&mut self.life, &self.agent.about(), now);
            }
            Err(failure) => self.failed(&failure),
        }
        self.watched.refresh();
    }

    /// Who we are, for the status.
    fn introduce(&self) {
        let attestation = self.agent.attestation();
        self.desk.tell(|status| {
            status.attestation = Some(attestation.method());
            status.registration_id = Some(attestation.registration_id().to_string());
            status.certificate = attestation.validity();
            status.clock = self.agent.clock_verdict();
        });
    }

    fn serve(&mut self, record: Record) {
        tracing::info!(
            message_id = event::ASSIGNED,
            registration_id = record.registration_id,
            assigned_hub = record.assigned_hub,
            device_id = record.device_id,
            proof = record.proof,
            state = State::Provisioned.word(),
            "assigned to {} as {} ({})",
            record.assigned_hub,
            record.device_id,
            record.proof
        );
        self.desk.serve(Some(self.agent.served(record)));
    }

    fn begin_what_is_due(&mut self) -> Option<Work> {
        let now = Clock::uptime();
        let (task, due) = self.life.next(now)?;
        (due <= now).then(|| Work::begin(task, &self.agent, &self.desk))
    }

    async fn finish(&mut self, done: Done) {
        let now = Clock::uptime();
        match done {
            Done::Registered(Ok(record)) => self.registered(record),
            Done::Registered(Err(failure)) => self.failed(&failure),
            Done::Looked(reachable) => {
                self.life.looked(reachable, self.is_provable(), now);
                self.desk.tell(|status| status.hub.looked(reachable, self.agent.clock().instant()));
            }
            Done::AskedDps(answers) => self.life.asked_dps(answers, now),
            Done::LookedUp(moved) => self.life.looked_up(moved, now),
            Done::TriedHub(Ok((tried, proven))) => {
                self.life.tried(tried, now);
                self.desk.tell(|status| status.hub.tried(tried, self.agent.clock().instant()));
                proven.into_iter().for_each(|record| self.serve(record));
            }
            Done::TriedHub(Err(failure)) => {
                tracing::warn!("the hub cannot be tried: {failure}");
                self.life.tried(crate::lifecycle::Tried::Unreachable, now);
            }
        }
        self.serve_by_the_clock();
        self.watched.refresh();
    }

    fn registered(&mut self, record: Record) {
        let served = self.desk.served();
        let before = served.as_ref().map(|served| (&served.record.assigned_hub, &served.record.device_id));
        let moved = before.is_some_and(|before| before != (&record.assigned_hub, &record.device_id));
        self.life.registered(moved, Clock::uptime());
        self.keep.forget();
        self.desk.tell(|status| status.succeeded(&record.proof));
        self.serve(record);
    }

    fn failed(&mut self, failure: &Failure) {
        Counts::add(&self.desk.counts.failures);
        let registration_id = self.agent.attestation().registration_id().as_str();
        tracing::error!(
            message_id = event::REGISTRATION_FAILED,
            registration_id,
            blame = failure.blame.word(),
            dps_tracking_id = failure.tracking_id,
            dps_error_code = failure.code,
            "{failure}"
        );
        let (now, instant) = (Clock::uptime(), self.agent.clock().instant());
        let wish = failure.not_before.map_or(Duration::ZERO, |moment| moment.saturating_duration_since(instant));
        let wait = self.life.failed(failure.blame, wish, now);
        self.desk.tell(|status| status.failed(failure, instant));
        let why = self.life.registration_due().map_or("", |(why, _)| why.words());
        tracing::info!(
            message_id = event::WAITING,
            registration_id,
            next_attempt = rfc3339(self.agent.clock().now().saturating_add(wait.as_secs())),
            state = State::Waiting.word(),
            "{why}; next try in {}",
            seconds(wait)
        );
        self.keep.write(&self.life, &self.agent.about(), now);
    }

    /// A hub that has not proven itself can be tried only while no consumer can be connected there.
    fn is_provable(&self) -> bool {
        let is_unproven = self.desk.served().is_some_and(|served| served.record.proof == "unproven");
        is_unproven && self.desk.last_given().is_none()
    }

    fn take(&mut self, order: Order, work: Option<&Work>) {
        let now = Clock::uptime();
        let registers = work.is_some_and(Work::registers);
        match order {
            // What was asked for is being done.
            Order::Reprovision | Order::Report { .. } if registers => {}
            Order::Reprovision => {
                tracing::info!("an operator wants a registration");
                self.life.ordered(now);
            }
            Order::Report { generation, trouble } => {
                Counts::add(&self.desk.counts.reports);
                let is_old = generation.is_some_and(|theirs| self.generation() != Some(theirs));
                match trouble {
                    // It has been given another one since.
                    _ if is_old => {}
                    Trouble::Refused => self.life.reported_refused(now),
                    Trouble::Unreachable => self.life.reported_unreachable(now),
                }
            }
        }
    }

    fn generation(&self) -> Option<u64> {
        self.desk.served().map(|served| served.record.generation)
    }

    fn tell_state(&self, work: Option<&Work>) {
        let (now, instant) = (Clock::uptime(), self.agent.clock().instant());
        let due = self.life.registration_due();
        let served = self.desk.served();
        if work.is_some_and(Work::registers) {
            // Its own state says more.
        } else if let Some((why, due)) = due {
            let next = due.saturating_sub(now);
            self.desk.enter(State::Waiting, instant);
            self.desk.tell(|status| {
                status.plan(instant.checked_add(next));
                status.doing = format!("{}; waiting for the next try", why.words());
            });
        } else if let Some(served) = served {
            self.desk.enter(State::Provisioned, instant);
            let record = &served.record;
            self.desk.tell(|status| {
                status.next_attempt = None;
                status.doing = format!("assigned to {} as {} ({})", record.assigned_hub, record.device_id, record.proof);
            });
        }
    }

    fn tell_manager(&self, status: &Status, work: Option<&Work>) {
        let (manager, clock) = (self.setting.manager, self.agent.clock());
        manager.tell(status, clock);
        if !work.is_some_and(|work| work.is_stuck(status, clock.instant())) {
            manager.alive();
        }
    }

    /// How long nothing is to be done: what is at work ends by itself, and nothing else begins before.
    fn nap(&self, work: Option<&Work>) -> Duration {
        let (now, longest) = (Clock::uptime(), ROUND.min(self.setting.manager.longest_nap()));
        let due = self.life.next(now).filter(|_| work.is_none()).map_or(longest, |(_, due)| due.saturating_sub(now));
        due.clamp(Duration::from_millis(100), longest)
    }
}

impl Drop for Daemon<'_> {
    /// A wait outlives the process that waited.
    fn drop(&mut self) {
        self.keep.write(&self.life, &self.agent.about(), Clock::uptime());
    }
}

async fn at_work(work: &mut Option<Work>) -> Done {
    match work {
        Some(work) => work.done().await,
        None => std::future::pending().await,
    }
}
