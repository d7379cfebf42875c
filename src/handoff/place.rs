//! The files themselves: read, compared, given to their group, and removed when no template makes them any more.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Group;

use super::Outcome;
use super::render::Source;
use crate::blame::Blame;
use crate::config::Template;
use crate::failure::Failure;
use crate::files::{self, FileError};
use crate::secret::Secret;

/// No template and no file made of one is larger, in bytes.
const LARGEST: u64 = 64 * 1024;

/// What is there now, if it can be read.
pub(super) fn read(path: &Path) -> Option<Secret<Vec<u8>>> {
    let mut content = Vec::with_capacity(8192);
    let file = File::open(path).ok()?;
    let read = file.take(LARGEST).read_to_end(&mut content);
    let content = Secret::new(content);
    read.ok().map(|_| content)
}

/// The operator's template.
pub(super) fn template(path: &Path) -> Result<Source, Failure> {
    let wrong = |why: String| Failure::new(Blame::Configuration, format!("{}: {why}", path.display()));
    let found = fs::metadata(path)
        .map_err(|error| wrong(format!("cannot be read: {error}; the agent's user must be able to read it")))?;
    if !found.is_file() || found.len() > LARGEST {
        return Err(wrong("is no file of at most 64 KiB; name the template itself".into()));
    }
    let text =
        fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}; the agent's user must be able to read it")))?;
    let text = String::from_utf8(text).map_err(|_| wrong("is not UTF-8; save it as UTF-8".into()))?;
    Ok(Source { name: path.display().to_string(), text })
}

/// Writes the file unless it is right already, with its group and mode.
pub(super) fn put(
    template: &Template,
    path: &Path,
    old: Option<&Secret<Vec<u8>>>,
    new: &Secret<String>,
) -> Result<Outcome, Failure> {
    let group = template.group.as_deref().map(number).transpose()?;
    let same = old.is_some_and(|old| old.expose().as_slice() == new.expose().as_bytes());
    if same && is_placed(path, group, template.mode) {
        return Ok(Outcome::Unchanged);
    }
    files::make_directory(path.parent().unwrap_or(Path::new("/")), 0o755)?;
    files::replace_for(group, path, new.expose().as_bytes(), template.mode).map_err(|error| refused(template, error))?;
    Ok(Outcome::Written)
}

fn is_placed(path: &Path, group: Option<u32>, mode: u32) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && found.mode() & 0o7777 == mode && group.is_none_or(|group| found.gid() == group))
}

fn number(group: &str) -> Result<u32, Failure> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => {
            let message =
                format!("there is no group {group:?} on this machine; install the program that brings it, or correct group");
            Err(Failure::new(Blame::Configuration, message))
        }
        Err(error) => Err(Failure::new(Blame::Storage, format!("the group {group:?} cannot be looked up: {error}"))),
    }
}

pub(super) fn refused(template: &Template, error: FileError) -> Failure {
    match (&error, &template.group) {
        (FileError::NotAMember { .. }, Some(group)) => {
            let message = format!(
                "{error}: the agent's user is no member of {group}; write SupplementaryGroups={group} into a drop-in of its unit, or run usermod -aG {group} for it and restart it"
            );
            Failure::new(Blame::Unwritable, message)
        }
        _ => error.into(),
    }
}

/// Removes the files that no template makes: what was a secret once must not outlive its place in the configuration.
pub(super) fn remove_others(directory: &Path, templates: &[Template]) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if templates.iter().any(|template| template.file.as_str() == name) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Ok(()) => tracing::info!("removed {}, which no template makes", entry.path().display()),
            Err(error) => tracing::warn!("{} is made by no template and cannot be removed: {error}", entry.path().display()),
        }
    }
}
