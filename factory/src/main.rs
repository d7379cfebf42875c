//! `dps-factory`: enrolls devices with the Azure IoT Hub Device Provisioning Service. It runs on a bench PC or in a pipeline, never on a
//! device: the rights that it uses let devices in.
//!
//! The way through it: `args` says what is wanted, `connect` signs in (`sign_in`, `sas`) and makes a `service` that keeps to its `pace`,
//! a verb asks it. `enroll` is the long one: `input` reads and judges what `dps-agent identity` printed, `settings` compares it with what
//! is there, `report` tells how it stands.

mod args;
mod assertion;
mod certificate;
mod clock;
mod cloud;
mod connect;
mod endorsement;
mod enroll;
mod environment;
mod failure;
mod files;
mod gateway;
mod http;
mod id;
mod input;
mod keys;
mod output;
mod pace;
mod patience;
mod permission;
mod progress;
mod report;
mod sas;
mod secret;
mod service;
mod settings;
mod sign_in;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use args::Arguments;
use failure::{Blame, Failure};
use output::Format;

fn main() -> ExitCode {
    keep_memory_private();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is the only way in which this fails.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(Blame::Usage.exit_code()) };
        }
    };
    let format = arguments.output;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(verbs::run(arguments)),
        Err(error) => Err(Failure::new(Blame::Unwritable, format!("cannot begin: {error}"))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("dps-factory: {failure}");
            // The rows of a run that is incomplete are the output already.
            if matches!(format, Format::Json | Format::Jsonl) && failure.blame != Blame::Incomplete {
                let _ = output::write(&format!("{}\n", failure.to_json()));
            }
            ExitCode::from(failure.blame.exit_code())
        }
    }
}

/// Keys and tokens are in it: no core dump, and no look into it by other programs of the same user.
fn keep_memory_private() {
    // A kernel that forbids either leaves us where every other program is.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
