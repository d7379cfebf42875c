//! The cases of a mosquitto on the gateway: Debian's own bridges a local topic to the assigned hub with the file that the agent
//! rendered, and again with a new token and at another hub.

use std::process::Command;

use super::gateway::{Attestation, DEVICE, Gateway, HUBS, Process};
use super::story::Story;
use crate::Done;

const HANDOFF: &str = "[handoff.template.mosquitto]\nsource = \"mosquitto-bridge.conf\"\nfile = \"azure.conf\"\n";
const FILE: &str = "azure.conf";
/// Later than 80 % of the life of the token in the file, and not its end.
const HOURS: u32 = 20;

/// Mosquitto has tokens from a TPM, too.
pub const STORY: Story = Story { client: "mosquitto", name: "bridge", handoff: HANDOFF, tell: years };

fn years(gateway: &Gateway, attestation: Attestation) -> Done<String> {
    gateway.wait(FILE, || Ok(gateway.rendered(FILE).is_ok()))?;
    bridged(gateway, HUBS[0], "one")?;
    let refresh = match attestation {
        Attestation::X509 => "no token to refresh",
        Attestation::SymmetricKey | Attestation::Tpm => {
            changed(gateway, || gateway.pass(HOURS))?;
            bridged(gateway, HUBS[0], "two")?;
            "20 hours later again with a new token"
        }
    };
    gateway.emulator.command(&format!("move {DEVICE} {}", HUBS[1]))?;
    changed(gateway, || gateway.agent("reprovision"))?;
    bridged(gateway, HUBS[1], "three")?;
    Ok(format!("a local message at {}, the twin here, {refresh}, moved, and all of it at {}", HUBS[0], HUBS[1]))
}

/// Does something, and waits until the file is another one.
fn changed(gateway: &Gateway, act: impl FnOnce() -> Done) -> Done {
    let before = gateway.rendered(FILE)?;
    act()?;
    gateway.await_other(FILE, &before)
}

/// A mosquitto with the file as it is now (a bridge's settings need a restart) takes a message from here to the hub, and an answer back.
fn bridged(gateway: &Gateway, hub: &str, message: &str) -> Done {
    let config = gateway.home().join("mosquitto.conf");
    std::fs::write(&config, configuration(gateway))?;
    let mut command = Command::new("/usr/sbin/mosquitto");
    let mosquitto = Process::start(command.arg("-c").arg(&config), &gateway.home().join("mosquitto.log"))?;
    let told = publish(gateway, &mosquitto, message).and_then(|()| {
        let there = || mosquitto.lives().and_then(|()| arrived(gateway, hub, message));
        gateway.wait(&format!("{message:?} at {hub}"), there)?;
        twin()
    });
    told.map_err(|error| format!("{error}\n{}", mosquitto.last_words()).into())
}

/// It stays who it is, since the file is this user's: only root's mosquitto looks at `user`.
fn configuration(gateway: &Gateway) -> String {
    format!(
        "listener 1883 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest stderr\nlog_type all\ninclude_dir {}\n",
        gateway.home().join("run/handoff").display()
    )
}

/// Until mosquitto listens, nobody takes the message.
fn publish(gateway: &Gateway, mosquitto: &Process, message: &str) -> Done {
    let arguments = ["-h", "127.0.0.1", "-q", "1", "-t", "az/messages/events/", "-m", message];
    let published = || {
        mosquitto.lives()?;
        Ok(Command::new("mosquitto_pub").args(arguments).output()?.status.success())
    };
    gateway.wait("mosquitto to take a message", published)
}

/// Asks for the device's twin, as a local program would: the answer has to come all the way back.
fn twin() -> Done {
    let arguments = ["-h", "127.0.0.1", "-V", "mqttv311", "-q", "1", "-W", "60", "-e", "az/twin/res/200/?$rid=7", "-n"];
    let output = Command::new("mosquitto_rr").args(arguments).args(["-t", "az/twin/GET/?$rid=7"]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if printed.trim() == r#"{"desired":{"$version":1},"reported":{"$version":1}}"# {
        return Ok(());
    }
    Err(format!("no twin, {}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn arrived(gateway: &Gateway, hub: &str, message: &str) -> Done<bool> {
    let all = gateway.emulator.command("telemetry")?;
    let topic = format!("devices/{DEVICE}/messages/events/");
    let is_it = |one: &serde_json::Value| one["hub"] == hub && one["topic"] == topic && one["payload"] == message;
    Ok(all.as_array().is_some_and(|all| all.iter().any(is_it)))
}
