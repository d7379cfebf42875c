//! The two sockets in the file system: who may use them is said by their modes, and containers mount their directories.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::umask;

use crate::blame::Blame;
use crate::failure::Failure;
use crate::files::{self, FileError, Lock};

/// The group whose members may use the client socket, where the machine has it.
pub const GROUP: &str = "dps-clients";
const NAME: &str = "api.sock";

/// The path of the client socket under a runtime directory.
pub fn client_socket(runtime: &Path) -> PathBuf {
    runtime.join("client").join(NAME)
}

/// The path of the admin socket under a runtime directory.
pub fn admin_socket(runtime: &Path) -> PathBuf {
    runtime.join("admin").join(NAME)
}

/// Both sockets, bound. While they live no other agent has this runtime directory; they are removed with it, their directories stay,
/// since a container may have mounted them.
#[derive(Debug)]
pub struct Sockets {
    pub(super) client: tokio::net::UnixListener,
    pub(super) admin: tokio::net::UnixListener,
    paths: [PathBuf; 2],
    _alone: Lock,
}

impl Sockets {
    /// Binds both under the runtime directory, whose directories are made if need be; a socket that a killed agent has left is
    /// replaced. `root` is `/` outside tests: where the groups of the machine are looked up. To be called within the runtime.
    ///
    /// # Errors
    /// Another agent has this runtime directory, it cannot be written, or something that is no socket has its name.
    pub fn bind(runtime: &Path, root: &Path) -> Result<Self, Failure> {
        let paths = [client_socket(runtime), admin_socket(runtime)];
        let [client, admin] = paths.each_ref().map(|path| path.parent().unwrap_or(runtime));
        files::make_directory(runtime, 0o755)?;
        directory(client, 0o755)?;
        directory(admin, 0o750)?;
        let alone = files::try_lock(admin)?.ok_or_else(|| another(runtime))?;
        Ok(Self { client: bind(&paths[0], 0o660, group(root))?, admin: bind(&paths[1], 0o600, None)?, paths, _alone: alone })
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

/// The directory, with this mode if it has to be made, whatever the umask says.
fn directory(path: &Path, mode: u32) -> Result<(), Failure> {
    let is_new = !path.exists();
    files::make_directory(path, mode)?;
    if is_new {
        let set = fs::set_permissions(path, Permissions::from_mode(mode));
        set.map_err(|source| FileError::Failed { action: "set the mode of", path: path.to_owned(), source })?;
    }
    Ok(())
}

fn another(runtime: &Path) -> Failure {
    let what = format!("another dps-agent runs here: it has {}; stop it, or name another [runtime] directory", runtime.display());
    Failure::new(Blame::Busy, what)
}

/// A socket that nobody sees before it has its mode and group, and that takes the place of a dead one in one step.
fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<tokio::net::UnixListener, Failure> {
    let fresh = path.with_extension("new");
    let failed = |action, source| FileError::Failed { action, path: path.to_owned(), source };
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        let what = format!("{} is no socket, and has the name of one of ours: remove it", path.display());
        return Err(Failure::new(Blame::Unwritable, what));
    }
    let _ = fs::remove_file(&fresh);
    let listener = bind_closed(&fresh).map_err(|source| FileError::Unwritable { path: fresh.clone(), source })?;
    if let Some(group) = group {
        give_to(&fresh, group);
    }
    fs::set_permissions(&fresh, Permissions::from_mode(mode)).map_err(|source| failed("set the mode of", source))?;
    fs::rename(&fresh, path).map_err(|source| failed("replace", source))?;
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(listener))
        .map_err(|source| failed("listen at", source).into())
}

/// Nobody but us can connect to it yet.
fn bind_closed(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

fn give_to(path: &Path, group: u32) {
    if let Err(error) = chown(path, None, Some(group)) {
        tracing::warn!(
            "the group {GROUP} does not get {}: {error}; the agent's user must be a member of it (SupplementaryGroups={GROUP} in the unit)",
            path.display()
        );
    }
}

/// The number of the group, as `/etc/group` has it, or the file beside it of an image whose `/etc` is its owner's.
fn group(root: &Path) -> Option<u32> {
    let files = ["etc/group", "usr/lib/group"].map(|name| fs::read_to_string(root.join(name)).unwrap_or_default());
    let found = files.iter().find_map(|text| text.lines().find_map(number_in));
    if found.is_none() {
        tracing::info!("there is no group {GROUP}, so only the agent's own user, its group and root can use the client socket");
    }
    found
}

/// The number in a line of group(5), if it is the line of ours.
fn number_in(line: &str) -> Option<u32> {
    line.strip_prefix(GROUP)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok()
}
