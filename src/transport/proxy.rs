//! The HTTP proxy on the way: who is reached without it, its credentials, and CONNECT (RFC 9110 §9.3.6).

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::AGENT;
use super::dial::place;
use super::failure::unreachable;
use crate::config::{Proxy, ProxyCredentials};
use crate::id::HostName;
use crate::protocol::{Lost, Stage};
use crate::secret::Secret;

/// A longer answer to CONNECT is not read, in bytes. An error page is not part of this: only the header is.
const LONGEST_HEADER: usize = 16 * 1024;

/// Whether `NO_PROXY` takes this host out: by name, by a domain it lies in (`example.net`, `.example.net`), by address, by network
/// (`10.0.0.0/8`), or by `*`. No name is looked up for it.
pub(super) fn is_excepted(proxy: &Proxy, host: &HostName) -> bool {
    proxy.except.iter().any(|entry| matches(entry.trim(), host.as_str()))
}

/// `user:password` for the proxy, ready for the header. Read anew for each connection, so that a changed file counts at once.
pub(super) fn credentials(proxy: &Proxy) -> Result<Option<Secret<String>>, Lost> {
    match &proxy.credentials {
        None => Ok(None),
        Some(ProxyCredentials::File(path)) => read(path).map(Some),
        Some(ProxyCredentials::Environment(text)) => Ok(Some(Secret::new(text.expose().clone()))),
    }
}

/// The proxy in words.
pub(super) fn name(proxy: &Proxy) -> String {
    format!("the proxy {}", place(&proxy.host, proxy.port))
}

/// Asks the proxy for a tunnel to the host; from then on the stream reaches that host.
pub(super) async fn ask(
    mut stream: TcpStream,
    proxy: &Proxy,
    credentials: Option<Secret<String>>,
    host: &HostName,
    port: u16,
) -> Result<TcpStream, Lost> {
    let (name, place) = (name(proxy), place(host, port));
    let broken = |error| unreachable(Stage::Proxy, format!("the connection to {name} broke: {error}"));
    stream.write_all(request(&place, credentials.as_ref()).expose()).await.map_err(broken)?;
    let mut header = Vec::new();
    loop {
        if stream.read_buf(&mut header).await.map_err(broken)? == 0 {
            return Err(unreachable(Stage::Proxy, format!("{name} hung up instead of answering CONNECT {place}")));
        }
        if let Some(status) = status(&header).map_err(|what| unreachable(Stage::Proxy, format!("{name} {what}")))? {
            return verdict(status, &name, &place).map(|()| stream);
        }
    }
}

fn request(place: &str, credentials: Option<&Secret<String>>) -> Secret<Vec<u8>> {
    let mut text = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: {AGENT}\r\n");
    if let Some(credentials) = credentials {
        let encoded = Secret::new(STANDARD.encode(credentials.expose()));
        text.reserve_exact(64 + encoded.expose().len());
        text.push_str("Proxy-Authorization: Basic ");
        text.push_str(encoded.expose());
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Secret::new(text.into_bytes())
}

/// The status, once the header is complete.
fn status(header: &[u8]) -> Result<Option<u16>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    let parsed =
        response.parse(header).map_err(|error| format!("does not answer CONNECT in HTTP ({error}): is it an HTTP proxy?"))?;
    match parsed {
        httparse::Status::Complete(length) if response.code == Some(200) && length < header.len() => {
            Err("sent data of its own into the tunnel".to_owned())
        }
        httparse::Status::Complete(_) => Ok(response.code),
        httparse::Status::Partial if header.len() > LONGEST_HEADER => Err("answers CONNECT with an endless header".to_owned()),
        httparse::Status::Partial => Ok(None),
    }
}

fn verdict(status: u16, name: &str, place: &str) -> Result<(), Lost> {
    let cure = match status {
        200..=299 => return Ok(()),
        407 => "it wants credentials, or other ones: proxy_credentials_file names a file with user:password",
        403 => {
            "it does not allow this host or port; many proxies allow port 443 only, which transport = \"mqtt-ws\" and \"https\" use"
        }
        502..=504 => "it cannot reach the host",
        _ => "it does not open the way",
    };
    Err(unreachable(Stage::Proxy, format!("{name} answered CONNECT {place} with {status}: {cure}")))
}

fn matches(entry: &str, host: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return within(entry, address);
    }
    let domain = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
    let Some(start) = host.len().checked_sub(domain.len()) else { return false };
    let ends_with = host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(domain));
    !domain.is_empty() && ends_with && (start == 0 || host.as_bytes()[start - 1] == b'.')
}

/// `entry` is this address, or a network that holds it.
fn within(entry: &str, address: IpAddr) -> bool {
    let (network, length) = entry.split_once('/').map_or((entry, None), |(network, length)| (network, Some(length)));
    let network = network.trim_start_matches('[').trim_end_matches(']');
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let Some(length) = length else { return network == address };
    let (Ok(length), (network, address, width)) = (length.parse::<u32>(), bits(network, address)) else { return false };
    // A shift by the whole width takes everything away: /0 holds every address of its kind.
    length <= width && (network ^ address).checked_shr(width - length).unwrap_or(0) == 0
}

/// Both as numbers, and how many bits count. Addresses of two kinds have nothing in common, not even with /0.
fn bits(network: IpAddr, address: IpAddr) -> (u128, u128, u32) {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (u32::from(network).into(), u32::from(address).into(), 32),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.into(), address.into(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => (0, u128::MAX, 0),
    }
}

fn read(path: &Path) -> Result<Secret<String>, Lost> {
    let fault = |what: String| Lost::Credential(format!("proxy_credentials_file {}: {what}", path.display()));
    let mut file = File::open(path).map_err(|error| fault(format!("cannot be opened: {error}")))?;
    let mode = file.metadata().map_err(|error| fault(format!("cannot be examined: {error}")))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(fault(format!("everybody on this machine can use it (mode {:04o}): chmod 0640", mode & 0o7777)));
    }
    // Room for more than is read: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(2048);
    let result = file.by_ref().take(1024).read_to_end(&mut bytes);
    let bytes = Secret::new(bytes);
    result.map_err(|error| fault(format!("cannot be read: {error}")))?;
    let text = std::str::from_utf8(bytes.expose()).unwrap_or_default().trim_end_matches(['\r', '\n']);
    if !text.contains(':') || text.contains(char::is_control) {
        return Err(fault("it must hold one line, user:password, in UTF-8".to_owned()));
    }
    Ok(Secret::new(text.to_owned()))
}
