//! The control socket: commands to a running emulator, one on a line, and an answer in JSON on a line for each.

use crate::emulator::{DeviceState, Emulator};
use crate::hub::{IdentityState, Telemetry};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open control socket. Its file goes with it; who is connected may go on.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
}

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}", path = path.display())]
pub struct ControlError {
    path: PathBuf,
    source: std::io::Error,
}

impl Control {
    /// Answers at `path` from now on, for this user alone. What a killed emulator left there is replaced. The commands are in
    /// the README.
    ///
    /// # Errors
    /// When something else is there, or the directory cannot be written.
    pub fn open(path: &Path, emulator: &Arc<Emulator>) -> Result<Self, ControlError> {
        let failed = |source| ControlError { path: path.to_owned(), source };
        let listener = listen(path).map_err(failed)?;
        let emulator = Arc::clone(emulator);
        let accept = move || listener.incoming().flatten().for_each(|stream| serve(stream, &emulator));
        std::thread::Builder::new().name("control".to_owned()).spawn(accept).map_err(failed)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Each client has a thread of its own, so that an idle one is in nobody's way.
fn serve(stream: UnixStream, emulator: &Arc<Emulator>) {
    let emulator = Arc::clone(emulator);
    let talk = move || {
        for line in BufReader::new(&stream).lines().map_while(Result::ok) {
            if writeln!(&stream, "{}", answer(&emulator, &line)).is_err() {
                return;
            }
        }
    };
    let _ = std::thread::Builder::new().spawn(talk);
}

/// Does what a line says.
fn answer(emulator: &Emulator, line: &str) -> Value {
    let (command, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let (name, more) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
    let result = match (command, name, more) {
        ("devices" | "identities" | "sessions" | "telemetry", "", "") => Ok(told(emulator, command)),
        ("faults", name, faults) if !name.is_empty() => set_faults(emulator, name, faults),
        ("move", name, hub) if !hub.is_empty() => done(emulator.move_hub_now(name, hub)),
        ("assign", name, hub) if !hub.is_empty() => done(emulator.move_hub(name, hub)),
        (command, name, "") if !name.is_empty() => about_one(emulator, command, name),
        _ => Err(unknown(line)),
    };
    result.unwrap_or_else(|error| json!({"error": error}))
}

fn unknown(line: &str) -> String {
    format!("{line:?} is no command; dps-emulator's README lists them")
}

fn about_one(emulator: &Emulator, command: &str, name: &str) -> Result<Value, String> {
    match command {
        "enable" => done(emulator.set_enabled(name, true)),
        "disable" => done(emulator.set_enabled(name, false)),
        "delete-enrollment" => done(emulator.remove(name)),
        "restore-enrollment" => done(emulator.enroll_again(name)),
        "enable-identity" => done(emulator.set_enabled_at_hub(name, true)),
        "disable-identity" => done(emulator.set_enabled_at_hub(name, false)),
        "delete-identity" => done(emulator.remove_from_hub(name)),
        "restore-identity" => done(emulator.add_to_hub(name)),
        "requests" => Ok(requests(emulator, name)),
        "transcript" => Ok(json!(emulator.transcript(name))),
        _ => Err(unknown(&format!("{command} {name}"))),
    }
}

fn done<E: std::fmt::Display>(result: Result<(), E>) -> Result<Value, String> {
    result.map(|()| json!({"ok": true})).map_err(|error| error.to_string())
}

/// `-` is the service; the faults are separated by semicolons, and none at all ends them.
fn set_faults(emulator: &Emulator, name: &str, faults: &str) -> Result<Value, String> {
    let faults: Vec<&str> = faults.split(';').map(str::trim).filter(|fault| !fault.is_empty()).collect();
    match name {
        "-" => done(emulator.set_service_faults(&faults)),
        _ => done(emulator.set_faults(name, &faults)),
    }
}

fn requests(emulator: &Emulator, name: &str) -> Value {
    let requests = emulator.requests(name);
    json!({
        "connections": requests.connections,
        "challenges": requests.challenges,
        "registrations": requests.registrations,
        "queries": requests.queries,
        "lookups": requests.lookups,
    })
}

fn told(emulator: &Emulator, command: &str) -> Value {
    match command {
        "devices" => emulator.devices().into_iter().map(device).collect(),
        "identities" => emulator.identities().into_iter().map(identity).collect(),
        "sessions" => emulator.identities().into_iter().filter(|identity| identity.is_connected).map(identity).collect(),
        _ => emulator.telemetry().into_iter().map(message).collect(),
    }
}

fn device(device: DeviceState) -> Value {
    json!({
        "registrationId": device.registration_id,
        "attestation": device.attestation,
        "transport": device.transport,
        "lastStep": device.last_step,
        "hub": device.hub,
        "connected": device.is_connected,
    })
}

fn identity(identity: IdentityState) -> Value {
    json!({
        "hub": identity.hub,
        "deviceId": identity.device_id,
        "registrationId": identity.registration_id,
        "enabled": identity.is_enabled,
        "connected": identity.is_connected,
        "connections": identity.connections,
        "messages": identity.messages,
    })
}

fn message(message: Telemetry) -> Value {
    json!({
        "hub": message.hub,
        "deviceId": message.device,
        "topic": message.topic,
        "payload": String::from_utf8_lossy(&message.payload),
    })
}
