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
}

const METHODS: [(&str, Method); 2] = [("symmetric-key", Method::SymmetricKey), ("x509", Method::X509)];
const KEYS_OF_SYMMETRIC_KEY: [Key; 4] =
    [schema::KEY_FILE, schema::KEY_CREDENTIAL, schema::SECONDARY_KEY_FILE, schema::SECONDARY_KEY_CREDENTIAL];
const KEYS_OF_X509: [Key; 2] = [schema::CERTIFICATE_FILE, schema::PRIVATE_KEY_FILE];

const SOURCES: &str = "device-tree-serial, dmi-serial, mac:INTERFACE, machine-id or file:/PATH";
const DISPUTED: &str = "the documents of DPS disagree whether this ID is taken; lower-case letters, digits and dashes between them are taken for certain";

impl<'s> Reader<'s> {
    pub(super) fn profile(&mut self) -> Result<Profile, Reported> {
        let cure = "write method = \"symmetric-key\" or method = \"x509\"";
        let found = self.required(schema::METHOD, cure)?;
        if found.text == "tpm" {
            return Err(self.wrong(found, "this version has no TPM support yet; use \"symmetric-key\" or \"x509\""));
        }
        match self.word(schema::METHOD, &METHODS)? {
            Method::SymmetricKey => self.symmetric_key(found),
            Method::X509 => self.x509(found),
        }
    }

    fn symmetric_key(&mut self, method: Found<'s>) -> Result<Profile, Reported> {
        let strangers = self.strangers(method, &KEYS_OF_X509, "x509");
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
        let strangers = self.strangers(method, &KEYS_OF_SYMMETRIC_KEY, "symmetric-key");
        let registration_id = self.registration_id(method);
        let chain =
            self.required(schema::CERTIFICATE_FILE, "write the path of the PEM chain, the device's own certificate first");
        let key = self.required(schema::PRIVATE_KEY_FILE, "write the path of the PEM private key of the certificate");
        strangers?;
        Ok(Profile::X509 { registration_id: registration_id?, chain: PathBuf::from(chain?.text), key: PathBuf::from(key?.text) })
    }

    /// Keys that belong to another method: most often left behind when a drop-in changed the method.
    fn strangers(&mut self, method: Found<'s>, keys: &[Key], owner: &str) -> Result<(), Reported> {
        let mut verdict = Ok(());
        for key in keys {
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

    fn key_source(&mut self, file: Key, credential: Key) -> Result<Option<KeySource>, Reported> {
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
        match (written?, from?) {
            (Some(written), Some(from)) => Err(self.both(written, from)),
            (Some(written), None) => self.written_id(written, prefix),
            (None, Some(from)) => self.identity(from, prefix, method),
            (None, None) => {
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
        Ok(RegistrationIdSource::From { source, prefix: prefix_text?.unwrap_or_default().to_owned() })
    }

    fn common_name(&mut self, from: Found<'_>, prefix: Option<Found<'_>>, method: Found<'_>) -> Result<(), Reported> {
        if method.text != "x509" {
            let message = format!(
                "there is no certificate with method = \"{}\" of {}; use another source, or write registration_id",
                method.text, method.origin
            );
            return Err(self.wrong(from, message));
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

impl IdentitySource {
    /// Understands the text of `registration_id_from`; otherwise says what is wrong and what to write.
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "certificate-cn" => Ok(Self::CertificateCn),
            "device-tree-serial" => Ok(Self::DeviceTreeSerial),
            "dmi-serial" => Ok(Self::DmiSerial),
            "machine-id" => Ok(Self::MachineId),
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
            _ => {
                let names = ["certificate-cn", "device-tree-serial", "dmi-serial", "machine-id"];
                let near = schema::nearest(text, names).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
                Err(format!("unknown source; write certificate-cn (with x509), {SOURCES}{near}"))
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
