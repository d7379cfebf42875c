//! systemd's credentials: `LoadCredential=NAME:/run/dps-agent/credential.sock` in a unit, and that unit has its connection
//! (systemd.exec(5)).
//!
//! systemd connects once for each credential; the abstract name of its socket tells the unit and the credential. It takes whatever
//! comes until the end of the stream, and has no word for "there is none": an empty answer becomes an empty credential, with which
//! the unit starts. So who asks too early waits, as long as its unit's `TimeoutStartSec=` lets it, and a refusal is an answer longer
//! than systemd takes: the unit fails then with 243/CREDENTIALS and does not run on nothing.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::facts::Facts;
use super::filled_in;
use crate::blame::Blame;
use crate::config::{Credentials, Shipped};
use crate::connection::{self, LONGEST_LIFE};
use crate::desk::{Desk, Given, Served};
use crate::failure::Failure;
use crate::secret::Secret;

/// The name of the socket, in the runtime directory.
pub const SOCKET: &str = "credential.sock";

/// So many are answered or wait at a time; the next ones wait to be accepted.
const AT_A_TIME: usize = 128;

/// One and a half times what systemd takes for a credential (1 MiB, and 128 KiB for an encrypted one).
const TOO_LONG: usize = 1536 * 1024;

/// After a failure that may pass, such as a busy TPM, the next try comes after this.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// systemd runs as root.
const ROOT: u32 = 0;

/// Answers whoever connects, for ever. The socket should be for root alone (mode 0600); others are refused, too.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    serve_user(listener, desk, ROOT).await;
}

async fn serve_user(listener: UnixListener, desk: Arc<Desk>, user: u32) {
    let mut at_work = JoinSet::new();
    loop {
        while at_work.len() >= AT_A_TIME {
            at_work.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    at_work.spawn(answer(stream, desk.clone(), user));
                }
                Err(error) => {
                    tracing::warn!("{SOCKET}: {error}; trying again");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            },
            Some(_) = at_work.join_next() => {}
        }
    }
}

/// Who asks, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    unit: String,
    credential: Credential,
}

/// The credentials there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    HubJson,
    HubEnv,
    ConnectionString,
}

impl Credential {
    const ALL: [Self; 3] = [Self::HubJson, Self::HubEnv, Self::ConnectionString];

    const fn name(self) -> &'static str {
        match self {
            Self::HubJson => Shipped::HubJson.name(),
            Self::HubEnv => Shipped::HubEnv.name(),
            Self::ConnectionString => "connection-string",
        }
    }
}

async fn answer(stream: UnixStream, desk: Arc<Desk>, user: u32) {
    if let Err(error) = try_answer(stream, &desk, user).await {
        tracing::debug!("{SOCKET}: the peer did not take its answer: {error}");
    }
}

async fn try_answer(mut stream: UnixStream, desk: &Desk, user: u32) -> io::Result<()> {
    let request = match request(&stream, user) {
        Ok(request) => request,
        Err(why) => return refuse(&mut stream, &why).await,
    };
    let content = tokio::select! {
        content = content(&request, desk) => content,
        () = hung_up(&stream) => {
            tracing::info!("{} no longer waits for {}", request.unit, request.credential.name());
            return Ok(());
        }
    };
    // Whoever listened for the end has used up the news that there is room: registered anew, it comes again.
    let mut stream = UnixStream::from_std(stream.into_std()?)?;
    match content {
        Ok(content) => {
            note(&stream, &request, desk);
            stream.write_all(content.expose().as_bytes()).await
        }
        Err(why) => refuse(&mut stream, &format!("{} for {}: {why}", request.credential.name(), request.unit)).await,
    }
}

fn note(stream: &UnixStream, request: &Request, desk: &Desk) {
    let Some(served) = desk.served() else { return };
    let peer = stream.peer_cred().ok();
    let Request { unit, credential } = request;
    tracing::info!("gave the credential {} to {unit}", credential.name());
    desk.note_given(Given {
        by: format!("credential {} for {unit}", credential.name()),
        uid: peer.as_ref().map(tokio::net::unix::UCred::uid),
        pid: peer.as_ref().and_then(tokio::net::unix::UCred::pid),
        at: served.clock.now(),
        generation: served.record.generation,
    });
}

/// What systemd wants, or why it is not systemd.
fn request(stream: &UnixStream, user: u32) -> Result<Request, String> {
    let uid = stream.peer_cred().map_err(|error| format!("the peer has no credentials: {error}"))?.uid();
    if uid != user {
        return Err(format!("user {uid} asked, and only systemd may, as user {user}"));
    }
    // The address that comes with `accept` has lost an abstract name.
    let peer = stream.peer_addr().map_err(|error| format!("the peer has no address: {error}"))?;
    parse(peer.as_abstract_name().unwrap_or_default()).ok_or_else(|| {
        "the peer does not say which unit it asks for; only LoadCredential=NAME:SOCKET of a unit is answered here".to_owned()
    })?
}

/// `RANDOM/unit/UNIT/CREDENTIAL`; nothing if it is not of this form.
fn parse(name: &[u8]) -> Option<Result<Request, String>> {
    let mut parts = std::str::from_utf8(name).ok()?.splitn(4, '/');
    let (_, "unit", unit, credential) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?) else { return None };
    let known = Credential::ALL.into_iter().find(|known| known.name() == credential);
    Some(known.map(|credential| Request { unit: unit.to_owned(), credential }).ok_or_else(|| {
        let names = Credential::ALL.map(Credential::name).join(", ");
        format!("{unit:?} asks for the credential {credential:?}; write LoadCredential= with one of {names}")
    }))
}

/// The credential, as soon as there is an assignment.
async fn content(request: &Request, desk: &Desk) -> Result<Secret<String>, Failure> {
    let mut told = false;
    let mut watch = desk.watch();
    loop {
        let served = watch.borrow_and_update().clone();
        let (why, again) = match served {
            None => ("there is no assignment yet".to_owned(), None),
            Some(served) => match make(request, &served).await {
                Err(failure) if may_pass(failure.blame) => (failure.to_string(), Some(TRY_AGAIN)),
                made => return made,
            },
        };
        if !std::mem::replace(&mut told, true) {
            tracing::info!("{} waits for its credential {}: {why}", request.unit, request.credential.name());
        }
        tokio::select! {
            // Without a daemon there will be no assignment; then systemd's own patience counts.
            Ok(()) = watch.changed() => {}
            () = tokio::time::sleep(again.unwrap_or(Duration::MAX)) => {}
        }
    }
}

fn may_pass(blame: Blame) -> bool {
    match blame {
        Blame::Clock | Blame::Tpm | Blame::Busy | Blame::Network | Blame::Storage => true,
        Blame::Usage
        | Blame::Configuration
        | Blame::Credential
        | Blame::Unauthorized
        | Blame::Hub
        | Blame::Refused
        | Blame::Untrusted
        | Blame::Peer
        | Blame::Unwritable => false,
    }
}

async fn make(request: &Request, served: &Served) -> Result<Secret<String>, Failure> {
    let Served { record, config, attestation, clock } = served;
    let leave = allowed(request, &config.handoff.credentials)?;
    let connection = connection::make(config, attestation, record, *clock, LONGEST_LIFE).await?;
    let facts = Facts::new(served, &connection, leave.filter(|_| request.credential == Credential::ConnectionString));
    match request.credential {
        Credential::HubJson => filled_in(Shipped::HubJson, &facts),
        Credential::HubEnv => filled_in(Shipped::HubEnv, &facts),
        Credential::ConnectionString => {
            let text = facts.connection_string().map(|text| Secret::new(text.expose().clone()));
            text.ok_or_else(|| Failure::new(Blame::Configuration, "this device has no key that could be given away"))
        }
    }
}

/// Whether this unit may have it, and the leave to give the key away where that was given.
fn allowed<'c>(request: &Request, credentials: &'c Credentials) -> Result<Option<&'c crate::config::ExportKey>, Failure> {
    let (units, leave) = match (request.credential, &credentials.connection_string) {
        (Credential::HubJson, _) => (&credentials.hub_json, None),
        (Credential::HubEnv, _) => (&credentials.hub_env, None),
        (Credential::ConnectionString, Some((units, leave))) => (units, Some(leave)),
        (Credential::ConnectionString, None) => {
            let message =
                "it holds the device's key; write export_key = true under [handoff.credentials] if it may be given away";
            return Err(Failure::new(Blame::Configuration, message));
        }
    };
    match units.iter().any(|pattern| fits(pattern, &request.unit)) {
        true => Ok(leave),
        false => {
            let message = format!("[handoff.credentials] does not name this unit for {}", request.credential.name());
            Err(Failure::new(Blame::Configuration, message))
        }
    }
}

/// Whether a name fits a pattern, in which `*` stands for any characters, also none.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            // Where a star could end: anywhere.
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| fits(rest, &name[at..]))
        }),
    }
}

/// Lets the unit fail: see the head of this file.
async fn refuse(stream: &mut UnixStream, why: &str) -> io::Result<()> {
    tracing::warn!("{SOCKET}: refused: {why}");
    let nothing = [0; 16 * 1024];
    for _ in 0..TOO_LONG / nothing.len() {
        stream.write_all(&nothing).await?;
    }
    Ok(())
}

/// Ends when the peer has closed its side, as systemd does when the unit is stopped. That it sends nothing is no sign: systemd never
/// does, and says so at once.
async fn hung_up(stream: &UnixStream) {
    loop {
        match stream.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {
                // There is room, and nothing to send yet: wait for the next news of this socket.
                let _ = stream.try_io(Interest::WRITABLE, || Err::<(), _>(ErrorKind::WouldBlock.into()));
            }
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
