//! `config`: a gateway's configuration and key, written into its image, where `dps-agent` reads them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::args::{AttestationType, Config};
use crate::certificate::Certificate;
use crate::failure::{Blame, Failure};
use crate::files;
use crate::secret::{self, Key};

/// Where everything is on the gateway.
const FOLDER: &str = "etc/dps-agent";
/// Late enough to win over a site's defaults, early enough to be overruled.
const DROP_IN: &str = "config.d/50-factory.toml";

/// What is written, relative to the folder on the gateway.
struct Plan {
    attestation: String,
    files: Vec<(&'static str, Vec<u8>, u32)>,
}

/// Writes the files, keys first; what was written.
///
/// # Errors
/// If something is missing or wrong, before anything is written; or if writing fails.
pub fn write(config: &Config) -> Result<Value, Failure> {
    let plan = match config.attestation_type {
        AttestationType::SymmetricKey => symmetric_key(config)?,
        AttestationType::X509 => x509(config)?,
        AttestationType::Tpm => tpm(config)?,
    };
    let text = drop_in(config, &plan.attestation)?;
    let folder = config.root.join(FOLDER);
    files::make_folder(&folder, 0o755)?;
    let mut written = Vec::new();
    for (name, content, mode) in plan.files.iter().chain([&(DROP_IN, text.into_bytes(), 0o644)]) {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(&folder).to_owned();
        files::make_folder(&parent, 0o755)?;
        files::replace(&path, content, *mode)?;
        files::settle(&parent)?;
        written.push(path.display().to_string());
    }
    Ok(json!({ "written": written }))
}

fn drop_in(config: &Config, attestation: &str) -> Result<String, Failure> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if config.id_scope.is_empty() || config.id_scope.len() > 128 || !config.id_scope.chars().all(legal) {
        return Err(Failure::new(
            Blame::Usage,
            format!("--id-scope {:?}: it is 1 to 128 letters, digits, '-', '_' or '.'", config.id_scope),
        ));
    }
    let mut text = format!("# Written by dps-factory.\n[dps]\nid_scope = {}\n", quoted(&config.id_scope)?);
    if let Some(host) = &config.host {
        let _infallible = writeln!(text, "host = {}", quoted(host)?);
    }
    let _infallible = write!(text, "\n[attestation]\n{attestation}");
    if let Some(id) = &config.registration_id {
        let _infallible = writeln!(text, "registration_id = {}", quoted(id.as_str())?);
    }
    if let Some(source) = &config.registration_id_from {
        let _infallible = writeln!(text, "registration_id_from = {}", quoted(source)?);
    }
    Ok(text)
}

/// A TOML string. What would need escapes is in none of these values.
fn quoted(text: &str) -> Result<String, Failure> {
    if text.is_empty() || text.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        return Err(Failure::new(
            Blame::Usage,
            format!("{text:?}: is empty, or has quotes, backslashes or control characters in it"),
        ));
    }
    Ok(format!("\"{text}\""))
}

fn symmetric_key(config: &Config) -> Result<Plan, Failure> {
    refuse(
        &[("--certificate-file", &config.certificate_file), ("--private-key-file", &config.private_key_file)],
        "symmetricKey",
    )?;
    if config.registration_id.is_none() && config.registration_id_from.is_none() {
        return Err(Failure::new(
            Blame::Usage,
            "a gateway with a symmetric key needs --registration-id or --registration-id-from",
        ));
    }
    let Some(file) = &config.key_file else {
        return Err(Failure::new(
            Blame::Usage,
            "symmetricKey needs --key-file with the device's key (enroll --keys makes it, derive-key too)",
        ));
    };
    let content = |key: &Key| format!("{}\n", key.expose()).into_bytes();
    let mut attestation = "method = \"symmetric-key\"\nkey_file = \"/etc/dps-agent/device.key\"\n".to_owned();
    let mut files = vec![("device.key", content(&Key::read(file)?), 0o600)];
    if let Some(file) = &config.secondary_key_file {
        attestation.push_str("secondary_key_file = \"/etc/dps-agent/device.secondary.key\"\n");
        files.push(("device.secondary.key", content(&Key::read(file)?), 0o600));
    }
    Ok(Plan { attestation, files })
}

fn x509(config: &Config) -> Result<Plan, Failure> {
    refuse(&[("--key-file", &config.key_file)], "x509")?;
    let (Some(certificate), Some(key)) = (&config.certificate_file, &config.private_key_file) else {
        return Err(Failure::new(Blame::Usage, "x509 needs --certificate-file and --private-key-file"));
    };
    let wrong = |what: &str| Failure::new(Blame::Input, format!("{}: certificate: {what}", certificate.display()));
    let chain = fs::read_to_string(certificate).map_err(|error| wrong(&error.to_string()))?;
    let leaf = Certificate::parse(&chain).map_err(|error| wrong(&error))?;
    let name = leaf.common_name().map_err(|error| wrong(&error))?;
    if let Some(id) = config.registration_id.as_ref().filter(|id| id.as_str() != name) {
        return Err(wrong(&format!(
            "its common name is {name:?}, and the registration ID {:?}; they must be equal",
            id.as_str()
        )));
    }
    let private_key = secret::read(key)?;
    if !private_key.expose().contains("PRIVATE KEY-----") {
        return Err(Failure::new(Blame::Credential, format!("{}: no PRIVATE KEY section in it", key.display())));
    }
    let attestation = "method = \"x509\"\ncertificate_file = \"/etc/dps-agent/device.pem\"\n\
                       private_key_file = \"/etc/dps-agent/device-key.pem\"\n";
    let key = format!("{}\n", private_key.expose()).into_bytes();
    Ok(Plan {
        attestation: attestation.to_owned(),
        files: vec![("device-key.pem", key, 0o600), ("device.pem", chain.into_bytes(), 0o644)],
    })
}

fn tpm(config: &Config) -> Result<Plan, Failure> {
    let others = [
        ("--key-file", &config.key_file),
        ("--certificate-file", &config.certificate_file),
        ("--private-key-file", &config.private_key_file),
    ];
    refuse(&others, "tpm")?;
    Ok(Plan { attestation: "method = \"tpm\"\n".to_owned(), files: Vec::new() })
}

fn refuse(options: &[(&str, &Option<PathBuf>)], method: &str) -> Result<(), Failure> {
    let given = options.iter().find(|(_, file)| file.as_deref().is_some_and(|file: &Path| !file.as_os_str().is_empty()));
    given.map_or(Ok(()), |(option, _)| {
        Err(Failure::new(Blame::Usage, format!("{option} is of no use with --attestation-type {method}")))
    })
}
