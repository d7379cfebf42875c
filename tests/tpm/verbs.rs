//! `identity`, `check` and `token` with a TPM: what they say is what the TPM itself says, and what the hub and DPS take.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::{Config, Emulator};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::swtpm::Swtpm;

/// A gateway with a TPM and nothing else. Its files are removed with it.
struct Gateway {
    tpm: Swtpm,
    directory: PathBuf,
}

impl Gateway {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("dps-agent-tpm-verbs-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let gateway = Self { tpm: Swtpm::start(), directory };
        gateway.configure(None, "");
        gateway
    }

    /// Points it at an emulator, or nowhere, with more lines of `[attestation]`.
    fn configure(&self, emulator: Option<&Emulator>, lines: &str) {
        let place = self.directory.display();
        let (mqtt, https) = emulator.map_or((1, 1), |emulator| (emulator.mqtt_port(), emulator.https_port()));
        if let Some(emulator) = emulator {
            fs::write(self.directory.join("ca.pem"), emulator.ca_pem()).unwrap();
        }
        let text = format!(
            "[dps]\nhost = \"localhost\"\nid_scope = \"0ne00000000\"\nhttps_port = {https}\nca_file = \"{place}/ca.pem\"\nca_only = true\n\
             [attestation]\nmethod = \"tpm\"\ntcti = \"{}\"\n{lines}\n\
             [hub]\nmqtt_port = {mqtt}\nhttps_port = {https}\n\
             [state]\ndirectory = \"{place}/state\"\n[runtime]\ndirectory = \"{place}/run\"\n",
            self.tpm.tcti()
        );
        fs::write(self.directory.join("config.toml"), text).unwrap();
    }

    /// Runs the agent: its exit code and what it printed.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dps-agent"));
        command.args(arguments).arg("--config").arg(self.directory.join("config.toml"));
        let output = command.env_clear().stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout) = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {code:?} {stdout:?}"))
    }

    /// `result`, `found` and `cure` of the last check with this ID.
    fn check(&self, id: &str, arguments: &[&str]) -> [String; 3] {
        let json = self.json(&[&["check"], arguments].concat());
        let check = json["checks"].as_array().unwrap().iter().rfind(|check| check["id"] == id).cloned();
        let check = check.unwrap_or_else(|| panic!("no {id} in {json:#}"));
        ["result", "found", "cure"].map(|name| check[name].as_str().unwrap_or_default().to_owned())
    }

    /// TPM2B_PUBLIC of what is at a handle, as tpm2-tools read it.
    fn public(&self, handle: &str) -> Vec<u8> {
        self.tpm.tool(&format!("tpm2_readpublic -c {handle} -f tss -o public")).success();
        fs::read(self.tpm.path("public")).unwrap()
    }

    /// An emulator that knows this TPM.
    fn emulator(&self, lines: &str) -> Emulator {
        emulator(self.json(&["identity"])["tpm"]["endorsementKey"].as_str().unwrap(), lines)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn emulator(endorsement_key: &str, lines: &str) -> Emulator {
    let id = id(&STANDARD.decode(endorsement_key).unwrap());
    let text = format!(
        "[service]\nid_scope = \"0ne00000000\"\n[[enrollment]]\nregistration_id = \"{id}\"\n\
         endorsement_key = \"{endorsement_key}\"\nanswer = \"at-once\"\n{lines}\n"
    );
    Emulator::start(Config::from_toml(&text).unwrap()).unwrap()
}

fn id(endorsement_key: &[u8]) -> String {
    Sha256::digest(endorsement_key).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_identity_is_the_tpms_own() {
    let gateway = Gateway::new();
    let json = gateway.json(&["identity"]);
    let (ek, srk) = (gateway.public("0x81010001"), gateway.public("0x81000001"));
    assert_eq!((json["registrationId"].as_str(), json["attestation"].as_str()), (Some(id(&ek).as_str()), Some("tpm")));
    let tpm = &json["tpm"];
    assert_eq!(tpm["endorsementKey"], STANDARD.encode(&ek));
    assert_eq!(tpm["storageRootKey"], STANDARD.encode(&srk));
    assert_eq!(tpm["storageRootKeyHandle"], "0x81000001");
    assert_eq!(tpm["endorsementCertificate"], Value::Null);
    let (code, line) = gateway.run(&["identity", "--csv"]);
    let expected = format!("{},tpm,{},{},,,\n", id(&ek), STANDARD.encode(&ek), STANDARD.encode(&srk));
    assert_eq!((code, line), (Some(0), expected));
    let (_, text) = gateway.run(&["identity"]);
    assert!(text.contains(&STANDARD.encode(&ek)) && text.contains("\nEK certificate         none in the TPM\n"), "{text}");
    assert!(!gateway.directory.join("state").exists());
}

#[test]
fn a_certificate_in_the_tpm_is_told_with_whose_it_is() {
    let gateway = Gateway::new();
    let pem = include_str!("../data/endorsement-certificate.pem");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(&base64).unwrap();
    fs::write(gateway.tpm.path("certificate"), &der).unwrap();
    let attributes = "ppwrite|ppread|ownerread|authread|no_da|platformcreate";
    gateway.tpm.tool(&format!("tpm2_nvdefine 0x01c00002 -C p -s {} -a {attributes}", der.len())).success();
    gateway.tpm.tool("tpm2_nvwrite 0x01c00002 -C p -i certificate").success();
    let tpm = &gateway.json(&["identity"])["tpm"];
    let certificate = &tpm["endorsementCertificate"];
    assert_eq!((&certificate["certificate"], &certificate["matches"]), (&json!(base64), &json!(false)));
    assert_eq!((&certificate["issuer"], &tpm["certifiedKey"]), (&json!("CN=Example TPM CA,O=Example"), &Value::Null));
}

#[test]
fn a_token_is_signed_by_the_key_that_the_hub_takes() {
    let gateway = Gateway::new();
    let emulator = gateway.emulator("");
    gateway.configure(Some(&emulator), "identity_handle = \"0x81000100\"");
    assert_eq!(gateway.run(&["token"]).0, Some(75));
    assert_eq!(gateway.json(&["provision"])["proof"], "proven");
    drop(emulator);
    let (code, token) = gateway.run(&["token"]);
    assert_eq!(code, Some(0));
    let fields: Vec<&str> = token.trim_end().strip_prefix("SharedAccessSignature ").unwrap().split('&').collect();
    let [resource, signature, expiry] = fields[..] else { panic!("{token}") };
    let resource = resource.strip_prefix("sr=").unwrap();
    assert_eq!(resource, format!("localhost%2Fdevices%2F{}", id(&gateway.public("0x81010001"))));
    fs::write(gateway.tpm.path("text"), format!("{resource}\n{}", expiry.strip_prefix("se=").unwrap())).unwrap();
    gateway.tpm.tool("tpm2_hmac -c 0x81000100 -g sha256 -o signature text").success();
    let expected = STANDARD.encode(fs::read(gateway.tpm.path("signature")).unwrap());
    let expected = expected.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    assert_eq!(signature, format!("sig={expected}"));
}

#[test]
fn a_check_says_what_is_in_the_tpm_and_whether_dps_knows_it() {
    let gateway = Gateway::new();
    let offline = |id| gateway.check(id, &["--offline"]);
    let made = "nothing yet: the key is made and put there when it is needed first";
    assert_eq!(offline("tpm-ek"), ["ok", made, ""]);
    assert_eq!(offline("tpm-ek"), ["ok", "an endorsement key", ""]);
    assert_eq!(offline("tpm-srk"), ["ok", "a storage root key", ""]);
    assert!(offline("tpm")[1].starts_with("IBM"), "{:?}", offline("tpm"));

    let known = gateway.emulator("");
    gateway.configure(Some(&known), "");
    let answered = "it is enrolled with this endorsement key: the TPM can answer";
    assert_eq!(gateway.check("dps", &[]), ["ok", answered, ""]);
    let transcript = known.transcript_all();
    assert!(!transcript.iter().any(|line| line.contains("assigned")), "{transcript:#?}");

    let wrapped_for_another = gateway.emulator("faults = [\"challenge: other-ek-blob\"]");
    gateway.configure(Some(&wrapped_for_another), "");
    let [result, found, cure] = gateway.check("dps", &[]);
    assert!(found.starts_with("the TPM does not accept the key that DPS sent: "), "{found}");
    let enroll = "enroll this endorsement key, which `dps-agent identity` prints";
    assert_eq!((result.as_str(), cure.as_str()), ("failed", enroll));
}

#[test]
fn a_tpm_that_dps_does_not_know_is_told_how_to_be_enrolled() {
    let gateway = Gateway::new();
    let stranger = Gateway::new().emulator("");
    gateway.configure(Some(&stranger), "");
    let [result, found, cure] = gateway.check("dps", &[]);
    assert!(found.starts_with("the service answered 404"), "{found}");
    let enroll = "enroll it: `dps-agent identity` prints what DPS has to know";
    assert_eq!((result.as_str(), cure.as_str()), ("failed", enroll));
}

#[test]
fn a_cleared_tpm_is_told_from_one_that_still_signs() {
    let gateway = Gateway::new();
    let emulator = gateway.emulator("");
    gateway.configure(Some(&emulator), "");
    assert_eq!(gateway.run(&["provision"]).0, Some(0));
    assert_eq!(gateway.check("record", &["--offline"])[0], "ok");
    gateway.tpm.clear();
    let found = "the TPM was cleared after it: the hub key does not work any more";
    assert_eq!(gateway.check("record", &["--offline"]), ["warning", found, "the next registration gets a new one"]);
    let error = &gateway.json(&["token"])["error"];
    assert_eq!((&error["exitCode"], &error["blame"]), (&json!(71), &json!("tpm")));
}

#[test]
fn a_tpm_that_is_not_there_is_named() {
    let mut gateway = Gateway::new();
    gateway.tpm.off();
    for verb in ["identity", "token"] {
        let error = &gateway.json(&[verb])["error"];
        let expected = if verb == "identity" { 71 } else { 75 };
        assert_eq!(error["exitCode"], expected, "{error}");
    }
    let [result, found, cure] = gateway.check("tpm", &["--offline"]);
    assert_eq!((result.as_str(), found), ("failed", format!("no TPM at {}", gateway.tpm.tcti())));
    assert!(cure.starts_with("it may still be starting."), "{cure}");
    assert_eq!(gateway.check("tpm-srk", &["--offline"]), ["skipped", "the TPM comes first", ""]);
}
