//! Whatever stands in a file, reading it ends in an answer, and the answer gives no secret away.

use super::{KEY, MAIN, TPM, X509, load};
use crate::config::schema::{KEYS, Kind};

const SECRETS: [&str; 4] = [
    "HostName=hub;SharedAccessKey=hunter2hunter2hunter2=",
    "/hunter2hunter2hunter2hunter2hunter2hunter2w=",
    "http://user:hunter2@host",
    "https://user:hunter2@host:1/",
];

/// No key echoes what was pasted into it by mistake, whatever else may be wrong with the file.
#[test]
fn no_message_gives_away_what_was_written() {
    for key in KEYS {
        for (secret, base) in SECRETS.into_iter().flat_map(|secret| [(secret, KEY), (secret, X509), (secret, TPM)]) {
            let header = format!("[{}]\n", key.table);
            let value = format!("{} = \"{secret}\"\n", key.name);
            let without: String =
                base.lines().filter(|line| !line.starts_with(key.name)).map(|line| format!("{line}\n")).collect();
            let text = if without.contains(&header) {
                without.replacen(&header, &format!("{header}{value}"), 1)
            } else {
                format!("{without}{header}{value}")
            };
            if let Err(errors) = load(&[(MAIN, &text)], &[("HTTPS_PROXY", "https://u:hunter2@h:1")]) {
                assert!(!errors.to_string().contains("hunter2"), "{text}\n{errors}");
            } else {
                // A payload may be anything that is JSON, and a path anything that begins as one.
                assert!(matches!(key.kind, Kind::Path | Kind::Text), "{text}");
            }
        }
    }
}

#[test]
fn a_key_in_the_place_of_its_path_is_refused_even_if_it_looks_like_one() {
    for key in KEYS.iter().filter(|key| key.kind == Kind::Path) {
        let text = format!("[{}]\n{} = '{}'", key.table, key.name, SECRETS[1]);
        let said = load(&[("F", &text)], &[]).unwrap_err().to_string();
        let expected = format!(
            "F:2: [{}] {}: holds a key where a path belongs; write the key into a file and that file's path into {}\n",
            key.table, key.name, key.name
        );
        assert!(said.starts_with(&expected), "{said}");
    }
}

/// Cut off anywhere, or with any byte made something else, a file is accepted or answered with lines that it has.
#[test]
fn a_damaged_file_is_answered() {
    let whole = format!("{KEY}# é\n[hub]\nmqtt_port = 0x1f\nverify = '''never'''\n[dps.x]\ny = [1, {{ z = 2021-06-01 }}]\n");
    for at in 0..whole.len() {
        let cut = whole.get(..at).unwrap_or_default().to_owned();
        let damaged = ["\"", "'", "[", "]", "=", "\n", "\0", "é", "#", "{", ".", "1"].map(|other| {
            let rest = whole.get(at + 1..).unwrap_or_default();
            format!("{cut}{other}{rest}")
        });
        for text in damaged.iter().chain([&cut]) {
            let Err(errors) = load(&[(MAIN, text)], &[]) else { continue };
            assert!(!errors.problems().is_empty());
            for problem in errors.problems() {
                let json = problem.to_json();
                let line = json["line"].as_u64().unwrap_or(1);
                assert!(line >= 1 && line <= text.matches('\n').count() as u64 + 1, "{text:?}\n{problem}");
            }
        }
    }
}
