//! The cases of a shell script on the gateway: the README's `curl` examples, run as they stand there against a running agent; what
//! they print is enough to send a message.

use std::process::Command;

use serde_json::Value;

use super::gateway::{DEVICE, Gateway, HUBS};
use super::story::Story;
use crate::Done;
use crate::credentials::Certificate;
use crate::hub::{self, Hub};
use crate::workspace;

/// Where the agent's sockets are, for readers.
const RUNTIME: &str = "/run/dps-agent";

/// All examples, in their order.
pub const STORY: Story = Story { client: "curl", name: "readme", handoff: "", tell: |gateway, _| each_example(gateway) };

fn each_example(gateway: &Gateway) -> Done<String> {
    let readme = std::fs::read_to_string(workspace::root().join("README.md"))?;
    let examples: Vec<&str> = readme.lines().filter(|line| line.starts_with("curl --unix-socket ")).collect();
    let mut connections = 0;
    for example in &examples {
        let printed = run(gateway, example)?;
        if example.contains("/v1/connection") {
            connect(gateway, &printed).map_err(|error| format!("{example}: {error}"))?;
            connections += 1;
        }
    }
    if connections == 0 {
        return Err("the README has no example of a connection".into());
    }
    Ok(format!("{} of the README, {connections} message with what it prints", examples.len()))
}

fn run(gateway: &Gateway, example: &str) -> Done<Value> {
    let runtime = gateway.home().join("run").display().to_string();
    let command = example.replace("curl ", "curl --silent --show-error --fail-with-body ").replace(RUNTIME, &runtime);
    let output = Command::new("sh").args(["-c", &command]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{example}: {printed}{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    serde_json::from_str(&printed).map_err(|error| format!("{example}: {error}: {printed}").into())
}

/// Sends a message with nothing but what the answer says.
fn connect(gateway: &Gateway, connection: &Value) -> Done {
    let text = |name: &str| connection[name].as_str().ok_or_else(|| format!("no {name}"));
    let port = connection["port"].as_u64().and_then(|port| u16::try_from(port).ok()).ok_or("no port")?;
    let way = Hub { host: text("host")?, port, roots: text("caFile")?.into() };
    let before = gateway.messages(HUBS[0])?;
    let certificate = match connection["certificateFile"].as_str() {
        None => None,
        Some(file) => Some(Certificate { certificate: file.into(), private_key: text("privateKeyFile")?.into() }),
    };
    let token = if certificate.is_some() { "" } else { text("password")? };
    if (text("clientId")?, text("username")?) != (DEVICE, &format!("{}/{DEVICE}/?api-version=2021-04-12", HUBS[0])) {
        return Err("another device".into());
    }
    hub::send_as(&way, DEVICE, token, certificate.as_ref(), "hello")?;
    gateway.wait("the message", || Ok(gateway.messages(HUBS[0])? == before + 1))
}
