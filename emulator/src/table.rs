//! The live table of devices on a terminal, redrawn in place.

use dps_emulator::{DeviceState, Emulator};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// No faster than the eye.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a table may stand before the end of the program is looked for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Shows the table on stderr until `body` returns, and returns what it returned.
pub(crate) fn show_while<T>(emulator: &Emulator, body: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| show(emulator, &ended));
        let result = body();
        ended.store(true, Ordering::Relaxed);
        result
    })
}

fn show(emulator: &Emulator, ended: &AtomicBool) {
    let (mut seen, mut shown) = (0, String::new());
    while !ended.load(Ordering::Relaxed) {
        seen = emulator.wait_for_change(seen, PATIENCE);
        let text = table(emulator);
        if text != shown {
            let up = match shown.lines().count() {
                0 => String::new(),
                drawn => format!("\x1b[{drawn}A"),
            };
            // Up to the first line, clear from there; long lines are cut by the terminal rather than wrapped.
            let _ = write!(std::io::stderr(), "{up}\r\x1b[J\x1b[?7l{text}\x1b[?7h");
            shown = text;
        }
        std::thread::sleep(PAUSE);
    }
}

fn table(emulator: &Emulator) -> String {
    let mut text = format!("dps-emulator  MQTT {}  HTTPS {}\n", emulator.mqtt_port(), emulator.https_port());
    let head = ["REGISTRATION ID", "ATTESTATION", "TRANSPORT", "HUB", "CONNECTED", "MESSAGES", "LAST STEP"];
    let rows: Vec<[String; 7]> = emulator.devices().into_iter().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or_default()).collect();
    for row in std::iter::once(head.map(str::to_owned)).chain(rows.iter().cloned()) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn row(device: DeviceState) -> [String; 7] {
    let none = || "-".to_owned();
    let connected = if device.is_connected { "yes" } else { "no" };
    // The body of an answer would fill the line.
    let step = device.last_step.split(" {").next().unwrap_or_default().to_owned();
    [
        device.registration_id,
        device.attestation,
        device.transport.map_or_else(none, str::to_owned),
        device.hub.unwrap_or_else(none),
        connected.to_owned(),
        device.messages.to_string(),
        if step.is_empty() { none() } else { step },
    ]
}
