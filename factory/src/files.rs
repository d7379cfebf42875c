//! Files that survive a kill and a power cut: whoever reads one finds the old content or the new, never half of it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Blame, Failure};

/// Makes a folder and its parents with this mode, if it is not there.
///
/// # Errors
/// Names the folder.
pub fn make_folder(path: &Path, mode: u32) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| unwritable(path, &error))
}

/// Replaces a file as a whole: a new one beside it, fsync, rename. It outlasts a power cut once [`settle`] has been called.
///
/// # Errors
/// Names the file.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    place(path, content, mode, true)
}

/// The same without fsync, for what the next run writes again: after a power cut the file may be empty.
///
/// # Errors
/// Names the file.
pub fn replace_quickly(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    place(path, content, mode, false)
}

fn place(path: &Path, content: &[u8], mode: u32, sync: bool) -> Result<(), Failure> {
    let fresh = beside(path);
    let write = || {
        // What a predecessor that was killed has left may have another mode.
        let _leftover = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(content)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&fresh, path)
    };
    write().map_err(|error| {
        let _half = fs::remove_file(&fresh);
        unwritable(path, &error)
    })
}

/// Makes the names in a folder outlast a power cut.
///
/// # Errors
/// Names the folder.
pub fn settle(folder: &Path) -> Result<(), Failure> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unwritable(folder, &error))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Blame::Unwritable, format!("cannot write {}: {error}", path.display()))
}
