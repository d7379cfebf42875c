//! The command line: what was typed, which verb does it, what is printed and with which exit code it ends.

mod args;
mod connection;
mod daemon;
mod diag;
mod identity;
mod machine;
mod output;
mod status;
mod verbs;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::blame::Blame;
use crate::failure::Failure;
use crate::tpm;
use args::{Cli, Verb};

/// The definition of the command line, from which man pages and completions are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line asks for and returns the exit code (see [`Blame`]).
pub async fn run(arguments: Vec<OsString>) -> u8 {
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error, json),
    };
    output::start_logging(matches!(cli.verb, Verb::Run), &environment);
    let code = tokio::select! {
        ended = perform(&cli) => ended.unwrap_or_else(|failure| output::failed(&failure, cli.json)),
        code = stopped(&cli.verb) => code,
    };
    // A TPM that is left in the middle of something keeps what was for us only.
    tpm::quiesce();
    code
}

async fn perform(cli: &Cli) -> Result<u8, Failure> {
    match &cli.verb {
        Verb::Run => verbs::run(cli).await,
        Verb::Provision(options) => verbs::provision(cli, options).await,
        Verb::Adopt(options) => verbs::adopt(cli, options).await,
        Verb::Status(options) => status::status(cli, options).await,
        Verb::Identity(options) => identity::identity(cli, options).await,
        Verb::Connection(options) => connection::connection(cli, options).await,
        Verb::Token(options) => connection::token(cli, options).await,
        Verb::Reprovision => daemon::reprovision(cli).await,
        Verb::Check(options) => verbs::check(cli, options).await,
        Verb::Diag(options) => diag::diag(cli, options).await,
        Verb::Reset(options) => machine::reset(cli, options),
        Verb::Migrate(args::Migrate::Aziot(options)) => machine::migrate_aziot(cli, options),
        Verb::Config(what) => verbs::config(cli, what),
    }
}

/// The exit code after SIGINT or SIGTERM, as a shell would give it. The daemon listens to them itself.
async fn stopped(verb: &Verb) -> u8 {
    const SIGINT: u8 = 2;
    const SIGTERM: u8 = 15;
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let works = !matches!(verb, Verb::Run);
    let (Ok(mut interrupt), Ok(mut terminate), true) = (signals.0, signals.1, works) else {
        return std::future::pending().await;
    };
    let number = tokio::select! {
        _ = interrupt.recv() => SIGINT,
        _ = terminate.recv() => SIGTERM,
    };
    output::end_line();
    128 + number
}

/// The one place that reads the environment.
#[expect(clippy::disallowed_methods, reason = "here it is read, and from here it is passed on")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `--help` and `--version` are answers; anything else is a usage error.
fn unparsed(error: &clap::Error, json: bool) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return output::print(&error.to_string()).map_or_else(|failure| output::failed(&failure, json), |()| 0);
    }
    let text = error.to_string();
    let message = text.trim_end();
    if json {
        output::failed(&Failure::new(Blame::Usage, message), true)
    } else {
        output::complain(message);
        Blame::Usage.exit_code()
    }
}
