//! From a host name to an encrypted connection: name lookup, TCP, the proxy, TLS.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::deadline::Deadline;
use super::failure::{Failure, Peer, unreachable};
use super::proxy;
use crate::config::Proxy;
use crate::id::HostName;
use crate::protocol::{Lost, Stage};

/// An encrypted connection to the host that was asked for.
pub(crate) type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// So long an address has for itself before the next one is tried beside it (RFC 8305 §5 recommends 250 ms): a dead IPv6
/// route must not eat the whole deadline.
const STAGGER: Duration = Duration::from_millis(300);

/// How every host is reached: whom to trust and which proxy to ask.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) proxy: Option<Proxy>,
    /// `tls` holds a client certificate.
    pub(crate) certified: bool,
}

impl Dialer {
    /// An encrypted connection to `host`, whose certificate has been checked, before the deadline.
    pub(crate) async fn dial(&self, host: &HostName, port: u16, deadline: Deadline) -> Result<Stream, Failure> {
        let tcp = self.reach(host, port, deadline).await?;
        self.secure(tcp, host, port, deadline).await
    }

    /// The proxy through which this port is reached, if it is not reached directly.
    pub(crate) fn proxy_for(&self, host: &HostName, port: u16) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| proxy.serves(host, port))
    }

    /// The first half of [`Dialer::dial`]: a connection to `host`, through its proxy where it has one, not encrypted yet.
    pub(crate) async fn reach(&self, host: &HostName, port: u16, deadline: Deadline) -> Result<TcpStream, Lost> {
        let Some(proxy) = self.proxy_for(host, port) else { return connect(host, port, deadline).await };
        let credentials = proxy::credentials(proxy)?;
        let tcp = connect(&proxy.host, proxy.port, deadline).await.map_err(of_proxy)?;
        let name = proxy::name(proxy);
        deadline.bound(Stage::Proxy, &name, proxy::ask(tcp, proxy, credentials, host, port)).await?
    }

    /// The second half of [`Dialer::dial`].
    pub(crate) async fn secure(&self, tcp: TcpStream, host: &HostName, port: u16, deadline: Deadline) -> Result<Stream, Failure> {
        deadline.bound(Stage::Tls, &place(host, port), self.handshake(tcp, host, port)).await?
    }

    /// The host, as the errors of a connection to it name it.
    pub(crate) fn peer(&self, host: &HostName, port: u16) -> Peer {
        Peer { place: place(host, port), host: host.to_string(), certified: self.certified }
    }

    async fn handshake(&self, tcp: TcpStream, host: &HostName, port: u16) -> Result<Stream, Failure> {
        let name = ServerName::try_from(host.as_str().to_owned()).map_err(|_| Lost::Untrusted {
            host: host.to_string(),
            why: "no certificate can be made out to this name".to_owned(),
        })?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(name, tcp).await.map_err(|error| self.peer(host, port).failure(&error, Stage::Tls))
    }
}

/// `host:port` for messages.
pub(crate) fn place(host: &HostName, port: u16) -> String {
    format!("{}:{port}", host.in_url())
}

/// The addresses of `host`, at least one.
pub(crate) async fn look_up(host: &HostName, port: u16, deadline: Deadline) -> Result<VecDeque<SocketAddr>, Lost> {
    deadline.bound(Stage::Resolve, &format!("the name lookup of {host}"), resolve(host, port)).await?
}

/// A proxy that cannot be reached is no fault of the host behind it.
fn of_proxy(lost: Lost) -> Lost {
    match lost {
        Lost::Unreachable { why, .. } => unreachable(Stage::Proxy, format!("the proxy: {why}")),
        other @ (Lost::Untrusted { .. } | Lost::NotYetValid { .. } | Lost::Nonsense(_) | Lost::Credential(_) | Lost::Tpm(_)) => {
            other
        }
    }
}

async fn connect(host: &HostName, port: u16, deadline: Deadline) -> Result<TcpStream, Lost> {
    let addresses = look_up(host, port, deadline).await?;
    let place = place(host, port);
    let connected = deadline.bound(Stage::Connect, &place, race(addresses)).await?;
    connected.map_err(|error| unreachable(Stage::Connect, format!("{place} cannot be reached: {error}")))
}

async fn resolve(host: &HostName, port: u16) -> Result<VecDeque<SocketAddr>, Lost> {
    if let Ok(address) = host.as_str().parse::<IpAddr>() {
        return Ok(VecDeque::from([SocketAddr::new(address, port)]));
    }
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let found: VecDeque<_> =
        found.map_err(|error| unreachable(Stage::Resolve, format!("the name {host} cannot be looked up: {error}")))?.collect();
    if found.is_empty() {
        return Err(unreachable(Stage::Resolve, format!("the name {host} has no address")));
    }
    Ok(found)
}

/// The first of these addresses that answers, in their order, each with a head start before the next. `addresses` is not empty.
pub(super) async fn race(mut addresses: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    attempts.extend(addresses.pop_front().map(attempt));
    loop {
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) if addresses.is_empty() && attempts.is_empty() => return Err(error),
                Err(_) => {}
            },
            () = tokio::time::sleep(STAGGER), if !addresses.is_empty() => {}
        }
        attempts.extend(addresses.pop_front().map(attempt));
    }
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
