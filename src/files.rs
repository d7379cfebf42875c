//! Files that survive a power cut: whoever reads one finds the old content or the new, never anything between.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, OFlags, access, flock};
use thiserror::Error;

use crate::blame::Blame;

/// Why a file or directory of ours could not be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// Nothing can be made there.
    #[error("cannot create {path}: {source}{}", hint(.source))]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is there is no directory.
    #[error("{0} is not a directory: remove it, or name another one in the configuration")]
    NotADirectory(PathBuf),
    /// The file cannot be given to the group.
    #[error("cannot give {path} to its group: {source}")]
    NotAMember {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Reading or writing failed half way. The old content is still there.
    #[error("cannot {action} {path}: {source}{}", hint(.source))]
    Failed {
        /// What we were doing.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl FileError {
    /// Whom to blame.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unwritable { .. } | Self::NotADirectory(_) | Self::NotAMember { .. } => Blame::Unwritable,
            // Another user's directory, not a broken disk.
            Self::Failed { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Blame::Unwritable,
            Self::Failed { .. } => Blame::Storage,
        }
    }
}

/// The file with which a directory is tried.
const PROBE: &str = ".probe";

/// Makes sure that the directory is there, creating it (and its parents) with this mode.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), FileError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(FileError::NotADirectory(path.to_owned())),
        Err(_) => {
            let made = DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(|source| FileError::Unwritable { path: path.to_owned(), source })
        }
    }
}

/// Finds out whether a file can be made in the directory, before anything depends on it.
pub fn probe_directory(path: &Path) -> Result<(), FileError> {
    let probe = path.join(PROBE);
    let unwritable = |source| FileError::Unwritable { path: probe.clone(), source };
    fresh_file(&probe, 0o600).map_err(unwritable)?;
    fs::remove_file(&probe).map_err(failed("remove", &probe))
}

/// Whether this user could make a file in the directory. Changes nothing, so a full disk is not noticed.
pub fn can_create_in(directory: &Path) -> io::Result<()> {
    access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
}

/// While it lives, nobody else has the lock of the directory. The end of the process ends it too, however that comes about.
#[derive(Debug)]
pub struct Lock {
    directory: File,
}

impl Drop for Lock {
    /// Closing it would do, had a child that has not called exec yet not inherited the open directory.
    fn drop(&mut self) {
        let _closed_anyway = flock(&self.directory, FlockOperation::Unlock);
    }
}

/// The lock of the directory; `None` while somebody else has it. Leaves no file.
pub fn try_lock(directory: &Path) -> Result<Option<Lock>, FileError> {
    let open = File::open(directory).map_err(failed("open", directory))?;
    match flock(&open, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock { directory: open })),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed("lock", directory)(error.into())),
    }
}

/// Replaces the file as a whole: a new file beside it, fsync, rename, fsync of the directory.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    replace_for(None, path, content, mode)
}

/// As [`replace`], and the file belongs to this group (its number), of which this process must be a member.
pub fn replace_for(group: Option<u32>, path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let fresh = beside(path, "new");
    let placed = write(&fresh, content, mode, group).and_then(|()| fs::rename(&fresh, path).map_err(failed("replace", path)));
    if placed.is_err() {
        // On a full disk half a file would take the room of the next try.
        let _ = fs::remove_file(&fresh);
    }
    placed?;
    sync_parent(path)
}

/// Whether something lies half written beside this file: left by a predecessor, or another's work of this moment.
pub fn is_untidy(path: &Path) -> bool {
    beside(path, "new").exists() || path.with_file_name(PROBE).exists()
}

/// Removes what a predecessor that was killed half way has left beside this file. What cannot be removed is in nobody's way.
pub fn tidy(path: &Path) {
    let _ = fs::remove_file(beside(path, "new"));
    let _ = fs::remove_file(path.with_file_name(PROBE));
}

fn write(fresh: &Path, content: &[u8], mode: u32, group: Option<u32>) -> Result<(), FileError> {
    let unwritable = |source| FileError::Unwritable { path: fresh.to_owned(), source };
    let mut file = fresh_file(fresh, mode).map_err(unwritable)?;
    if group.is_some() {
        fchown(&file, None, group).map_err(|source| FileError::NotAMember { path: fresh.to_owned(), source })?;
    }
    // A file left by a killed predecessor, and the umask, have other ideas of the mode.
    file.set_permissions(Permissions::from_mode(mode)).map_err(unwritable)?;
    file.write_all(content).map_err(failed("write", fresh))?;
    file.sync_all().map_err(failed("write to disk", fresh))
}

/// An empty file. A link in its place is not followed: in a directory that others may write it could lead anywhere.
fn fresh_file(path: &Path, mode: u32) -> io::Result<File> {
    let no_links = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).custom_flags(no_links).open(path)
}

/// The name of the file beside which this one lies half written or set aside, or else the name itself.
pub fn whole(name: &str) -> &str {
    let aside = || name.rsplit_once(".damaged-").map(|(whole, _)| whole);
    name.strip_suffix(".new").or_else(aside).unwrap_or(name)
}

/// Removes a file, for good.
pub fn remove(path: &Path) -> Result<(), FileError> {
    fs::remove_file(path).map_err(failed("remove", path))?;
    sync_parent(path)
}

/// Moves a file that cannot be used out of the way, to the first free of a few names, and tells which.
pub fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let mut names = (1..9).map(|n| beside(path, &format!("damaged-{n}")));
    // After eight of them the ninth is overwritten each time: a disk that damages each file must not be filled with them.
    let aside = names.find(|name| !name.exists()).unwrap_or_else(|| beside(path, "damaged-9"));
    fs::rename(path, &aside).map_err(failed("set aside", path))?;
    sync_parent(path)?;
    Ok(aside)
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed("write to disk", parent))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Failed { action, path: path.to_owned(), source }
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (only the agent's user may use this directory: run this as that user or root, or make it the owner)"
    } else if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        " (it must lie on a file system that can be written)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_lock() {
        let directory = std::env::temp_dir().join(format!("dps-agent-lock-{}", std::process::id()));
        make_directory(&directory, 0o700).unwrap();
        let first = try_lock(&directory).unwrap();
        assert!(first.is_some());
        assert!(try_lock(&directory).unwrap().is_none());
        let inherited = first.as_ref().unwrap().directory.try_clone().unwrap();
        drop(first);
        assert!(try_lock(&directory).unwrap().is_some());
        drop(inherited);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn a_link_that_somebody_has_laid_out_is_not_written_through() {
        let directory = std::env::temp_dir().join(format!("dps-agent-link-{}", std::process::id()));
        make_directory(&directory, 0o700).unwrap();
        let victim = directory.join("victim");
        fs::write(&victim, "precious").unwrap();
        for (name, trap) in [(PROBE, "probe"), ("file.new", "replace")] {
            std::os::unix::fs::symlink(&victim, directory.join(name)).unwrap();
            let error = match trap {
                "probe" => probe_directory(&directory),
                _ => replace(&directory.join("file"), b"new", 0o640),
            };
            assert_eq!(error.unwrap_err().blame(), Blame::Unwritable, "{name}");
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_denied_file_is_no_broken_disk() {
        let blamed = |kind: io::ErrorKind| FileError::Failed { action: "read", path: "/f".into(), source: kind.into() }.blame();
        assert_eq!(blamed(io::ErrorKind::PermissionDenied), Blame::Unwritable);
        assert_eq!(blamed(io::ErrorKind::StorageFull), Blame::Storage);
    }
}
