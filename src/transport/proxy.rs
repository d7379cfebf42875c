//! The HTTP proxy on the way: its credentials, and CONNECT (RFC 9110 §9.3.6).

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
use crate::secret::{Secret, read_secret_file};

/// A longer answer to CONNECT is not read, in bytes. An error page is not part of this: only the header is.
const LONGEST_HEADER: usize = 16 * 1024;

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

fn read(path: &Path) -> Result<Secret<String>, Lost> {
    let fault = |what: &str| Lost::Credential(format!("proxy_credentials_file: {what}"));
    let bytes = read_secret_file(path).map_err(|error| fault(&error.to_string()))?;
    let text = std::str::from_utf8(bytes.expose()).unwrap_or_default().trim_end_matches(['\r', '\n']);
    if !text.contains(':') || text.contains(char::is_control) {
        return Err(fault(&format!("{} must hold one line, user:password, in UTF-8", path.display())));
    }
    Ok(Secret::new(text.to_owned()))
}
