//! `cargo xtask factory-demo`: thousands of gateways enrolled with Microsoft Entra ID, two permissions and no 429; one of them registers.

mod devices;
mod station;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::emulator::{Emulator, Plan};
use crate::machine::{self, Need};
use crate::workspace::{self, Profile, Scratch};
use crate::{Done, demo, say};
use devices::Devices;
use station::{OWNER, READER, Ran, SECRET, STATION, Station};

/// The limit of the service, in operations a minute (DPS service API §1).
const RATE: u32 = 1000;

const USAGE: &str = "cargo xtask factory-demo [--devices N] [--rate N]";

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Devices of each of the three kinds.
    each: u32,
    /// Operations a minute, for the service and for the program.
    rate: u32,
}

impl Scale {
    /// What the tests have time for.
    pub const SMALL: Self = Self { each: 60, rate: 6000 };
}

/// # Errors
/// If anything does not go as it should.
pub fn run(arguments: &[String]) -> Done<ExitCode> {
    let scale = scale(arguments)?;
    machine::prepare(&[Need::Compiler, Need::Libtss2, Need::Openssl, Need::Swtpm, Need::TpmTools])?;
    demonstrate(scale)?;
    Ok(ExitCode::SUCCESS)
}

fn scale(arguments: &[String]) -> Done<Scale> {
    let mut scale = Scale { each: 1000, rate: RATE };
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let number = rest.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0);
        match (option.as_str(), number) {
            ("--devices", Some(number)) => scale.each = number,
            ("--rate", Some(number)) => scale.rate = number,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(scale)
}

/// # Errors
/// If anything does not go as it should.
pub fn demonstrate(scale: Scale) -> Done {
    let programs = workspace::build(Profile::Dev)?;
    let factory = workspace::binary("dps-factory", Profile::Dev)?;
    let scratch = Scratch::new("factory")?;
    let directory = scratch.path();
    say::heading(&format!("Making {} identities of each kind", scale.each));
    let gateway = demo::TpmGateway::new("gw-swtpm", &programs, directory)?;
    let devices = Devices::make(directory, scale.each, &gateway.identity()?)?;
    let emulator = Emulator::start(&programs.emulator, &plan(scale.rate), directory)?;
    let station = Station { program: factory, directory: directory.to_owned(), port: emulator.https_port, rate: scale.rate };
    refused(&station)?;
    killed(&station, &devices)?;
    gone_on(&station, &devices)?;
    unchanged(&station, &devices)?;
    never_throttled(&emulator, directory)?;
    configured(&station, &programs.agent)?;
    say::heading("The gateway with the TPM, which was among them, registers");
    gateway.register(&emulator)
}

/// A service with the real one's limit, and three applications: one with exactly two permissions.
fn plan(rate: u32) -> Plan {
    let permissions = "Microsoft.Devices/provisioningServices/enrollments";
    let client = |id: &str, role: &str| {
        format!("[[entra.client]]\nclient_id = \"{id}\"\nsecret = \"{SECRET}\"\nroles = [{{ role = \"{role}\" }}]\n")
    };
    Plan::on_ports(0, 0).table(&format!(
        "[service_api]\noperations_per_minute = {rate}\n[[service_api.role]]\nname = \"station\"\n\
         data_actions = [\"{permissions}/read\", \"{permissions}/write\"]\n{}{}{}",
        client(STATION, "station"),
        client(READER, "Device Provisioning Service Data Reader"),
        client(OWNER, "Device Provisioning Service Data Contributor"),
    ))
}

fn refused(station: &Station) -> Done {
    say::heading("A token without the right is refused, and the message says what is missing");
    let ran = station.run(READER, &["enroll", "identities", "--keys", "keys", "--report", "refused"])?;
    ran.stderr.lines().for_each(say::step);
    let missing = "missing permission: Microsoft.Devices/provisioningServices/enrollments/write";
    if ran.code != Some(77) || !ran.stderr.contains(missing) {
        return Err(format!("it should have ended with 77 and {missing:?}, and ended with {:?}", ran.code).into());
    }
    Ok(())
}

fn killed(station: &Station, devices: &Devices) -> Done {
    say::heading("Enrolling with enrollments/read and enrollments/write alone, and killed half way");
    let run = station.enroll()?;
    let half = usize::try_from(devices.count() / 2)?;
    let reports = station.directory.join("report");
    let began = Instant::now();
    run.kill_when(|| std::fs::read_dir(&reports).is_ok_and(|files| files.count() >= half))?;
    say::step(&format!(
        "killed after {:.0} s, when {half} of {} devices were enrolled",
        began.elapsed().as_secs_f64(),
        devices.count()
    ));
    Ok(())
}

fn gone_on(station: &Station, devices: &Devices) -> Done {
    say::heading("Run again, it goes on where it was");
    let began = Instant::now();
    let ran = station.enroll()?.finish()?;
    say::step(&format!("{} in {:.0} s", ran.stdout.trim(), began.elapsed().as_secs_f64()));
    if ran.code != Some(0) {
        return Err(format!("it ended with {:?}: {}{}", ran.code, ran.stdout, ran.stderr).into());
    }
    let enrolled = station.run(OWNER, &["enrollment", "list", "--output", "jsonl"])?.expect(0)?;
    devices.are_all_in(&enrolled)?;
    say::step(&format!(
        "{} enrollments at the service, each with the key, certificate or endorsement key of its identity",
        devices.count()
    ));
    let reports = std::fs::read_dir(station.directory.join("report"))?.count();
    if u32::try_from(reports)? != devices.count() {
        return Err(format!("{reports} reports for {} devices", devices.count()).into());
    }
    Ok(())
}

fn unchanged(station: &Station, devices: &Devices) -> Done {
    say::heading("A third run changes nothing");
    let ran: Ran = station.enroll()?.finish()?;
    say::step(ran.stdout.trim());
    let expected = format!("{0} devices: {0} unchanged", devices.count());
    if ran.stdout.trim() == expected { Ok(()) } else { Err(format!("expected {expected:?}: {}", ran.stderr).into()) }
}

/// The agent is the judge of the configuration that is written for it.
fn configured(station: &Station, agent: &Path) -> Done {
    say::heading("A gateway's configuration, written into an image, and what the agent says of it");
    let key = ["--attestation-type", "symmetricKey", "--registration-id", "key-0001", "--key-file", "keys/key-0001.key"];
    let written =
        station.run(STATION, &[&["config", "--root", "image", "--id-scope", "0ne00000000"], &key[..]].concat())?.expect(0)?;
    written.lines().for_each(say::step);
    let drop_in = station.directory.join("image/etc/dps-agent/config.d/50-factory.toml");
    let said = Command::new(agent).args(["config", "validate", "--json", "--config"]).arg(drop_in).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    say::step(said.trim());
    let said: serde_json::Value = serde_json::from_str(&said)?;
    if said["valid"] == true { Ok(()) } else { Err("the agent does not take it".into()) }
}

fn never_throttled(emulator: &Emulator, directory: &Path) -> Done {
    let transcript = emulator.whole_transcript()?;
    let answers = transcript.lines().filter(|line| line.starts_with("service-api < ")).count();
    let throttled = transcript.lines().filter(|line| line.starts_with("service-api < 429")).count();
    say::step(&format!(
        "{answers} answers of the service in {}, {throttled} of them 429",
        directory.join("transcript").display()
    ));
    if throttled == 0 && answers > 0 { Ok(()) } else { Err("the service had to throttle".into()) }
}
