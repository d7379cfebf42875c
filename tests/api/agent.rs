//! The API on its sockets in a scratch directory, over a desk that the test lays out as the daemon would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use dps_agent::api::{self, Limits, Sockets};
use dps_agent::attestation::Attestation;
use dps_agent::clock::Clock;
use dps_agent::config::Config;
use dps_agent::desk::{Desk, Order, Served, State};
use dps_agent::failure::Failure;
use dps_agent::record::Record;
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;

/// The group whose members may use the client socket, on the machines of these tests.
pub const GROUP: u32 = 4711;

/// The key of `gw-0001`.
pub const KEY: &str = "YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=";

/// A directory with the files of one machine.
pub struct Machine {
    pub directory: PathBuf,
}

/// The API of an agent that runs there.
pub struct Agent {
    pub desk: Arc<Desk>,
    orders: Mutex<mpsc::Receiver<Order>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("dps-agent-api-{}-{number}", std::process::id()));
        fs::create_dir_all(directory.join("etc")).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join("etc/group"), format!("root:x:0:\ndps-clients:x:{GROUP}:app\n")).unwrap();
        fs::write(directory.join("device.key"), KEY).unwrap();
        fs::set_permissions(directory.join("device.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(directory.join("config.toml"), configuration(&directory)).unwrap();
        Self { directory }
    }

    pub fn runtime(&self) -> PathBuf {
        self.directory.join("run")
    }

    pub fn client(&self) -> PathBuf {
        api::client_socket(&self.runtime())
    }

    pub fn admin(&self) -> PathBuf {
        api::admin_socket(&self.runtime())
    }

    /// An agent that is not provisioned yet, with the daemon's limits.
    pub fn start(&self) -> Agent {
        self.start_with(Limits::USUAL)
    }

    pub fn start_with(&self, limits: Limits) -> Agent {
        self.try_start(limits).unwrap()
    }

    pub fn try_start(&self, limits: Limits) -> Result<Agent, Failure> {
        let clock = Clock::with_floor(None);
        let (desk, orders) = Desk::new(clock.instant());
        let (stop, stopped) = oneshot::channel();
        let (bound, outcome) = std::sync::mpsc::channel();
        let (served, runtime, root) = (Arc::clone(&desk), self.runtime(), self.directory.clone());
        let thread = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            executor.block_on(async {
                let sockets = Sockets::bind(&runtime, &root);
                bound.send(sockets.as_ref().map(|_| ()).map_err(Clone::clone)).unwrap();
                if let Ok(sockets) = sockets {
                    let told = async { stopped.await.unwrap_or(()) };
                    api::serve(sockets, served, clock, limits, &runtime, told).await;
                }
            });
        });
        outcome.recv().unwrap()?;
        // Whoever has been answered once knows that all is in its place.
        assert_eq!(Client::to(&self.admin()).get("/v1/status").status, 200);
        Ok(Agent { desk, orders: Mutex::new(orders), stop: Some(stop), thread: Some(thread) })
    }

    /// What the daemon would serve: `gw-0001` at its hub, with this generation.
    pub fn served(&self, generation: u64) -> Served {
        let source = dps_agent::config::Source::File(self.directory.join("config.toml"));
        let config = Config::load(&source, &|_| None).unwrap().config;
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let attestation = executor.block_on(Attestation::open(&config.attestation, Path::new("/"), None, None)).unwrap();
        let record = record(generation, &attestation.fingerprint());
        let (config, attestation, clock) = (Arc::new(config), Arc::new(attestation), Clock::with_floor(None));
        Served { record, config, attestation, clock }
    }

    /// An agent that serves generation 3.
    pub fn provisioned(&self) -> Agent {
        self.provisioned_with(Limits::USUAL)
    }

    pub fn provisioned_with(&self, limits: Limits) -> Agent {
        let agent = self.start_with(limits);
        agent.desk.serve(Some(self.served(3)));
        agent.desk.tell(|status| {
            status.state = State::Provisioned;
            status.doing = "assigned".to_owned();
            status.attestation = Some("symmetric-key");
            status.registration_id = Some("gw-0001".to_owned());
        });
        agent
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Agent {
    /// The next order that was laid on the desk.
    pub fn order(&self) -> Option<Order> {
        self.orders.lock().unwrap().try_recv().ok()
    }

    /// Tells it to stop, and waits until it has.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

fn configuration(directory: &Path) -> String {
    let place = directory.display();
    format!(
        "[dps]\nid_scope = \"0ne00000000\"\nca_file = \"{place}/ca.pem\"\nca_only = true\n\
         [attestation]\nmethod = \"symmetric-key\"\nregistration_id = \"gw-0001\"\nkey_file = \"{place}/device.key\"\n\
         [state]\ndirectory = \"{place}/state\"\n[runtime]\ndirectory = \"{place}/run\"\n"
    )
}

fn record(generation: u64, identity: &str) -> Record {
    let line = serde_json::json!({
        "version": 1, "generation": generation, "idScope": "0ne00000000", "registrationId": "gw-0001", "identity": identity,
        "attestation": "symmetric-key", "assignedHub": "h.azure-devices.net", "deviceId": "gw-0001",
        "substatus": "initialAssignment", "payload": {"site": "b7"}, "assignedAt": 1_795_428_000, "proof": "proven",
        "transport": "mqtt", "key": "primary",
    });
    serde_json::from_value(line).unwrap()
}
