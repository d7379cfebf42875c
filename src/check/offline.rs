//! The half of the checks that needs no network: configuration, directories, credentials, record and clock.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use super::{Check, Examined, Findings, Id, Outcome, clock, tpm};
use crate::agent::read_payload;
use crate::attestation::{Attestation, AttestationError};
use crate::blame::Blame;
use crate::clock::Clock;
use crate::config::{Config, KeySource, Loaded, Payload, Profile, Trust};
use crate::failure::with_causes;
use crate::files;
use crate::record::{Record, RecordError, Store};
use crate::secret::SecretFileError;
use crate::tls;

/// What the local half has opened, for the other one.
pub(super) struct Local {
    pub(super) attestation: Option<Attestation>,
    /// A record of this very device.
    pub(super) record: Option<Record>,
    pub(super) clock: Clock,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Findings<'_> {
    pub(super) fn configuration(&mut self, examined: &Examined<'_>) -> Option<Config> {
        match Config::load(&examined.source, examined.environment) {
            Err(errors) => {
                let failed = Check::new(Id::Config, Outcome::Failed(Blame::Configuration), "read it", errors.to_string());
                self.add(failed.cure("each line says where and what; `dps-agent config validate` checks again"));
                None
            }
            Ok(loaded) => {
                self.add(valid(&loaded));
                Some(loaded.config)
            }
        }
    }

    pub(super) async fn offline(&mut self, config: &Config, examined: &Examined<'_>) -> Local {
        if let Some(unusable) = payload(config) {
            self.add(unusable);
        }
        self.add(directory(Id::StateDirectory, &config.state_directory, 0o700));
        self.add(directory(Id::RuntimeDirectory, &config.runtime_directory, 0o755));
        self.tpm(config, examined).await;
        let attestation = self.attestation(config, examined).await;
        let remembered = Store::new(&config.state_directory).read();
        let clock = Clock::with_floor(remembered.as_ref().ok().and_then(|record| Some(record.as_ref()?.assigned_at)));
        self.certificate(config, attestation.as_ref(), &clock);
        self.registration_id(attestation.as_ref());
        let record = self.record(config, attestation.as_ref().ok(), remembered);
        self.add(clock::plausible(&clock));
        let attestation = attestation.ok();
        let tls = self.trust(config, attestation.as_ref(), clock);
        Local { attestation, record, clock, tls }
    }

    async fn attestation(&mut self, config: &Config, examined: &Examined<'_>) -> Result<Attestation, AttestationError> {
        let opened = Attestation::open(&config.attestation, &examined.root, examined.credentials.as_deref(), None).await;
        let tried = format!("read {}", credentials(&config.attestation));
        self.add(match &opened {
            // The name is looked for when the credentials are open.
            Ok(_) | Err(AttestationError::Identity(_)) => Check::ok(Id::Credentials, tried, usable(&config.attestation)),
            Err(error) => {
                let (found, cure) = credential_fault(error);
                Check::new(Id::Credentials, Outcome::Failed(error.blame()), tried, found).cure(cure)
            }
        });
        opened
    }

    fn certificate(&mut self, config: &Config, opened: Result<&Attestation, &AttestationError>, clock: &Clock) {
        let skipped = |reason| Check::skipped(Id::Certificate, "nothing", reason);
        self.add(match (&config.attestation, opened.map(Attestation::validity)) {
            (Profile::SymmetricKey { .. } | Profile::Tpm { .. }, _) => skipped("this device proves itself by a key"),
            (Profile::X509 { .. }, Ok(Some(validity))) => clock::window(validity, clock.now()),
            (Profile::X509 { .. }, Ok(None) | Err(_)) => skipped("it cannot be used, see above or below"),
        });
    }

    fn registration_id(&mut self, opened: Result<&Attestation, &AttestationError>) {
        let tried = "find the name under which this device registers";
        self.add(match opened {
            Ok(attestation) if attestation.registration_id().is_disputed() => {
                let found = format!("{}, about which the documents of DPS disagree", attestation.registration_id());
                Check::new(Id::RegistrationId, Outcome::Warning, tried, found)
                    .cure("lower-case letters, digits and dashes between them are taken for certain")
            }
            Ok(attestation) => Check::ok(Id::RegistrationId, tried, attestation.registration_id().as_str()),
            Err(error @ AttestationError::Identity(_)) => {
                Check::new(Id::RegistrationId, Outcome::Failed(error.blame()), tried, with_causes(error))
                    .cure("correct registration_id or registration_id_from in [attestation]")
            }
            Err(_) => Check::skipped(Id::RegistrationId, tried, "the credentials come first"),
        });
    }

    fn record(
        &mut self,
        config: &Config,
        attestation: Option<&Attestation>,
        read: Result<Option<Record>, RecordError>,
    ) -> Option<Record> {
        let tried = format!("read the record in {}", config.state_directory.display());
        let warning = |found: String| Check::new(Id::Record, Outcome::Warning, tried.clone(), found);
        let (check, ours) = match (read, attestation) {
            (Err(error @ RecordError::Damaged { .. }), _) => {
                (warning(error.to_string()).cure("the next registration sets it aside and makes a new one"), None)
            }
            (Err(error @ RecordError::File(_)), _) => {
                let failed = Check::new(Id::Record, Outcome::Failed(error.blame()), tried, error.to_string());
                (failed.cure("look at the disk, and at who owns the file"), None)
            }
            (Ok(None), _) => (Check::ok(Id::Record, tried, "none: this device is not provisioned yet"), None),
            (Ok(Some(record)), Some(attestation)) if !is_ours(&record, config, attestation) => {
                let found = "it is of another ID scope, registration ID or credential than the configured one";
                (warning(found.to_owned()).cure("the next registration replaces it"), None)
            }
            (Ok(Some(record)), Some(attestation)) if is_of_a_cleared_tpm(&record, attestation) => {
                let found = "the TPM was cleared after it: the hub key does not work any more";
                (warning(found.to_owned()).cure("the next registration gets a new one"), None)
            }
            (Ok(Some(record)), Some(_)) => {
                let found = format!("assigned to {} as {} ({})", record.assigned_hub, record.device_id, record.proof);
                (Check::ok(Id::Record, tried, found), Some(record))
            }
            (Ok(Some(_)), None) => (Check::skipped(Id::Record, tried, "without credentials nobody knows whose it is"), None),
        };
        self.add(check);
        ours
    }

    fn trust(&mut self, config: &Config, attestation: Option<&Attestation>, clock: Clock) -> Option<Arc<ClientConfig>> {
        let tried = format!("load whom to trust: {}", trusted(&config.trust));
        match tls::client(&config.trust, None, attestation.and_then(Attestation::certificate), clock) {
            Ok(tls) => {
                self.add(Check::ok(Id::Tls, tried, "there are certificates"));
                Some(tls)
            }
            Err(error) => {
                let failed = Check::new(Id::Tls, Outcome::Failed(error.blame()), tried, with_causes(&error));
                self.add(failed.cure("correct ca_file in [dps], or install the package ca-certificates"));
                None
            }
        }
    }
}

fn valid(loaded: &Loaded) -> Check {
    let files: Vec<String> = loaded.files.iter().map(|path| path.display().to_string()).collect();
    let tried = format!("read {}", files.join(", "));
    if loaded.warnings.is_empty() {
        return Check::ok(Id::Config, tried, "valid");
    }
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    Check::new(Id::Config, Outcome::Warning, tried, warnings.join("\n")).cure("look whether that is meant")
}

/// A payload file that the next registration would stumble over.
pub(super) fn payload(config: &Config) -> Option<Check> {
    let Some(Payload::File(path)) = &config.dps.payload else { return None };
    let failure = read_payload(path).err()?;
    let failed = Check::new(Id::Config, Outcome::Failed(failure.blame), format!("read {}", path.display()), failure.message);
    Some(failed.cure("write one JSON text into it, or remove payload_file"))
}

/// Whether the directory can take files, or can be made. `mode` is the one that it is made with.
fn directory(id: Id, path: &Path, mode: u32) -> Check {
    let tried = format!("look whether {} can be written", path.display());
    let failed = |found: String| Check::new(id, Outcome::Failed(Blame::Unwritable), tried.clone(), found);
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            failed("it is not a directory".to_owned()).cure("remove it, or name another one in the configuration")
        }
        Ok(found) => match files::can_create_in(path) {
            Err(error) => {
                let mode = found.permissions().mode() & 0o7777;
                failed(format!("no: {error}; it belongs to user {} with mode {mode:04o}", found.uid())).cure(cure(&error, path))
            }
            Ok(()) if found.permissions().mode() & 0o022 != 0 => {
                let found = format!("mode {:04o} lets other users replace what is in it", found.permissions().mode() & 0o7777);
                Check::new(id, Outcome::Warning, tried, found).cure(format!("chmod {mode:04o} {}", path.display()))
            }
            Ok(()) => Check::ok(id, tried, "yes"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.ancestors().skip(1).find(|parent| parent.exists()).unwrap_or(Path::new("/"));
            match files::can_create_in(parent) {
                Ok(()) => Check::ok(id, tried, "it is not there yet, and the agent can create it"),
                Err(error) => failed(format!("it is not there, and {} takes no new one: {error}", parent.display()))
                    .cure(format!("create it for the agent's user: install -d -m {mode:04o} -o USER {}", path.display())),
            }
        }
        Err(error) => failed(error.to_string()).cure(cure(&error, path)),
    }
}

fn cure(error: &io::Error, path: &Path) -> String {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        "it must lie on a file system that can be written".to_owned()
    } else {
        format!("the agent's user must own it: chown USER {}", path.display())
    }
}

fn credentials(profile: &Profile) -> String {
    let name = |source: &KeySource| match source {
        KeySource::File(path) => path.display().to_string(),
        KeySource::Credential(name) => format!("systemd credential {name}"),
    };
    match profile {
        Profile::SymmetricKey { primary, secondary: None, .. } => format!("the key {}", name(primary)),
        Profile::SymmetricKey { primary, secondary: Some(secondary), .. } => {
            format!("the keys {} and {}", name(primary), name(secondary))
        }
        Profile::X509 { chain, key, .. } => format!("the certificate {} and its key {}", chain.display(), key.display()),
        Profile::Tpm { tpm, .. } => format!("the keys of the TPM {}", tpm.tcti),
    }
}

fn usable(profile: &Profile) -> &'static str {
    match profile {
        Profile::SymmetricKey { secondary: None, .. } => "a symmetric key",
        Profile::SymmetricKey { secondary: Some(_), .. } => "two symmetric keys",
        Profile::X509 { .. } => "they belong together",
        Profile::Tpm { .. } => "an endorsement key and a storage root key",
    }
}

/// What is wrong and what to do, apart: the error's own message has both in one.
fn credential_fault(error: &AttestationError) -> (String, String) {
    let message = with_causes(error);
    let fact = message.split("; ").next().unwrap_or_default().to_owned();
    let cure = match error {
        AttestationError::File(SecretFileError::OpenToOthers { path, mode }) => {
            let fact = format!("{} is open to every user of this machine (mode {mode:04o})", path.display());
            return (fact, format!("chmod o= {}, and replace the key if others have been here", path.display()));
        }
        AttestationError::File(SecretFileError::GroupWritable { .. }) => "chmod g-w, and chmod o= too",
        AttestationError::File(SecretFileError::Unreadable { .. }) => "put it there, readable by the agent's user and no other",
        AttestationError::File(SecretFileError::NotAFile(_) | SecretFileError::TooLarge(_)) => {
            "name the file with the key in [attestation]"
        }
        AttestationError::NoCredentials(_) => "put LoadCredential= into the unit and check there, or use a …_file key",
        AttestationError::NoSymmetricKey { .. } => "put the key there as the portal shows it, on one line",
        AttestationError::NoChain { .. } => "put the PEM chain there, this device's own certificate first",
        AttestationError::NoPrivateKey { .. } => "put the certificate's own key there, PEM without a password",
        AttestationError::NoPair { .. } => "put the leaf first, and its own key",
        AttestationError::Identity(_) | AttestationError::Tls(_) => "use another key",
        AttestationError::Tpm(error) => return tpm::fault(error),
        AttestationError::NoHubKey | AttestationError::NoTpm => "see docs/tpm.md",
    };
    (fact, cure.to_owned())
}

fn is_ours(record: &Record, config: &Config, attestation: &Attestation) -> bool {
    record.belongs_to(config.dps.id_scope.as_str(), attestation.registration_id().as_str(), &attestation.fingerprint())
}

/// Whether the TPM has lost the storage key of the record's hub key.
fn is_of_a_cleared_tpm(record: &Record, attestation: &Attestation) -> bool {
    let kept = record.tpm.as_ref().map(|memory| &memory.keys.storage_key.public);
    attestation.tpm_keys().is_some_and(|now| kept != Some(&now.storage_key.public))
}

fn trusted(trust: &Trust) -> String {
    let file = |path: &PathBuf| path.display().to_string();
    match trust {
        Trust::System => "the system's certificate store".to_owned(),
        Trust::SystemAnd(path) => format!("the system's certificate store and {}", file(path)),
        Trust::Only(path) => file(path),
    }
}
