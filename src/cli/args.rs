//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Registers this device with the Azure IoT Hub Device Provisioning Service and hands its hub to the programs here.
#[derive(Debug, Parser)]
#[command(name = "dps-agent", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    /// Read this configuration file, and no drop-ins
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object on stdout, for machines
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Register, hand off, and stay: the daemon
    Run,
    /// Register once, or print the assignment that there is
    Provision(Provision),
    /// Print what is known of the assignment
    Status,
    /// Look for what stands in the way: configuration, files, clock, network, DPS, hub
    Check(Check),
    /// Show or validate the configuration
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, Args)]
pub struct Provision {
    /// How long to try, such as 60s, 5m or 1h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
    /// Register anew, even where there is a valid assignment
    #[arg(long)]
    pub force: bool,
    /// Write the conversation with DPS, free of secrets, to this file
    #[arg(long, value_name = "FILE")]
    pub transcript: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Only what can be checked without a network
    #[arg(long)]
    pub offline: bool,
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print the merged configuration and where each value comes from
    Show,
    /// Say whether it is valid, and what is wrong
    Validate,
}

const EXIT_CODES: &str = "\
Exit codes (sysexits):
   0  done
  64  usage: the command line is wrong
  69  the service refuses this device for good
  71  the TPM is not there, is locked, or fails
  73  the state or runtime directory cannot be written
  74  reading or writing there failed
  75  it may still come right: network, clock, a busy service, the hub refuses so far
  76  the peer is not to be trusted, or breaks the protocol
  77  a key or certificate is missing, unreadable, open to others, or refused
  78  the configuration is wrong";

/// `90`, `90s`, `5m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "write a number and a unit, such as 60s, 5m or 1h".to_owned())?;
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => return Err(format!("{other:?} is no unit; write s, m or h, such as 60s")),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "that is longer than there is time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blame::Blame;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("0", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        assert_eq!(duration("5d").unwrap_err(), "\"d\" is no unit; write s, m or h, such as 60s");
        for bad in ["", "s", "-1s", "1.5h", "abc"] {
            assert_eq!(duration(bad).unwrap_err(), "write a number and a unit, such as 60s, 5m or 1h", "{bad}");
        }
        assert_eq!(duration("99999999999999999999h").unwrap_err(), "write a number and a unit, such as 60s, 5m or 1h");
        assert_eq!(duration("9999999999999999h").unwrap_err(), "that is longer than there is time");
    }

    #[test]
    fn options_stand_before_or_after_the_verb() {
        for line in [["dps-agent", "--config", "f", "status", "--json"], ["dps-agent", "status", "--json", "--config", "f"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!((cli.config, cli.json), (Some("f".into()), true));
        }
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        for blame in Blame::ALL {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", blame.exit_code())), "{blame}");
        }
    }
}
