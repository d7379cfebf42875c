//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::connection::LONGEST_LIFE;
use crate::id::{DeviceId, HostName};

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
    /// Take over a device that another program provisioned: the hub key is at identity_handle already
    Adopt(Adopt),
    /// Print what is known of the assignment, and what the daemon is at
    Status(Status),
    /// Print what an operator needs to enroll this device; asks nobody, holds no secret
    Identity(Identity),
    /// Print all that a program needs to connect to the hub: names, a fresh token or the certificate's files
    Connection(Token),
    /// Mint a token with which this device can connect to its hub
    Token(Token),
    /// Have the daemon register anew
    Reprovision,
    /// Look for what stands in the way: configuration, files, clock, network, DPS, hub
    Check(Check),
    /// Write what support needs to know of this gateway, free of secrets
    Diag(Diag),
    /// Remove what the agent has written on this machine: an image is blank again
    Reset(Reset),
    /// Take over the configuration of another provisioning program
    #[command(subcommand)]
    Migrate(Migrate),
    /// Show or validate the configuration
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, Args)]
pub struct Reset {
    /// Do it; without this nothing is removed, and what would be is printed
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Microsoft's IoT Identity Service, with IoT Edge or alone
    Aziot(Aziot),
}

#[derive(Debug, Args)]
pub struct Aziot {
    /// Its configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/aziot/config.toml")]
    pub from: PathBuf,
    /// Where ours goes: a drop-in below config.d, and files for keys and passwords
    #[arg(long, value_name = "DIRECTORY", default_value = "/etc/dps-agent")]
    pub to: PathBuf,
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
pub struct Adopt {
    /// The hub that accepts the key; without it DPS is asked where the device is assigned
    #[arg(long, value_name = "HOST")]
    pub hub: Option<HostName>,
    /// The device's name at the hub, where it is not the registration ID
    #[arg(long, value_name = "ID", requires = "hub")]
    pub device_id: Option<DeviceId>,
    /// How long to try, such as 60s, 5m or 1h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct Identity {
    /// Print one line of CSV: registrationId,attestation,endorsementKey,storageRootKey,sha1Thumbprint,sha256Thumbprint,certificate
    #[arg(long)]
    pub csv: bool,
    /// The same with the names of the columns in a line before it
    #[arg(long)]
    pub csv_header: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Wait until there is an assignment; for ever, or so long, such as --wait=5m
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = FOR_EVER, value_parser = duration)]
    pub wait: Option<Duration>,
}

/// More seconds than a gateway lives.
const FOR_EVER: &str = "9999999999s";

#[derive(Debug, Args)]
pub struct Diag {
    /// The file to write, which must not exist yet; stdout if none is named
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Token {
    /// How long it is good, such as 10m or 8h; 24h at most
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = token_life)]
    pub expiry_in: Duration,
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

/// A time that a token may live.
fn token_life(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a token that is never good is of no use; write for instance 1h".to_owned()),
        longer if longer > LONGEST_LIFE => Err("a token lives 24h at most; ask for a new one in time".to_owned()),
        life => Ok(life),
    }
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
    fn a_token_lives_a_day_at_most() {
        assert_eq!(token_life("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(token_life("86401").unwrap_err(), "a token lives 24h at most; ask for a new one in time");
        assert_eq!(token_life("0").unwrap_err(), "a token that is never good is of no use; write for instance 1h");
        assert_eq!(token_life("1d").unwrap_err(), "\"d\" is no unit; write s, m or h, such as 60s");
        let Verb::Token(Token { expiry_in }) = Cli::try_parse_from(["dps-agent", "token"]).unwrap().verb else { panic!() };
        assert_eq!(expiry_in, Duration::from_secs(3600));
    }

    #[test]
    fn the_help_names_the_columns() {
        let help = Cli::try_parse_from(["dps-agent", "identity", "--help"]).unwrap_err().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join("");
        assert!(help.contains(crate::identity::CSV_HEADER), "{help}");
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
