//! The sockets in the file system: who may use them is said by their modes, and containers mount their directories.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::blame::Blame;
use crate::failure::Failure;
use crate::files::{self, FileError, Lock};
use crate::handoff::credentials;

/// The group whose members may use the client socket, where the machine has it.
pub const GROUP: &str = "dps-clients";
const NAME: &str = "api.sock";
/// What a socket is called until it is in its place.
const FRESH: &str = "api.new";

/// The path of the client socket under a runtime directory.
pub fn client_socket(runtime: &Path) -> PathBuf {
    runtime.join("client").join(NAME)
}

/// The path of the admin socket under a runtime directory.
pub fn admin_socket(runtime: &Path) -> PathBuf {
    runtime.join("admin").join(NAME)
}

/// The socket of systemd's credentials under a runtime directory.
fn credential_socket(runtime: &Path) -> PathBuf {
    runtime.join(credentials::SOCKET)
}

/// The sockets, bound. While they live no other agent has this runtime directory; they are removed with it, their directories stay,
/// since a container may have mounted them.
#[derive(Debug)]
pub struct Sockets {
    pub(super) client: tokio::net::UnixListener,
    pub(super) admin: tokio::net::UnixListener,
    credential: Option<tokio::net::UnixListener>,
    paths: [PathBuf; 3],
    _alone: Lock,
}

impl Sockets {
    /// Binds them under the runtime directory, whose directories are made if need be; a socket that a killed agent has left is
    /// replaced. `root` is `/` outside tests: where the groups of the machine are looked up. To be called within the runtime.
    ///
    /// # Errors
    /// Another agent has this runtime directory, it cannot be written, or something that is no socket has its name.
    pub fn bind(runtime: &Path, root: &Path) -> Result<Self, Failure> {
        let paths = [client_socket(runtime), admin_socket(runtime), credential_socket(runtime)];
        let [client, admin, _] = paths.each_ref().map(|path| path.parent().unwrap_or(runtime));
        files::make_directory(runtime, 0o755)?;
        directory(client, 0o755)?;
        directory(admin, 0o750)?;
        let alone = files::try_lock(admin)?.ok_or_else(|| another(runtime))?;
        Ok(Self {
            client: bind(&paths[0], admin, 0o660, group(root))?,
            admin: bind(&paths[1], admin, 0o600, None)?,
            credential: Some(bind(&paths[2], admin, 0o600, None)?),
            paths,
            _alone: alone,
        })
    }

    /// Where systemd asks for credentials. Whoever takes it answers there.
    pub fn take_credential(&mut self) -> Option<tokio::net::UnixListener> {
        self.credential.take()
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
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of", path))?;
    }
    Ok(())
}

fn another(runtime: &Path) -> Failure {
    let what = format!("another dps-agent runs here: it has {}; stop it, or name another [runtime] directory", runtime.display());
    Failure::new(Blame::Busy, what)
}

/// A socket that nobody else can reach before it has its mode and group, since it is made in the admins' directory, and that takes
/// the place of a dead one in one step.
fn bind(path: &Path, admin: &Path, mode: u32, group: Option<u32>) -> Result<tokio::net::UnixListener, Failure> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        let what = format!("{} is no socket, and has the name of one of ours: remove it", path.display());
        return Err(Failure::new(Blame::Unwritable, what));
    }
    let fresh = admin.join(FRESH);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(|source| FileError::Unwritable { path: fresh.clone(), source })?;
    if let Some(group) = group {
        give_to(&fresh, group);
    }
    fs::set_permissions(&fresh, Permissions::from_mode(mode)).map_err(failed("set the mode of", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("replace", path))?;
    let listening = listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
    Ok(listening.map_err(failed("listen at", path))?)
}

fn failed<'p>(action: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> FileError + 'p {
    move |source| FileError::Failed { action, path: path.to_owned(), source }
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
