//! All layers as one set of settings: later files win key by key, and what nobody wrote has its default.

use std::path::Path;

use super::document::{File, Setting, Value};
use super::handoff_tables::Tables;
use super::problem::{KeyName, Origin, Problem, Report, Reported};
use super::schema::{KEYS, Key, Kind, METHOD, PROXY, Preset, REGISTRATION_ID, REGISTRATION_ID_FROM};

/// A text that was written for a key, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'s> {
    pub(super) key: Key,
    pub(super) text: &'s str,
    pub(super) origin: &'s Origin,
}

/// The merged settings.
#[derive(Debug, Default)]
pub(super) struct Settings {
    settings: Vec<Setting>,
    /// What stands below `[handoff]`.
    pub(super) handoff: Tables,
}

impl Settings {
    /// Lets the settings of a main file count. There is nothing below it that an empty text could take back.
    pub(super) fn main(&mut self, file: File, report: &mut Report) {
        self.handoff.main(file.handoff, report);
        for mut setting in file.settings {
            if setting.is_empty() && setting.key != PROXY {
                let message = "is empty; write a value or remove the line".to_owned();
                let problem = Problem { origin: setting.origin.clone(), key: Some(setting.key.to_name()), message };
                setting.value = Value::Broken(report.add(problem));
            }
            self.put(setting);
        }
    }

    /// Lets the settings of a drop-in win. An empty text takes back what was written below it; an empty proxy means none at all.
    pub(super) fn drop_in(&mut self, file: File) {
        self.handoff.drop_in(file.handoff);
        for setting in file.settings {
            if setting.is_empty() && setting.key != PROXY {
                self.settings.retain(|other| other.key != setting.key);
            } else {
                self.put(setting);
            }
        }
    }

    /// Fills in what nobody wrote.
    pub(super) fn defaults(&mut self) {
        let method = self.text(METHOD).ok().flatten().map(|found| found.text.to_owned()).unwrap_or_default();
        for key in KEYS {
            let value = match key.preset {
                Preset::None => continue,
                Preset::Tpm(_) if method != "tpm" => continue,
                Preset::Tpm(text) => Value::Text(text.to_owned()),
                Preset::Text(text) => Value::Text(text.to_owned()),
                Preset::Port(port) => Value::Port(port),
                Preset::Flag(flag) => Value::Flag(flag),
            };
            self.put_default(*key, value);
        }
        let source = match method.as_str() {
            // The certificate says who it is for.
            "x509" => "certificate-cn",
            "tpm" => "tpm-ek:hex",
            _ => return,
        };
        if self.find(REGISTRATION_ID).is_none() {
            self.put_default(REGISTRATION_ID_FROM, Value::Text(source.to_owned()));
        }
    }

    /// The setting of a key, if somebody wrote it or it has a default.
    pub(super) fn find(&self, key: Key) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// Whether `key` was written after `other`.
    pub(super) fn is_later(&self, key: Key, other: Key) -> bool {
        let place = |wanted: Key| self.settings.iter().position(|setting| setting.key == wanted);
        place(key) > place(other)
    }

    /// The text of a key.
    pub(super) fn text(&self, key: Key) -> Result<Option<Found<'_>>, Reported> {
        match self.find(key) {
            Some(Setting { value: Value::Text(text), origin, .. }) => Ok(Some(Found { key, text, origin })),
            Some(Setting { value: Value::Broken(reported), .. }) => Err(*reported),
            Some(Setting { value: Value::Source(_) | Value::Port(_) | Value::Flag(_), .. }) | None => Ok(None),
        }
    }

    /// What a table says in place of the text of a key.
    pub(super) fn source(&self, key: Key) -> Option<Found<'_>> {
        match self.find(key)? {
            Setting { value: Value::Source(text), origin, .. } => Some(Found { key, text, origin }),
            Setting { value: Value::Text(_) | Value::Port(_) | Value::Flag(_) | Value::Broken(_), .. } => None,
        }
    }

    /// The port of a key that has a default.
    pub(super) fn port(&self, key: Key, main: &Path, report: &mut Report) -> Result<u16, Reported> {
        match self.find(key).map(|setting| &setting.value) {
            Some(Value::Port(port)) => Ok(*port),
            Some(Value::Broken(reported)) => Err(*reported),
            Some(Value::Text(_) | Value::Source(_) | Value::Flag(_)) | None => {
                Err(report.add(missing(key, main, "write a number from 1 to 65535")))
            }
        }
    }

    /// Whether a flag is up, and where that was written.
    pub(super) fn flag(&self, key: Key) -> Result<Option<&Origin>, Reported> {
        match self.find(key) {
            Some(Setting { value: Value::Flag(true), origin, .. }) => Ok(Some(origin)),
            Some(Setting { value: Value::Broken(reported), .. }) => Err(*reported),
            Some(Setting { value: Value::Flag(false) | Value::Text(_) | Value::Source(_) | Value::Port(_), .. }) | None => {
                Ok(None)
            }
        }
    }

    fn put(&mut self, setting: Setting) {
        self.settings.retain(|other| other.key != setting.key);
        self.settings.push(setting);
    }

    fn put_default(&mut self, key: Key, value: Value) {
        if self.find(key).is_none() {
            self.settings.push(Setting { key, value, origin: Origin::Default });
        }
    }
}

impl Setting {
    fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Text(text) if text.is_empty()) && matches!(self.key.kind, Kind::Text | Kind::Path)
    }
}

impl Key {
    /// The key's name for messages.
    pub(super) fn to_name(self) -> KeyName {
        KeyName { table: self.table.to_owned(), key: self.name.to_owned() }
    }
}

/// The problem of a key that has to be there: `main` is the file that should hold it.
pub(super) fn missing(key: Key, main: &Path, cure: &str) -> Problem {
    Problem { origin: Origin::File(main.to_owned()), key: Some(key.to_name()), message: format!("is missing; {cure}") }
}
