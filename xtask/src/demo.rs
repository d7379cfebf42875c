//! `cargo xtask demo`: four gateways register with an emulated service, and each sends a message to its hub.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::credentials::{self, Authority, Certificate};
use crate::emulator::{Emulator, ID_SCOPE, Plan};
use crate::hub::{self, Credential, Hub};
use crate::machine::{self, Need};
use crate::tpm::Tpm;
use crate::workspace::{self, Profile, Programs, Scratch};
use crate::{Done, say};

const MESSAGE: &str = r#"{"temperature":21.5}"#;

/// A gateway with its registration ID, transport and credential.
struct Gateway {
    name: &'static str,
    transport: &'static str,
    credential: Credential,
}

/// The agent's configuration for one gateway, wherever the service is.
#[derive(Debug)]
pub struct AgentConfig<'a> {
    pub registration_id: &'a str,
    pub transport: &'a str,
    pub ports: (u16, u16),
    pub roots: &'a Path,
    pub verify: &'a str,
}

/// # Errors
/// If anything does not go as a visitor should see it.
pub fn run() -> Done {
    machine::prepare(&[Need::Compiler, Need::Libtss2, Need::Openssl, Need::Swtpm, Need::TpmTools])?;
    let programs = workspace::build(Profile::Dev)?;
    let began = Instant::now();
    let scratch = Scratch::new("demo")?;
    show(&programs, scratch.path(), true)?;
    say::heading(&format!("Done in {:.1} s", began.elapsed().as_secs_f64()));
    say::step("Four gateways knew an ID scope, a registration ID and their own credential; they learned their hub and used it.");
    say::step(&format!(
        "Keys, configurations, records and the emulator's transcript were in {}, which is",
        scratch.path().display()
    ));
    say::step("removed now. README.md says how to point the agent at your own DPS.");
    Ok(())
}

/// Registers the four gateways, or three if none has a TPM.
///
/// # Errors
/// If one does not, or its message does not arrive.
pub fn show(programs: &Programs, directory: &Path, has_tpm: bool) -> Done {
    say::heading("Starting the emulated Device Provisioning Service and IoT Hub");
    let authority = Authority::new(&directory.join("gateway-ca"))?;
    let gateways = gateways(&authority)?;
    let tpm = if has_tpm { Some(TpmGateway::new("gw-0004", programs, directory)?) } else { None };
    let mut plan = plan(&gateways, &authority);
    if let Some(tpm) = &tpm {
        plan = plan.tpm(tpm.name, &tpm.endorsement_key()?, "");
    }
    let emulator = Emulator::start(&programs.emulator, &plan, directory)?;
    say::step(&format!("MQTT on localhost:{}, WebSocket and HTTPS on localhost:{}", emulator.mqtt_port, emulator.https_port));
    say::step(&format!("files       {}", directory.display()));
    for gateway in &gateways {
        register(gateway, programs, &emulator, directory)?;
    }
    tpm.map_or(Ok(()), |tpm| tpm.register(&emulator))
}

fn gateways(authority: &Authority) -> Done<Vec<Gateway>> {
    let x509 = |name| authority.issue(name, 1).map(Credential::X509);
    Ok(vec![
        Gateway { name: "gw-0001", transport: "mqtt", credential: Credential::SymmetricKey(credentials::symmetric_key()?) },
        Gateway { name: "gw-0002", transport: "mqtt-ws", credential: x509("gw-0002")? },
        Gateway { name: "gw-0003", transport: "https", credential: x509("gw-0003")? },
    ])
}

fn plan(gateways: &[Gateway], authority: &Authority) -> Plan {
    let plan = Plan::on_ports(0, 0).x509_group("factory-ca", &authority.certificate(), "");
    gateways.iter().fold(plan, |plan, gateway| match &gateway.credential {
        Credential::SymmetricKey(key) => plan.symmetric_key(gateway.name, key, ""),
        Credential::X509(_) => plan,
    })
}

fn register(gateway: &Gateway, programs: &Programs, emulator: &Emulator, directory: &Path) -> Done {
    let kind = match gateway.credential {
        Credential::SymmetricKey(_) => "symmetric key",
        Credential::X509(_) => "X.509 certificate",
    };
    say::heading(&format!("Gateway {}: {kind}, over {}", gateway.name, spoken(gateway.transport)));
    let home = directory.join(gateway.name);
    let roots = emulator.roots();
    let config = AgentConfig {
        registration_id: gateway.name,
        transport: gateway.transport,
        ports: (emulator.mqtt_port, emulator.https_port),
        roots: &roots,
        verify: "on-change",
    };
    let file = config.write(&gateway.credential, &home)?;
    let (hub, device) = assigned(&programs.agent, &file)?;
    let way = Hub { host: &hub, port: emulator.mqtt_port, roots };
    hub::send(&way, &device, &gateway.credential, MESSAGE)?;
    arrived(gateway.name, "the same credential", emulator)
}

/// Registers, and says what came of it; hub and device.
fn assigned(agent: &Path, config: &Path) -> Done<(String, String)> {
    say::step(&format!("running     dps-agent provision --json --config {}", config.display()));
    let began = Instant::now();
    let assignment = answer(agent, &["provision", "--json", "--timeout", "30s"], config)?;
    let text = |name: &str| assignment[name].as_str().unwrap_or("-").to_owned();
    let (hub, device, seconds) = (text("assignedHub"), text("deviceId"), began.elapsed().as_secs_f64());
    say::step(&format!("assigned    hub {hub}, device {device} ({}), in {seconds:.1} s", text("substatus")));
    say::step(&format!("proof       {}", text("proof")));
    Ok((hub, device))
}

fn arrived(device: &str, credential: &str, emulator: &Emulator) -> Done {
    if !emulator.recorded(device, "> hub publish")? {
        return Err(format!("the hub acknowledged {device}'s message, but its transcript does not have it").into());
    }
    say::step(&format!("message     {MESSAGE} sent with {credential}, arrived at the hub"));
    Ok(())
}

/// A gateway whose keys are in a TPM of its own.
#[derive(Debug)]
pub struct TpmGateway<'a> {
    name: &'static str,
    agent: &'a Path,
    tpm: Tpm,
    home: PathBuf,
}

impl<'a> TpmGateway<'a> {
    /// Its TPM is new and on.
    ///
    /// # Errors
    /// If the TPM does not start.
    pub fn new(name: &'static str, programs: &'a Programs, directory: &Path) -> Done<Self> {
        let home = directory.join(name);
        let gateway = Self { name, agent: &programs.agent, tpm: Tpm::start(&home.join("tpm"))?, home };
        gateway.configure("")?;
        Ok(gateway)
    }

    /// What an operator enrolls it by, as the agent tells it.
    ///
    /// # Errors
    /// If the agent does not tell.
    pub fn identity(&self) -> Done<Value> {
        answer(self.agent, &["identity", "--json"], &self.config())
    }

    fn endorsement_key(&self) -> Done<String> {
        Ok(self.identity()?["tpm"]["endorsementKey"].as_str().ok_or("no endorsement key")?.to_owned())
    }

    /// Registers it, and sends a message to its hub.
    ///
    /// # Errors
    /// If that does not go as it should.
    pub fn register(&self, emulator: &Emulator) -> Done {
        say::heading(&format!("Gateway {}: TPM, over HTTPS", self.name));
        let (mqtt, https) = (emulator.mqtt_port, emulator.https_port);
        let roots = emulator.roots();
        self.configure(&format!("ca_file = {roots:?}\nca_only = true\nmqtt_port = {mqtt}\nhttps_port = {https}\n"))?;
        say::step(&format!("TPM         swtpm, at {}; enrolled by what dps-agent identity printed", self.tpm.tcti()));
        let (hub, device) = assigned(self.agent, &self.config())?;
        let token = answer(self.agent, &["token", "--json"], &self.config())?;
        let token = token["token"].as_str().ok_or("no token")?;
        hub::send_as(&Hub { host: &hub, port: mqtt, roots }, &device, token, None, MESSAGE)?;
        arrived(self.name, "a token that the TPM signed", emulator)
    }

    fn configure(&self, service: &str) -> Done {
        let ports: String = service.lines().filter(|line| line.contains("_port")).map(|line| format!("{line}\n")).collect();
        let text = format!(
            "[dps]\nhost = \"localhost\"\nid_scope = {ID_SCOPE:?}\n{service}\n\
             [attestation]\nmethod = \"tpm\"\nregistration_id = {:?}\ntcti = {:?}\n\n[hub]\n{ports}\n\
             [state]\ndirectory = {:?}\n[runtime]\ndirectory = {:?}\n",
            self.name,
            self.tpm.tcti(),
            self.home.join("state"),
            self.home.join("run")
        );
        Ok(std::fs::write(self.config(), text)?)
    }

    fn config(&self) -> PathBuf {
        self.home.join("config.toml")
    }
}

/// Runs the agent once and reads what it prints.
fn answer(agent: &Path, arguments: &[&str], config: &Path) -> Done<Value> {
    let mut command = Command::new(agent);
    command.args(arguments).arg("--config").arg(config).env("NO_PROXY", "localhost");
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("dps-agent ended with {}\n{printed}\n{said}", output.status).into());
    }
    Ok(serde_json::from_str(&printed)?)
}

fn spoken(transport: &str) -> &str {
    match transport {
        "mqtt" => "MQTT",
        "mqtt-ws" => "MQTT on WebSocket",
        _ => "HTTPS",
    }
}

impl AgentConfig<'_> {
    /// Writes configuration and key into `home`, where the agent's state and runtime directories will be too.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, credential: &Credential, home: &Path) -> Done<std::path::PathBuf> {
        std::fs::create_dir_all(home)?;
        let attestation = match credential {
            Credential::SymmetricKey(key) => {
                let file = home.join("device.key");
                credentials::write_secret(&file, key)?;
                format!("method = \"symmetric-key\"\nkey_file = {file:?}\n")
            }
            Credential::X509(Certificate { certificate, private_key }) => {
                format!("method = \"x509\"\ncertificate_file = {certificate:?}\nprivate_key_file = {private_key:?}\n")
            }
        };
        let attestation = format!("[attestation]\nregistration_id = {:?}\n{attestation}", self.registration_id);
        let (mqtt, https) = self.ports;
        let ports = format!("mqtt_port = {mqtt}\nhttps_port = {https}\n");
        let config = home.join("config.toml");
        let dps = format!(
            "[dps]\nhost = \"localhost\"\nid_scope = {ID_SCOPE:?}\ntransport = {:?}\nca_file = {:?}\nca_only = true\n{ports}",
            self.transport, self.roots
        );
        let hub = format!("[hub]\nverify = {:?}\n{ports}", self.verify);
        let directories =
            format!("[state]\ndirectory = {:?}\n[runtime]\ndirectory = {:?}\n", home.join("state"), home.join("run"));
        std::fs::write(&config, format!("{dps}\n{attestation}\n{hub}\n{directories}"))?;
        Ok(config)
    }
}
