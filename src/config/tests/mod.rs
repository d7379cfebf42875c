//! Configurations in texts: what the tables of broken and whole ones share.

mod combinations;
mod environment;
mod handoff;
mod hostile;
mod layering;
mod shipped;
mod shown;
#[cfg(feature = "tpm")]
mod tpm;
mod values;
mod whole;

use std::collections::HashMap;
use std::path::PathBuf;

use self::Place::{After, AfterTpm, AfterX509, Before, Dps, Instead, Whole};
use super::{Config, ConfigErrors, Loaded};

const MAIN: &str = "/etc/dps-agent/config.toml";
const DROP_IN: &str = "/etc/dps-agent/config.d/50-site.toml";

/// The least that works with a symmetric key: lines 1 to 6.
const KEY: &str = "\
[dps]
id_scope = '0ne1'
[attestation]
method = 'symmetric-key'
registration_id = 'gw-1'
key_file = '/k'
";

/// The least that works with a certificate: lines 1 to 6.
const X509: &str = "\
[dps]
id_scope = '0ne1'
[attestation]
method = 'x509'
certificate_file = '/c'
private_key_file = '/p'
";

/// The least that works with a TPM: lines 1 to 4.
const TPM: &str = "\
[dps]
id_scope = '0ne1'
[attestation]
method = 'tpm'
";

/// Loads files, the main one first, in an environment.
fn load(layers: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let layers = layers.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Config::from_layers(layers, &|name| variables.get(name).map(|text| (*text).to_owned()))
}

/// Everything that is wrong with them.
fn errors(layers: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
    match load(layers, variables) {
        Ok(loaded) => panic!("accepted: {:?}", loaded.config),
        Err(errors) => errors.to_string(),
    }
}

/// Where the text of a case stands.
enum Place {
    /// It is the whole file.
    Whole,
    /// Before the first table: line 1.
    Before,
    /// In `[dps]`: line 3.
    Dps,
    /// At the end, in `[attestation]` of a symmetric key: line 7.
    After,
    /// At the end, in `[attestation]` of X.509: line 7.
    AfterX509,
    /// At the end, in `[attestation]` of a TPM: line 5.
    AfterTpm,
    /// Instead of this line.
    Instead(&'static str),
}

fn assert_wrong(cases: &[(Place, &str, &str)]) {
    for (place, text, expected) in cases {
        let file = match place {
            Whole => (*text).to_owned(),
            Before => format!("{text}\n{KEY}"),
            Dps => KEY.replacen("[attestation]", &format!("{text}\n[attestation]"), 1),
            After => format!("{KEY}{text}"),
            AfterX509 => format!("{X509}{text}"),
            AfterTpm => format!("{TPM}{text}"),
            Instead(line) => KEY.replacen(line, text, 1),
        };
        assert_eq!(errors(&[("F", &file)], &[]), *expected, "\n{file}");
    }
}
