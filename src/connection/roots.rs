//! The file of root certificates for programs on the gateway: one file, whatever the agent itself trusts.

use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::blame::Blame;
use crate::config::{Config, Gateway, Trust};
use crate::failure::Failure;
use crate::files;

/// The system's roots and `ca_file` joined, in the runtime directory.
const JOINED: &str = "ca.pem";

/// The file that tells the peer of a connection from others. A gateway with a CA of its own is known by that alone.
pub(super) fn file(config: &Config) -> Result<PathBuf, Failure> {
    if let Some(Gateway { ca_file: Some(file), .. }) = &config.hub.gateway {
        return Ok(file.clone());
    }
    match &config.trust {
        Trust::Only(file) => Ok(file.clone()),
        Trust::System => system(),
        Trust::SystemAnd(file) => joined(&system()?, file, &config.runtime_directory),
    }
}

/// The same file that TLS takes, by `SSL_CERT_FILE` or where distributions have it.
fn system() -> Result<PathBuf, Failure> {
    let found = openssl_probe::probe().cert_file.filter(|file| file.to_str().is_some());
    found.ok_or_else(|| Failure::new(Blame::Configuration, NO_ROOTS))
}

const NO_ROOTS: &str = "there is no file with the system's root certificates to name to a program: install the package ca-certificates, \
     point SSL_CERT_FILE at a PEM file, or set ca_file together with ca_only = true";

/// A file of both. Its first line says of what it was made, so that it is made again only when one of them is another.
fn joined(system: &Path, own: &Path, directory: &Path) -> Result<PathBuf, Failure> {
    let joined = directory.join(JOINED);
    let origin = format!("# {} and {}\n", state(system)?, state(own)?);
    if first_line(&joined).as_ref() != Some(&origin) {
        files::make_directory(directory, 0o755)?;
        let content = [origin.into_bytes(), read(system)?, b"\n".to_vec(), read(own)?].concat();
        files::replace(&joined, &content, 0o644)?;
    }
    Ok(joined)
}

fn first_line(path: &Path) -> Option<String> {
    let mut line = String::new();
    BufReader::with_capacity(1024, File::open(path).ok()?).read_line(&mut line).ok()?;
    Some(line)
}

/// The file, and what changes whenever it does.
fn state(path: &Path) -> Result<String, Failure> {
    let found: Metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    let mut state = format!("{path:?}");
    let _ = write!(state, " {}:{}:{}:{}.{}", found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec());
    Ok(state)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("the CA file {} cannot be read: {error}; it must exist and be readable by this user", path.display());
    Failure::new(Blame::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::scratch;

    fn trusting(settings: &str, runtime: &Path) -> Config {
        let text = format!(
            "dps.id_scope = '0ne1'\nattestation.method = 'symmetric-key'\nattestation.registration_id = 'gw-1'\nattestation.key_file = '/k'\n\
             runtime.directory = {runtime:?}\n{settings}\n"
        );
        Config::from_layers(vec![("config.toml".into(), text)], &|_| None).unwrap().config
    }

    #[test]
    fn a_file_that_is_trusted_alone_is_named_as_it_is() {
        let file = |settings| file(&trusting(settings, Path::new("/nowhere"))).unwrap();
        assert_eq!(file("dps.ca_file = '/roots.pem'\ndps.ca_only = true"), Path::new("/roots.pem"));
        assert_eq!(
            file("dps.ca_file = '/roots.pem'\nhub.gateway_host = 'edge'\nhub.gateway_ca_file = '/edge.pem'"),
            Path::new("/edge.pem")
        );
        assert_eq!(
            file("dps.ca_file = '/roots.pem'\ndps.ca_only = true\nhub.gateway_host = 'edge'"),
            Path::new("/roots.pem"),
            "a gateway with a certificate of the usual roots"
        );
    }

    #[test]
    fn the_systems_roots_are_the_file_of_the_distribution() {
        assert_eq!(file(&trusting("", Path::new("/nowhere"))).unwrap(), Path::new("/etc/ssl/certs/ca-certificates.crt"));
    }

    #[test]
    fn a_file_beside_the_systems_roots_is_joined_with_them_and_again_only_when_it_changes() {
        let (system, own) = (scratch("system.pem", b"SYSTEM"), scratch("own.pem", b"OWN\n"));
        let runtime = own.with_file_name("run");
        let joined = || {
            let path = joined(&system, &own, &runtime).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            (fs::metadata(&path).unwrap().ino(), text.split_once('\n').unwrap().1.to_owned())
        };
        let first = joined();
        assert_eq!(first.1, "SYSTEM\nOWN\n");
        assert_eq!(joined(), first);
        fs::write(&own, "NEW\n").unwrap();
        let second = joined();
        assert_eq!(second.1, "SYSTEM\nNEW\n");
        files::replace(&system, b"SISTEM", 0o644).unwrap();
        assert_eq!(joined().1, "SISTEM\nNEW\n");
        assert_eq!(fs::metadata(runtime.join(JOINED)).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let failure = file(&trusting("dps.ca_file = '/nowhere/roots.pem'", Path::new("/nowhere"))).unwrap_err();
        let message = "the CA file /nowhere/roots.pem cannot be read: No such file or directory (os error 2); it must exist and be readable by this user";
        assert_eq!((failure.blame, &*failure.message), (Blame::Configuration, message));
    }
}
