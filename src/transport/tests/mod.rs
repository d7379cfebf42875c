//! The transports against the emulator, and against peers that misbehave below the protocol.

mod dialing;
mod https;
mod mqtt;
pub(crate) mod service;
mod websocket;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use dps_emulator::pki::{Algorithm, Authority, Days, Key, VALID};
use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{Proxy, Trust};
use crate::id::HostName;
use crate::protocol::Stage;

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

/// Long enough for a loaded machine; nothing waits for it to pass.
const PATIENT: Duration = Duration::from_secs(60);
/// The peer says nothing more: passes in full.
const BRIEF: Duration = Duration::from_millis(700);

/// One authority for all tests: keys take time.
static PKI: LazyLock<Pki> = LazyLock::new(Pki::new);

struct Pki {
    root: Authority,
    key: Key,
    ca_file: PathBuf,
}

impl Pki {
    fn new() -> Self {
        let root = Authority::root("Test Root", Algorithm::EcP256).unwrap();
        let ca_file = scratch("ca.pem", root.certificate_pem().as_bytes());
        Self { root, key: Key::generate(Algorithm::EcP256).unwrap(), ca_file }
    }

    fn server(&self, name: &str, days: Days) -> Arc<ServerConfig> {
        let chain = self.root.server(&self.key, &[name.to_owned()], days).unwrap();
        tls::tests::server(&chain, &self.key.pkcs8_pem(), None, &[&TLS13, &TLS12])
    }
}

/// A file in a directory of its own beside the test program, where `cargo clean` finds it.
pub(crate) fn scratch(name: &str, content: &[u8]) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let directory = program.with_file_name("scratch").join(format!("{:016x}", getrandom::u64().unwrap()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn clock() -> Clock {
    Clock::with_floor(None)
}

fn within(allowed: Duration) -> Deadline {
    Deadline::after(&clock(), allowed)
}

pub(crate) fn localhost() -> HostName {
    "localhost".parse().unwrap()
}

fn dialer() -> Dialer {
    let tls = tls::client(&Trust::Only(PKI.ca_file.clone()), None, None, clock()).unwrap();
    Dialer { tls, proxy: None, certified: false }
}

fn with_certificate(issuer: &Authority, days: Days) -> Dialer {
    let leaf = issuer.leaf("gw-0001", Algorithm::EcP256, days).unwrap();
    let key = tls::tests::certified(&leaf.chain_pem, &leaf.key.pkcs8_pem());
    let tls = tls::client(&Trust::Only(PKI.ca_file.clone()), None, Some(key), clock()).unwrap();
    Dialer { tls, proxy: None, certified: true }
}

/// Serves one connection after the other, each by this script, until the test ends.
pub(crate) async fn peer<F: Future<Output = ()> + Send + 'static>(script: impl Fn(TcpStream) -> F + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    port
}

/// The same behind TLS, with a good certificate for localhost.
async fn tls_peer<F: Future<Output = ()> + Send + 'static>(script: impl Fn(Tls) -> F + Send + Sync + Clone + 'static) -> u16 {
    tls_peer_with(PKI.server("localhost", VALID), script).await
}

pub(crate) async fn tls_peer_with<F: Future<Output = ()> + Send + 'static>(
    config: Arc<ServerConfig>,
    script: impl Fn(Tls) -> F + Send + Sync + Clone + 'static,
) -> u16 {
    let acceptor = TlsAcceptor::from(config);
    peer(move |stream| {
        let (acceptor, script) = (acceptor.clone(), script.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                script(stream).await;
            }
        }
    })
    .await
}

/// Says nothing and keeps the connection until the client gives up.
pub(crate) async fn silence(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut nothing = Vec::new();
    let _ = stream.read_to_end(&mut nothing).await;
}

/// Reads up to and including this text.
async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(stream.read_u8().await.unwrap());
    }
    read
}

fn unreachable_at(result: Result<impl Sized, Failure>) -> (Stage, String) {
    match result.map(|_| ()) {
        Err(Failure::Lost(Lost::Unreachable { stage, why })) => (stage, why),
        other => panic!("{other:?}"),
    }
}

fn lost(result: Result<impl Sized, Failure>) -> Lost {
    match result.map(|_| ()) {
        Err(Failure::Lost(lost)) => lost,
        other => panic!("{other:?}"),
    }
}

fn refused(result: Result<impl Sized, Failure>) -> Answer {
    match result.map(|_| ()) {
        Err(Failure::Refused(answer)) => answer,
        other => panic!("{other:?}"),
    }
}
