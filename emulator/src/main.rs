//! `dps-emulator`: serves a configuration until it is told to stop.

#![expect(clippy::disallowed_methods, reason = "a program for a developer's machine; its table is redrawn by the clock")]

mod table;

use clap::{Parser, Subcommand};
use dps_emulator::{Config, Control, Emulator};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// sysexits(3).
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const IO: u8 = 74;
const CONFIG: u8 = 78;

/// A strict stand-in for the Azure IoT Hub Device Provisioning Service and an IoT Hub
#[derive(Debug, Parser)]
#[command(name = "dps-emulator", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until SIGTERM or SIGINT
    Serve {
        /// The configuration: [service], [[enrollment]], [[group]], [service_api], [entra]
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// A Unix socket that takes commands, one on a line: README.md lists them
        #[arg(long, value_name = "PATH")]
        control: Option<PathBuf>,
        /// Show no table, even on a terminal
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { verb: Verb::Serve { config, control, json } }) => serve(&config, control.as_deref(), json),
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

fn serve(config: &Path, control: Option<&Path>, json: bool) -> ExitCode {
    let config = match Config::from_file(config) {
        Ok(config) => config,
        Err(error) => return fail(CONFIG, &error),
    };
    let emulator = match Emulator::start(config) {
        Ok(emulator) => Arc::new(emulator),
        Err(error) => return fail(UNAVAILABLE, &error),
    };
    let control = match control.map(|path| Control::open(path, &emulator)).transpose() {
        Ok(control) => control,
        Err(error) => return fail(UNAVAILABLE, &error),
    };
    // Whoever reads the announcement may send a signal at once.
    let stop = match Stop::new().and_then(|stop| announce(&emulator).map(|()| stop)) {
        Ok(stop) => stop,
        Err(error) => return fail(IO, &error),
    };
    if json || !std::io::stderr().is_terminal() {
        stop.wait();
    } else {
        table::show_while(&emulator, || stop.wait());
    }
    drop(control);
    ExitCode::SUCCESS
}

/// One line for whoever started this, flushed, so that it can wait for it.
fn announce(emulator: &Emulator) -> std::io::Result<()> {
    let line = serde_json::json!({
        "mqttPort": emulator.mqtt_port(),
        "httpsPort": emulator.https_port(),
        "managedIdentityPort": emulator.managed_identity_port(),
        "caFile": emulator.ca_file(),
        "idScope": emulator.id_scope(),
    });
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// The signals that end the program.
struct Stop {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From now on a signal is not the sudden end.
    fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(entered);
        Ok(Self { runtime, terminate, interrupt })
    }

    fn wait(mut self) {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        });
    }
}

/// Prints an error with all its causes.
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "dps-emulator: {text}");
    ExitCode::from(code)
}
