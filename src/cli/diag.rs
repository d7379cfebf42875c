//! `diag`: what support needs to know of this gateway, as one text, free of secrets. It changes nothing and asks no network.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::args::{self, Cli};
use super::daemon::{Door, ask};
use super::verbs::{Ended, source, surroundings};
use super::{environment, output};
use crate::agent::Surroundings;
use crate::blame::Blame;
use crate::check::{Check, Examined, examine};
use crate::clock::{BUILT, Clock};
use crate::config::{Config, ConfigErrors, Loaded};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::record::{Record, Store, rfc3339};
use crate::transcript::Transcript;

const HEADING: &str = "A report on dps-agent for support. Keys, tokens, passwords and payloads are left out; names of hosts, files and \
     devices are in it.";
/// What stands where something was left out.
const LEFT_OUT: &str = "(left out)";

/// `diag`
pub async fn diag(cli: &Cli, options: &args::Diag) -> Ended {
    let loaded = Config::load(&source(cli), &environment);
    let mut sections =
        vec![("version", version()), ("machine", machine(Path::new("/"))), ("configuration", configuration(&loaded))];
    if let Ok(Loaded { config, files, .. }) = &loaded {
        sections.push(("files", files_of(config, files)));
        sections.push(("daemon", from_daemon(config, Door::Client, "/v1/status").await));
        sections.push(("metrics", from_daemon(config, Door::Admin, "/metrics").await));
        sections.push(("record", record(config)));
    }
    sections.push(("check", checks(cli).await));
    let sections: Vec<_> = sections.into_iter().map(|(name, text)| (name, scrubbed(text.trim_end()))).collect();
    let text = if cli.json { as_json(&sections) } else { as_text(&sections) };
    match &options.file {
        None => output::print(&text)?,
        Some(path) => write(path, &text)?,
    }
    Ok(0)
}

fn as_text(sections: &[(&str, String)]) -> String {
    let blocks = sections.iter().map(|(name, text)| format!("\n== {name}\n{text}\n"));
    format!("{HEADING}\n{}", blocks.collect::<String>())
}

fn as_json(sections: &[(&str, String)]) -> String {
    let members: Map<String, Value> = sections.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
    format!("{}\n", Value::Object(members))
}

/// A new file of its owner alone: what is there already is somebody else's.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(Blame::Unwritable, format!("cannot write the report {}: {error}", path.display())))
}

fn version() -> String {
    let tpm = if cfg!(feature = "tpm") { "with" } else { "without" };
    format!("dps-agent {}, {tpm} TPM support, built {}", env!("CARGO_PKG_VERSION"), rfc3339(BUILT))
}

/// What the kernel and systemd have written down about this machine.
fn machine(root: &Path) -> String {
    let line = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_owned();
    let release = line("etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    let unit = "sys/fs/cgroup/system.slice/dps-agent.service";
    let rows = [
        ("system", name.trim_matches('"').to_owned()),
        ("kernel", line("proc/sys/kernel/osrelease")),
        ("architecture", std::env::consts::ARCH.to_owned()),
        ("uptime", line("proc/uptime")),
        ("clock", clock()),
        ("synchronised", yes(&root.join("run/systemd/timesync/synchronized"))),
        ("systemd", yes(&root.join("run/systemd/system"))),
        ("container", line("run/systemd/container")),
        ("unit's memory", line(&format!("{unit}/memory.current"))),
        ("unit's events", line(&format!("{unit}/memory.events")).replace('\n', ", ")),
    ];
    rows.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}

fn clock() -> String {
    let behind =
        Clock::with_floor(None).below_floor().map(|behind| format!(", {} s before this agent was built", behind.as_secs()));
    format!("{}{}", rfc3339(Clock::wall()), behind.unwrap_or_default())
}

fn yes(path: &Path) -> String {
    if path.exists() { "yes" } else { "no" }.to_owned()
}

fn configuration(loaded: &Result<Loaded, ConfigErrors>) -> String {
    match loaded {
        Err(errors) => errors.to_string(),
        Ok(loaded) => {
            let shown = loaded.to_toml();
            let lines = shown.lines().map(|line| if line.starts_with("payload = ") { "# payload (left out)" } else { line });
            let warnings = loaded.warnings.iter().map(|warning| format!("# warning: {warning}"));
            lines.map(str::to_owned).chain(warnings).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Names, modes, owners and sizes of the configuration's files and of what is in our two directories.
fn files_of(config: &Config, files: &[PathBuf]) -> String {
    let mut paths = files.to_vec();
    for directory in [&config.state_directory, &config.runtime_directory] {
        list(directory, &mut paths, 0);
    }
    paths.iter().map(|path| format!("{}\n", described(path))).collect()
}

fn list(directory: &Path, paths: &mut Vec<PathBuf>, depth: usize) {
    paths.push(directory.to_owned());
    let mut found: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    for path in found {
        match path.symlink_metadata().is_ok_and(|found| found.is_dir()) && depth < 2 {
            true => list(&path, paths, depth + 1),
            false => paths.push(path),
        }
    }
}

fn described(path: &Path) -> String {
    match path.symlink_metadata() {
        Err(error) => format!("{}: {error}", path.display()),
        Ok(found) => {
            let changed = rfc3339(u64::try_from(found.mtime()).unwrap_or(0));
            let owner = format!("{}:{}", found.uid(), found.gid());
            format!("{:06o} {owner:>11} {:>8} {changed} {}", found.mode(), found.len(), path.display())
        }
    }
}

async fn from_daemon(config: &Config, door: Door, target: &str) -> String {
    match ask(config, door, "GET", target, &Value::Null).await {
        Ok(None) => "no daemon runs here".to_owned(),
        Err(failure) => failure.to_string(),
        Ok(Some(reply)) => match (reply.json(), reply.text()) {
            (Ok(json), _) => pretty(&json),
            (Err(_), Ok(text)) => text.to_owned(),
            (Err(_), Err(failure)) => failure.to_string(),
        },
    }
}

/// What of the record consumers may know, and where the device is between two registrations.
fn record(config: &Config) -> String {
    match Store::new(&config.state_directory).read() {
        Err(error) => error.to_string(),
        Ok(None) => "there is none".to_owned(),
        Ok(Some(record)) => {
            let mut text = pretty(&public(&record));
            let before = record.predecessor.as_deref().map_or("none".to_owned(), |before| pretty(&public(before)));
            let _ = write!(text, "\nunfinished: {}\npredecessor: {before}", record.unfinished);
            text
        }
    }
}

fn public(record: &Record) -> Value {
    let mut public = record.public();
    public["transport"] = json!(record.transport);
    public["idScope"] = json!(record.id_scope);
    if !public["payload"].is_null() {
        public["payload"] = json!(LEFT_OUT);
    }
    public
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

async fn checks(cli: &Cli) -> String {
    let Surroundings { root, credentials, .. } = surroundings(Transcript::log_only(), Progress::Silent);
    let examined = Examined { source: source(cli), environment: &environment, root, credentials, offline: true };
    let mut text = String::new();
    let mut tell = |check: &Check| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{check}");
    };
    examine(examined, &mut tell).await;
    text
}

/// Without what looks like a credential. None should be in it before; this is for what others have put where it does not belong.
fn scrubbed(text: &str) -> String {
    const SIGNS: [&str; 4] = ["sig=", "SharedAccessKey=", "SharedAccessSignature=", "\"password\":\""];
    let mut text = text.to_owned();
    for sign in SIGNS {
        let mut pieces = text.split(sign);
        let mut clean = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let end = piece.find([' ', '&', ';', '"', '\'', '\n', ',']).unwrap_or(piece.len());
            clean.push_str(sign);
            clean.push_str(LEFT_OUT);
            clean.push_str(&piece[end..]);
        }
        text = clean;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_left_out() {
        let found = "sr=h&sig=abc%3D&se=5 and HostName=h;SharedAccessKey=abc=;x=1 and {\"password\":\"abc\"} sig=abc";
        assert_eq!(
            scrubbed(found),
            "sr=h&sig=(left out)&se=5 and HostName=h;SharedAccessKey=(left out);x=1 and {\"password\":\"(left out)\"} sig=(left out)"
        );
        assert_eq!(scrubbed("nothing of that kind"), "nothing of that kind");
    }
}
