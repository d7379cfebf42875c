//! The folder with the devices' symmetric keys: `ID.key` and `ID.secondary.key`, given or made.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::failure::{Blame, Failure};
use crate::files;
use crate::id::EnrollmentId;
use crate::secret::Key;

/// A folder of key files, each readable for its owner alone.
#[derive(Debug, Clone)]
pub struct KeyFolder(PathBuf);

/// Which keys of a device are there.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The one that the device has.
    pub primary: Option<Key>,
    /// The spare one.
    pub secondary: Option<Key>,
}

impl Keys {
    /// Both, as an attestation holds them; `None` if one is missing.
    pub fn attestation(&self) -> Value {
        let mut keys = json!({});
        for (name, key) in [("primaryKey", &self.primary), ("secondaryKey", &self.secondary)] {
            if let Some(key) = key {
                keys[name] = json!(key.expose());
            }
        }
        json!({ "type": "symmetricKey", "symmetricKey": keys })
    }
}

impl KeyFolder {
    /// It is made when the first key is.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file with the device's key.
    pub fn primary(&self, id: &EnrollmentId) -> PathBuf {
        self.0.join(format!("{id}.key"))
    }

    fn secondary(&self, id: &EnrollmentId) -> PathBuf {
        self.0.join(format!("{id}.secondary.key"))
    }

    /// The keys that are there.
    ///
    /// # Errors
    /// If a file is there and cannot be used.
    pub fn find(&self, id: &EnrollmentId) -> Result<Keys, Failure> {
        Ok(Keys { primary: read(&self.primary(id))?, secondary: read(&self.secondary(id))? })
    }

    /// Makes what is missing and writes it. They are safe once [`KeyFolder::settle`] has been called.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn complete(&self, id: &EnrollmentId, keys: &Keys) -> Result<Keys, Failure> {
        files::make_folder(&self.0, 0o700)?;
        let complete = |key: &Option<Key>, file: PathBuf| match key {
            Some(key) => Ok(key.clone()),
            None => make(&file),
        };
        let (primary, secondary) = (complete(&keys.primary, self.primary(id))?, complete(&keys.secondary, self.secondary(id))?);
        Ok(Keys { primary: Some(primary), secondary: Some(secondary) })
    }

    /// Writes the primary key of a device.
    ///
    /// # Errors
    /// If another one is there already, or it cannot be written.
    pub fn put(&self, id: &EnrollmentId, key: &Key) -> Result<(), Failure> {
        let file = self.primary(id);
        match read(&file)? {
            Some(there) if there == *key => Ok(()),
            Some(_) => Err(Failure::new(Blame::Input, format!("{}: another key is there; move it away first", file.display()))),
            None => {
                files::make_folder(&self.0, 0o700)?;
                write(&file, key)
            }
        }
    }

    /// Makes all that was written outlast a power cut.
    ///
    /// # Errors
    /// Names the folder.
    pub fn settle(&self) -> Result<(), Failure> {
        files::settle(&self.0)
    }
}

fn read(file: &Path) -> Result<Option<Key>, Failure> {
    if file.exists() { Key::read(file).map(Some) } else { Ok(None) }
}

fn make(file: &Path) -> Result<Key, Failure> {
    let key = Key::make()?;
    write(file, &key)?;
    Ok(key)
}

fn write(file: &Path, key: &Key) -> Result<(), Failure> {
    files::replace(file, format!("{}\n", key.expose()).as_bytes(), 0o600)
}
