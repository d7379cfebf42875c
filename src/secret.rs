//! Secrets that cannot be printed or copied by accident, are wiped when dropped, and come from files that nobody else reads.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroize;

use crate::blame::Blame;

/// A value that is wiped from memory when dropped. No `Display`, no `Clone`; `Debug` shows its length only.
pub struct Secret<T: Zeroize + AsRef<[u8]>>(T);

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Takes ownership: from here on this is the only copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself, for the moment of its use.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.as_ref().len())
    }
}

impl<T: Zeroize + AsRef<[u8]>> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why a file that holds a secret is not used.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// It is not there, or this user may not read it.
    #[error("cannot read {path}: {source}{}", hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a directory, a device or a pipe.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// Users other than owner and group may use it.
    #[error(
        "{path} is open to every user of this machine (mode {mode:04o}): chmod o= {path}, and replace the key if others have been here"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its group may change it, and so decide who this device is.
    #[error("{path} can be changed by its group (mode {mode:04o}): chmod g-w {path}")]
    GroupWritable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nobody's key is that long.
    #[error("{0} is larger than 64 KiB: this is no key, certificate or password")]
    TooLarge(PathBuf),
}

impl SecretFileError {
    /// Whom to blame: whoever placed the file.
    pub fn blame(&self) -> Blame {
        Blame::Credential
    }
}

const LARGEST: u64 = 64 * 1024;

/// Reads a secret that must not be open to others (permission bits `o=`). The group may read it: that is how a service user gets it.
pub fn read_secret_file(path: &Path) -> Result<Secret<Vec<u8>>, SecretFileError> {
    let unreadable = |source| SecretFileError::Unreadable { path: path.to_owned(), source };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(SecretFileError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretFileError::OpenToOthers { path: path.to_owned(), mode });
    }
    if mode & 0o020 != 0 {
        return Err(SecretFileError::GroupWritable { path: path.to_owned(), mode });
    }
    let mut secret = Secret::new(Vec::with_capacity(4096));
    file.take(LARGEST + 1).read_to_end(&mut secret.0).map_err(unreadable)?;
    match secret.0.len() as u64 > LARGEST {
        true => Err(SecretFileError::TooLarge(path.to_owned())),
        false => Ok(secret),
    }
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound {
        " (was it copied into the image?)"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        " (the agent's user must own it, or be in its group)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_a_length_and_no_more() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "Secret(7 bytes)");
        assert_eq!(format!("{:?}", Secret::new(vec![1, 2, 3])), "Secret(3 bytes)");
    }

    fn file(name: &str, mode: u32, content: &[u8]) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("dps-agent-secret-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_file_of_owner_and_group_is_read() {
        for mode in [0o600, 0o400, 0o440, 0o640] {
            let path = file(&format!("good-{mode:o}"), mode, b"key");
            assert_eq!(read_secret_file(&path).unwrap().expose(), b"key");
        }
    }

    #[test]
    fn a_file_that_cannot_be_right_is_refused_with_its_cure() {
        let said = |path: &Path| read_secret_file(path).unwrap_err().to_string().replace(&path.display().to_string(), "FILE");
        assert_eq!(
            said(&file("open", 0o644, b"key")),
            "FILE is open to every user of this machine (mode 0644): chmod o= FILE, and replace the key if others have been here"
        );
        assert_eq!(said(&file("shared", 0o660, b"key")), "FILE can be changed by its group (mode 0660): chmod g-w FILE");
        assert_eq!(
            said(&file("large", 0o600, &[0; 65537])),
            "FILE is larger than 64 KiB: this is no key, certificate or password"
        );
        assert_eq!(said(&std::env::temp_dir()), "FILE is not a regular file");
        let missing = file("x", 0o600, b"").with_file_name("missing");
        assert_eq!(said(&missing), "cannot read FILE: No such file or directory (os error 2) (was it copied into the image?)");
    }
}
