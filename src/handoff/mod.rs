//! The connection for programs that ask nobody: files made of templates, and systemd's credentials.

pub mod credentials;
mod facts;
mod place;
mod render;
mod schedule;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::facts::Facts;
use self::render::{Format, Source};
use crate::blame::Blame;
use crate::config::{Shipped, Template, TemplateSource};
use crate::connection::{self, Connection, LONGEST_LIFE};
use crate::desk::Served;
use crate::failure::Failure;
use crate::secret::Secret;

/// The directory of the files, below the runtime directory.
pub const DIRECTORY: &str = "handoff";

/// After a failure that may pass, such as a busy TPM, the next try comes after so many seconds.
const TRY_AGAIN: u64 = 60;

/// The files of `[handoff.template.NAME]`. Each is written only when it would be another one: the hub, the key or the template has
/// changed, or its token is due.
#[derive(Debug)]
pub struct Handoff {
    /// Spreads the moments at which the gateways of a fleet connect anew.
    seed: u64,
    /// When to look again, in seconds since 1970.
    due: Option<u64>,
}

/// What became of a template.
#[derive(Debug)]
pub struct Made {
    /// The NAME of its table.
    pub template: String,
    /// The file.
    pub file: PathBuf,
    /// Whether it is new, the same as before, or could not be made.
    pub outcome: Result<Outcome, Failure>,
}

/// What became of a file that is right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was written.
    Written,
    /// It was right already, and was not touched.
    Unchanged,
}

impl Handoff {
    /// Nothing is made yet. `seed` is a random number.
    pub fn new(seed: u64) -> Self {
        Self { seed, due: None }
    }

    /// Makes the files that are not what they should be, and removes what no template makes. To be called for each assignment that
    /// is served, after the configuration was read anew, and when [`next`](Self::next) says so; a call too many changes nothing.
    ///
    /// A template that fails does not keep the others from being made; its file stays as it was.
    pub async fn render(&mut self, served: &Served) -> Vec<Made> {
        let directory = served.config.runtime_directory.join(DIRECTORY);
        let templates = &served.config.handoff.templates;
        let (mut all, mut due) = (Vec::new(), None);
        for template in templates {
            let file = directory.join(&template.file);
            let made = self.make(template, &file, served).await;
            due = earlier(due, self.due_of(&made, served));
            let outcome = made.map(|(outcome, _)| outcome);
            tell(template, &file, &outcome);
            all.push(Made { template: template.name.clone(), file, outcome });
        }
        place::remove_others(&directory, templates);
        self.due = due;
        all
    }

    /// How long to wait until the next [`render`](Self::render); `None` while nothing will change by itself. `now` is in seconds since
    /// 1970. Ask again after the clock was set and after a suspend.
    pub fn next(&self, now: u64) -> Option<Duration> {
        self.due.map(|due| Duration::from_secs(due.saturating_sub(now)))
    }

    /// The file as it should be, with the end of the token that it holds.
    async fn make(&self, template: &Template, file: &Path, served: &Served) -> Result<(Outcome, Option<u64>), Failure> {
        let old = place::read(file);
        let connection = self.connection(old.as_ref().map(|old| old.expose().as_slice()), served).await?;
        let facts = Facts::new(served, &connection, template.export_key.as_ref());
        let new = render::render(&source(template)?, &Format::of(&template.file), &facts)?;
        guard(template, new.expose(), &facts)?;
        let outcome = place::put(template, file, old.as_ref(), &new)?;
        let holds_token = connection.password().is_some_and(|token| new.expose().contains(signature(token.expose())));
        Ok((outcome, connection.expires_at().filter(|_| holds_token)))
    }

    /// A connection with the token that the file has, as long as that is good for a while, else with a new one.
    async fn connection(&self, old: Option<&[u8]>, served: &Served) -> Result<Connection, Failure> {
        let Served { record, config, attestation, clock } = served;
        let kept = old.and_then(schedule::expiry_in).filter(|ends| schedule::is_good(*ends, clock.now(), self.seed));
        match kept {
            Some(expires_at) => connection::again(config, attestation, record, expires_at).await,
            None => connection::make(config, attestation, record, *clock, LONGEST_LIFE).await,
        }
    }

    fn due_of(&self, made: &Result<(Outcome, Option<u64>), Failure>, served: &Served) -> Option<u64> {
        match made {
            Ok((_, ends)) => ends.map(|ends| schedule::due(ends, self.seed)),
            // A template and its place are as wrong a minute later.
            Err(Failure { blame: Blame::Configuration | Blame::Unwritable, .. }) => None,
            Err(_) => Some(served.clock.now().saturating_add(TRY_AGAIN)),
        }
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn tell(template: &Template, file: &Path, outcome: &Result<Outcome, Failure>) {
    match outcome {
        Ok(Outcome::Written) if template.export_key.is_some() => {
            tracing::warn!("made {}, in which the device's key may stand: export_key is true", file.display());
        }
        Ok(Outcome::Written) => tracing::info!("made {}", file.display()),
        Ok(Outcome::Unchanged) => {}
        Err(failure) => tracing::warn!("[handoff.template.{}]: {failure}", template.name),
    }
}

/// The part of a token that no other has.
fn signature(token: &str) -> &str {
    token.split_once("&sig=").and_then(|(_, rest)| rest.split('&').next()).unwrap_or(token)
}

/// A secret is for owner and group at most.
fn guard(template: &Template, text: &str, facts: &Facts<'_>) -> Result<(), Failure> {
    let open = template.mode & 0o007 != 0;
    if open && facts.secrets().any(|secret| text.contains(secret)) {
        let message = format!(
            "its file would show a secret to every user of this machine (mode = \"{:04o}\"); write mode = \"0640\", and the group of the program that reads it",
            template.mode
        );
        return Err(Failure::new(Blame::Configuration, message));
    }
    Ok(())
}

fn source(template: &Template) -> Result<Source, Failure> {
    match &template.source {
        TemplateSource::Shipped(shipped) => Ok(Source { name: shipped.name().to_owned(), text: text(*shipped).to_owned() }),
        TemplateSource::File(path) => place::template(path),
    }
}

/// The templates that the agent brings along.
const fn text(shipped: Shipped) -> &'static str {
    match shipped {
        Shipped::HubEnv => include_str!("../../config/templates/hub.env"),
        Shipped::HubJson => include_str!("../../config/templates/hub.json"),
        Shipped::MosquittoBridge => include_str!("../../config/templates/mosquitto-bridge.conf"),
        Shipped::ThinEdge => include_str!("../../config/templates/thin-edge.env"),
    }
}

/// A template that the agent brings along, filled in for nobody's file.
pub(crate) fn filled_in(shipped: Shipped, facts: &Facts<'_>) -> Result<Secret<String>, Failure> {
    let source = Source { name: shipped.name().to_owned(), text: text(shipped).to_owned() };
    render::render(&source, &Format::of(shipped.name()), facts)
}

#[cfg(test)]
mod tests;
