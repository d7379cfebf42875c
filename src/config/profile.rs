//! `[attestation]`: who we are and how we prove it, with the settings of one method only.

use std::fmt;
use std::path::PathBuf;

use super::problem::Reported;
use super::reader::{Reader, take_back};
use super::schema::{self, Key};
use super::settings::Found;
use super::{Encoding, IdentitySource, KeySource, Profile, RegistrationIdSource};
use crate::id::{InvalidId, RegistrationId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    SymmetricKey,
    X509,
    Tpm,
}

const METHODS: [(&str, Method); 3] = [("symmetric-key", Method::SymmetricKey), ("x509", Method::X509), ("tpm", Method::Tpm)];
const OWNERS: [(&str, &[Key]); 3] = [("symmetric-key", &KEYS_OF_SYMMETRIC_KEY), ("x509", &KEYS_OF_X509), ("tpm", &KEYS_OF_TPM)];
const KEYS_OF_SYMMETRIC_KEY: [Key; 4] =
    [schema::KEY_FILE, schema::KEY_CREDENTIAL, schema::SECONDARY_KEY_FILE, schema::SECONDARY_KEY_CREDENTIAL];
const KEYS_OF_X509: [Key; 2] = [schema::CERTIFICATE_FILE, schema::PRIVATE_KEY_FILE];

const KEYS_OF_TPM: [Key; 9] = [
    schema::TCTI,
    schema::OWNER_AUTH_FILE,
    schema::OWNER_AUTH_CREDENTIAL,
    schema::ENDORSEMENT_AUTH_FILE,
    schema::ENDORSEMENT_AUTH_CREDENTIAL,
    schema::EK_HANDLE,
    schema::SRK_HANDLE,
    schema::IDENTITY_HANDLE,
    schema::EK_UNIQUE,
];

const NOT_BUILT: &str = "this dps-agent was built without TPM support; install one that was built with the feature \"tpm\", or use \"symmetric-key\" or \"x509\"";
const SOURCES: &str = "device-tree-serial, dmi-serial, mac:INTERFACE, machine-id or file:/PATH";
const DISPUTED: &str = "the documents of DPS disagree whether this ID is taken; lower-case letters, digits and dashes between them are taken for certain";

impl<'s> Reader<'s> {
    pub(super) fn profile(&mut self) -> Result<Profile, Reported> {
        let cure = "write method = \"symmetric-key\", method = \"x509\" or method = \"tpm\"";
        let found = self.required(schema::METHOD, cure)?;
        match self.word(schema::METHOD, &METHODS)? {
            Method::SymmetricKey => self.symmetric_key(found),
            Method::X509 => self.x509(found),
            Method::Tpm if cfg!(feature = "tpm") => self.tpm(found),
            Method::Tpm => Err(self.wrong(found, NOT_BUILT)),
        }
    }

    fn symmetric_key(&mut self, method: Found<'s>) -> Result<Profile, Reported> {
        let strangers = self.strangers(method);
        let registration_id = self.registration_id(method);
        let primary = self.key_source(schema::KEY_FILE, schema::KEY_CREDENTIAL);
        let secondary = self.key_source(schema::SECONDARY_KEY_FILE, schema::SECONDARY_KEY_CREDENTIAL);
        let cure = "write key_file = \"/etc/dps-agent/device.key\" (base64 text of the device's key), or key_credential";
        let primary = match primary? {
            Some(source) => source,
            None => return Err(self.missing(schema::KEY_FILE, cure)),
        };
        strangers?;
        Ok(Profile::SymmetricKey { registration_id: registration_id?, primary, secondary: secondary? })
    }

    fn x509(&mut self, method: Found<'s>) -> Result<Profile, Reported> {
        let strangers = self.strangers(method);
        let registration_id = self.registration_id(method);
        let chain =
            self.required(schema::CERTIFICATE_FILE, "write the path of the PEM chain, the device's own certificate first");
        let key = self.required(schema::PRIVATE_KEY_FILE, "write the path of the PEM private key of the certificate");
        strangers?;
        Ok(Profile::X509 { registration_id: registration_id?, chain: PathBuf::from(chain?.text), key: PathBuf::from(key?.text) })
    }

    fn tpm(&mut self, method: Found<'s>) -> Result<Profile, Reported> {
        let strangers = self.strangers(method);
        let registration_id = self.registration_id(method);
        let tpm = self.tpm_settings();
        strangers?;
        Ok(Profile::Tpm { registration_id: registration_id?, tpm: tpm? })
    }

    /// Keys that belong to another method: most often left behind when a drop-in changed the method.
    fn strangers(&mut self, method: Found<'s>) -> Result<(), Reported> {
        let mut verdict = Ok(());
        let others = OWNERS.iter().filter(|(owner, _)| *owner != method.text);
        for (owner, key) in others.flat_map(|(owner, keys)| keys.iter().map(move |key| (owner, key))) {
            let Ok(Some(found)) = self.optional(*key) else { continue };
            let message = format!(
                "belongs to method \"{owner}\", but {} says method = \"{}\"; remove one of the two{}",
                method.origin,
                method.text,
                take_back(method, found)
            );
            verdict = Err(self.wrong(found, message));
        }
        verdict
    }

    pub(super) fn key_source(&mut self, file: Key, credential: Key) -> Result<Option<KeySource>, Reported> {
        let (file, credential) = (self.optional(file), self.optional(credential));
        match (file?, credential?) {
            (Some(file), Some(credential)) => Err(self.both(file, credential)),
            (Some(file), None) => Ok(Some(KeySource::File(PathBuf::from(file.text)))),
            (None, Some(credential)) => self.credential(credential).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn credential(&mut self, found: Found<'_>) -> Result<KeySource, Reported> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if found.text.len() > 255 || !found.text.chars().all(plain) || matches!(found.text, "." | "..") {
            return Err(self.wrong(
                found,
                "not a credential's name; write the NAME of LoadCredential=NAME:PATH, of letters, digits, '-', '_', '.'",
            ));
        }
        Ok(KeySource::Credential(found.text.to_owned()))
    }

    fn registration_id(&mut self, method: Found<'s>) -> Result<RegistrationIdSource, Reported> {
        let prefix = self.optional(schema::REGISTRATION_ID_PREFIX);
        let written = self.optional(schema::REGISTRATION_ID);
        let from = self.optional(schema::REGISTRATION_ID_FROM);
        let prefix = prefix?;
        let table = self.settings.source(schema::REGISTRATION_ID);
        match (written?, table, from?) {
            (Some(written), _, Some(from)) | (None, Some(written), Some(from)) => Err(self.both(written, from)),
            (Some(written), _, None) => self.written_id(written, prefix),
            (None, Some(from), None) | (None, None, Some(from)) => self.identity(from, prefix, method),
            (None, None, None) => {
                let cure = format!("write registration_id = \"gw-0001\", or registration_id_from = one of {SOURCES}");
                Err(self.missing(schema::REGISTRATION_ID, &cure))
            }
        }
    }

    fn written_id(&mut self, written: Found<'_>, prefix: Option<Found<'_>>) -> Result<RegistrationIdSource, Reported> {
        let id = written.text.parse::<RegistrationId>().map_err(|invalid: InvalidId| self.invalid(written, &invalid));
        if let Some(prefix) = prefix {
            let origin = written.origin;
            let message =
                format!("goes before registration_id_from only, and {origin} writes the whole ID; put the prefix into it");
            return Err(self.wrong(prefix, message));
        }
        let id = id?;
        if id.is_disputed() {
            self.warn(written, DISPUTED);
        }
        Ok(RegistrationIdSource::Written(id))
    }

    fn identity(
        &mut self,
        from: Found<'_>,
        prefix: Option<Found<'_>>,
        method: Found<'_>,
    ) -> Result<RegistrationIdSource, Reported> {
        let prefix_text = prefix.map(|prefix| self.prefix(prefix)).transpose();
        let source = IdentitySource::parse(from.text).map_err(|cure| self.wrong(from, cure))?;
        if source == IdentitySource::CertificateCn {
            self.common_name(from, prefix, method)?;
        }
        if matches!(source, IdentitySource::TpmEk(_)) && method.text != "tpm" {
            return Err(self.wrong(from, absent("TPM", method)));
        }
        Ok(RegistrationIdSource::From { source, prefix: prefix_text?.unwrap_or_default().to_owned() })
    }

    fn common_name(&mut self, from: Found<'_>, prefix: Option<Found<'_>>, method: Found<'_>) -> Result<(), Reported> {
        if method.text != "x509" {
            return Err(self.wrong(from, absent("certificate", method)));
        }
        match prefix {
            None => Ok(()),
            Some(prefix) => Err(self.wrong(
                prefix,
                "the ID has to equal the certificate's common name, so nothing can go before it; remove the prefix or choose another registration_id_from",
            )),
        }
    }

    fn prefix<'p>(&mut self, found: Found<'p>) -> Result<&'p str, Reported> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if found.text.len() < 128 && found.text.chars().all(legal) {
            return Ok(found.text);
        }
        Err(self.wrong(found, "not the beginning of a registration ID; use at most 127 letters, digits and '-', '.', '_', ':'"))
    }
}

/// A source that only another method has.
fn absent(what: &str, method: Found<'_>) -> String {
    let Found { text, origin, .. } = method;
    format!("there is no {what} with method = \"{text}\" of {origin}; use another source, or write registration_id")
}

impl IdentitySource {
    /// Understands the text of `registration_id_from`; otherwise says what is wrong and what to write.
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "certificate-cn" => Ok(Self::CertificateCn),
            "device-tree-serial" => Ok(Self::DeviceTreeSerial),
            "dmi-serial" => Ok(Self::DmiSerial),
            "machine-id" => Ok(Self::MachineId),
            "tpm-ek" | "tpm-ek:hex" => Ok(Self::TpmEk(Encoding::Hex)),
            "tpm-ek:base32" => Ok(Self::TpmEk(Encoding::Base32)),
            "mac" => Err("names no network interface; write for instance \"mac:eth0\"".to_owned()),
            _ => Self::with_argument(text),
        }
    }

    fn with_argument(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("mac", interface)) if is_interface(interface) => Ok(Self::Mac(interface.to_owned())),
            Some(("mac", _)) => Err("names no network interface; write for instance \"mac:eth0\"".to_owned()),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            Some(("file", _)) => Err("names no absolute path; write for instance \"file:/etc/serial\"".to_owned()),
            Some(("tpm-ek", _)) => Err("names no encoding; write \"tpm-ek:hex\" or \"tpm-ek:base32\"".to_owned()),
            _ => {
                let names = ["certificate-cn", "tpm-ek:hex", "tpm-ek:base32", "device-tree-serial", "dmi-serial", "machine-id"];
                let near = schema::nearest(text, names).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
                Err(format!(
                    "unknown source; write certificate-cn (with x509), tpm-ek:hex or tpm-ek:base32 (with tpm), {SOURCES}{near}"
                ))
            }
        }
    }
}

/// As `registration_id_from` has it.
impl fmt::Display for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateCn => f.write_str("certificate-cn"),
            Self::DeviceTreeSerial => f.write_str("device-tree-serial"),
            Self::DmiSerial => f.write_str("dmi-serial"),
            Self::MachineId => f.write_str("machine-id"),
            Self::Mac(interface) => write!(f, "mac:{interface}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::TpmEk(Encoding::Hex) => f.write_str("tpm-ek:hex"),
            Self::TpmEk(Encoding::Base32) => f.write_str("tpm-ek:base32"),
        }
    }
}

/// As the kernel has it (`dev_valid_name`).
fn is_interface(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    (1..=15).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(legal)
}
