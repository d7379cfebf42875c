//! The way to the TPM: what libtss2 hides of a device node's errors, and who tidies up behind a killed process.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::TpmError;
use super::fault::Fault;

/// Opens a device node once and closes it again, since libtss2 says no more than "I/O error". A simulator serves one connection,
/// so it is not asked.
pub(super) fn probe(tcti: &str) -> Result<(), TpmError> {
    let Some(device) = tcti.strip_prefix("device:") else { return Ok(()) };
    let error = match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    Err(match error.kind() {
        ErrorKind::NotFound => TpmError::Absent(device.to_owned()),
        ErrorKind::PermissionDenied => TpmError::Forbidden { device: device.to_owned(), group: group(Path::new(device)) },
        ErrorKind::ResourceBusy => TpmError::InUse(device.to_owned()),
        _ => TpmError::Broken(format!("{device}: {error}")),
    })
}

/// Why it could not be opened all the same.
pub(super) fn explain(tcti: &str, fault: Fault) -> TpmError {
    const NOT_FOUND: [u32; 2] = [2, 21];
    if fault == Fault::UNKNOWN_TCTI {
        return TpmError::UnknownTcti(tcti.to_owned());
    }
    match fault.tcti() {
        Some(number) if NOT_FOUND.contains(&number) => {
            let name = tcti.split(':').next().unwrap_or_default();
            TpmError::NoLibrary { tcti: tcti.to_owned(), package: format!("libtss2-tcti-{name}0") }
        }
        Some(_) if !tcti.starts_with("device:") => TpmError::Absent(tcti.to_owned()),
        _ => super::session::explain("the connection", fault),
    }
}

/// Whether somebody takes back what a killed process has left: the kernel's resource manager, or tabrmd.
pub(super) fn is_managed(tcti: &str) -> bool {
    tcti.starts_with("tabrmd") || tcti.strip_prefix("device:").is_some_and(|path| path.starts_with("/dev/tpmrm"))
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
