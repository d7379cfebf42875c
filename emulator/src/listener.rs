//! The two listeners: TCP, TLS with the faults before it, and the hand-over to MQTT or HTTP.

use crate::fault::{Misdeed, Plain, Stage};
use crate::mqtt::{self, GARBAGE, Peer};
use crate::service::{Service, Via};
use crate::tls::Certificates;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// What speaks on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Mqtt,
    Http,
    /// HTTP without TLS: the managed-identity endpoint.
    Metadata,
}

/// Accepts for ever; each connection is a task of its own.
pub(crate) async fn serve(service: Arc<Service>, listener: TcpListener, tls: Certificates, speaks: Speaks) {
    loop {
        // A failed accept is the connection's misfortune, not the listener's.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (service, tls) = (Arc::clone(&service), tls.clone());
        tokio::spawn(connection(service, stream, tls, speaks));
    }
}

async fn connection(service: Arc<Service>, mut stream: TcpStream, tls: Certificates, speaks: Speaks) {
    let _ = stream.set_nodelay(true);
    if play(&service, Stage::Tcp, &mut stream).await.is_break() {
        return;
    }
    if speaks == Speaks::Metadata {
        return crate::entra::managed::connection(service, stream).await;
    }
    let Some(stream) = handshake(&service, stream, tls).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    match speaks {
        Speaks::Mqtt => mqtt::serve(service, Box::new(stream), Peer { via: Via::Mqtt, certificates }).await,
        Speaks::Http | Speaks::Metadata => crate::http::serve(service, stream, certificates).await,
    }
}

/// The handshake; a fault of it is played once the ClientHello is there.
async fn handshake(service: &Service, stream: TcpStream, tls: Certificates) -> Option<TlsStream<TcpStream>> {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let said = |error: std::io::Error| service.say(None, format!("! tls {error}"));
    let mut hello = acceptor.await.map_err(said).ok()?;
    if play(service, Stage::Tls, &mut hello.io).await.is_break() {
        return None;
    }
    let config = tls.serve(hello.client_hello().server_name());
    hello.into_stream(config).await.map_err(said).ok()
}

async fn play(service: &Service, stage: Stage, stream: &mut TcpStream) -> ControlFlow<()> {
    let Some(Misdeed::Plain(plain)) = service.fault(None, stage, |_| true) else {
        return ControlFlow::Continue(());
    };
    service.say(None, format!("! {}", plain.name()));
    match plain {
        Plain::Drop => {}
        Plain::Silence => hold(stream).await,
        Plain::Garbage => {
            if stream.write_all(GARBAGE).await.is_ok() {
                hold(stream).await;
            }
        }
        Plain::Slow(delay) => {
            tokio::time::sleep(delay).await;
            return ControlFlow::Continue(());
        }
    }
    ControlFlow::Break(())
}

async fn hold(stream: &mut TcpStream) {
    let mut sink = [0; 1024];
    while matches!(stream.read(&mut sink).await, Ok(read) if read > 0) {}
}
