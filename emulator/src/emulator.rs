//! A running emulator: its thread, its ports, and what tests can see and change.

use crate::attest::Proof;
use crate::challenge::Tpm;
use crate::config::{Config, ConfigError};
use crate::entra::Provider;
use crate::hub::{Identity, IdentityState, Telemetry};
use crate::listener::{self, Speaks};
use crate::requests::Requests;
use crate::service::{Device, Service, Snapshot, State, Via};
use crate::service_api::ServiceApi;
use crate::tls::{self, TlsError};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates could not be made.
    #[error("no certificate for the server")]
    Tls(#[from] TlsError),
    /// A port is taken, for example.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address and port.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that the configuration names cannot be written.
    #[error("cannot write {path}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system gave no thread or event queue.
    #[error("cannot start the server's thread")]
    Thread(#[source] std::io::Error),
}

/// How far a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    /// The registration ID.
    pub registration_id: String,
    /// How it proves itself: `symmetric key`, `certificate`, `TPM`, or the name of its group.
    pub attestation: String,
    /// How it talked to DPS last: `mqtt`, `mqtt-ws` or `https`.
    pub transport: Option<&'static str>,
    /// The last line of its transcript.
    pub last_step: String,
    /// Where it is assigned to.
    pub hub: Option<String>,
    /// Whether it is connected there.
    pub is_connected: bool,
    /// How many messages it has sent to that hub.
    pub messages: u64,
    /// How many challenges its TPM was sent.
    pub challenges: u64,
    /// How many hub keys its TPM was given.
    pub hub_keys: u64,
}

impl DeviceState {
    fn of(state: &State, device: &Device) -> Self {
        let identity = state.identity(device);
        let attestation = match (&device.group, &device.proof) {
            (Some(group), _) => format!("group {group}"),
            (None, Some(Proof::Certificate(_) | Proof::IssuedBy(_))) => "certificate".to_owned(),
            (None, Some(Proof::Keys(_) | Proof::HubKeys(_)) | None) => "symmetric key".to_owned(),
            (None, Some(Proof::Tpm(_))) => "TPM".to_owned(),
        };
        Self {
            registration_id: device.registration_id.clone(),
            attestation,
            transport: device.via.map(Via::name),
            last_step: device.last_step.clone(),
            hub: device.registration.assignment.as_ref().map(|assignment| assignment.hub.clone()),
            is_connected: identity.is_some_and(Identity::is_connected),
            messages: identity.map_or(0, |identity| identity.messages),
            challenges: device.tpm().map_or(0, Tpm::challenges),
            hub_keys: device.tpm().map_or(0, Tpm::hub_keys),
        }
    }
}

/// A running emulator. It stops when it is dropped.
pub struct Emulator {
    pub(crate) service: Arc<Service>,
    mqtt_port: u16,
    https_port: u16,
    managed_identity_port: Option<u16>,
    ca_pem: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts the listeners on a thread of their own; they accept when this returns.
    ///
    /// # Errors
    /// When a port is taken, a file cannot be written or a certificate cannot be made.
    pub fn start(mut config: Config) -> Result<Self, StartError> {
        let identity = tls::Identity::new(&config.service, &config.hubs())?;
        if let Some(path) = &config.service.ca_out {
            std::fs::write(path, &identity.ca_pem).map_err(|source| StartError::File { path: path.clone(), source })?;
        }
        let (mqtt, mqtt_port) = listen(SocketAddr::new(config.service.listen, config.service.mqtt_port))?;
        let (https, https_port) = listen(SocketAddr::new(config.service.listen, config.service.https_port))?;
        let path = config.service.transcript_file.clone().unwrap_or_default();
        let (managed, managed_identity_port) =
            config.entra.as_ref().and_then(|entra| entra.managed_identity).map(listen).transpose()?.unzip();
        let api = service_api(&mut config, https_port)?;
        let service = Service::new(config, api).map_err(|source| StartError::File { path, source })?;
        let service = Arc::new(service);
        let (stop, stopped) = oneshot::channel();
        let listeners =
            [Some((mqtt, Speaks::Mqtt)), Some((https, Speaks::Http)), managed.map(|managed| (managed, Speaks::Metadata))];
        let thread = Some(run(Arc::clone(&service), identity.certificates, listeners, stopped)?);
        Ok(Self { service, mqtt_port, https_port, managed_identity_port, ca_pem: identity.ca_pem, stop: Some(stop), thread })
    }

    /// The port of MQTT over TLS.
    pub fn mqtt_port(&self) -> u16 {
        self.mqtt_port
    }

    /// The port of HTTPS, and of MQTT over WebSocket.
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// The port of the managed-identity endpoint, which has no TLS, if there is one.
    pub fn managed_identity_port(&self) -> Option<u16> {
        self.managed_identity_port
    }

    /// How many calls of the service API were answered with 429 because of its rate.
    pub fn throttled(&self) -> u64 {
        self.service.look(|state| state.rate.throttled)
    }

    /// The certificate that clients have to trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where the configuration had that certificate written.
    pub fn ca_file(&self) -> Option<&std::path::Path> {
        self.service.config.ca_out.as_deref()
    }

    /// The ID scope.
    pub fn id_scope(&self) -> &str {
        &self.service.config.id_scope
    }

    /// What was said with one device, in order, in the notation of `docs/transcript.md`, without comments.
    pub fn transcript(&self, registration_id: &str) -> Vec<String> {
        self.service.with(|state| state.transcript().of(registration_id))
    }

    /// Everything that was said, each line after its registration ID, or after `-` where none was known. Comments
    /// (`# …`) tell why somebody was refused.
    pub fn transcript_all(&self) -> Vec<String> {
        self.service.look(|state| state.transcript().all())
    }

    /// The messages that arrived at the hubs, in order.
    pub fn telemetry(&self) -> Vec<Telemetry> {
        self.service.look(|state| state.telemetry().to_vec())
    }

    /// The custom payload of the device's last register call.
    pub fn received_payload(&self, registration_id: &str) -> Option<serde_json::Value> {
        self.service.look(|state| state.find(registration_id)?.registration.payload.clone())
    }

    /// The hub and the device ID that were assigned last.
    pub fn assignment(&self, registration_id: &str) -> Option<(String, String)> {
        let of = |state: &State| state.find(registration_id)?.registration.assignment.clone();
        self.service.look(of).map(|assignment| (assignment.hub, assignment.device_id))
    }

    /// How many challenges the device's TPM was sent, those that a fault spoiled or kept back included.
    pub fn challenges(&self, registration_id: &str) -> u64 {
        self.service.look(|state| state.tpm(registration_id).map_or(0, Tpm::challenges))
    }

    /// How many hub keys the device's TPM was given, those that a fault spoiled or kept back included. The newest is the
    /// one that the hub accepts.
    pub fn hub_key_generation(&self, registration_id: &str) -> u64 {
        self.service.look(|state| state.tpm(registration_id).map_or(0, Tpm::hub_keys))
    }

    /// How often a device has asked DPS so far, whether it was admitted or not.
    pub fn requests(&self, registration_id: &str) -> Requests {
        self.service.look(|state| state.requests.of(registration_id))
    }

    /// All identities at all hubs, by hub and device ID.
    pub fn identities(&self) -> Vec<IdentityState> {
        self.service.look(|state| state.hubs.states())
    }

    /// Whether a hub would let the device in with this token if it came now. Nobody is evicted by asking.
    pub fn hub_accepts(&self, registration_id: &str, token: &str) -> bool {
        self.service.look(|state| state.hub_accepts(registration_id, token, &self.service.config.kinder))
    }

    /// All devices that are enrolled or have shown themselves, and how far they are, by registration ID.
    pub fn devices(&self) -> Vec<DeviceState> {
        self.service.look(|state| state.devices.values().map(|device| DeviceState::of(state, device)).collect())
    }

    /// Waits until something may have changed since this returned `seen`, at most for `patience`; returns what to call
    /// it with next. Begin with 0.
    pub fn wait_for_change(&self, seen: u64, patience: Duration) -> u64 {
        self.service.wait(patience, |state| (state.changes > seen).then_some(state.changes)).unwrap_or(seen)
    }

    /// Waits until `count` messages have arrived, at most for `patience`; tells whether they have.
    pub fn wait_for_telemetry(&self, count: usize, patience: Duration) -> bool {
        self.service.wait(patience, |state| (state.telemetry().len() >= count).then_some(())).is_some()
    }

    /// Waits until the transcript of a device (or `-`) has a line that begins with `start`, at most for `patience`.
    pub fn wait_for_line(&self, registration_id: &str, start: &str, patience: Duration) -> bool {
        let said = |state: &State| {
            let lines = state.transcript().of(registration_id);
            lines.iter().any(|line| line.starts_with(start)).then_some(())
        };
        self.service.wait(patience, said).is_some()
    }

    /// Waits until a device is connected to the hub that it is assigned to, at most for `patience`.
    pub fn wait_for_hub_connection(&self, registration_id: &str, patience: Duration) -> bool {
        let is_there = |state: &State| state.identity(state.find(registration_id)?)?.is_connected().then_some(());
        self.service.wait(patience, is_there).is_some()
    }

    /// Waits until nobody is connected as a device to the hub that it is assigned to, at most for `patience`. The transcript has told why.
    pub fn wait_for_hub_disconnection(&self, registration_id: &str, patience: Duration) -> bool {
        let is_there = |state: &State| Some(state.identity(state.find(registration_id)?)?.is_connected());
        self.service.wait(patience, |state| (is_there(state) != Some(true)).then_some(())).is_some()
    }

    /// How all devices stand now, so that the same can be tried from here more than once.
    pub fn snapshot(&self) -> Snapshot {
        self.service.look(State::snapshot)
    }

    /// Makes all devices stand as they did then, here or at another emulator with the same configuration: enrollments, operations,
    /// hub keys and identities. Who is connected to a hub is not any more; transcripts and messages stay.
    pub fn restore(&self, then: &Snapshot) {
        self.service.with(|state| state.restore(then));
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Emulator(mqtt {}, https {})", self.mqtt_port, self.https_port)
    }
}

/// The service API, with its identity provider if there is to be one.
fn service_api(config: &mut Config, https_port: u16) -> Result<ServiceApi, TlsError> {
    let provider = |entra| Ok::<_, TlsError>(Provider::new(entra, &tls::rsa_key()?, https_port)?);
    let entra = config.entra.take().map(provider).transpose()?;
    Ok(ServiceApi { config: config.service_api.clone(), entra, hubs: config.hubs() })
}

fn listen(address: SocketAddr) -> Result<(TcpListener, u16), StartError> {
    let ready = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    ready().map_err(|source| StartError::Listen { address, source })
}

/// Serves until `stopped` is told or its sender is gone; every connection ends with it.
fn run(
    service: Arc<Service>,
    tls: tls::Certificates,
    listeners: [Option<(TcpListener, Speaks)>; 3],
    stopped: oneshot::Receiver<()>,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let entered = runtime.enter();
    let listeners = listeners.map(|one| one.map(|(listener, speaks)| (tokio::net::TcpListener::from_std(listener), speaks)));
    drop(entered);
    for (listener, speaks) in listeners.into_iter().flatten() {
        let listener = listener.map_err(StartError::Thread)?;
        runtime.spawn(listener::serve(Arc::clone(&service), listener, tls.clone(), speaks));
    }
    let body = move || drop(runtime.block_on(stopped));
    std::thread::Builder::new().name("dps-emulator".to_owned()).spawn(body).map_err(StartError::Thread)
}
