//! The HTTP clients: one for TLS, with rustls and ring, and one for the metadata service of a virtual machine, which knows no TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::{AsyncRawResponse, ExponentialRetryOptions, HttpClient, Request, RetryOptions, Transport, Url};
use reqwest::{Certificate, Client, ClientBuilder, redirect};

use crate::failure::{Blame, Failure};

/// Connecting and each pause between two pieces of an answer may take so long.
const CONNECT: Duration = Duration::from_secs(20);
const READ: Duration = Duration::from_secs(60);

/// A client that speaks TLS alone; `roots` are trusted in addition to the system's.
///
/// # Errors
/// If `roots` cannot be read or holds no certificate.
pub fn secure(roots: Option<&Path>) -> Result<Transport, Failure> {
    // An error means that it is installed already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut builder = plain_builder().https_only(true);
    if let Some(file) = roots {
        let failed = |what: String| Failure::new(Blame::Credential, format!("--ca-file {}: {what}", file.display()));
        let pem = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("no CERTIFICATE section in it".to_owned()));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    build(builder).map(|client| Transport::new(Arc::new(Secure(client))))
}

/// A client for the metadata service: never through a proxy. `elsewhere` stands in for its fixed address.
///
/// # Errors
/// If the client cannot be made.
pub fn metadata(elsewhere: Option<Url>) -> Result<Transport, Failure> {
    let client = build(plain_builder().no_proxy())?;
    Ok(Transport::new(match elsewhere {
        Some(host) => Arc::new(Elsewhere { client, host }),
        None => Arc::new(client),
    }))
}

/// Tries again after 0.2 s, 0.4 s and so on up to half a minute, or as `Retry-After` says; at most so often and so long.
pub fn retries(times: u32, total: Duration) -> RetryOptions {
    let max_total_elapsed = azure_core::time::Duration::seconds(i64::try_from(total.as_secs()).unwrap_or(i64::MAX));
    RetryOptions::exponential(ExponentialRetryOptions {
        max_retries: times,
        max_total_elapsed,
        ..ExponentialRetryOptions::default()
    })
}

fn plain_builder() -> ClientBuilder {
    Client::builder().connect_timeout(CONNECT).read_timeout(READ).redirect(redirect::Policy::none())
}

fn build(builder: ClientBuilder) -> Result<Client, Failure> {
    builder.build().map_err(|error| Failure::new(Blame::Network, format!("no HTTP client: {}", chain(&error))))
}

/// A client whose failures are tried again only if that can help.
#[derive(Debug)]
struct Secure(Client);

#[async_trait]
impl HttpClient for Secure {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.0.execute_request(request).await.map_err(|error| {
            // A certificate that is not to be trusted will not be in a minute, and the pipeline goes on after other kinds only.
            if is_untrusted(&error) {
                Error::with_error(ErrorKind::Other, error, "its certificate is not to be trusted")
            } else {
                error
            }
        })
    }
}

/// Whether the certificate of whoever answered was refused.
pub fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    // `source` leaves out what an I/O error holds.
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
        || held.is_some_and(|held| is_untrusted(held))
        || error.source().is_some_and(is_untrusted)
}

/// Sends each request to another host than it names.
#[derive(Debug)]
struct Elsewhere {
    client: Client,
    host: Url,
}

#[async_trait]
impl HttpClient for Elsewhere {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let mut url = self.host.clone();
        url.set_path(request.url().path());
        url.set_query(request.url().query());
        let mut moved = Request::new(url, request.method());
        for (name, value) in request.headers().iter() {
            moved.insert_header(name.clone(), value.clone());
        }
        moved.set_body(request.body().clone());
        self.client.execute_request(&moved).await
    }
}

/// An error and all that is behind it, each thing once, on one line and without the links of `azure_identity` to its own guide.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("To troubleshoot"));
        let text = lines.collect::<Vec<_>>().join(" ");
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}
