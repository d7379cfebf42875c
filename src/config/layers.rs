//! Which files make the configuration, and their texts: the only place here that touches the file system.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::document::position;
use super::problem::{Origin, Problem, Report};

/// The main file, unless another one is named.
pub(super) const MAIN: &str = "/etc/dps-agent/config.toml";
const DROP_INS: [&str; 3] = ["/usr/lib/dps-agent/config.d", "/run/dps-agent/config.d", "/etc/dps-agent/config.d"];

/// Which files to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This one file (`--config`), without drop-ins.
    File(PathBuf),
    /// `/etc/dps-agent/config.toml`, then the `*.toml` of `/usr/lib/dps-agent/config.d`, `/run/dps-agent/config.d` and
    /// `/etc/dps-agent/config.d`, in this order and by name within each; all below `root`, which is `/` but in tests.
    System {
        /// What to put before the paths.
        root: PathBuf,
    },
}

/// The files with their texts, lowest first. The main file always comes first, empty if only drop-ins are there.
pub(super) fn read(source: &Source, report: &mut Report) -> Vec<(PathBuf, String)> {
    match source {
        Source::File(path) => vec![read_file(path.clone(), report)],
        Source::System { root } => read_system(root, report),
    }
}

fn read_system(root: &Path, report: &mut Report) -> Vec<(PathBuf, String)> {
    let main = below(root, MAIN);
    let directories = DROP_INS.map(|directory| below(root, directory));
    let drop_ins: Vec<PathBuf> = directories.iter().flat_map(|directory| list(directory, report)).collect();
    let has_main = is_there(&main);
    if !has_main && drop_ins.is_empty() && report.is_empty() {
        report.add(nothing(&main, &directories));
        return Vec::new();
    }
    let main = if has_main { read_file(main, report) } else { (main, String::new()) };
    let drop_ins = drop_ins.into_iter().map(|path| read_file(path, report));
    std::iter::once(main).chain(drop_ins).collect()
}

/// `/etc/…` below another root.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// False only if there is certainly nothing: a dangling link, or what may not be looked at, is an error when it is read.
fn is_there(path: &Path) -> bool {
    let gone = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    !fs::symlink_metadata(path).is_err_and(|error| gone(&error))
}

/// The drop-ins of a directory by name. Hidden files are none: editors leave them behind.
fn list(directory: &Path, report: &mut Report) -> Vec<PathBuf> {
    let is_drop_in = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "toml")
    };
    let paths = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let paths: Vec<PathBuf> = match paths {
        Ok(paths) => paths,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            report.add(unreadable(directory.to_owned(), &error));
            Vec::new()
        }
    };
    let mut drop_ins: Vec<PathBuf> = paths.into_iter().filter(is_drop_in).collect();
    drop_ins.sort();
    drop_ins
}

/// The file, empty if it cannot be read: its place in the order is kept.
fn read_file(path: PathBuf, report: &mut Report) -> (PathBuf, String) {
    let text = match fs::read(&path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            report.add(not_utf8(path.clone(), error.as_bytes(), error.utf8_error().valid_up_to()));
            String::new()
        }
        Err(error) => {
            report.add(unreadable(path.clone(), &error));
            String::new()
        }
    };
    (path, text)
}

fn unreadable(path: PathBuf, error: &io::Error) -> Problem {
    let known = UNREADABLE.iter().find(|(kind, _)| *kind == error.kind());
    let message = known.map_or_else(|| format!("cannot be read: {error}"), |(_, message)| (*message).to_owned());
    Problem { origin: Origin::File(path), key: None, message }
}

const UNREADABLE: [(ErrorKind, &str); 4] = [
    (ErrorKind::NotFound, "there is no such file; create it or name another"),
    (ErrorKind::IsADirectory, "is a directory; a file is needed here"),
    (ErrorKind::NotADirectory, "is no directory, or lies below something that is none; a directory is needed here"),
    (ErrorKind::PermissionDenied, "may not be read by this user; run as root or as the agent's user, or change its mode"),
];

fn not_utf8(path: PathBuf, bytes: &[u8], valid: usize) -> Problem {
    let text = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default());
    let (line, column) = position(&text, text.len());
    let byte = bytes.get(valid).copied().unwrap_or_default();
    let message = format!("is not UTF-8 from byte 0x{byte:02x} on; save the file as UTF-8");
    Problem { origin: Origin::Line { path, line, column }, key: None, message }
}

fn nothing(main: &Path, directories: &[PathBuf]) -> Problem {
    let drop_ins: Vec<String> = directories.iter().map(|directory| format!("{}/*.toml", directory.display())).collect();
    let message =
        format!("there is no configuration, neither here nor in {}; write into this file:\n{SMALLEST}", drop_ins.join(", "));
    Problem { origin: Origin::File(main.to_owned()), key: None, message }
}

/// The least that works, for whoever starts with nothing.
const SMALLEST: &str = r#"    [dps]
    id_scope = "0ne00000000"                  # as the overview page of your DPS instance shows it
    [attestation]
    method = "symmetric-key"
    registration_id = "gw-0001"
    key_file = "/etc/dps-agent/device.key"    # base64 text of the device's key, mode 0600"#;

#[cfg(test)]
mod tests {
    use super::*;

    // Whoever runs the tests as root can read everything, so the error itself is made up.
    #[test]
    fn a_file_that_may_not_be_read_says_who_may() {
        let said = |error: io::Error| unreadable(PathBuf::from("/f"), &error).to_string();
        assert_eq!(
            said(ErrorKind::PermissionDenied.into()),
            "/f: may not be read by this user; run as root or as the agent's user, or change its mode"
        );
        assert_eq!(said(io::Error::from_raw_os_error(5)), "/f: cannot be read: Input/output error (os error 5)");
    }
}
