//! The files that are shipped, and those shown in the manual, are configurations of this version.

use super::{KEY, MAIN, load};
use crate::config::schema::{KEYS, Kind, Preset, TABLES};

const COMMENTED: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/config.toml"));
/// The manual of what other programs get.
const HANDOFF: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/handoff.md"));
const MANUAL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"));

macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/", $name)))
    };
}

const EXAMPLES: [(&str, &str); 6] = [
    example!("symmetric-key.toml"),
    example!("group-key-fleet.toml"),
    example!("x509.toml"),
    example!("tpm.toml"),
    example!("proxy.toml"),
    example!("private-link.toml"),
];

/// `(table, key, value)` of each commented setting: a '#' with the key right behind it.
fn settings() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut table = "";
    let mut settings = Vec::new();
    for line in COMMENTED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']');
        }
        let setting = line.strip_prefix('#').filter(|text| !text.starts_with(' '));
        settings.extend(setting.and_then(|text| text.split_once(" = ")).map(|(key, value)| (table, key, value)));
    }
    settings
}

/// A build without TPM support refuses what needs one; tests/values.rs says how.
fn is_built(text: &str) -> bool {
    cfg!(feature = "tpm") || !text.contains("method = \"tpm\"")
}

#[test]
fn every_example_is_understood_without_a_warning() {
    for (name, text) in EXAMPLES.into_iter().filter(|(_, text)| is_built(text)) {
        let loaded = load(&[(name, text)], &[]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(loaded.warnings, [], "{name}");
    }
}

#[test]
fn the_commented_file_names_every_key_once_with_its_default() {
    let named: Vec<_> = settings().iter().map(|(table, key, _)| (*table, *key)).collect();
    let known: Vec<_> = KEYS.iter().map(|key| (key.table, key.name)).collect();
    assert_eq!(named, known);
    for ((_, _, value), key) in settings().iter().zip(KEYS) {
        let default = match key.preset {
            Preset::None => continue,
            Preset::Text(text) | Preset::Tpm(text) => format!("\"{text}\""),
            Preset::Port(port) => port.to_string(),
            Preset::Flag(flag) => flag.to_string(),
        };
        assert_eq!(*value, default, "[{}] {}", key.table, key.name);
    }
}

#[test]
fn the_commented_file_works_once_the_required_lines_are_uncommented() {
    assert!(load(&[(MAIN, COMMENTED)], &[]).is_err());
    let uncommented = |keys: &[&str]| {
        let mut text = COMMENTED.to_owned();
        keys.iter().for_each(|key| text = text.replacen(&format!("\n#{key} = "), &format!("\n{key} = "), 1));
        load(&[(MAIN, &text)], &[]).unwrap_or_else(|errors| panic!("{errors}")).config
    };
    let least = KEY.replace("0ne1", "0ne00000000").replace("gw-1", "gw-0001").replace("'/k'", "'/etc/dps-agent/device.key'");
    let least = load(&[(MAIN, &least)], &[]).unwrap().config;
    assert_eq!(uncommented(&["id_scope", "method", "registration_id", "key_file"]), least);

    let more =
        ["ca_file", "payload", "proxy", "proxy_credentials_file", "secondary_key_credential", "gateway_host", "gateway_ca_file"];
    uncommented(
        &[&["id_scope", "method", "registration_id_from", "registration_id_prefix", "key_credential"], &more[..]].concat(),
    );
}

#[test]
fn the_manual_explains_every_key_with_its_default() {
    for table in TABLES {
        let heading = format!("\n## `[{table}]`\n");
        let section = MANUAL.split_once(&*heading).unwrap_or_else(|| panic!("{heading}")).1;
        let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
        for key in KEYS.iter().filter(|key| key.table == table) {
            let row = section.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
            let row = row.unwrap_or_else(|| panic!("[{table}] {}", key.name));
            let kind = match key.kind {
                Kind::Text => "text",
                Kind::Path => "path",
                Kind::Port => "port",
                Kind::Flag => "boolean",
            };
            let default = match key.preset {
                Preset::None => String::new(),
                Preset::Text(text) | Preset::Tpm(text) => format!("`\"{text}\"`"),
                Preset::Port(port) => format!("`{port}`"),
                Preset::Flag(flag) => format!("`{flag}`"),
            };
            assert!(row.starts_with(&format!("| `{}` | {kind} | {default}", key.name)), "{row}");
        }
    }
}

#[test]
fn what_the_manual_shows_as_a_configuration_is_one() {
    let blocks: Vec<&str> = [MANUAL, HANDOFF]
        .iter()
        .flat_map(|manual| manual.split("```toml\n").skip(1))
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks.into_iter().filter(|block| is_built(block)) {
        load(&[(MAIN, block)], &[]).unwrap_or_else(|errors| panic!("{block}\n{errors}"));
    }
}
