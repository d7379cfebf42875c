//! The way to the TPM: what libtss2 hides of a device node's errors, and who tidies up behind a killed process.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::TpmError;
use super::esys::Esys;
use super::fault::Fault;
use crate::config;

/// Lets only known ways pass (libtss2 knows one that runs a program), and says that a device node is not there.
pub(super) fn look(tcti: &str) -> Result<(), TpmError> {
    if !config::is_way_to_tpm(tcti) {
        return Err(TpmError::UnknownTcti(tcti.to_owned()));
    }
    match device(tcti).map(fs::metadata) {
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => Err(TpmError::Absent(tcti.to_owned())),
        _ => Ok(()),
    }
}

/// Why a TPM could not be opened.
pub(super) fn explain(tcti: &str, fault: Fault) -> TpmError {
    /// Not implemented, not supported.
    const NO_LIBRARY: [u32; 2] = [2, 21];
    /// Bad value.
    const UNKNOWN: u32 = 11;
    if fault == Fault::NOT_LOADED {
        return TpmError::NotLoaded(Esys::why_not_loaded());
    }
    match fault.tcti() {
        Some(UNKNOWN) => TpmError::UnknownTcti(tcti.to_owned()),
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
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => TpmError::Broken(format!("{device} can be opened, and does not behave like a TPM")),
        Err(error) => unopened(device, &error),
    }
}

fn unopened(device: &str, error: &io::Error) -> TpmError {
    /// A node without its driver.
    const NO_DEVICE: [i32; 2] = [6, 19];
    let (kind, device) = (error.kind(), device.to_owned());
    let is_driverless = error.raw_os_error().is_some_and(|number| NO_DEVICE.contains(&number));
    if kind == ErrorKind::NotFound || is_driverless {
        TpmError::Absent(device)
    } else if kind == ErrorKind::PermissionDenied {
        TpmError::Forbidden { group: group(Path::new(&device)), device }
    } else if kind == ErrorKind::ResourceBusy {
        TpmError::InUse(device)
    } else {
        TpmError::Broken(format!("{device}: {error}"))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_a_device_node_is_told_on() {
        let said = |number| unopened("/dev/null", &io::Error::from_raw_os_error(number));
        let device = "/dev/null".to_owned();
        assert_eq!(said(2), TpmError::Absent(device.clone()));
        assert_eq!(said(6), TpmError::Absent(device.clone()));
        assert_eq!(said(19), TpmError::Absent(device.clone()));
        // EPERM is what systemd's DeviceAllow= gives, EACCES the file mode.
        for denied in [1, 13] {
            assert_eq!(said(denied), TpmError::Forbidden { device: device.clone(), group: "root".to_owned() });
        }
        assert_eq!(said(16), TpmError::InUse(device));
        assert_eq!(said(5), TpmError::Broken("/dev/null: Input/output error (os error 5)".to_owned()));
    }

    #[test]
    fn a_missing_library_is_named_by_its_package() {
        for number in [0x000a_0002, 0x000a_0015] {
            let error = explain("tabrmd:bus_type=system", Fault::new(number));
            let package = "libtss2-tcti-tabrmd0".to_owned();
            assert_eq!(error, TpmError::NoLibrary { tcti: "tabrmd:bus_type=system".to_owned(), package });
        }
    }

    #[test]
    fn what_libtss2_does_not_understand_is_an_unknown_way() {
        let tcti = "tabrmd:bus_type=none";
        assert_eq!(explain(tcti, Fault::new(0x000a_000b)), TpmError::UnknownTcti(tcti.to_owned()));
    }

    #[test]
    fn resource_managers_are_known() {
        for managed in ["device:/dev/tpmrm0", "device:/dev/tpmrm1", "tabrmd", "tabrmd:bus_type=session"] {
            assert!(is_managed(managed), "{managed}");
        }
        for raw in ["device:/dev/tpm0", "device", "swtpm:host=127.0.0.1,port=2321", "mssim"] {
            assert!(!is_managed(raw), "{raw}");
        }
    }
}
