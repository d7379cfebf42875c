//! The merged configuration for people and for tools, with the origin of every value and without secrets.

use serde_json::{Map, Value as Json, json};

use super::document::{Setting, Value};
use super::handoff_tables::{Given, Written, quoted as quoted_key};
use super::problem::Origin;
use super::schema::{KEYS, TABLES};
use super::{ConfigErrors, Loaded, Problem, Proxy, ProxyCredentials};

impl Loaded {
    /// Where the value of a key came from; nothing if it has none.
    pub fn origin(&self, table: &str, key: &str) -> Option<&Origin> {
        let key = super::schema::key(table, key)?;
        self.settings.find(key).map(|setting| &setting.origin)
    }

    /// The configuration as TOML that means the same, each value with its origin as a comment.
    ///
    /// What came from the environment stands in comments: no file could say it, and a password is not shown.
    pub fn to_toml(&self) -> String {
        let mut lines = Vec::new();
        for table in TABLES {
            lines.push(format!("[{table}]"));
            lines.extend(self.of(table).map(toml_line));
            if table == "dps" {
                lines.extend(self.inherited().map(|(name, proxy)| inherited_lines(name, proxy)).into_iter().flatten());
            }
            lines.push(String::new());
        }
        for (table, keys) in self.settings.handoff.all() {
            lines.push(format!("[{table}]"));
            lines.extend(keys.into_iter().map(handoff_line));
            lines.push(String::new());
        }
        lines.pop();
        lines.join("\n") + "\n"
    }

    /// The configuration as `{"dps": {"host": {"value": …, "origin": "FILE:LINE"}}}`, a proxy of the environment included.
    pub fn to_json(&self) -> Json {
        let tables = TABLES.map(|table| {
            let mut keys: Map<String, Json> =
                self.of(table).map(|setting| (setting.key.name.to_owned(), to_json(setting))).collect();
            if table == "dps" {
                keys.extend(self.inherited().map(|(name, proxy)| inherited_json(name, proxy)).into_iter().flatten());
            }
            (table.to_owned(), Json::Object(keys))
        });
        let handoff = self.settings.handoff.all().into_iter().map(|(table, keys)| {
            (
                table.to_string(),
                Json::Object(keys.into_iter().map(|written| (written.key.to_owned(), handoff_json(written))).collect()),
            )
        });
        Json::Object(tables.into_iter().chain(handoff).collect())
    }

    fn of(&self, table: &'static str) -> impl Iterator<Item = &Setting> {
        KEYS.iter().filter(move |key| key.table == table).filter_map(|key| self.settings.find(*key))
    }

    /// The proxy of the environment with its variable's name, if it is the one that is used.
    fn inherited(&self) -> Option<(&'static str, &Proxy)> {
        let (name, _) = self.variables.proxy.as_ref()?;
        let proxy = self.config.proxy.as_ref()?;
        self.settings.find(super::schema::PROXY).is_none().then_some((*name, proxy))
    }
}

/// What `config validate --json` prints: `{"valid", "errors", "warnings"}`.
pub fn validation_json(result: &Result<Loaded, ConfigErrors>) -> Json {
    let list = |problems: &[Problem]| Json::Array(problems.iter().map(Problem::to_json).collect());
    match result {
        Ok(loaded) => json!({ "valid": true, "errors": [], "warnings": list(&loaded.warnings) }),
        Err(errors) => json!({ "valid": false, "errors": list(errors.problems()), "warnings": [] }),
    }
}

fn toml_line(setting: &Setting) -> String {
    let value = match &setting.value {
        Value::Text(text) => quoted(text),
        Value::Source(text) => source_table(text),
        Value::Port(port) => port.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Broken(_) => return format!("# {} is of no use", setting.key.name),
    };
    format!("{} = {value}  # {}", setting.key.name, one_line(&setting.origin))
}

fn handoff_line(written: &Written) -> String {
    let key = quoted_key(written.key);
    let value = match &written.value {
        Ok(Given::Text(text)) => quoted(text),
        Ok(Given::Flag(flag)) => flag.to_string(),
        Ok(Given::List(texts)) => format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")),
        Err(_) => return format!("# {key} is of no use"),
    };
    format!("{key} = {value}  # {}", one_line(&written.origin))
}

fn handoff_json(written: &Written) -> Json {
    let value = match &written.value {
        Ok(Given::Text(text)) => json!(text),
        Ok(Given::Flag(flag)) => json!(flag),
        Ok(Given::List(texts)) => json!(texts),
        Err(_) => Json::Null,
    };
    json!({ "value": value, "origin": written.origin.to_string() })
}

fn to_json(setting: &Setting) -> Json {
    let value = match &setting.value {
        Value::Text(text) => json!(text),
        Value::Source(text) => source_json(text),
        Value::Port(port) => json!(port),
        Value::Flag(flag) => json!(flag),
        Value::Broken(_) => Json::Null,
    };
    json!({ "value": value, "origin": setting.origin.to_string() })
}

/// A source as the table that it was written as.
fn source_table(text: &str) -> String {
    match tpm_ek(text) {
        Some(encoding) => format!("{{ from = \"tpm-ek\", encoding = {} }}", quoted(encoding)),
        None => format!("{{ from = {} }}", quoted(text)),
    }
}

fn source_json(text: &str) -> Json {
    match tpm_ek(text) {
        Some(encoding) => json!({ "from": "tpm-ek", "encoding": encoding }),
        None => json!({ "from": text }),
    }
}

fn tpm_ek(text: &str) -> Option<&str> {
    text.strip_prefix("tpm-ek:")
}

fn inherited_lines(name: &str, proxy: &Proxy) -> Vec<String> {
    let hidden = if has_hidden_credentials(proxy) { "; its user and password are not shown" } else { "" };
    let mut lines = vec![format!("# proxy = \"{}\"  # environment {name}{hidden}", url(proxy))];
    if !proxy.except.is_empty() {
        lines.push(format!("# but not for {}  # environment NO_PROXY", quoted(&proxy.except.join(", "))));
    }
    lines
}

fn inherited_json(name: &str, proxy: &Proxy) -> Vec<(String, Json)> {
    let origin = format!("environment {name}");
    let mut shown = json!({ "value": url(proxy), "origin": origin });
    if has_hidden_credentials(proxy) {
        shown["credentials"] = json!("redacted");
    }
    let mut keys = vec![("proxy".to_owned(), shown)];
    if !proxy.except.is_empty() {
        keys.push(("no_proxy".to_owned(), json!({ "value": proxy.except, "origin": "environment NO_PROXY" })));
    }
    keys
}

fn has_hidden_credentials(proxy: &Proxy) -> bool {
    matches!(proxy.credentials, Some(ProxyCredentials::Environment(_)))
}

fn url(proxy: &Proxy) -> String {
    format!("http://{}:{}", proxy.host.in_url(), proxy.port)
}

/// A path may hold a newline, a comment may not.
fn one_line(origin: &Origin) -> String {
    origin.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A TOML string: literal where that spares escapes (a payload is full of quotes), else basic.
pub(super) fn quoted(text: &str) -> String {
    let escapes = text.contains(['"', '\\']);
    if escapes && !text.contains('\'') && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
