//! Takes over the configuration of another provisioning program, keys included, as a drop-in of our own.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::blame::Blame;
use crate::config::aziot::{self, Found};
use crate::config::{Config, Problem};
use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::secret::{Secret, read_secret_file};

/// The user as whom the agent runs has this group.
const GROUP: &str = "dps-agent";

/// What is written, and what is not taken over.
#[derive(Debug)]
pub struct Migration {
    /// The drop-in, and its text, which holds no secret.
    pub drop_in: (PathBuf, String),
    /// Files with a key or a password.
    pub secrets: Vec<(PathBuf, Secret<Vec<u8>>)>,
    /// What the other program's configuration says, and ours does not.
    pub left: Vec<Problem>,
    /// Whether a TPM holds the hub key already.
    pub has_tpm: bool,
}

impl Migration {
    /// Reads the configuration of Microsoft's IoT Identity Service at `from`; `to` is our directory, `/etc/dps-agent`. Writes nothing.
    ///
    /// # Errors
    /// What cannot be read or taken over, and what would not be valid in our words.
    pub fn from_aziot(from: &Path, to: &Path) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::new(Blame::Configuration, message);
        let text = fs::read_to_string(from).map(Zeroizing::new);
        let text = text.map_err(|error| wrong(format!("{}: cannot be read: {error}; run this as root", from.display())))?;
        let aziot::Migrated { mut settings, secrets, left } =
            aziot::read(from, &text).map_err(|errors| wrong(errors.to_string()))?;
        let secrets = secrets.into_iter().map(|(name, found)| {
            let path = to.join(name.replace("_file", "").replace("key", "device.key"));
            settings.push(("attestation", name, format!("{:?}", path.display().to_string())));
            Ok((path, content(name, found)?))
        });
        let secrets = secrets.collect::<Result<Vec<_>, Failure>>()?;
        let text = text_of(from, &settings);
        let drop_in = to.join("config.d/50-aziot.toml");
        let valid = Config::from_layers(vec![(drop_in.clone(), text.clone())], &|_| None);
        valid.map_err(|errors| wrong(format!("{}: does not make a valid configuration: {errors}", from.display())))?;
        let has_tpm = settings.iter().any(|(_, key, _)| *key == "identity_handle");
        Ok(Self { drop_in: (drop_in, text), secrets, left, has_tpm })
    }

    /// Writes the files; none of them may be there already. The drop-in comes last, so that it never names what is not there.
    ///
    /// # Errors
    /// If one is there, or cannot be written.
    pub fn write(&self) -> Result<(), Failure> {
        let all = || self.secrets.iter().map(|(path, _)| path).chain([&self.drop_in.0]);
        if let Some(path) = all().find(|path| path.symlink_metadata().is_ok()) {
            return Err(Failure::new(
                Blame::Unwritable,
                format!("{} is there already; move it away, or name another directory with --to", path.display()),
            ));
        }
        for path in all() {
            files::make_directory(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        }
        for (path, content) in &self.secrets {
            files::replace(path, content.expose(), 0o600)?;
            give_to_agent(path)?;
        }
        Ok(files::replace(&self.drop_in.0, self.drop_in.1.as_bytes(), 0o644)?)
    }
}

/// The group of the agent's user may read it, where the machine has that group.
fn give_to_agent(path: &Path) -> Result<(), Failure> {
    let failed = |source| FileError::Failed { action: "give to the agent's group", path: path.to_owned(), source };
    let groups = match fs::read_to_string("/etc/group") {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        other => other.map_err(failed)?,
    };
    let number = groups.lines().find_map(|line| line.strip_prefix(GROUP)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok());
    let Some(number) = number else { return Ok(()) };
    chown(path, None, Some(number)).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o640))).map_err(failed)?;
    Ok(())
}

/// Our keys are base64 text. In a file of theirs the key is as it is, or in base64 too.
fn content(name: &str, found: Found) -> Result<Secret<Vec<u8>>, Failure> {
    let bytes = match found {
        Found::Inline(text) => return Ok(Secret::new(text.expose().clone().into_bytes())),
        Found::File(path) => read_secret_file(&path).map_err(|error| Failure::new(error.blame(), error.to_string()))?,
    };
    let is_base64 =
        STANDARD.decode(bytes.expose().trim_ascii()).map(Zeroizing::new).is_ok_and(|key| (16..=64).contains(&key.len()));
    if name != "key_file" || is_base64 { Ok(bytes) } else { Ok(Secret::new(STANDARD.encode(bytes.expose()).into_bytes())) }
}

fn text_of(from: &Path, settings: &[(&str, &str, String)]) -> String {
    let mut text = format!("# From {}, by `dps-agent migrate aziot`.\n", from.display());
    for table in ["dps", "attestation"] {
        text.push_str(&format!("\n[{table}]\n"));
        let lines = settings.iter().filter(|(of, _, _)| *of == table).map(|(_, key, value)| format!("{key} = {value}\n"));
        text.extend(lines);
    }
    text
}
