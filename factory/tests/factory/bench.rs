//! A bench: an emulated service with its identities, a folder for files, and the program run on both.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dps_emulator::{Config, Emulator};
use serde_json::{Value, json};

pub const TENANT: &str = "00000000-0000-0000-0000-000000000002";
/// May read and write individual enrollments, and nothing else.
pub const STATION: &str = "11111111-1111-1111-1111-111111111111";
/// Has Microsoft's own role for readers.
pub const READER: &str = "22222222-2222-2222-2222-222222222222";
/// May do everything.
pub const OWNER: &str = "33333333-3333-3333-3333-333333333333";
pub const SECRET: &str = "a-client-secret-of-the-tests";
pub const POLICY_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const PERMISSIONS: &str = "Microsoft.Devices/provisioningServices";

/// All of it goes when it is dropped.
pub struct Bench {
    pub emulator: Emulator,
    folder: PathBuf,
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    /// The service with these lines more in `[service]`, in `[service_api]`, and behind all.
    pub fn new(service: &str, api: &str, more: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("dps-factory-{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let client = |id: &str, role: &str| {
            format!("[[entra.client]]\nclient_id = \"{id}\"\nsecret = \"{SECRET}\"\nroles = [{{ role = \"{role}\" }}]\n")
        };
        let rate = if api.contains("operations_per_minute") { "" } else { "operations_per_minute = 60000\n" };
        let text = format!(
            "[service]\nid_scope = \"0ne00000000\"\nhubs = [\"localhost\", \"hub-b.localhost\"]\n{service}\n\
             [service_api]\n{rate}{api}\n\
             [[service_api.policy]]\nname = \"provisioningserviceowner\"\nprimary_key = \"{POLICY_KEY}\"\n\
             [[service_api.role]]\nname = \"station\"\n\
             data_actions = [\"{PERMISSIONS}/enrollments/write\", \"{PERMISSIONS}/enrollments/read\"]\n\
             {}{}{}{more}",
            client(STATION, "station"),
            client(READER, "Device Provisioning Service Data Reader"),
            client(OWNER, "Device Provisioning Service Data Contributor"),
        );
        let emulator = Emulator::start(Config::from_toml(&text).unwrap()).unwrap();
        let bench = Self { emulator, folder };
        bench.put("ca.pem", bench.emulator.ca_pem());
        bench
    }

    /// The service as it is, and nothing more.
    pub fn plain() -> Self {
        Self::new("", "", "")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file; the folder is ours alone.
    pub fn put(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names and texts of the files of a folder.
    pub fn files(&self, folder: &str) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return BTreeMap::new() };
        let file = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap());
        entries.map(|entry| file(entry.unwrap().path())).collect()
    }

    /// How many files are in a folder, half written ones included.
    pub fn count(&self, folder: &str) -> usize {
        fs::read_dir(self.path(folder)).map_or(0, Iterator::count)
    }

    /// The program, in our folder and with nothing of our environment, signed in as nobody.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dps-factory"));
        command.args(arguments).current_dir(&self.folder).env_clear().env("PATH", "/nowhere");
        command.env("DPS_NAME", self.instance()).env("AZURE_AUTHORITY_HOST", format!("https://{}", self.instance()));
        // Where nobody listens: no test asks the metadata service of the machine that it runs on.
        command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn instance(&self) -> String {
        format!("localhost:{}", self.emulator.https_port())
    }

    /// Signed in as this application, by its secret, from the environment.
    pub fn command_as(&self, client: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.args(["--ca-file", "ca.pem"]);
        if !arguments.contains(&"--rate") {
            command.args(["--rate", "60000"]);
        }
        command.env("AZURE_TENANT_ID", TENANT).env("AZURE_CLIENT_ID", client).env("AZURE_CLIENT_SECRET", SECRET);
        command
    }

    pub fn run_as(&self, client: &str, arguments: &[&str]) -> Ran {
        ended(self.command_as(client, arguments).spawn().unwrap())
    }

    /// Runs it without asking the service.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ended(self.command(arguments).spawn().unwrap())
    }

    /// What was asked of the service API so far, without what a call of the identity provider is.
    pub fn asked(&self) -> Vec<String> {
        let lines = self.emulator.transcript("service-api");
        lines
            .iter()
            .filter_map(|line| line.strip_prefix("> "))
            .filter(|line| !line.starts_with("connect"))
            .map(str::to_owned)
            .collect()
    }

    /// Every enrollment as the service shows it, by registration ID, keys included.
    pub fn enrolled(&self) -> BTreeMap<String, Value> {
        let ran = self.run_as(OWNER, &["enrollment", "list", "--output", "jsonl"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let records = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.map(|record| (record["registrationId"].as_str().unwrap().to_owned(), record)).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs it to its end, with this on its standard input.
pub fn with_input(mut command: Command, input: &str) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    ended(child)
}

pub fn ended(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// An endorsement key by the TCG's template L-1 whose modulus begins with this number, base64 of TPM2B_PUBLIC.
pub fn endorsement_key(number: u32) -> String {
    const HEAD: &str = "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEA";
    let modulus = [&[0xc1][..], &number.to_be_bytes(), &[0x5b; 251]].concat();
    STANDARD.encode([STANDARD.decode(HEAD).unwrap(), modulus].concat())
}

/// A line as `dps-agent identity --json` prints it for a TPM.
pub fn tpm(id: &str, number: u32) -> String {
    json!({ "registrationId": id, "attestation": "tpm", "symmetricKey": null, "x509": null, "tpm": {
        "endorsementKey": endorsement_key(number), "endorsementCertificate": null, "certifiedKey": null } })
    .to_string()
}

/// A self-signed certificate with this common name, PEM.
pub fn certificate(id: &str) -> String {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, id);
    parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// A line as `dps-agent identity --json` prints it for a certificate.
pub fn x509(id: &str) -> String {
    let pem = certificate(id);
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    json!({ "registrationId": id, "attestation": "x509", "x509": { "certificate": base64 } }).to_string()
}
