//! The cases with a back end: Microsoft's Node service client and its credentials fill the emulator with enrollments, by which devices
//! then register.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::sdk::{self, Sdk};
use crate::Done;
use crate::credentials::{self, Authority, Certificate};
use crate::emulator::{Emulator, ID_SCOPE, Plan};

const DEVICE: &str = "judged-gateway";
const MEMBER: &str = "judged-member";
const GROUP: &str = "judged-group";
const TENANT: &str = "00000000-0000-0000-0000-000000000002";
const CLIENT: &str = "11111111-1111-1111-1111-111111111111";
const SECRET: &str = "no+secret/at=all&";

/// A back end, and whether it may do what it does.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    credential: Credential,
    allowed: bool,
}

/// How the back end proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    Policy,
    ClientSecret,
    ClientCertificate,
    WorkloadIdentity,
    ManagedIdentity,
}

/// Every case. Without the permission the credential makes no difference.
pub fn all() -> Vec<Case> {
    let good = [
        Credential::Policy,
        Credential::ClientSecret,
        Credential::ClientCertificate,
        Credential::WorkloadIdentity,
        Credential::ManagedIdentity,
    ];
    let mut cases: Vec<Case> = good.map(|credential| Case { credential, allowed: true }).to_vec();
    cases.extend([Credential::Policy, Credential::ClientSecret].map(|credential| Case { credential, allowed: false }));
    cases
}

/// What a case needs before the emulator starts.
struct Credentials {
    policy_key: String,
    fleet: Authority,
    member: Certificate,
    /// The application's certificate, and one file with its key before it.
    application: Certificate,
    both: PathBuf,
}

impl Case {
    /// Client, transport, attestation and what is special.
    pub fn columns(&self) -> [String; 4] {
        let credential = match self.credential {
            Credential::Policy => "policy",
            Credential::ClientSecret => "client-secret",
            Credential::ClientCertificate => "client-certificate",
            Credential::WorkloadIdentity => "workload-identity",
            Credential::ManagedIdentity => "managed-identity",
        };
        ["node", "service-api", credential, if self.allowed { "good" } else { "read-only" }].map(str::to_owned)
    }

    /// Works with an emulator of its own. The inner result says in words what happened.
    ///
    /// # Errors
    /// If the SDK or the emulator cannot be run.
    pub fn judge(&self, emulator: &Path, directory: &Path) -> Done<Result<String, String>> {
        let credentials = Credentials::new(directory)?;
        if self.credential == Credential::ManagedIdentity {
            metadata_address()?;
        }
        let emulator = Emulator::start(emulator, &self.plan(&credentials), directory)?;
        let subject = self.subject(&credentials, directory)?;
        let run = Run { credentials: &credentials, subject, emulator: &emulator, directory };
        let verdict = if self.allowed { run.all()? } else { run.refused(self.credential)? };
        if verdict.is_err() {
            eprintln!("---- {}: the emulator's transcript\n{}----", self.columns().join("/"), emulator.whole_transcript()?);
        }
        Ok(verdict)
    }

    fn plan(&self, credentials: &Credentials) -> Plan {
        let (role, rights) = match self.allowed {
            true => ("Device Provisioning Service Data Contributor", ""),
            false => ("Device Provisioning Service Data Reader", "rights = [\"EnrollmentRead\", \"RegistrationStatusRead\"]\n"),
        };
        let certificate = &credentials.application.certificate;
        let key = &credentials.policy_key;
        Plan::on_ports(8883, 443).table(&format!(
            "[[service_api.policy]]\nname = \"judge\"\nprimary_key = {key:?}\n{rights}\n\
             [entra]\nmanaged_identity = \"{}\"\n\
             [[entra.client]]\nclient_id = {CLIENT:?}\nsecret = {SECRET:?}\ncertificate_file = {certificate:?}\nmanaged = true\n\
             federated = {{ issuer = \"https://issuer.example\", subject = \"judge\", certificate_file = {certificate:?} }}\n\
             roles = [{{ role = {role:?} }}]\n",
            if self.credential == Credential::ManagedIdentity { "169.254.169.254:80" } else { "127.0.0.1:0" },
        ))
    }

    fn subject(&self, credentials: &Credentials, directory: &Path) -> Done<Value> {
        let mut subject = json!({
            "registrationId": DEVICE,
            "memberId": MEMBER,
            "groupId": GROUP,
            "authority": credentials.fleet.certificate(),
        });
        if self.credential == Credential::Policy {
            let key = &credentials.policy_key;
            subject["connectionString"] = format!("HostName=localhost;SharedAccessKeyName=judge;SharedAccessKey={key}").into();
            return Ok(subject);
        }
        let token = directory.join("federated.jwt");
        credentials::write_secret(&token, &credentials.outside_token(directory)?)?;
        subject["credential"] = json!({
            "kind": self.columns()[2],
            "tenantId": TENANT,
            "clientId": CLIENT,
            "authorityHost": "https://localhost",
            "secret": SECRET,
            "certificatePath": credentials.both,
            "tokenFilePath": token,
        });
        Ok(subject)
    }
}

impl Credentials {
    fn new(directory: &Path) -> Done<Self> {
        let fleet = Authority::new(&directory.join("fleet"))?;
        let member = fleet.issue(MEMBER, 1)?;
        let application = credentials::rsa_certificate(&directory.join("application"), "judge")?;
        let both = directory.join("application.both");
        let parts = [&application.private_key, &application.certificate].map(std::fs::read_to_string);
        let [key, certificate] = parts;
        credentials::write_secret(&both, &format!("{}{}", key?, certificate?))?;
        Ok(Self { policy_key: credentials::symmetric_key()?, fleet, member, application, both })
    }

    /// What a cluster would give a workload of its own: a token of another issuer, signed by openssl.
    fn outside_token(&self, directory: &Path) -> Done<String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": "https://issuer.example",
            "sub": "judge",
            "aud": "api://AzureADTokenExchange",
            "nbf": now,
            "exp": now + 600,
        });
        let header = json!({"alg": "RS256", "typ": "JWT"});
        let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let file = directory.join("federated.txt");
        std::fs::write(&file, &text)?;
        let key = self.application.private_key.as_os_str();
        let signed = Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(key).arg(&file).output()?;
        if !signed.status.success() {
            return Err(format!("openssl dgst: {}", String::from_utf8_lossy(&signed.stderr)).into());
        }
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed.stdout)))
    }
}

/// A back end with its service.
struct Run<'a> {
    credentials: &'a Credentials,
    subject: Value,
    emulator: &'a Emulator,
    directory: &'a Path,
}

impl Run<'_> {
    /// Enrollments, devices that register with them, their registrations, and the end of it all.
    fn all(&self) -> Done<Result<String, String>> {
        let enrolled = self.back_end("enroll")?;
        let Some(key) = enrolled["key"].as_str() else { return Ok(Err(format!("not enrolled: {enrolled}"))) };
        let expected = json!({
            "key": key,
            "status": "enabled",
            "changed": true,
            "stale": 412,
            "bulk": [false, DEVICE],
            "enrollments": [DEVICE, "other-1"],
            "groups": [GROUP],
        });
        if enrolled != expected {
            return Ok(Err(format!("enrolled, but {enrolled} instead of {expected}")));
        }
        for (device, registered) in [(DEVICE, self.by_key(key)?), (MEMBER, self.by_certificate()?)] {
            if registered != json!({"assignedHub": "localhost", "deviceId": device}) {
                return Ok(Err(format!("{device} did not register: {registered}")));
            }
        }
        let registered = self.back_end("registered")?;
        let states = [DEVICE, MEMBER].map(|device| format!("{device} assigned localhost {device}"));
        if registered != json!({"assigned": states, "forgotten": [404, 404]}) {
            return Ok(Err(format!("the registrations are not as they should be: {registered}")));
        }
        self.end(key)
    }

    fn end(&self, key: &str) -> Done<Result<String, String>> {
        let deleted = self.back_end("delete")?;
        if deleted != json!({"stale": 412, "gone": [404, 404]}) {
            return Ok(Err(format!("not deleted: {deleted}")));
        }
        let refused = self.by_key(key)?;
        let unknown = refused["error"].as_str().is_some_and(|said| said.starts_with("DeviceNotFoundError"));
        let said = "two devices registered by it; one was refused when all was gone";
        Ok(if unknown { Ok(said.into()) } else { Err(format!("its enrollment is gone, but {refused}")) })
    }

    fn refused(&self, credential: Credential) -> Done<Result<String, String>> {
        let outcome = self.back_end("enroll")?;
        // A policy without the right gets 401; with a token that is one without the permission it is UNCONFIRMED (service API §2.3).
        let expected = if credential == Credential::Policy { 401 } else { 403 };
        let said = outcome["error"].as_str().unwrap_or_default().chars().take(60).collect::<String>();
        Ok(if outcome["status"] == expected { Ok(format!("refused with {expected}: {said}")) } else { Err(outcome.to_string()) })
    }

    fn back_end(&self, verb: &str) -> Done<Value> {
        let mut subject = self.subject.clone();
        subject["verb"] = verb.into();
        self.script("service.js", &subject)
    }

    fn by_key(&self, key: &str) -> Done<Value> {
        self.script("register.js", &json!({"idScope": ID_SCOPE, "registrationId": DEVICE, "transport": "mqtt", "key": key}))
    }

    fn by_certificate(&self) -> Done<Value> {
        let Certificate { certificate, private_key } = &self.credentials.member;
        let subject = json!({
            "idScope": ID_SCOPE,
            "registrationId": MEMBER,
            "transport": "mqtt",
            "certificate": certificate,
            "privateKey": private_key,
        });
        self.script("register.js", &subject)
    }

    fn script(&self, script: &str, subject: &Value) -> Done<Value> {
        let file = self.directory.join(format!("{script}.json"));
        credentials::write_secret(&file, &subject.to_string())?;
        sdk::outcome(&Sdk::Node.script(script, &file, &self.emulator.roots()))
    }
}

/// Gives the loopback the address at which virtual machines find their identity.
fn metadata_address() -> Done {
    let script = r#"PATH="$PATH:/usr/sbin:/sbin" ip address add 169.254.169.254/32 dev lo"#;
    let status = Command::new("sh").args(["-c", script]).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip address add: {status}").into()) }
}
