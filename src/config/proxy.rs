//! The proxy between us and the service: from the configuration, else from the environment that every other program obeys.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::problem::{Origin, Reported};
use super::reader::Reader;
use super::schema;
use super::settings::Found;
use super::{Proxy, ProxyCredentials};
use crate::id::HostName;
use crate::secret::Secret;

/// The environment's say about proxies.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// `HTTPS_PROXY` or `https_proxy`, by its name.
    pub(super) proxy: Option<(&'static str, Secret<String>)>,
    /// `NO_PROXY` or `no_proxy`.
    pub(super) no_proxy: Option<String>,
}

impl Variables {
    /// Asks for the four variables; an empty one counts as absent, as it does for everybody.
    pub(super) fn ask(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let ask = |names: [&'static str; 2]| {
            let set = |name: &'static str| environment(name).filter(|text| !text.trim().is_empty()).map(|text| (name, text));
            names.into_iter().find_map(set)
        };
        Self {
            proxy: ask(["HTTPS_PROXY", "https_proxy"]).map(|(name, text)| (name, Secret::new(text))),
            no_proxy: ask(["NO_PROXY", "no_proxy"]).map(|(_, text)| text),
        }
    }
}

impl Reader<'_> {
    pub(super) fn proxy(&mut self, variables: &Variables) -> Result<Option<Proxy>, Reported> {
        let credentials_file = self.optional(schema::PROXY_CREDENTIALS_FILE);
        let written = self.optional(schema::PROXY)?;
        let credentials_file = credentials_file?;
        match (written, &variables.proxy) {
            (Some(Found { text: "", .. }), _) | (None, None) => self.no_proxy(credentials_file),
            (Some(found), _) => self.written_proxy(found, credentials_file).map(Some),
            (None, Some((name, text))) => self.inherited_proxy(name, text, credentials_file, variables).map(Some),
        }
    }

    fn no_proxy(&mut self, credentials_file: Option<Found<'_>>) -> Result<Option<Proxy>, Reported> {
        match credentials_file {
            None => Ok(None),
            Some(found) => {
                Err(self
                    .wrong(found, "there is no proxy to show credentials to; write proxy = \"http://HOST:PORT\", or remove it"))
            }
        }
    }

    fn written_proxy(&mut self, found: Found<'_>, credentials_file: Option<Found<'_>>) -> Result<Proxy, Reported> {
        let Url { host, port, user } = Url::parse(found.text).map_err(|wrong| self.wrong(found, wrong))?;
        if user.is_some() {
            return Err(self.wrong(
                found,
                "holds a user name or password; write them as USER:PASSWORD into a file that only root can read, and name it in proxy_credentials_file",
            ));
        }
        Ok(Proxy { host, port, credentials: credentials_file.map(from_file), except: Vec::new() })
    }

    fn inherited_proxy(
        &mut self,
        name: &'static str,
        text: &Secret<String>,
        credentials_file: Option<Found<'_>>,
        variables: &Variables,
    ) -> Result<Proxy, Reported> {
        let origin = Origin::Environment(name);
        let found = Found { key: schema::PROXY, text: "", origin: &origin };
        let text = text.expose().trim();
        // Curl and its kin take a bare HOST:PORT from the environment.
        let parsed = if text.contains("://") { Url::parse(text) } else { Url::authority(text) };
        let Url { host, port, user } = parsed.map_err(|wrong| self.wrong(found, wrong))?;
        let credentials = match (user, credentials_file) {
            (Some(_), Some(file)) => {
                let message = format!("cannot stand beside the user name in {name} of the environment; remove one of them");
                return Err(self.wrong(file, message));
            }
            (Some(user), None) => Some(ProxyCredentials::Environment(Arc::new(user))),
            (None, file) => file.map(from_file),
        };
        Ok(Proxy { host, port, credentials, except: exceptions(variables.no_proxy.as_deref()) })
    }
}

fn from_file(found: Found<'_>) -> ProxyCredentials {
    ProxyCredentials::File(PathBuf::from(found.text))
}

fn exceptions(no_proxy: Option<&str>) -> Vec<String> {
    let hosts = no_proxy.unwrap_or_default().split([',', ' ']).map(str::trim);
    hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
}

impl Proxy {
    /// Whether a connection to this host and port goes through the proxy: `except` does not name it.
    ///
    /// An exception is `*`, an address, or a name that stands for itself and all names under it, with or without a leading dot;
    /// it may end in `:PORT`. Case does not matter. Address ranges are not understood.
    pub fn serves(&self, host: &HostName, port: u16) -> bool {
        !self.except.iter().any(|exception| covers(exception, host, port))
    }
}

fn covers(exception: &str, host: &HostName, port: u16) -> bool {
    let (name, only_port) = match exception.rsplit_once(':') {
        // Two colons without brackets are an IPv6 address.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
        _ => (exception, None),
    };
    let name = name.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']).to_ascii_lowercase();
    let host = host.as_str().to_ascii_lowercase();
    // Names go from right to left, addresses do not: 0.0.1 is nothing above 10.0.0.1.
    let is_parent = |rest: &str| rest.ends_with('.') && host.parse::<IpAddr>().is_err();
    let under = !name.is_empty() && host.strip_suffix(&name).is_some_and(|rest| rest.is_empty() || is_parent(rest));
    (name == "*" || under) && only_port.is_none_or(|only| only == port)
}

/// `http://user:password@host:port`, taken apart.
struct Url {
    host: HostName,
    port: u16,
    user: Option<Secret<String>>,
}

impl Url {
    // No message quotes the text: it may hold a password.
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Self::authority(rest),
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                Err("TLS to the proxy itself is not supported; write http://HOST:PORT (what goes through it is TLS all the same)")
            }
            Some(_) => Err("only HTTP proxies are supported; write http://HOST:PORT"),
            None => Err("has no scheme; write http://HOST:PORT"),
        }
    }

    fn authority(text: &str) -> Result<Self, &'static str> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(unescaped(user)?), place),
            None => (None, text),
        };
        if place.contains(['/', '?', '#']) {
            return Err("has something after the port; write http://HOST:PORT");
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        // 80 is what RFC 9110 §4.2.1 says of http without a port.
        let port =
            port.map_or(Ok(80), str::parse).map_err(|_| "has no usable port; write http://HOST:PORT, ports are 1 to 65535")?;
        let host = host.parse().map_err(|_| "has no usable host; write http://HOST:PORT")?;
        if port == 0 {
            Err("has no usable port; write http://HOST:PORT, ports are 1 to 65535")
        } else {
            Ok(Self { host, port, user })
        }
    }
}

/// `user:password` without the percent-encoding that a URL needs; the colon is always there.
fn unescaped(user: &str) -> Result<Secret<String>, &'static str> {
    let malformed = "has a user name or password with a '%' that begins no percent-encoding; write it as %25";
    let mut bytes = Vec::with_capacity(user.len() + 1);
    let mut rest = user.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => rest.next().zip(rest.next()).and_then(|(high, low)| hex(high, low)).ok_or(malformed)?,
            plain => plain,
        };
        bytes.push(decoded);
    }
    if !user.contains(':') {
        bytes.push(b':');
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| "has a user name or password that is not UTF-8; write its bytes as UTF-8, percent-encoded")?;
    Ok(Secret::new(text))
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}
