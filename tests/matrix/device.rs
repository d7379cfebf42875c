//! The five ways in which the devices of the matrix prove who they are, each with its files and its enrollment.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::pki::{Algorithm, Authority, Days, EXPIRED, Leaf, PkiError, VALID};
use dps_emulator::sas;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

/// The example of Microsoft's concept page: group key, registration ID and the device key derived from them.
const GROUP_KEY: &str = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
const GROUP_MEMBER: &str = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
const GROUP_MEMBER_KEY: &str = "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=";

const PRIMARY_KEY: &str = "cHJpbWFyeSBrZXkgb2YgdGhlIG1hdHJpeCdzIGRldmljZQ==";
const SECONDARY_KEY: &str = "c2Vjb25kYXJ5IGtleSBvZiB0aGUgbWF0cml4J3MgZGV2aWNl";
const WRONG_KEY: &str = "YSBrZXkgdGhhdCBub2JvZHkgaGFzIGV2ZXIgZW5yb2xsZWQ=";
const ANOTHER_WRONG_KEY: &str = "YW5vdGhlciBrZXkgdGhhdCBub2JvZHkgaGFzIGVucm9sbGVk";

/// How a device proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attestation {
    /// An individual enrollment's key.
    SymmetricKey,
    /// A key derived from a group's.
    GroupKey,
    /// A self-signed EC certificate, enrolled as it is; its key file is SEC1.
    X509Ec,
    /// An RSA certificate of a CA, enrolled as it is; its key file is PKCS#1.
    X509Rsa,
    /// An EC certificate below an intermediate of the group's root; its key file is PKCS#8.
    X509Intermediate,
}

impl Attestation {
    pub const ALL: [Self; 5] = [Self::SymmetricKey, Self::GroupKey, Self::X509Ec, Self::X509Rsa, Self::X509Intermediate];

    /// Its name in the names of cells.
    pub fn name(self) -> &'static str {
        match self {
            Self::SymmetricKey => "symmetric-key",
            Self::GroupKey => "group-key",
            Self::X509Ec => "x509-ec",
            Self::X509Rsa => "x509-rsa",
            Self::X509Intermediate => "x509-intermediate",
        }
    }

    /// Whether tokens prove it, which end by a clock.
    pub fn signs_tokens(self) -> bool {
        matches!(self, Self::SymmetricKey | Self::GroupKey)
    }

    /// The registration ID of its device.
    pub fn registration_id(self) -> &'static str {
        match self {
            Self::SymmetricKey => "gw-symmetric",
            Self::GroupKey => GROUP_MEMBER,
            Self::X509Ec => "gw-x509-ec",
            Self::X509Rsa => "gw-x509-rsa",
            Self::X509Intermediate => "gw-x509-intermediate",
        }
    }

    pub fn is_x509(self) -> bool {
        matches!(self, Self::X509Ec | Self::X509Rsa | Self::X509Intermediate)
    }

    pub fn is_group(self) -> bool {
        matches!(self, Self::GroupKey | Self::X509Intermediate)
    }

    /// What the emulator calls the enrollment when something about it is to change.
    pub fn enrollment_name(self) -> &'static str {
        if self.is_group() { "fleet" } else { self.registration_id() }
    }
}

/// What the device is given to prove itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Credential {
    /// What is enrolled.
    #[default]
    Right,
    /// A key or certificate for the same registration ID that nobody enrolled.
    Wrong,
    /// What is enrolled, but it has expired. X.509 only.
    Expired,
    /// The leaf without its intermediate.
    LeafOnly,
    /// A wrong primary key and the enrolled secondary one. Individual symmetric keys only.
    SecondaryRight,
    /// Two keys, both wrong.
    BothWrong,
}

/// Files of the device, and the lines of configuration that name them.
#[derive(Debug, Clone)]
pub struct Means {
    /// Name and content of each file.
    pub files: Vec<(&'static str, String)>,
    /// The record's `identity`.
    pub identity: String,
    /// Texts that must never be seen in any output.
    pub secrets: Vec<String>,
}

/// Keys and certificates of all devices, made once.
#[derive(Debug)]
pub struct Materials {
    root: Authority,
    ec: [Leaf; 3],
    rsa: [Leaf; 3],
    member: [Leaf; 3],
}

impl Materials {
    pub fn new() -> Result<Self, PkiError> {
        let root = Authority::root("matrix fleet root", Algorithm::EcP256)?;
        let intermediate = root.intermediate("matrix fleet line 7", Algorithm::EcP256)?;
        let stranger = Authority::root("matrix stranger", Algorithm::EcP256)?;
        let ec = |days: Days| Leaf::self_signed(Attestation::X509Ec.registration_id(), Algorithm::EcP256, days);
        let rsa = |days: Days| intermediate.leaf(Attestation::X509Rsa.registration_id(), Algorithm::Rsa2048, days);
        let member = |of: &Authority, days| of.leaf(Attestation::X509Intermediate.registration_id(), Algorithm::EcP256, days);
        Ok(Self {
            ec: [ec(VALID)?, ec(VALID)?, ec(EXPIRED)?],
            rsa: [rsa(VALID)?, rsa(VALID)?, rsa(EXPIRED)?],
            member: [member(&intermediate, VALID)?, member(&stranger, VALID)?, member(&intermediate, EXPIRED)?],
            root,
        })
    }

    /// The enrollment or group in the emulator's configuration, up to the lines that a scenario adds.
    pub fn enrollment(&self, of: Attestation, credential: Credential) -> String {
        let id = of.registration_id();
        let expired = usize::from(credential == Credential::Expired) * 2;
        match of {
            Attestation::SymmetricKey => format!(
                "[[enrollment]]\nregistration_id = \"{id}\"\nprimary_key = \"{PRIMARY_KEY}\"\nsecondary_key = \"{SECONDARY_KEY}\"\n"
            ),
            Attestation::GroupKey => format!("[[group]]\nname = \"fleet\"\nprimary_key = \"{GROUP_KEY}\"\n"),
            Attestation::X509Ec => certificate_enrollment(id, &self.ec[expired].certificate_pem),
            Attestation::X509Rsa => certificate_enrollment(id, &self.rsa[expired].certificate_pem),
            Attestation::X509Intermediate => {
                format!("[[group]]\nname = \"fleet\"\ncertificate_pem = '''\n{}'''\n", self.root.certificate_pem())
            }
        }
    }

    /// The files that the device gets.
    pub fn means(&self, of: Attestation, credential: Credential) -> Result<Means, PkiError> {
        let (first, second) = match (of, credential) {
            (_, Credential::Wrong) => (WRONG_KEY, None),
            (_, Credential::SecondaryRight) => (WRONG_KEY, Some(SECONDARY_KEY)),
            (_, Credential::BothWrong) => (WRONG_KEY, Some(ANOTHER_WRONG_KEY)),
            (Attestation::GroupKey, _) => (GROUP_MEMBER_KEY, None),
            (_, _) => (PRIMARY_KEY, None),
        };
        let which = match credential {
            Credential::Wrong => 1,
            Credential::Expired => 2,
            Credential::Right | Credential::LeafOnly | Credential::SecondaryRight | Credential::BothWrong => 0,
        };
        let leaf = match of {
            Attestation::SymmetricKey | Attestation::GroupKey => return Ok(symmetric(first, second)),
            Attestation::X509Ec => &self.ec[which],
            Attestation::X509Rsa => &self.rsa[which],
            Attestation::X509Intermediate => &self.member[which],
        };
        let key = match of {
            Attestation::X509Intermediate => leaf.key.pkcs8_pem(),
            Attestation::SymmetricKey | Attestation::GroupKey | Attestation::X509Ec | Attestation::X509Rsa => {
                leaf.key.traditional_pem()?
            }
        };
        let chain = if credential == Credential::LeafOnly { &leaf.certificate_pem } else { &leaf.chain_pem };
        Ok(certified(leaf, chain, key))
    }

    /// A leaf that the fleet's intermediate issued, for clients that misbehave.
    pub fn member(&self) -> &Leaf {
        &self.member[0]
    }
}

/// The `[attestation]` table for the files of [`Materials::means`] in `directory`.
pub fn attestation_table(of: Attestation, means: &Means, directory: &str) -> String {
    let method = if of.is_x509() { "x509" } else { "symmetric-key" };
    // A certificate's common name is the default; what is written must equal it.
    let name = match of {
        Attestation::X509Rsa => String::new(),
        Attestation::X509Intermediate => "registration_id_from = \"certificate-cn\"\n".to_owned(),
        Attestation::SymmetricKey | Attestation::GroupKey | Attestation::X509Ec => {
            format!("registration_id = \"{}\"\n", of.registration_id())
        }
    };
    let mut table = format!("[attestation]\nmethod = \"{method}\"\n{name}");
    for (name, _) in &means.files {
        let key = match *name {
            "device.key" => "key_file",
            "second.key" => "secondary_key_file",
            "chain.pem" => "certificate_file",
            _ => "private_key_file",
        };
        let _ = writeln!(table, "{key} = \"{directory}/{name}\"");
    }
    table
}

/// The key that an individual symmetric-key enrollment holds.
pub fn enrolled_key() -> Vec<u8> {
    STANDARD.decode(PRIMARY_KEY).unwrap_or_default()
}

/// A key that nobody enrolled.
pub fn wrong_key() -> Vec<u8> {
    STANDARD.decode(WRONG_KEY).unwrap_or_default()
}

fn certificate_enrollment(id: &str, pem: &str) -> String {
    format!("[[enrollment]]\nregistration_id = \"{id}\"\ncertificate_pem = '''\n{pem}'''\n")
}

fn symmetric(first: &str, second: Option<&str>) -> Means {
    let mut files = vec![("device.key", format!("{first}\n"))];
    files.extend(second.map(|key| ("second.key", format!("{key}\n"))));
    // The agent's name for a key: an HMAC of a fixed text, of which half is shown.
    let key = STANDARD.decode(first).unwrap_or_default();
    let identity = format!("symmetric-key:{}", hex(&sas::derived_key(&key, "dps-agent: which key is this")[..8]));
    let secrets = [Some(first), second].into_iter().flatten().map(str::to_owned).collect();
    Means { files, identity, secrets }
}

fn certified(leaf: &Leaf, chain: &str, key: String) -> Means {
    let der = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes());
    let identity = format!("x509:{}", hex(&Sha256::digest(der.as_deref().unwrap_or_default())));
    let secrets = key.lines().filter(|line| line.len() > 40).map(str::to_owned).collect();
    Means { files: vec![("chain.pem", chain.to_owned()), ("device.pem", key)], identity, secrets }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
