//! A TPM in software for the tests: the keys of the static vector, and what a TPM does with a blob. It checks every HMAC.

use super::{End, Response, SCOPE, Tls, exchange, in_one_hour, tls, token};
use aes::Aes128;
use aes::cipher::{BlockEncrypt, KeyInit};
use base64::{Engine, engine::general_purpose::STANDARD};
use dps_emulator::Emulator;
use ring::{digest, hmac};
use rsa::pkcs8::DecodePrivateKey;
use serde_json::{Value, json};

pub const ID: &str = "tpm-1";

/// The static vector.
pub fn vector() -> Value {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/data/test-vectors.json")).unwrap();
    vectors["tpm"]["activation_blob_static"].clone()
}

/// The vector's EK and SRK, base64 TPM2B_PUBLIC.
pub fn keys() -> (String, String) {
    let text = |name: &str| vector()[name].as_str().unwrap().to_owned();
    (text("ek_tpm2b_public_b64"), text("srk_tpm2b_public_b64"))
}

/// An enrollment of the vector's TPM, extended by `more`.
pub fn enrollment(more: &str) -> String {
    format!("[[enrollment]]\nregistration_id = \"{ID}\"\nendorsement_key = \"{}\"\n{more}\n", keys().0)
}

/// An emulator that starts at once: an RSA key for the server would take its time.
pub fn emulator_for(service: &str, tables: &str) -> Emulator {
    super::emulator(&format!("server_key = \"ecdsa\"\n{service}"), tables)
}

/// The body that shows these keys.
pub fn body(endorsement: &str, storage: &str) -> String {
    json!({"registrationId": ID, "tpm": {"endorsementKey": endorsement, "storageRootKey": storage}}).to_string()
}

/// One device on one connection.
pub struct Device {
    stream: Tls,
    pub key: Vec<u8>,
}

impl Device {
    pub fn new(emulator: &Emulator) -> Self {
        Self { stream: tls(emulator, emulator.https_port(), None), key: Vec::new() }
    }

    /// A device that has been challenged and knows the key.
    pub fn challenged(emulator: &Emulator) -> Self {
        let mut device = Self::new(emulator);
        let answer = device.show(&keys().0, &keys().1).unwrap();
        assert_eq!(answer.status, 401);
        device.key = activated(&answer.json()["authenticationKey"]).unwrap();
        device
    }

    pub fn call(&mut self, method: &str, rest: &str, token: Option<&str>, body: &str) -> Result<Response, End> {
        let target = format!("/{SCOPE}/registrations/{ID}{rest}?api-version=2021-06-01");
        let headers: Vec<_> = token.map(|token| ("Authorization", token)).into_iter().collect();
        exchange(&mut self.stream, method, &target, &[&headers[..], &[("Content-Type", "application/json")]].concat(), body)
    }

    /// The first PUT: no token.
    pub fn show(&mut self, endorsement: &str, storage: &str) -> Result<Response, End> {
        self.call("PUT", "/register", None, &body(endorsement, storage))
    }

    /// The second PUT: with a token.
    pub fn register(&mut self) -> Result<Response, End> {
        let token = self.token();
        self.call("PUT", "/register", Some(&token), &body(&keys().0, &keys().1))
    }

    pub fn query(&mut self, operation: &str) -> Result<Response, End> {
        let token = self.token();
        self.call("GET", &format!("/operations/{operation}"), Some(&token), "")
    }

    pub fn token(&self) -> String {
        format!("{}&skn=registration", token(&self.key, &format!("{SCOPE}%2Fregistrations%2F{ID}"), in_one_hour()))
    }

    /// Registers and polls once; the hub key, and where to use it.
    pub fn assigned(emulator: &Emulator) -> (Vec<u8>, String) {
        let mut device = Self::challenged(emulator);
        let operation = device.register().unwrap().json()["operationId"].as_str().unwrap().to_owned();
        let state = device.query(&operation).unwrap().json()["registrationState"].clone();
        let hub = state["assignedHub"].as_str().unwrap().to_owned();
        (activated(&state["tpm"]["authenticationKey"]).unwrap(), hub)
    }
}

/// A token for the device at `hub`.
pub fn hub_token(key: &[u8], hub: &str) -> String {
    token(key, &format!("{hub}%2Fdevices%2F{ID}"), in_one_hour())
}

/// ActivateCredential, Import and Load: the HMAC key in a blob, or the step that a TPM would refuse.
pub fn activated(blob: &Value) -> Result<Vec<u8>, &'static str> {
    let blob = STANDARD.decode(blob.as_str().ok_or("no blob")?).unwrap();
    let mut fields = Fields(&blob);
    let [credential, identity, private, wrapping, public, tail] = fields.six().ok_or("truncated")?;
    assert!(fields.0.is_empty());
    assert!([154, 108].contains(&tail.len()), "{}", tail.len());
    let storage_public = STANDARD.decode(keys().1).unwrap();
    let seed = opened("ek_private_pem", "IDENTITY\0", identity).ok_or("ActivateCredential: secret")?;
    let inner = unwrapped(&seed, &name(&storage_public[2..]), credential).ok_or("ActivateCredential: integrity")?;
    let seed = opened("srk_private_pem", "DUPLICATE\0", wrapping).ok_or("Import: seed")?;
    let inner_wrapped = unwrapped(&seed, &name(public), private).ok_or("Import: outer integrity")?;
    let plain = decrypted(&inner[2..], &inner_wrapped);
    let (integrity, sensitive) = plain[2..].split_at(32);
    if integrity != sha256(&[sensitive, &name(public)].concat()) {
        return Err("Import: inner integrity");
    }
    let mut fields = Fields(&sensitive[4..]);
    let (auth, seed, key) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
    assert_eq!((auth.len(), &sensitive[..4]), (0, [0, 72, 0, 8].as_slice()));
    assert_eq!(public[..14], [0, 8, 0, 11, 0, 4, 4, 0x40, 0, 0, 0, 5, 0, 11], "sign, noDA, userWithAuth; HMAC-SHA256");
    assert_eq!(public[16..], sha256(&[seed, key].concat()), "Load: the two halves belong together");
    Ok(key.to_vec())
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_at_checked(2)?;
        let (field, rest) = rest.split_at_checked(u16::from_be_bytes([length[0], length[1]]).into())?;
        self.0 = rest;
        Some(field)
    }

    fn six(&mut self) -> Option<[&'a [u8]; 6]> {
        Some([self.next()?, self.next()?, self.next()?, self.next()?, self.next()?, self.next()?])
    }
}

fn opened(pem: &str, label: &str, secret: &[u8]) -> Option<Vec<u8>> {
    let key = rsa::RsaPrivateKey::from_pkcs8_pem(vector()[pem].as_str().unwrap()).unwrap();
    key.decrypt(rsa::Oaep::new_with_label::<sha2::Sha256, _>(label), secret).ok()
}

/// The outer wrapping off, if its HMAC is right.
fn unwrapped(seed: &[u8], name: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let (tag, encrypted) = wrapped[2..].split_at(32);
    let integrity = kdfa(seed, b"INTEGRITY", b"", 256);
    let signed = [encrypted, name].concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &integrity), &signed, tag).ok()?;
    Some(decrypted(&kdfa(seed, b"STORAGE", name, 128), encrypted))
}

fn kdfa(seed: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
    let input = [&[0, 0, 0, 1], label, &[0], context, &bits.to_be_bytes()].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), &input);
    tag.as_ref()[..usize::try_from(bits / 8).unwrap()].to_vec()
}

/// AES-CFB backwards.
fn decrypted(key: &[u8], encrypted: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new_from_slice(key).unwrap();
    let mut previous = [0; 16];
    let mut plain = Vec::new();
    for block in encrypted.chunks(16) {
        cipher.encrypt_block((&mut previous).into());
        plain.extend(block.iter().zip(previous).map(|(byte, stream)| byte ^ stream));
        previous[..block.len()].copy_from_slice(block);
    }
    plain
}

fn name(public: &[u8]) -> Vec<u8> {
    [&[0, 11], sha256(public).as_slice()].concat()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}
