//! Holds the sources to the order of modules in `src/lib.rs` and each foreign crate to its files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Where a foreign crate may be named. What is not listed may be named anywhere.
const CONFINED: &[(&str, &[&str])] = &[
    ("rumqttc", &["transport/mqtt.rs"]),
    ("hyper", &["transport/https.rs"]),
    ("tokio_tungstenite", &["transport/websocket.rs", "transport/tests/websocket.rs"]),
    ("ring", &["tls.rs"]),
    ("tss_esapi", &["tpm/esys.rs"]),
    ("clap", &["cli/"]),
    ("toml", &["config/"]),
    ("tracing_subscriber", &["cli/output.rs"]),
    ("tracing_journald", &["cli/output.rs"]),
    ("sha1", &["identity/certificate.rs"]),
    ("x509_cert", &["identity/certificate.rs", "record.rs", "tls.rs"]),
    ("rustix", &["clock.rs", "files.rs", "main.rs"]),
    ("upon", &["handoff/render.rs"]),
    ("nix", &["handoff/place.rs"]),
    ("openssl_probe", &["connection/roots.rs"]),
    ("hmac", &["attestation/symmetric_key.rs", "identity.rs", "identity/"]),
];

/// The modules without a clock, a socket, a key, a file or a runtime.
const PURE: [&str; 3] = ["protocol", "campaign", "lifecycle"];

/// What the pure core must not name: it has no clock, no file, no socket, no runtime and no chance of its own.
const CORE_IS_WITHOUT: &[&str] =
    &["std::fs", "std::net", "std::env", "std::io", "tokio", "Instant::now", "SystemTime", "getrandom", "tracing"];

#[test]
fn a_module_uses_only_modules_above_it() {
    let order = modules();
    for (path, text) in sources() {
        let own = own_module(&path);
        let Some(place) = order.iter().position(|module| *module == own) else { continue };
        for (number, line) in code_lines(&text) {
            for used in line.split("crate::").skip(1).map(first_word) {
                let reach = order.iter().position(|module| module == used);
                assert!(
                    reach.is_none_or(|reach| reach <= place),
                    "{}:{number}: {own} must not know {used}, which stands below it in src/lib.rs",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn each_foreign_crate_stays_in_its_files() {
    for (path, text) in sources() {
        let name = path.strip_prefix(source_directory()).unwrap().to_str().unwrap().to_owned();
        for (crate_name, homes) in CONFINED {
            // Fakes may be made of what they stand for.
            if name.contains("/tests") || homes.iter().any(|home| name.starts_with(home)) {
                continue;
            }
            for (number, line) in code_lines(&text) {
                let named = line
                    .match_indices(&format!("{crate_name}::"))
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                assert!(!named, "{name}:{number}: {crate_name} belongs in {homes:?}");
            }
        }
    }
}

#[test]
fn the_core_is_pure() {
    for (path, text) in sources().into_iter().filter(|(path, _)| PURE.contains(&own_module(path).as_str())) {
        if path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for forbidden in CORE_IS_WITHOUT {
                assert!(!line.contains(forbidden), "{}:{number}: the core must not name {forbidden}", path.display());
            }
        }
    }
}

#[test]
fn nobody_but_main_exits() {
    for (path, text) in sources() {
        for (number, line) in code_lines(&text) {
            assert!(!line.contains("process::exit"), "{}:{number}: only main ends the process, with a code", path.display());
        }
    }
}

#[test]
fn each_file_says_first_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{}", path.display());
    }
}

/// The modules of `src/lib.rs`, in its order.
fn modules() -> Vec<String> {
    let text = fs::read_to_string(source_directory().join("lib.rs")).unwrap();
    let modules: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned)).collect();
    assert!(modules.len() > 10, "{modules:?}");
    modules
}

fn own_module(path: &Path) -> String {
    let inner = path.strip_prefix(source_directory()).unwrap();
    let first = inner.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The lines of code with their numbers, up to the unit tests at the end of a file; comments are left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().enumerate().take_while(|(_, line)| line.trim() != "mod tests {");
    code.map(|(index, line)| (index + 1, line.trim())).filter(|(_, line)| !line.starts_with("//"))
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![source_directory()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

fn source_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
