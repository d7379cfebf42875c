//! What each verb does.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{self, Cli};
use super::{environment, output};
use crate::agent::{Agent, Given, Renewal, Surroundings};
use crate::blame::Blame;
use crate::check::{Check, Examined, examine};
use crate::config::{self, Config, Loaded, RegistrationIdSource, Source};
use crate::daemon::{self, Setting};
use crate::failure::Failure;
use crate::notify::Manager;
use crate::progress::Progress;
use crate::record::{Record, RecordError, Store, rfc3339};
use crate::transcript::Transcript;

/// What a verb ends with: its exit code, or a failure that is still to be told.
pub(super) type Ended = Result<u8, Failure>;

/// `run`
pub async fn run(cli: &Cli) -> Ended {
    let no_signals = |error| Failure::new(Blame::Storage, format!("signals cannot be received: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let load = || load(cli);
    let credentials = environment("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let manager = Manager::from_environment(&environment);
    let setting = Setting { load: &load, root: PathBuf::from("/"), credentials, manager: &manager };
    // Whoever stops us before we are ready stops us as cleanly as later.
    daemon::run(setting, shutdown).await.inspect_err(|failure| manager.say(&failure.to_string()))?;
    tracing::info!("stopped");
    Ok(0)
}

/// `provision`
pub async fn provision(cli: &Cli, options: &args::Provision) -> Ended {
    let config = load(cli)?;
    let transcript = transcript(options.transcript.as_ref())?;
    let progress = Progress::for_person();
    let agent = Agent::open(config, surroundings(transcript, progress.clone()), options.timeout).await?;
    let valid = if options.force { None } else { agent.current()? };
    let record = match valid {
        Some(record) => {
            if options.transcript.is_some() {
                tracing::warn!(
                    "there is a valid assignment, so DPS is not asked and the transcript stays empty; --force registers anew"
                );
            }
            agent.hand_off(&record).await?;
            record
        }
        None => {
            let renewal = if options.force { Renewal::Anew } else { Renewal::IfNeeded };
            let provisioned = agent.provision(options.timeout, renewal).await;
            progress.done();
            provisioned?
        }
    };
    tell(cli, &record)
}

/// `adopt`
pub async fn adopt(cli: &Cli, options: &args::Adopt) -> Ended {
    let progress = Progress::for_person();
    let agent = Agent::open(load(cli)?, surroundings(Transcript::log_only(), progress.clone()), options.timeout).await?;
    let given = options.hub.clone().map(|hub| Given { hub, device_id: options.device_id.clone() });
    let taken = agent.take_over(given, options.timeout).await;
    progress.done();
    tell(cli, &taken?)
}

fn tell(cli: &Cli, record: &Record) -> Ended {
    if cli.json {
        output::print_json(&told(record))?;
    } else {
        output::print(&in_words(record))?;
    }
    Ok(0)
}

/// `check`
pub async fn check(cli: &Cli, options: &args::Check) -> Ended {
    let Surroundings { root, credentials, .. } = surroundings(Transcript::log_only(), Progress::Silent);
    let examined = Examined { source: source(cli), environment: &environment, root, credentials, offline: options.offline };
    let mut heard = Ok(());
    let mut tell = |check: &Check| {
        if !cli.json && heard.is_ok() {
            heard = output::print(&format!("{check}\n"));
        }
    };
    let findings = examine(examined, &mut tell).await;
    let (code, all) = (findings.exit_code(), findings.to_json());
    heard?;
    if cli.json {
        output::print_json(&all)?;
    }
    Ok(code)
}

/// `config show` and `config validate`
pub fn config(cli: &Cli, what: &args::Config) -> Ended {
    let loaded = Config::load(&source(cli), &environment);
    match (what, &loaded) {
        (args::Config::Validate, _) if cli.json => output::print_json(&config::validation_json(&loaded))?,
        (args::Config::Validate, Ok(loaded)) => {
            loaded.warnings.iter().try_for_each(|warning| output::print(&format!("warning: {warning}\n")))?;
            output::print("the configuration is valid\n")?;
        }
        (args::Config::Show, Ok(loaded)) if cli.json => output::print_json(&loaded.to_json())?,
        (args::Config::Show, Ok(loaded)) => output::print(&loaded.to_toml())?,
        (_, Err(errors)) => return Err(Failure::new(Blame::Configuration, errors.to_string())),
    }
    Ok(if loaded.is_ok() { 0 } else { Blame::Configuration.exit_code() })
}

/// The record of the configured device that is adopted, if there is one.
pub(super) fn recorded(config: &Config) -> Result<Option<Record>, Failure> {
    let record = match Store::new(&config.state_directory).read() {
        Err(error @ RecordError::Damaged { .. }) => {
            return Err(Failure::new(error.blame(), format!("{error}; the next registration replaces it")));
        }
        other => other?,
    };
    Ok(record.and_then(Record::adopted).filter(|record| is_configured(record, config)))
}

/// Whether the record is of the configured device, as far as the configuration alone tells: no key is opened for `status`.
fn is_configured(record: &Record, config: &Config) -> bool {
    let named = match config.attestation.registration_id() {
        RegistrationIdSource::Written(id) => record.registration_id == id.as_str(),
        RegistrationIdSource::From { .. } => true,
    };
    named && record.id_scope == config.dps.id_scope.as_str()
}

/// The configuration; what is worth a warning is logged.
pub(super) fn load(cli: &Cli) -> Result<Config, Failure> {
    let loaded = Config::load(&source(cli), &environment);
    let Loaded { config, warnings, .. } = loaded.map_err(|errors| Failure::new(Blame::Configuration, errors.to_string()))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

pub(super) fn source(cli: &Cli) -> Source {
    match &cli.config {
        Some(path) => Source::File(path.clone()),
        None => Source::System { root: PathBuf::from("/") },
    }
}

pub(super) fn surroundings(transcript: Transcript, progress: Progress) -> Surroundings {
    let credentials = environment("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Surroundings { root: PathBuf::from("/"), credentials, transcript, progress }
}

fn transcript(path: Option<&PathBuf>) -> Result<Transcript, Failure> {
    let Some(path) = path else { return Ok(Transcript::log_only()) };
    Transcript::to_file(path)
        .map_err(|error| Failure::new(Blame::Unwritable, format!("cannot write the transcript {}: {error}", path.display())))
}

/// The assignment as `provision --json` prints it.
pub(super) fn told(record: &Record) -> Value {
    with(record.public(), "transport", json!(record.transport))
}

pub(super) fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

pub(super) fn in_words(record: &Record) -> String {
    let mut lines = vec![
        format!("registration ID  {}", record.registration_id),
        format!("assigned hub     {}", record.assigned_hub),
        format!("device ID        {}", record.device_id),
        format!("assigned         {} over {} by {}", rfc3339(record.assigned_at), record.transport, record.attestation),
        format!("proof            {}", proof_in_words(&record.proof)),
    ];
    lines.extend(record.substatus.as_ref().map(|why| format!("substatus        {why}")));
    lines.extend(record.payload.as_ref().map(|payload| format!("payload          {payload}")));
    lines.join("\n") + "\n"
}

fn proof_in_words(word: &str) -> &str {
    match word {
        "proven" => "proven: the hub has accepted this device",
        "unproven" => "unproven: the hub could not be reached",
        "unverified" => "unverified: hub.verify is never",
        other => other,
    }
}
