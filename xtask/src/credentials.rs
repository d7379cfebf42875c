//! Makes the gateways' keys and certificates with the `openssl` program.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Done;

/// A private CA for gateways, in a directory of its own.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
}

/// A gateway's certificate with its private key, both PEM files.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
}

impl Authority {
    /// # Errors
    /// If openssl fails.
    pub fn new(directory: &Path) -> Done<Self> {
        std::fs::create_dir_all(directory)?;
        let new = Self { directory: directory.to_owned() };
        let (key, certificate) = (text(&new.file("ca.key")), text(&new.certificate()));
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key])?;
        openssl(&["req", "-x509", "-new", "-key", &key, "-subj", "/CN=Gateway CA", "-days", "2", "-out", &certificate])?;
        Ok(new)
    }

    /// The CA's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A P-256 certificate whose subject is `name`, good for `days` from now; a negative number makes it expired.
    ///
    /// # Errors
    /// If openssl fails.
    pub fn issue(&self, name: &str, days: i32) -> Done<Certificate> {
        let issued =
            Certificate { certificate: self.file(&format!("{name}.pem")), private_key: self.file(&format!("{name}.key")) };
        let (key, request) = (text(&issued.private_key), text(&self.file(&format!("{name}.csr"))));
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key])?;
        openssl(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &request])?;
        let extensions = self.file("client.cnf");
        std::fs::write(&extensions, "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")?;
        let (certificate, ca, ca_key) = (text(&issued.certificate), text(&self.certificate()), text(&self.file("ca.key")));
        let days = days.to_string();
        let names = ["-in", &request, "-out", &certificate, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
        openssl(&[&["x509", "-req", "-days", &days, "-extfile", &text(&extensions)], &names[..]].concat())?;
        Ok(issued)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// An RSA certificate that nobody but itself issued, with its key, in files that begin with `path`.
///
/// # Errors
/// If openssl fails.
pub fn rsa_certificate(path: &Path, name: &str) -> Done<Certificate> {
    let made = Certificate { certificate: path.with_extension("pem"), private_key: path.with_extension("key") };
    let (certificate, key, subject) = (text(&made.certificate), text(&made.private_key), format!("/CN={name}"));
    let files = ["-keyout", &key, "-out", &certificate];
    openssl(&[&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-days", "2"], &files[..]].concat())?;
    Ok(made)
}

/// A symmetric key of 32 random bytes, as base64 text.
///
/// # Errors
/// If the system gives no random bytes.
pub fn symmetric_key() -> Done<String> {
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

/// Writes a secret that only we can read, as the agent demands of its key files.
///
/// # Errors
/// If the file cannot be written.
pub fn write_secret(path: &Path, content: &str) -> Done {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(content.as_bytes())?)
}

fn openssl(arguments: &[&str]) -> Done {
    let output = Command::new("openssl").args(arguments).output().map_err(|error| format!("cannot start openssl: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("openssl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()).into())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
