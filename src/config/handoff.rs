//! What `[handoff]` says: which files are made for other programs, and which units may have which credential.

use std::path::PathBuf;

use super::handoff_tables::{
    CONNECTION_STRING, EXPORT_KEY, FILE, GROUP, Given, HUB_ENV, HUB_JSON, MODE, SOURCE, Table, Tables, Written, quoted,
};
use super::problem::{KeyName, Origin, Problem, Reported};
use super::reader::Reader;
use super::schema;

/// `[handoff]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handoff {
    /// `[handoff.template.NAME]`, by name.
    pub templates: Vec<Template>,
    /// `[handoff.credentials]`
    pub credentials: Credentials,
}

/// A file that is made for another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The NAME of its table.
    pub name: String,
    /// `source`: what is filled in.
    pub source: TemplateSource,
    /// `file`: its name in the directory `handoff` below the runtime directory.
    pub file: String,
    /// `group`: a name or a number; the agent's user must be a member. `None` leaves the agent's own.
    pub group: Option<String>,
    /// `mode`: permission bits, 0600 to 0664.
    pub mode: u32,
    /// `export_key`: there if the device's symmetric key may be written into the file.
    pub export_key: Option<ExportKey>,
}

/// `source`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateSource {
    /// One that the agent brings along.
    Shipped(Shipped),
    /// A file of the operator, read each time.
    File(PathBuf),
}

/// The templates that the agent brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shipped {
    /// `hub.env`: the names that the samples of Microsoft's SDKs read.
    HubEnv,
    /// `hub.json`: what the API answers, for who cannot ask it.
    HubJson,
    /// `mosquitto-bridge.conf`: a bridge of mosquitto to the hub.
    MosquittoBridge,
    /// `thin-edge.env`: the settings of thin-edge.io.
    ThinEdge,
}

impl Shipped {
    /// Every one, in the manual's order.
    pub const ALL: [Self; 4] = [Self::HubEnv, Self::HubJson, Self::MosquittoBridge, Self::ThinEdge];

    /// Its name, and that of the file it makes if no other is given.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HubEnv => HUB_ENV,
            Self::HubJson => HUB_JSON,
            Self::MosquittoBridge => "mosquitto-bridge.conf",
            Self::ThinEdge => "thin-edge.env",
        }
    }
}

/// Leave to give the device's symmetric key away. Only `export_key = true` in the configuration makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportKey(());

/// `[handoff.credentials]`: which units may have which credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `hub.json`: patterns of unit names, where `*` stands for any characters.
    pub hub_json: Vec<String>,
    /// `hub.env`
    pub hub_env: Vec<String>,
    /// `connection-string`, and the leave to hand it out; `None` without `export_key = true`.
    pub connection_string: Option<(Vec<String>, ExportKey)>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { hub_json: any(), hub_env: any(), connection_string: None }
    }
}

fn any() -> Vec<String> {
    vec!["*".to_owned()]
}

/// A text of a template's table, and where it was written.
struct Text<'s> {
    table: &'s Table,
    key: &'static str,
    text: &'s str,
    origin: &'s Origin,
}

impl<'s> Reader<'s> {
    // Every part is read before the first `?`, so that all problems come to light together.
    pub(super) fn handoff(&mut self) -> Result<Handoff, Reported> {
        let tables = &self.settings.handoff;
        let named = tables.all().into_iter().filter_map(|(table, _)| match table {
            Table::Template(name) => Some((table, name)),
            Table::Credentials => None,
        });
        let templates: Vec<_> = named.map(|(table, name)| self.template(tables, table, name)).collect();
        let credentials = self.credentials(tables);
        let templates = templates.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.apart_files(tables, &templates)?;
        Ok(Handoff { templates, credentials: credentials? })
    }

    fn template(&mut self, tables: &'s Tables, table: &'s Table, name: &str) -> Result<Template, Reported> {
        let source = self.source(tables, table);
        let file = self.file(tables, table, source.as_ref().ok());
        let group = self.group(tables, table);
        let mode = self.mode(tables, table);
        let export_key = self.export_key(tables, table);
        Ok(Template { name: name.to_owned(), source: source?, file: file?, group: group?, mode: mode?, export_key: export_key? })
    }

    fn source(&mut self, tables: &'s Tables, table: &'s Table) -> Result<TemplateSource, Reported> {
        let names = || Shipped::ALL.iter().map(|shipped| shipped.name());
        let Some(found) = text(tables, table, SOURCE)? else {
            let names = names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            return Err(self.absent(tables, table, SOURCE, &format!("write one of {names}, or the path of a template")));
        };
        if found.text.starts_with('/') && !found.text.contains('\0') {
            return Ok(TemplateSource::File(PathBuf::from(found.text)));
        }
        if let Some(shipped) = Shipped::ALL.iter().find(|shipped| shipped.name() == found.text) {
            return Ok(TemplateSource::Shipped(*shipped));
        }
        let near = schema::nearest(found.text, names()).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let list = names().collect::<Vec<_>>().join(", ");
        Err(self.not_right(&found, format!("neither an absolute path nor a template that the agent brings along ({list}){near}")))
    }

    fn file(&mut self, tables: &'s Tables, table: &'s Table, source: Option<&TemplateSource>) -> Result<String, Reported> {
        match (text(tables, table, FILE)?, source) {
            (Some(found), _) => match wrong_file(found.text) {
                None => Ok(found.text.to_owned()),
                Some(message) => Err(self.not_right(&found, message)),
            },
            (None, Some(TemplateSource::Shipped(shipped))) => Ok(shipped.name().to_owned()),
            // Without a source it is not known whether a name is needed.
            (None, None) => Ok(String::new()),
            (None, Some(TemplateSource::File(_))) => {
                Err(self.absent(tables, table, FILE, "write the name of the file to be made, such as file = \"my-app.env\""))
            }
        }
    }

    fn group(&mut self, tables: &'s Tables, table: &'s Table) -> Result<Option<String>, Reported> {
        let Some(found) = text(tables, table, GROUP)? else { return Ok(None) };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if found.text.len() <= 32 && found.text.chars().all(legal) {
            return Ok(Some(found.text.to_owned()));
        }
        Err(self.not_right(&found, "not a group; write its name as /etc/group has it, or its number"))
    }

    fn mode(&mut self, tables: &'s Tables, table: &'s Table) -> Result<u32, Reported> {
        const USUAL: u32 = 0o640;
        let Some(found) = text(tables, table, MODE)? else { return Ok(USUAL) };
        let digits = found.text.len() == 4 && found.text.starts_with('0');
        match u32::from_str_radix(found.text, 8) {
            Ok(mode) if digits && mode & !0o064 == 0o600 => Ok(mode),
            Ok(_) | Err(_) => Err(self.not_right(
                &found,
                "not a mode for such a file; write \"0600\", \"0640\" or \"0660\", or \"0644\" if it holds no secret",
            )),
        }
    }

    fn export_key(&mut self, tables: &'s Tables, table: &'s Table) -> Result<Option<ExportKey>, Reported> {
        let Some(Written { value, origin, .. }) = tables.find(table, EXPORT_KEY) else { return Ok(None) };
        if !matches!(value.as_ref().map_err(|reported| *reported)?, Given::Flag(true)) {
            return Ok(None);
        }
        match self.optional(schema::METHOD)?.filter(|method| method.text != "symmetric-key") {
            None => Ok(Some(ExportKey(()))),
            Some(method) => Err(self.report_at(
                origin,
                table.name(EXPORT_KEY),
                format!(
                    "there is no key that could be given away, since {} says method = \"{}\"; remove this line",
                    method.origin, method.text
                ),
            )),
        }
    }

    fn credentials(&mut self, tables: &'s Tables) -> Result<Credentials, Reported> {
        let table = &Table::Credentials;
        let hub_json = self.units(tables, HUB_JSON);
        let hub_env = self.units(tables, HUB_ENV);
        let connection_string = self.units(tables, CONNECTION_STRING);
        let export_key = self.export_key(tables, table)?;
        let connection_string = connection_string?;
        if let (None, Some(Written { origin, .. })) = (export_key, tables.find(table, CONNECTION_STRING)) {
            let message = "a connection string holds the device's key; write export_key = true beside it, or remove this line";
            return Err(self.report_at(origin, table.name(CONNECTION_STRING), message.to_owned()));
        }
        let connection_string = export_key.map(|leave| (connection_string.unwrap_or_else(any), leave));
        Ok(Credentials { hub_json: hub_json?.unwrap_or_else(any), hub_env: hub_env?.unwrap_or_else(any), connection_string })
    }

    fn units(&mut self, tables: &'s Tables, key: &'static str) -> Result<Option<Vec<String>>, Reported> {
        let Some(Written { table, value, origin, .. }) = tables.find(&Table::Credentials, key) else { return Ok(None) };
        match value.as_ref().map_err(|reported| *reported)? {
            Given::List(units) if units.iter().all(|unit| is_unit(unit)) => Ok(Some(units.clone())),
            Given::List(_) | Given::Text(_) | Given::Flag(_) => {
                let key = quoted(key);
                let message = format!(
                    "holds something that is no unit's name; write names such as {key} = [\"my-app.service\"], in which * stands for anything"
                );
                Err(self.report_at(origin, table.name(&key), message))
            }
        }
    }

    /// Two templates cannot make the same file.
    fn apart_files(&mut self, tables: &'s Tables, templates: &[Template]) -> Result<(), Reported> {
        let mut verdict = Ok(());
        for (n, template) in templates.iter().enumerate() {
            let Some(other) = templates.iter().take(n).find(|other| other.file == template.file) else { continue };
            let table = Table::Template(template.name.clone());
            let origin = place(tables, &table);
            let message = format!("makes \"{}\", as [handoff.template.{}] does; write another file", template.file, other.name);
            verdict = Err(self.report_at(&origin, table.name(FILE), message));
        }
        verdict
    }

    fn absent(&mut self, tables: &Tables, table: &Table, key: &str, cure: &str) -> Reported {
        self.report_at(&place(tables, table), table.name(key), format!("is missing; {cure}"))
    }

    fn not_right(&mut self, found: &Text<'_>, message: impl Into<String>) -> Reported {
        self.report_at(found.origin, found.table.name(found.key), message.into())
    }

    fn report_at(&mut self, origin: &Origin, key: KeyName, message: String) -> Reported {
        self.add(Problem { origin: origin.clone(), key: Some(key), message })
    }
}

fn text<'s>(tables: &'s Tables, table: &'s Table, key: &'static str) -> Result<Option<Text<'s>>, Reported> {
    let Some(Written { value, origin, .. }) = tables.find(table, key) else { return Ok(None) };
    match value.as_ref().map_err(|reported| *reported)? {
        Given::Text(text) => Ok(Some(Text { table, key, text, origin })),
        Given::Flag(_) | Given::List(_) => Ok(None),
    }
}

/// Where a table's file is written, or else its first key.
fn place(tables: &Tables, table: &Table) -> Origin {
    let keys = [FILE, SOURCE, GROUP, MODE, EXPORT_KEY];
    keys.iter().find_map(|key| tables.find(table, key)).map_or(Origin::Default, |written| written.origin.clone())
}

/// What is wrong with the name of a file, and what to write.
fn wrong_file(name: &str) -> Option<&'static str> {
    if name.contains('/') || name == ".." || name == "." {
        return Some(
            "leads elsewhere; write a name alone, since all these files are made in the directory handoff below [runtime] directory",
        );
    }
    let legal = |c: char| !c.is_control() && c != '\\';
    if name.starts_with('.') || name.ends_with(".new") || name.len() > 200 || !name.chars().all(legal) {
        return Some("not a name for such a file; write one that begins with no dot and does not end in .new");
    }
    None
}

/// As systemd has it (systemd.unit(5)), with stars.
fn is_unit(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@*".contains(c);
    (1..=255).contains(&name.len()) && name.chars().all(legal)
}
