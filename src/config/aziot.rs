//! The configuration of Microsoft's IoT Identity Service (`/etc/aziot/config.toml`, IoT Edge has the same) in our words, and what of it
//! has none. It opens no file.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::position;
use super::problem::{ConfigErrors, KeyName, Origin, Problem, Report};
use super::show::quoted;
use crate::secret::Secret;

/// What it comes to.
#[derive(Debug, Default)]
pub struct Migrated {
    /// Table, key and value in TOML, to be written as they are.
    pub settings: Vec<(&'static str, &'static str, String)>,
    /// What is to be in files of their own: the key that names the file, and where its content is now.
    pub secrets: Vec<(&'static str, Found)>,
    /// What is not taken over, and why.
    pub left: Vec<Problem>,
}

/// Where a secret is.
#[derive(Debug)]
pub enum Found {
    /// In the configuration itself.
    Inline(Secret<String>),
    /// In a file.
    File(PathBuf),
}

/// Reads the text of such a file. `path` is for messages.
///
/// # Errors
/// What stands in the way of taking it over at all: its syntax, manual provisioning, a key that we cannot use.
pub fn read(path: &Path, text: &str) -> Result<Migrated, ConfigErrors> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { path, text, migrated: Migrated::default(), report: Report::default() };
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        // The parser's own words can quote a key that somebody pasted into the wrong line.
        reader.refuse("", at, "this is not TOML; correct this line");
    }
    reader.table("", table.get_ref());
    reader.settle_tpm();
    reader.report.verdict().map(|_| reader.migrated)
}

struct Reader<'r> {
    path: &'r Path,
    text: &'r str,
    migrated: Migrated,
    report: Report,
}

impl Reader<'_> {
    /// In the order of its lines.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let key = [prefix, name.get_ref().as_ref()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
            if let DeValue::Table(inner) = value.get_ref() { self.table(&key, inner) } else { self.value(&key, value) }
        }
    }

    fn value(&mut self, key: &str, value: &Spanned<DeValue<'_>>) {
        let at = value.span().start;
        let text = value.get_ref().as_str().unwrap_or_default();
        let number = value.get_ref().as_integer().and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok());
        match key {
            "provisioning.source" if text == "dps" => {}
            "provisioning.source" => self.refuse(key, at, BY_HAND),
            "provisioning.global_endpoint" => self.endpoint(key, at, text),
            "provisioning.id_scope" => self.set("dps", "id_scope", quoted(text)),
            "provisioning.payload.uri" => self.file(key, at, text, "dps", "payload_file"),
            "provisioning.attestation.method" => self.method(key, at, text),
            "provisioning.attestation.registration_id" => self.set("attestation", "registration_id", quoted(text)),
            "provisioning.attestation.symmetric_key" | "provisioning.attestation.symmetric_key.value" => {
                self.keep("key_file", Found::Inline(Secret::new(text.to_owned())));
            }
            "provisioning.attestation.symmetric_key.uri" => match local(text) {
                Some(path) => self.keep("key_file", Found::File(path)),
                None => self.refuse(key, at, NOT_A_FILE),
            },
            "provisioning.attestation.identity_cert" => self.file(key, at, text, "attestation", "certificate_file"),
            "provisioning.attestation.identity_pk" => self.file(key, at, text, "attestation", "private_key_file"),
            "provisioning.attestation.identity_cert.method" => self.refuse(key, at, ISSUED),
            "tpm.tcti" if !text.is_empty() => self.set("attestation", "tcti", quoted(text)),
            "tpm.auth_key_index" => match number.or_else(|| index(text)).and_then(|index| BASE.checked_add(index)) {
                Some(handle) => self.handle(handle),
                None => self.refuse(key, at, "is no number; write such as \"0x00_01_00\""),
            },
            "tpm.hierarchy_authorization.owner" if !text.is_empty() => self.password("owner_auth_file", text),
            "tpm.hierarchy_authorization.endorsement" if !text.is_empty() => self.password("endorsement_auth_file", text),
            _ => self.leave(key, at, why_left(key)),
        }
    }

    fn method(&mut self, key: &str, at: usize, text: &str) {
        match text {
            "symmetric_key" => self.set("attestation", "method", quoted("symmetric-key")),
            "x509" => self.set("attestation", "method", quoted("x509")),
            "tpm" => self.set("attestation", "method", quoted("tpm")),
            _ => self.refuse(key, at, "is none of symmetric_key, x509 and tpm"),
        }
    }

    /// What is said of a TPM counts only where there is one; the handle of the hub key has a default.
    fn settle_tpm(&mut self) {
        const ITS: [&str; 4] = ["tcti", "identity_handle", "owner_auth_file", "endorsement_auth_file"];
        let has = |migrated: &Migrated, name, value: &str| {
            migrated.settings.iter().any(|(_, key, it)| *key == name && it.contains(value))
        };
        if !has(&self.migrated, "method", "tpm") {
            self.migrated.settings.retain(|(_, key, _)| !ITS.contains(key));
            self.migrated.secrets.retain(|(key, _)| !ITS.contains(key));
        } else if !has(&self.migrated, "identity_handle", "") {
            self.handle(BASE + USUAL_INDEX);
        }
    }

    /// Where it keeps the hub key: ours is found there, and kept there.
    fn handle(&mut self, handle: u32) {
        self.set("attestation", "identity_handle", quoted(&format!("0x{handle:08x}")));
    }

    fn endpoint(&mut self, key: &str, at: usize, text: &str) {
        let host = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
        match host.map(|host| host.split_once(':').map_or((host, None), |(host, port)| (host, port.parse::<u16>().ok()))) {
            Some((host, port)) if !host.is_empty() && !host.contains('/') => {
                self.set("dps", "host", quoted(host));
                port.into_iter().for_each(|port| self.set("dps", "https_port", port.to_string()));
            }
            _ => self.refuse(key, at, "is not https://HOST/"),
        }
    }

    fn file(&mut self, key: &str, at: usize, text: &str, table: &'static str, name: &'static str) {
        match local(text).and_then(|path| path.to_str().map(quoted)) {
            Some(path) => self.set(table, name, path),
            None => self.refuse(key, at, NOT_A_FILE),
        }
    }

    fn password(&mut self, name: &'static str, text: &str) {
        self.keep(name, Found::Inline(Secret::new(text.to_owned())));
    }

    fn set(&mut self, table: &'static str, name: &'static str, value: String) {
        self.migrated.settings.push((table, name, value));
    }

    fn keep(&mut self, name: &'static str, found: Found) {
        self.migrated.secrets.push((name, found));
    }

    fn leave(&mut self, key: &str, at: usize, why: &str) {
        let problem = self.problem(key, at, why);
        self.migrated.left.push(problem);
    }

    fn refuse(&mut self, key: &str, at: usize, why: &str) {
        let problem = self.problem(key, at, why);
        let _ = self.report.add(problem);
    }

    fn problem(&self, key: &str, at: usize, message: &str) -> Problem {
        let (line, column) = position(self.text, at);
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let name = KeyName { table: table.to_owned(), key: name.to_owned() };
        let key = (!key.is_empty()).then_some(name);
        Problem { origin: Origin::Line { path: self.path.to_owned(), line, column }, key, message: message.to_owned() }
    }
}

/// Persistent handles of the owner begin here; the other configuration counts from it.
const BASE: u32 = 0x8100_0000;
const USUAL_INDEX: u32 = 0x0100;

const BY_HAND: &str = "this device was provisioned by hand, without DPS, and there is nothing to take over; enroll it in DPS and write a \
                       configuration of its own";
const NOT_A_FILE: &str =
    "is no file (file:///PATH), and PKCS#11 is not supported; put the key into a file, or use another attestation";
const ISSUED: &str = "this certificate is issued anew at each end by another service (EST, local CA), which the agent does not do; have a \
                      program renew a file, and name that";

/// `file:///PATH`.
fn local(uri: &str) -> Option<PathBuf> {
    let path = uri.strip_prefix("file://")?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// `0x00_01_00`, or a decimal number.
fn index(text: &str) -> Option<u32> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

fn why_left(key: &str) -> &'static str {
    match key.split('.').next().unwrap_or_default() {
        "hostname" => "names the host of IoT Edge's modules; the agent needs no name",
        "local_gateway_hostname" | "parent_hostname" => {
            "is a gateway in between; where programs connect through it, set [hub] gateway_host and gateway_ca_file"
        }
        "cloud_timeout_sec" | "cloud_retries" => "the agent has deadlines and patience of its own",
        "trust_bundle_cert" | "dps_trust_bundle" => "is for modules; roots for DPS and hub go into [dps] ca_file",
        "aziot_keys" => "PKCS#11 is not supported",
        "auto_reprovisioning_mode" | "provisioning" => "the agent registers again when there is evidence that it must",
        "cert_issuance" => "the agent issues and renews no certificates",
        "tpm" => "has its default, or nothing here to correspond to",
        _ => "is not about provisioning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrated(text: &str) -> Migrated {
        read(Path::new("/etc/aziot/config.toml"), text).unwrap()
    }

    fn lines(migrated: &Migrated) -> Vec<String> {
        migrated.settings.iter().map(|(table, key, value)| format!("{table}.{key} = {value}")).collect()
    }

    fn refused(text: &str) -> String {
        read(Path::new("/f"), text).unwrap_err().to_string()
    }

    const DPS: &str = "[provisioning]\nsource = \"dps\"\nglobal_endpoint = \"https://global.azure-devices-provisioning.net/\"\nid_scope = \"0ne\"\n";

    #[test]
    fn a_tpm_is_found_at_the_handle_it_names_or_the_usual_one() {
        let with =
            |more: &str| lines(&migrated(&format!("{DPS}[provisioning.attestation]\nmethod = \"tpm\"\n{more}")))[2..].join(" ");
        assert_eq!(with(""), "attestation.method = \"tpm\" attestation.identity_handle = \"0x81000100\"");
        for index in ["\"0x00_02_00\"", "0x200", "512", "\"512\""] {
            assert!(with(&format!("[tpm]\nauth_key_index = {index}")).ends_with("\"0x81000200\""), "{index}");
        }
        let told = migrated(&format!(
            "{DPS}[provisioning.attestation]\nmethod = \"tpm\"\n[tpm]\ntcti = \"swtpm:port=1\"\n\
             [tpm.hierarchy_authorization]\nowner = \"hunter2\"\nendorsement = \"\""
        ));
        assert!(lines(&told).contains(&"attestation.tcti = \"swtpm:port=1\"".to_owned()));
        let (name, Found::Inline(password)) = &told.secrets[0] else { panic!() };
        assert_eq!((*name, password.expose().as_str(), told.secrets.len()), ("owner_auth_file", "hunter2", 1));
    }

    #[test]
    fn a_key_and_a_certificate_are_taken_from_where_they_are() {
        let key = "[provisioning.attestation]\nmethod = \"symmetric_key\"\nregistration_id = \"gw\"\nsymmetric_key = ";
        for (written, file) in [("{ value = \"AAAA\" }", None), ("\"AAAA\"", None), ("{ uri = \"file:///k\" }", Some("/k"))] {
            let told = migrated(&format!("{DPS}{key}{written}"));
            match (&told.secrets[..], file) {
                ([("key_file", Found::Inline(key))], None) => assert_eq!(key.expose(), "AAAA"),
                ([("key_file", Found::File(path))], Some(file)) => assert_eq!(path, Path::new(file)),
                other => panic!("{other:?}"),
            }
        }
        let told = migrated(&format!(
            "{DPS}payload = {{ uri = \"file:///p.json\" }}\n[provisioning.attestation]\nmethod = \"x509\"\n\
             identity_cert = \"file:///c.pem\"\nidentity_pk = \"file:///k.pem\"\n[tpm]\ntcti = \"device:/dev/tpm0\""
        ));
        assert_eq!(
            lines(&told),
            [
                "dps.host = \"global.azure-devices-provisioning.net\"",
                "dps.id_scope = \"0ne\"",
                "dps.payload_file = \"/p.json\"",
                "attestation.method = \"x509\"",
                "attestation.certificate_file = \"/c.pem\"",
                "attestation.private_key_file = \"/k.pem\"",
            ]
        );
    }

    #[test]
    fn what_cannot_be_taken_over_is_refused_with_its_line_and_never_quoted() {
        assert_eq!(refused("[provisioning]\nsource = \"manual\""), format!("/f:2: [provisioning] source: {BY_HAND}"));
        let pkcs11 = refused(&format!("{DPS}[provisioning.attestation]\nidentity_pk = \"pkcs11:pin-value=hunter2\""));
        assert_eq!(pkcs11, format!("/f:6: [provisioning.attestation] identity_pk: {NOT_A_FILE}"));
        let issued = refused("[provisioning.attestation]\nidentity_cert = { method = \"est\", common_name = \"x\" }");
        assert_eq!(issued, format!("/f:2: [provisioning.attestation.identity_cert] method: {ISSUED}"));
        assert_eq!(
            refused("[tpm]\nauth_key_index = \"much\""),
            "/f:2: [tpm] auth_key_index: is no number; write such as \"0x00_01_00\""
        );
        assert_eq!(refused("x = hunter2").lines().next(), Some("/f:1: this is not TOML; correct this line"));
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let told = migrated(
            "hostname = \"h\"\ncloud_retries = 3\n[aziot_keys]\npkcs11_lib_path = \"/l\"\n[agent]\nname = \"edgeAgent\"",
        );
        let left: Vec<String> = told.left.iter().map(ToString::to_string).collect();
        assert_eq!(
            left,
            [
                "/etc/aziot/config.toml:1: hostname: names the host of IoT Edge's modules; the agent needs no name",
                "/etc/aziot/config.toml:2: cloud_retries: the agent has deadlines and patience of its own",
                "/etc/aziot/config.toml:4: [aziot_keys] pkcs11_lib_path: PKCS#11 is not supported",
                "/etc/aziot/config.toml:6: [agent] name: is not about provisioning",
            ]
        );
    }
}
