//! The command line. Verbs and options are those of `az iot dps` where it has them; keys and secrets come from files, the environment
//! or the standard input, never from an argument, which everybody on the machine can read.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cloud::Cloud;
use crate::id::{DeviceId, EnrollmentId};
use crate::output::Format;
use crate::settings::Settings;
use crate::sign_in::Source;

/// Enrolls devices with the Azure IoT Hub Device Provisioning Service.
#[derive(Debug, Parser)]
#[command(name = "dps-factory", version, max_term_width = 120, subcommand_required = true)]
pub struct Arguments {
    /// What is printed on stdout
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    /// Say on stderr how we signed in
    #[arg(long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enroll devices from what dps-agent identity printed
    Enroll(Enroll),
    /// Single devices
    #[command(subcommand)]
    Enrollment(Enrollment),
    /// Many devices under one key or CA
    #[command(subcommand)]
    EnrollmentGroup(EnrollmentGroup),
    /// What became of devices that registered
    #[command(subcommand)]
    Registration(Registration),
    /// How an enrollment or a group proves itself, with its keys
    #[command(subcommand)]
    Attestation(Attestation),
    /// Derive devices' keys from a group's key
    #[command(alias = "compute-device-key")]
    DeriveKey(DeriveKey),
    /// Write a gateway's configuration and key into an image
    Config(Config),
    /// Print the permissions that commands need, or a role that holds them
    Permissions(Permissions),
}

/// How the service is reached, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "The service")]
pub struct Connection {
    /// The DPS instance: its name, or its host name if it has a dot
    #[arg(long, short = 'n', env = "DPS_NAME", value_name = "NAME")]
    pub dps_name: Option<String>,
    /// Microsoft Entra ID, or a shared access policy's key
    #[arg(long, alias = "auth-type", value_name = "AUTH", default_value = "entra")]
    pub auth: Auth,
    /// By what to sign in to Entra ID
    #[arg(long, value_name = "CREDENTIAL", default_value = "auto")]
    pub credential: Source,
    /// The directory (tenant)
    #[arg(long, env = "AZURE_TENANT_ID", value_name = "ID")]
    pub tenant_id: Option<String>,
    /// The application, or the user-assigned managed identity
    #[arg(long, env = "AZURE_CLIENT_ID", value_name = "ID")]
    pub client_id: Option<String>,
    /// A file with the application's secret, - for stdin; else AZURE_CLIENT_SECRET
    #[arg(long, value_name = "FILE")]
    pub client_secret_file: Option<PathBuf>,
    /// A PEM file with the application's certificate and RSA key
    #[arg(long, env = "AZURE_CLIENT_CERTIFICATE_PATH", value_name = "FILE")]
    pub client_certificate_file: Option<PathBuf>,
    /// A file with the token of Kubernetes or of a pipeline
    #[arg(long, env = "AZURE_FEDERATED_TOKEN_FILE", value_name = "FILE")]
    pub federated_token_file: Option<PathBuf>,
    /// With --auth key: a file with the policy's connection string, - for stdin; else DPS_CONNECTION_STRING
    #[arg(long, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
    /// Which cloud
    #[arg(long, value_name = "CLOUD", default_value = "public")]
    pub cloud: Cloud,
    /// Where identities sign in, instead of the cloud's own
    #[arg(long, env = "AZURE_AUTHORITY_HOST", value_name = "URL")]
    pub authority_host: Option<String>,
    /// For whom tokens are asked
    #[arg(long, value_name = "URL", default_value = crate::cloud::AUDIENCE)]
    pub audience: String,
    /// Root certificates in PEM, trusted in addition to the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Operations a minute that this run may use; the service allows an instance 1000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Microsoft Entra ID
    #[value(alias = "login")]
    Entra,
    /// A shared access policy's key
    Key,
}

#[derive(Debug, Args)]
pub struct Enroll {
    /// Files, folders (their .json, .jsonl and .csv files), or - for stdin
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// Where symmetric keys are, or will be made: ID.key and ID.secondary.key
    #[arg(long, value_name = "FOLDER")]
    pub keys: Option<PathBuf>,
    /// Let the service make the symmetric keys
    #[arg(long, conflicts_with = "keys")]
    pub service_keys: bool,
    /// Compare symmetric keys with those of the service, too
    #[arg(long, requires = "keys")]
    pub check_keys: bool,
    /// Change what is enrolled otherwise; without it, it is only shown
    #[arg(long)]
    pub update: bool,
    /// Ask the service, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write a file for each device: ID.json
    #[arg(long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,
    /// Only devices whose report says that they failed
    #[arg(long, requires = "report")]
    pub only_failed: bool,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub connection: Connection,
}

/// The name of an enrollment.
#[derive(Debug, Args)]
pub struct EnrollmentName {
    /// The registration ID
    #[arg(long, alias = "eid", value_name = "ID")]
    pub enrollment_id: EnrollmentId,
}

/// The name of a group.
#[derive(Debug, Args)]
pub struct GroupName {
    /// The group's ID
    #[arg(long, aliases = ["eid", "gid", "group-id"], value_name = "ID")]
    pub enrollment_id: EnrollmentId,
}

/// How much of a list.
#[derive(Debug, Args)]
pub struct Top {
    /// No more than so many; all if it is not given
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
}

#[derive(Debug, Args)]
pub struct ShowKeys {
    /// With the keys, which need a permission of their own
    #[arg(long, alias = "keys")]
    pub show_keys: bool,
}

#[derive(Debug, Args)]
pub struct Etag {
    /// Only if the record still has this ETag; * is any
    #[arg(long, short = 'e', value_name = "ETAG", default_value = "*")]
    pub etag: String,
}

/// Which records of a query.
#[derive(Debug, Args)]
pub struct Query {
    /// Such as "SELECT * FROM enrollments"
    #[arg(value_name = "SQL")]
    pub query: String,
    #[command(flatten)]
    pub top: Top,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Subcommand)]
pub enum Enrollment {
    /// All of them
    List {
        #[command(flatten)]
        top: Top,
        #[command(flatten)]
        connection: Connection,
    },
    /// One of them
    Show {
        #[command(flatten)]
        name: EnrollmentName,
        #[command(flatten)]
        keys: ShowKeys,
        #[command(flatten)]
        connection: Connection,
    },
    /// Those that a query of the service finds
    Query(Query),
    /// A new one
    Create(Box<EnrollmentRecord>),
    /// Change one; what is not named stays
    Update(Box<EnrollmentRecord>),
    /// Delete them
    Delete {
        /// Registration IDs
        #[arg(long, alias = "eid", value_name = "ID", num_args = 1.., required = true)]
        enrollment_id: Vec<EnrollmentId>,
        #[command(flatten)]
        etag: Etag,
        #[command(flatten)]
        connection: Connection,
    },
}

/// An individual enrollment as the command line has it.
#[derive(Debug, Args)]
pub struct EnrollmentRecord {
    #[command(flatten)]
    pub name: EnrollmentName,
    /// How the device proves itself; create needs it
    #[arg(long, alias = "at", value_name = "TYPE")]
    pub attestation_type: Option<AttestationType>,
    /// x509: the device's certificate
    #[arg(long, alias = "cp", value_name = "FILE")]
    pub certificate_path: Option<PathBuf>,
    /// x509: a second certificate
    #[arg(long, alias = "scp", value_name = "FILE")]
    pub secondary_certificate_path: Option<PathBuf>,
    /// tpm: the endorsement key, base64 of TPM2B_PUBLIC
    #[arg(long, alias = "ek", value_name = "BASE64")]
    pub endorsement_key: Option<String>,
    /// symmetricKey: a file with the key, - for stdin; without it the service makes one
    #[arg(long, value_name = "FILE")]
    pub primary_key_file: Option<PathBuf>,
    /// symmetricKey: a file with a second key
    #[arg(long, value_name = "FILE", requires = "primary_key_file")]
    pub secondary_key_file: Option<PathBuf>,
    /// The device's name at the hub, if it is not the registration ID
    #[arg(long, alias = "did", value_name = "ID")]
    pub device_id: Option<DeviceId>,
    /// What else to know of the device, JSON
    #[arg(long, alias = "info", value_name = "JSON")]
    pub device_information: Option<String>,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub etag: Etag,
    #[command(flatten)]
    pub connection: Connection,
}

/// The service's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub enum AttestationType {
    SymmetricKey,
    X509,
    Tpm,
}

#[derive(Debug, Subcommand)]
pub enum EnrollmentGroup {
    /// All of them
    List {
        #[command(flatten)]
        top: Top,
        #[command(flatten)]
        connection: Connection,
    },
    /// One of them
    Show {
        #[command(flatten)]
        name: GroupName,
        #[command(flatten)]
        keys: ShowKeys,
        #[command(flatten)]
        connection: Connection,
    },
    /// Those that a query of the service finds
    Query(Query),
    /// A new one; without a certificate or CA its devices have keys derived from the group's
    Create(Box<GroupRecord>),
    /// Change one; what is not named stays
    Update(Box<GroupRecord>),
    /// Delete one; its devices' registrations stay, see registration delete
    Delete {
        #[command(flatten)]
        name: GroupName,
        #[command(flatten)]
        etag: Etag,
        #[command(flatten)]
        connection: Connection,
    },
}

/// An enrollment group as the command line has it.
#[derive(Debug, Args)]
pub struct GroupRecord {
    #[command(flatten)]
    pub name: GroupName,
    /// The certificate of the intermediate CA that issues the devices'
    #[arg(long, alias = "cp", value_name = "FILE", conflicts_with_all = ["ca_name", "primary_key_file"])]
    pub certificate_path: Option<PathBuf>,
    /// A second one
    #[arg(long, alias = "scp", value_name = "FILE", requires = "certificate_path")]
    pub secondary_certificate_path: Option<PathBuf>,
    /// The name of a CA's certificate that was uploaded to the instance and verified
    #[arg(long, aliases = ["cn", "root-ca-name"], value_name = "NAME", conflicts_with = "primary_key_file")]
    pub ca_name: Option<String>,
    /// A second one
    #[arg(long, aliases = ["scn", "secondary-root-ca-name"], value_name = "NAME", requires = "ca_name")]
    pub secondary_ca_name: Option<String>,
    /// A file with the group's key, - for stdin; without it the service makes one
    #[arg(long, value_name = "FILE")]
    pub primary_key_file: Option<PathBuf>,
    /// A file with a second key
    #[arg(long, value_name = "FILE", requires = "primary_key_file")]
    pub secondary_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub etag: Etag,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Subcommand)]
pub enum Registration {
    /// One device's
    Show {
        /// The registration ID
        #[arg(long, alias = "rid", value_name = "ID")]
        registration_id: EnrollmentId,
        #[command(flatten)]
        connection: Connection,
    },
    /// Those of a group's devices
    List {
        #[command(flatten)]
        name: GroupName,
        #[command(flatten)]
        top: Top,
        #[command(flatten)]
        connection: Connection,
    },
    /// Let the service forget a registration; neither the enrollment nor the device at the hub is deleted
    Delete {
        /// Registration IDs
        #[arg(long, alias = "rid", value_name = "ID", num_args = 1.., required = true)]
        registration_id: Vec<EnrollmentId>,
        #[command(flatten)]
        etag: Etag,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub enum Attestation {
    /// Print it; keys are secrets
    Show {
        /// An individual enrollment
        #[arg(long, alias = "eid", value_name = "ID", required_unless_present = "group_id", conflicts_with = "group_id")]
        enrollment_id: Option<EnrollmentId>,
        /// A group
        #[arg(long, alias = "gid", value_name = "ID")]
        group_id: Option<EnrollmentId>,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Args)]
pub struct DeriveKey {
    /// Registration IDs, in the devices' exact spelling
    #[arg(long, alias = "rid", value_name = "ID", num_args = 1.., required = true)]
    pub registration_id: Vec<EnrollmentId>,
    /// The group whose primary key is read from the service
    #[arg(long, aliases = ["eid", "gid", "group-id"], value_name = "ID", required_unless_present = "key_file", conflicts_with = "key_file")]
    pub enrollment_id: Option<EnrollmentId>,
    /// A file with the group's key, - for stdin
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Write each key into a file ID.key in this folder, and print none
    #[arg(long, value_name = "FOLDER")]
    pub keys: Option<PathBuf>,
    #[command(flatten)]
    pub connection: Connection,
}

#[derive(Debug, Args)]
pub struct Config {
    /// The top of the image, under which /etc/dps-agent is
    #[arg(long, value_name = "FOLDER")]
    pub root: PathBuf,
    /// The ID scope of the DPS instance
    #[arg(long, value_name = "SCOPE")]
    pub id_scope: String,
    /// Where devices find DPS, if it is not the global endpoint
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// How the gateway proves itself
    #[arg(long, alias = "at", value_name = "TYPE")]
    pub attestation_type: AttestationType,
    /// Its registration ID; a TPM and a certificate bring their own
    #[arg(long, alias = "rid", value_name = "ID", conflicts_with = "registration_id_from")]
    pub registration_id: Option<EnrollmentId>,
    /// Where the gateway reads its registration ID from, such as dmi-serial
    #[arg(long, value_name = "SOURCE")]
    pub registration_id_from: Option<String>,
    /// symmetricKey: a file with the device's key, - for stdin
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// symmetricKey: a file with its second key
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub secondary_key_file: Option<PathBuf>,
    /// x509: the device's certificate and the intermediates, PEM
    #[arg(long, value_name = "FILE")]
    pub certificate_file: Option<PathBuf>,
    /// x509: its private key, PEM
    #[arg(long, value_name = "FILE")]
    pub private_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Permissions {
    /// Commands, such as enroll or "enrollment list"; all if none is given
    #[arg(value_name = "COMMAND")]
    pub commands: Vec<String>,
    /// Also what their options may need, such as --check-keys
    #[arg(long)]
    pub with_options: bool,
    /// Write a custom role that holds exactly these, for az role definition create; - for stdout
    #[arg(long, value_name = "FILE")]
    pub role_definition: Option<PathBuf>,
    /// The role's name
    #[arg(long, value_name = "NAME", default_value = "DPS factory")]
    pub role_name: String,
    /// Where the role may be assigned: a subscription, a resource group, or a management group
    #[arg(long, value_name = "SCOPE", default_value = "/subscriptions/00000000-0000-0000-0000-000000000000")]
    pub assignable_scope: String,
}
