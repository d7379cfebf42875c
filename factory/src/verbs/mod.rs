//! What each command does.

mod enroll;
mod permissions;
mod records;

use serde_json::{Value, json};

use crate::args::{Arguments, Attestation, Command, Connection, DeriveKey, Registration};
use crate::connect::connect;
use crate::failure::{Blame, Failure};
use crate::gateway;
use crate::keys::KeyFolder;
use crate::output::{self, Column, Format};
use crate::secret::Key;
use crate::service::{Kind, Service};

const STATES: &[Column] = &[
    ("registrationId", "/registrationId"),
    ("status", "/status"),
    ("assignedHub", "/assignedHub"),
    ("deviceId", "/deviceId"),
    ("substatus", "/substatus"),
    ("lastUpdated", "/lastUpdatedDateTimeUtc"),
];

/// How the commands speak to whoever called.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The form of the output.
    pub format: Format,
    /// Whether to tell how we signed in.
    pub verbose: bool,
}

impl Manner {
    async fn connect(self, connection: Connection) -> Result<Service, Failure> {
        connect(connection, self.verbose).await
    }
}

/// Runs a command.
///
/// # Errors
/// What ends it badly.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let manner = Manner { format: arguments.output, verbose: arguments.verbose };
    match arguments.command {
        Command::Enroll(enroll) => enroll::run(enroll, manner).await,
        Command::Enrollment(verb) => records::individual(verb, manner).await,
        Command::EnrollmentGroup(verb) => records::group(verb, manner).await,
        Command::Registration(verb) => registration(verb, manner).await,
        Command::Attestation(verb) => attestation(verb, manner).await,
        Command::DeriveKey(derive) => derive_key(derive, manner).await,
        Command::Config(config) => written(&gateway::write(&config)?, manner.format),
        Command::Permissions(permissions) => permissions::run(&permissions, manner.format),
    }
}

async fn registration(verb: Registration, manner: Manner) -> Result<(), Failure> {
    match verb {
        Registration::Show { registration_id, connection } => {
            let state = manner.connect(connection).await?.state(registration_id.as_str()).await?;
            output::one(&state.ok_or_else(|| none("registration", registration_id.as_str()))?, STATES, manner.format)
        }
        Registration::List { name, top, connection } => {
            let service = manner.connect(connection).await?;
            let states = service.states(name.enrollment_id.as_str()).collect(top.top.unwrap_or(usize::MAX)).await?;
            output::list(&states, STATES, manner.format)
        }
        Registration::Delete { registration_id, etag, connection } => {
            let service = manner.connect(connection).await?;
            for id in &registration_id {
                service.delete_state(id.as_str(), &etag.etag).await?;
            }
            Ok(())
        }
    }
}

async fn attestation(verb: Attestation, manner: Manner) -> Result<(), Failure> {
    let Attestation::Show { enrollment_id, group_id, connection } = verb;
    let (kind, id) = match (enrollment_id, group_id) {
        (Some(id), _) => (Kind::Individual, id),
        (None, Some(id)) => (Kind::Group, id),
        (None, None) => return Err(Failure::new(Blame::Usage, "give --enrollment-id or --group-id")),
    };
    let attestation = manner.connect(connection).await?.attestation(kind, id.as_str()).await?;
    let columns = [("type", "/type"), ("primaryKey", "/symmetricKey/primaryKey"), ("endorsementKey", "/tpm/endorsementKey")];
    output::one(&attestation.ok_or_else(|| none(kind.noun(), id.as_str()))?, &columns, manner.format)
}

async fn derive_key(derive: DeriveKey, manner: Manner) -> Result<(), Failure> {
    let group = match (&derive.key_file, &derive.enrollment_id) {
        (Some(file), _) => Key::read(file)?,
        (None, Some(id)) => group_key(&manner.connect(derive.connection).await?, id.as_str()).await?,
        (None, None) => return Err(Failure::new(Blame::Usage, "give --key-file or --enrollment-id")),
    };
    let Some(folder) = derive.keys.map(KeyFolder::new) else {
        let rows = derive
            .registration_id
            .iter()
            .map(|id| json!({ "registrationId": id.as_str(), "key": group.derive(id.as_str()).expose() }));
        let rows: Vec<_> = rows.collect();
        return match (manner.format, rows.as_slice()) {
            // One key alone is what a pipe wants.
            (Format::Table, [row]) => output::write(&format!("{}\n", row["key"].as_str().unwrap_or_default())),
            (format, rows) => output::list(rows, &[("registrationId", "/registrationId"), ("key", "/key")], format),
        };
    };
    let mut files = Vec::new();
    for id in &derive.registration_id {
        folder.put(id, &group.derive(id.as_str()))?;
        files.push(folder.primary(id).display().to_string());
    }
    folder.settle()?;
    written(&json!({ "written": files }), manner.format)
}

async fn group_key(service: &Service, id: &str) -> Result<Key, Failure> {
    let attestation = service.attestation(Kind::Group, id).await?.ok_or_else(|| none("enrollment group", id))?;
    let key = attestation["symmetricKey"]["primaryKey"].as_str();
    let key = key.ok_or_else(|| Failure::new(Blame::Input, format!("the group {id:?} has no symmetric key to derive from")))?;
    Key::parse(key).map_err(|wrong| Failure::new(Blame::Refused, format!("the key of the group {id:?}: {wrong}")))
}

/// The files that were written, a line each; programs get an object.
fn written(files: &Value, format: Format) -> Result<(), Failure> {
    if format.is_for_programs() {
        return output::one(files, &[("written", "/written")], format);
    }
    let lines = files["written"].as_array().into_iter().flatten().filter_map(Value::as_str);
    output::write(&lines.map(|file| format!("{file}\n")).collect::<String>())
}

fn none(what: &str, id: &str) -> Failure {
    Failure::new(Blame::Refused, format!("there is no {what} {id:?} at this instance"))
}
