//! The registration ID of this machine: written down, or read from what the machine is, so that one image serves a fleet.
//!
//! A device key is derived from the exact spelling of the registration ID, so the spelling of each source is fixed for ever.
//! What comes from hardware is lower-cased; what somebody wrote (a prefix, a file, a certificate) is used as it is:
//!
//! | source | text |
//! |---|---|
//! | `certificate-cn` | the leaf certificate's common name |
//! | `device-tree-serial` | the serial number in the device tree, lower-cased |
//! | `dmi-serial` | the product serial number of DMI, lower-cased |
//! | `mac:IFACE` | as `00-1a-2b-3c-4d-5e`: a colon is one of the characters about which the documents of DPS disagree |
//! | `machine-id` | what `systemd-id128 machine-id --app-specific=5d70dcd8c6574b0c8fc6fb2fd39598b9` prints |
//! | `tpm-ek:hex`, `tpm-ek:base32` | the SHA-256 of the endorsement key's TPM2B_PUBLIC |
//! | `file:PATH` | the first line of the file without the white space around it |

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::blame::Blame;
use crate::config::{Encoding, IdentitySource, RegistrationIdSource};
use crate::id::{InvalidId, RegistrationId};
use crate::tpm::PublicArea;

mod certificate;
mod enrollment;
#[cfg(test)]
mod tests;

pub use certificate::{Certificate, Validity};
pub use enrollment::{CSV_HEADER, Credential, Enrollment, enrollment_line};

const DEVICE_TREE: [&str; 2] = ["/proc/device-tree/serial-number", "/sys/firmware/devicetree/base/serial-number"];
const DMI: &str = "/sys/class/dmi/id/product_serial";
const INTERFACES: &str = "/sys/class/net";
const MACHINE_ID: &str = "/etc/machine-id";

/// Names us in the application-specific hash of the machine ID. Another number would rename every machine.
const APPLICATION: u128 = 0x5d70_dcd8_c657_4b0c_8fc6_fb2f_d395_98b9;

/// The longest text that is read from a source, in bytes; an ID has 128 at most.
const LONGEST: u64 = 4096;

/// Why this machine has no registration ID.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The machine has no such thing.
    #[error("registration_id_from = \"{from}\": there is no {place}; {cure}")]
    Absent {
        /// What was to be read.
        from: IdentitySource,
        /// Where it was looked for.
        place: String,
        /// What to do.
        cure: &'static str,
    },
    /// The machine has other network interfaces.
    #[error("registration_id_from = \"mac:{interface}\": there is no such network interface; this machine has {present}")]
    NoInterface {
        /// The one that was asked for.
        interface: String,
        /// Those that are there, or "none".
        present: String,
    },
    /// It is there, but not for us.
    #[error("registration_id_from = \"{from}\": only root may read {}; run as root, or copy it once into a file and use file:PATH", path.display())]
    Denied {
        /// What was to be read.
        from: IdentitySource,
        /// Where it is.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It is there and cannot be read.
    #[error("registration_id_from = \"{from}\": cannot read {}", path.display())]
    Unreadable {
        /// What was to be read.
        from: IdentitySource,
        /// Where it is.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It was read, and it names nobody.
    #[error("registration_id_from = \"{from}\": {} {what}; {cure}", path.display())]
    Useless {
        /// What was read.
        from: IdentitySource,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        cure: &'static str,
    },
    /// It was read, and it is no registration ID.
    #[error("registration_id_from = \"{from}\": {place} makes {text:?}, but {rule}; use another source or write registration_id")]
    Invalid {
        /// What was read.
        from: IdentitySource,
        /// Where it is.
        place: String,
        /// The text with its prefix, shortened.
        text: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// The certificate names nobody.
    #[error("the certificate has no common name to register with; issue one whose subject's CN is the registration ID")]
    NoCommonName,
    /// There is no TPM in play.
    #[error("registration_id_from = \"tpm-ek:…\" needs method = \"tpm\"")]
    NoEndorsementKey,
    /// The certificate names somebody else.
    #[error(
        "the registration ID is {id:?} but the certificate's common name is {common_name:?}; with x509 they must be equal, in upper and lower case too"
    )]
    NotTheCommonName {
        /// The ID from the configuration.
        id: String,
        /// The certificate's, shortened.
        common_name: String,
    },
}

impl IdentityError {
    /// Whom to blame: what names the machine is the configuration's choice.
    pub fn blame(&self) -> Blame {
        Blame::Configuration
    }
}

/// What the means of attestation know of the device's name.
#[derive(Debug, Clone, Copy)]
pub enum Known<'k> {
    /// A symmetric key knows nothing.
    Nothing,
    /// The common name of the leaf certificate.
    CommonName(&'k str),
    /// The endorsement key of the TPM.
    EndorsementKey(&'k PublicArea),
}

/// The registration ID, from files below `root`, which is `/` but in tests.
///
/// With X.509 whatever the ID comes from has to equal the common name of the leaf certificate (DPS device API, X.509).
pub fn registration_id(source: &RegistrationIdSource, proof: Known<'_>, root: &Path) -> Result<RegistrationId, IdentityError> {
    let id = match source {
        RegistrationIdSource::Written(id) => id.clone(),
        RegistrationIdSource::From { source, prefix } => Machine { root, from: source }.registration_id(prefix, proof)?,
    };
    match proof {
        // DPS disregards case (UNCONFIRMED for certificates), its documents say "must equal": this is right either way.
        Known::CommonName(common_name) if common_name != id.as_str() => {
            Err(IdentityError::NotTheCommonName { id: id.as_str().to_owned(), common_name: shortened(common_name) })
        }
        Known::CommonName(_) | Known::EndorsementKey(_) | Known::Nothing => Ok(id),
    }
}

/// The registration ID that is made of an endorsement key (DPS device API, TPM registration ID convention).
pub fn of_endorsement_key(key: &PublicArea, encoding: Encoding) -> String {
    let digest = Sha256::digest(key.sized());
    match encoding {
        Encoding::Hex => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        Encoding::Base32 => base32(&digest),
    }
}

/// RFC 4648 §6 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let bit = |n: usize| bytes.get(n / 8).map_or(0, |byte| byte >> (7 - n % 8) & 1);
    let digit = |first: usize| (first..first + 5).fold(0, |value, n| value << 1 | bit(n));
    let letter = |value| char::from(if value < 26 { b'a' + value } else { b'2' + value - 26 });
    (0..bytes.len() * 8).step_by(5).map(digit).map(letter).collect()
}

/// This machine, asked for one of its names.
struct Machine<'m> {
    root: &'m Path,
    from: &'m IdentitySource,
}

/// A text and where it was found.
struct Name {
    text: String,
    place: String,
}

impl Machine<'_> {
    fn registration_id(&self, prefix: &str, proof: Known<'_>) -> Result<RegistrationId, IdentityError> {
        let Name { text, place } = self.name(proof)?;
        let text = format!("{prefix}{text}");
        text.parse().map_err(|invalid: InvalidId| IdentityError::Invalid {
            from: self.from.clone(),
            place,
            text: shortened(&text),
            rule: invalid.rule().to_owned(),
        })
    }

    fn name(&self, proof: Known<'_>) -> Result<Name, IdentityError> {
        match self.from {
            IdentitySource::CertificateCn => {
                let Known::CommonName(text) = proof else { return Err(IdentityError::NoCommonName) };
                if text.is_empty() {
                    return Err(IdentityError::NoCommonName);
                }
                Ok(Name { text: text.to_owned(), place: "the certificate's common name".to_owned() })
            }
            IdentitySource::TpmEk(encoding) => {
                let Known::EndorsementKey(key) = proof else { return Err(IdentityError::NoEndorsementKey) };
                Ok(Name { text: of_endorsement_key(key, *encoding), place: "the endorsement key".to_owned() })
            }
            IdentitySource::DeviceTreeSerial => {
                self.serial(&DEVICE_TREE, "this machine has no serial number in a device tree, use another source")
            }
            IdentitySource::DmiSerial => self.serial(&[DMI], "this machine has no DMI, use another source"),
            IdentitySource::Mac(interface) => self.mac(interface),
            IdentitySource::MachineId => self.machine_id(),
            IdentitySource::File(path) => self.file(path),
        }
    }

    fn serial(&self, paths: &[&str], cure: &'static str) -> Result<Name, IdentityError> {
        let (path, text) = self.first(paths, cure)?;
        let text = text.to_ascii_lowercase();
        if is_placeholder(&text) {
            let what = format!("holds {:?}, which the maker left in place of a serial number", shortened(&text));
            return Err(self.useless(path, what, "use another source"));
        }
        Ok(Name { text, place: path.display().to_string() })
    }

    fn mac(&self, interface: &str) -> Result<Name, IdentityError> {
        let path = self.below(INTERFACES).join(interface).join("address");
        let text = match self.read(&path)? {
            Some(text) => text.to_ascii_lowercase(),
            None => return Err(IdentityError::NoInterface { interface: interface.to_owned(), present: self.interfaces() }),
        };
        let octets: Vec<&str> = text.split(':').collect();
        let is_octet = |octet: &&str| octet.len() == 2 && octet.chars().all(|c| c.is_ascii_hexdigit());
        // Tunnels have an IP address here, of four octets.
        if octets.len() < 6
            || !octets.iter().all(is_octet)
            || octets.iter().all(|octet| *octet == "00")
            || octets.iter().all(|octet| *octet == "ff")
        {
            let what = format!("holds {:?}, which is no hardware address", shortened(&text));
            return Err(self.useless(path, what, "name another interface"));
        }
        Ok(Name { text: octets.join("-"), place: path.display().to_string() })
    }

    fn interfaces(&self) -> String {
        let entries = fs::read_dir(self.below(INTERFACES)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    // The machine ID is confidential (machine-id(5)): no message quotes it.
    fn machine_id(&self) -> Result<Name, IdentityError> {
        let cure = "systemd-machine-id-setup writes it";
        let (path, text) = self.first(&[MACHINE_ID], cure)?;
        if text == "uninitialized" {
            let cure = "the first boot is not complete, or the root file system is read-only; systemd-machine-id-setup writes it";
            return Err(self.useless(path, "says \"uninitialized\"".to_owned(), cure));
        }
        let digits = text.len() == 32 && text.chars().all(|c| c.is_ascii_hexdigit());
        let id = u128::from_str_radix(&text, 16).ok().filter(|id| digits && *id != 0);
        let Some(id) = id else {
            return Err(self.useless(path, "does not hold 32 hexadecimal digits".to_owned(), cure));
        };
        Ok(Name { text: application_specific(id), place: path.display().to_string() })
    }

    fn file(&self, path: &Path) -> Result<Name, IdentityError> {
        let path = self.below(path);
        let text =
            self.read(&path)?.ok_or_else(|| self.absent(path.display().to_string(), "write the ID into its first line"))?;
        let text = self.not_empty(&path, text)?;
        Ok(Name { text, place: path.display().to_string() })
    }

    /// The first of these files that is there, with its text.
    fn first(&self, paths: &[&str], cure: &'static str) -> Result<(PathBuf, String), IdentityError> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| self.below(path)).collect();
        for path in &paths {
            if let Some(text) = self.read(path)? {
                let text = self.not_empty(path, text)?;
                return Ok((path.clone(), text));
            }
        }
        let places: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        Err(self.absent(places.join(" or "), cure))
    }

    /// The first line of a file without what surrounds it, up to a NUL as the device tree has it; nothing if there is no file.
    fn read(&self, path: &Path) -> Result<Option<String>, IdentityError> {
        let mut bytes = Vec::new();
        match File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(self.unreadable(path.to_owned(), error)),
        }
        let line = bytes.split(|byte| matches!(byte, b'\0' | b'\n')).next().unwrap_or_default();
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(_) => Err(self.useless(
                path.to_owned(),
                "is not text".to_owned(),
                "an ID is made of ASCII characters, use another source",
            )),
        }
    }

    fn not_empty(&self, path: &Path, text: String) -> Result<String, IdentityError> {
        if text.is_empty() {
            let what = "is empty in its first line".to_owned();
            return Err(self.useless(path.to_owned(), what, "put the ID there or use another source"));
        }
        Ok(text)
    }

    fn below(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn absent(&self, place: String, cure: &'static str) -> IdentityError {
        IdentityError::Absent { from: self.from.clone(), place, cure }
    }

    fn unreadable(&self, path: PathBuf, source: io::Error) -> IdentityError {
        let from = self.from.clone();
        if source.kind() == ErrorKind::PermissionDenied {
            IdentityError::Denied { from, path, source }
        } else {
            IdentityError::Unreadable { from, path, source }
        }
    }

    fn useless(&self, path: PathBuf, what: String, cure: &'static str) -> IdentityError {
        IdentityError::Useless { from: self.from.clone(), path, what, cure }
    }
}

/// What makers leave where a serial number belongs, in lower case.
fn is_placeholder(text: &str) -> bool {
    const PLACEHOLDERS: [&str; 20] = [
        "to be filled by o.e.m.",
        "to be filled by o.e.m",
        "to be filled",
        "default string",
        "default",
        "none",
        "not specified",
        "not applicable",
        "not available",
        "not defined",
        "n/a",
        "unknown",
        "invalid",
        "empty",
        "system serial number",
        "serial number",
        "123456789",
        "1234567890",
        "0123456789",
        "oem",
    ];
    let one_filler = |filler: char| text.chars().all(|c| c == filler);
    PLACEHOLDERS.contains(&text) || ['0', 'f', 'x', '.', '-', '*', '#', '?'].into_iter().any(one_filler)
}

/// The application-specific machine ID as libsystemd computes it (`sd_id128_get_machine_app_specific(3)`): HMAC-SHA256 of the
/// application's number with the machine ID as key, its first half made a UUID of version 4, in hexadecimal digits.
fn application_specific(machine_id: u128) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut hmac = Hmac::<Sha256>::new_from_slice(&machine_id.to_be_bytes()).expect("a key of 16 bytes");
    hmac.update(&APPLICATION.to_be_bytes());
    let hash = hmac.finalize().into_bytes();
    let half = hash.iter().take(16).fold(0_u128, |id, byte| id << 8 | u128::from(*byte));
    let version = half & !(0xf << 76) | 4 << 76;
    let variant = version & !(0b11 << 62) | 0b10 << 62;
    format!("{variant:032x}")
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
