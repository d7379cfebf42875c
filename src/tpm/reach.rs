//! The way to the TPM: what libtss2 hides of a device node's errors, and who tidies up behind a killed process.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::TpmError;
use super::fault::Fault;

/// Says that a device node is not there before libtss2 complains of it on stderr.
pub(super) fn look(tcti: &str) -> Result<(), TpmError> {
    match device(tcti).map(fs::metadata) {
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => Err(TpmError::Absent(tcti.to_owned())),
        _ => Ok(()),
    }
}

/// Why a TPM could not be opened.
pub(super) fn explain(tcti: &str, fault: Fault) -> TpmError {
    /// Not implemented, not supported.
    const NO_LIBRARY: [u32; 2] = [2, 21];
    if fault == Fault::UNKNOWN_TCTI {
        return TpmError::UnknownTcti(tcti.to_owned());
    }
    match fault.tcti() {
        Some(number) if NO_LIBRARY.contains(&number) => {
            let name = tcti.split(':').next().unwrap_or_default();
            TpmError::NoLibrary { tcti: tcti.to_owned(), package: format!("libtss2-tcti-{name}0") }
        }
        Some(_) => device(tcti).map_or_else(|| TpmError::Absent(tcti.to_owned()), probe),
        None => super::session::explain("to serve us", fault),
    }
}

/// Opens a device node once more and closes it again, since libtss2 says no more than "I/O error".
fn probe(device: &str) -> TpmError {
    let error = match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => return TpmError::Broken(format!("{device} can be opened, and does not behave like a TPM")),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::NotFound => TpmError::Absent(device.to_owned()),
        ErrorKind::PermissionDenied => TpmError::Forbidden { device: device.to_owned(), group: group(Path::new(device)) },
        ErrorKind::ResourceBusy => TpmError::InUse(device.to_owned()),
        // A node without its driver.
        _ if error.raw_os_error() == Some(ENXIO) || error.raw_os_error() == Some(ENODEV) => TpmError::Absent(device.to_owned()),
        _ => TpmError::Broken(format!("{device}: {error}")),
    }
}

const ENXIO: i32 = 6;
const ENODEV: i32 = 19;

fn device(tcti: &str) -> Option<&str> {
    tcti.strip_prefix("device:")
}

/// Whether somebody takes back what a killed process has left: the kernel's resource manager, or tabrmd.
pub(super) fn is_managed(tcti: &str) -> bool {
    tcti.starts_with("tabrmd") || device(tcti).is_some_and(|path| path.starts_with("/dev/tpmrm"))
}

/// The group that the device node belongs to.
fn group(device: &Path) -> String {
    let Ok(gid) = fs::metadata(device).map(|metadata| metadata.gid()) else { return "tss".to_owned() };
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| gid.to_string())
}
