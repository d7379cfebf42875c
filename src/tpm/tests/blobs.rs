//! Keys wrapped for a TPM as DPS does it (DPS device API, building the blob), with the help of the program openssl.

use std::io::Write;
use std::process::{Command, Stdio};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::*;

/// What is in a wrapped key, each part open to be spoiled.
pub(super) struct Blob {
    /// Of the endorsement key.
    pub(super) endorsement_key: PublicArea,
    /// Of the storage key that the credential names.
    pub(super) named_parent: PublicArea,
    /// Of the storage key that the duplicate is wrapped for.
    pub(super) parent: PublicArea,
    /// The HMAC key.
    pub(super) secret: [u8; 32],
    /// The HMAC key that the public area is for.
    pub(super) public_secret: [u8; 32],
    /// TPMA_OBJECT of the HMAC key.
    pub(super) attributes: u32,
}

const INNER: [u8; 16] = [0x5a; 16];

impl Blob {
    pub(super) fn new(keys: &Keys, secret: [u8; 32]) -> Self {
        let parent = keys.storage_key.public.clone();
        let endorsement_key = keys.endorsement_key.clone();
        Self { endorsement_key, named_parent: parent.clone(), parent, secret, public_secret: secret, attributes: 0x0004_0440 }
    }

    pub(super) fn wrap(&self) -> AuthenticationKey {
        let (credential, secret) = self.credential();
        let (public, name) = self.public();
        let (duplicate, seed) = self.duplicate(&name);
        AuthenticationKey { credential, secret, duplicate, seed, public }
    }

    /// What the wrapped key signs.
    pub(super) fn signature(&self, text: &str) -> [u8; 32] {
        mac(&self.secret, &[text.as_bytes()])
    }

    fn credential(&self) -> (Vec<u8>, Vec<u8>) {
        let seed = [0x11; 32];
        let name = name_of(&self.named_parent);
        let identity = cfb(&kdf(&seed, "STORAGE", &name, 16), &sized(&INNER));
        let integrity = mac(&kdf(&seed, "INTEGRITY", &[], 32), &[&identity, &name]);
        ([sized(&integrity), identity].concat(), encrypt(&self.endorsement_key, "IDENTITY", &seed))
    }

    fn public(&self) -> (Vec<u8>, Vec<u8>) {
        let unique = Sha256::digest([Self::SEED.as_slice(), &self.public_secret].concat());
        let head = [0x00, 0x08, 0x00, 0x0b];
        let parameters = [0, 0, 0x00, 0x05, 0x00, 0x0b];
        let public = [&head[..], &self.attributes.to_be_bytes(), &parameters, &sized(&unique)].concat();
        let name = name_of(&PublicArea::new(public.clone()));
        (public, name)
    }

    fn duplicate(&self, name: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let sensitive = sized(&[&[0x00, 0x08, 0, 0][..], &sized(&Self::SEED), &sized(&self.secret)].concat());
        let check = Sha256::digest([&sensitive[..], name].concat());
        let inner = cfb(&INNER, &[sized(&check), sensitive].concat());
        let seed = [0x22; 32];
        let outer = cfb(&kdf(&seed, "STORAGE", name, 16), &inner);
        let integrity = mac(&kdf(&seed, "INTEGRITY", &[], 32), &[&outer, name]);
        ([sized(&integrity), outer].concat(), encrypt(&self.parent, "DUPLICATE", &seed))
    }

    const SEED: [u8; 32] = [0x33; 32];
}

fn name_of(public: &PublicArea) -> Vec<u8> {
    [&[0x00, 0x0b], Sha256::digest(public.bytes()).as_slice()].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// KDFa of at most one block (TPM 2.0 Part 1, KDFa).
fn kdf(key: &[u8], label: &str, context: &[u8], length: u8) -> Vec<u8> {
    let bits = u32::from(length) * 8;
    let block = mac(key, &[&1u32.to_be_bytes(), label.as_bytes(), &[0], context, &bits.to_be_bytes()]);
    block[..usize::from(length)].to_vec()
}

fn cfb(key: &[u8], plain: &[u8]) -> Vec<u8> {
    openssl(&["enc", "-aes-128-cfb", "-K", &hex(key), "-iv", &"0".repeat(32)], plain)
}

/// RSA-OAEP with SHA-256 and a label with its final zero.
fn encrypt(key: &PublicArea, label: &str, plain: &[u8]) -> Vec<u8> {
    let directory = std::env::temp_dir();
    let file = directory.join(format!("dps-agent-key-{}-{}.der", std::process::id(), key.name()));
    std::fs::write(&file, spki(key.modulus().unwrap())).unwrap();
    let label = format!("rsa_oaep_label:{}00", hex(label.as_bytes()));
    let key = ["-pubin", "-keyform", "DER", "-inkey", file.to_str().unwrap()];
    let padding = ["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", &label];
    let encrypted = openssl(&[&["pkeyutl", "-encrypt"][..], &key, &padding].concat(), plain);
    std::fs::remove_file(&file).unwrap();
    encrypted
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

/// SubjectPublicKeyInfo of an RSA-2048 key with the exponent 65537, DER.
pub(super) fn spki(modulus: &[u8]) -> Vec<u8> {
    const HEAD: &str = "30820122300d06092a864886f70d01010105000382010f003082010a0282010100";
    let head = (0..HEAD.len()).step_by(2).map(|at| u8::from_str_radix(&HEAD[at..at + 2], 16).unwrap());
    head.chain(modulus.iter().copied()).chain([0x02, 0x03, 0x01, 0x00, 0x01]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
