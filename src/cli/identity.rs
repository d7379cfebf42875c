//! `identity`: what an operator needs to enroll this device, for people, programs and tables.

use super::args::{self, Cli};
use super::output;
use super::verbs::{Ended, load, surroundings};
use crate::agent::Surroundings;
use crate::attestation;
use crate::blame::Blame;
use crate::failure::Failure;
use crate::identity::CSV_HEADER;
use crate::progress::Progress;
use crate::transcript::Transcript;

/// `identity`
pub async fn identity(cli: &Cli, options: &args::Identity) -> Ended {
    if cli.json && (options.csv || options.csv_header) {
        return Err(Failure::new(Blame::Usage, "--json and --csv are two forms of one answer; write one of them"));
    }
    let config = load(cli)?;
    let Surroundings { root, credentials, .. } = surroundings(Transcript::log_only(), Progress::Silent);
    let enrollment = attestation::enrollment(&config.attestation, &root, credentials.as_deref()).await?;
    if cli.json {
        output::print_json(&enrollment.to_json())?;
    } else if options.csv_header {
        output::print(&format!("{CSV_HEADER}\n{}\n", enrollment.csv_line()))?;
    } else if options.csv {
        output::print(&format!("{}\n", enrollment.csv_line()))?;
    } else {
        output::print(&enrollment.to_string())?;
    }
    Ok(0)
}
