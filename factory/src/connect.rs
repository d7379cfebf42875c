//! From the command line to a service that can be asked: which instance, by which credential.

use std::path::Path;

use crate::args::{Auth, Connection};
use crate::failure::{Blame, Failure};
use crate::sas::PolicyKey;
use crate::secret::{self, SecretText};
use crate::service::{Credential, Service};
use crate::sign_in::SignIn;
use crate::{environment, http};

/// Signs in, and says on stderr how, if `verbose`.
///
/// # Errors
/// If nobody can be asked as the command line wants it.
pub async fn connect(connection: Connection, verbose: bool) -> Result<Service, Failure> {
    let transport = http::secure(connection.ca_file.as_deref())?;
    let rate = connection.rate;
    let named = connection.dps_name.as_deref().map(|name| connection.cloud.host(name));
    if connection.auth == Auth::Key {
        let key = policy(connection.policy_file.as_deref())?;
        let host = host_of(&key, named)?;
        return Ok(Service::new(host, Credential::Key(key), transport, rate));
    }
    let host = named.ok_or_else(|| Failure::new(Blame::Usage, "which DPS instance? give --dps-name NAME, or set DPS_NAME"))?;
    let authority = connection.authority_host.unwrap_or_else(|| connection.cloud.authority().to_owned());
    let sign_in = SignIn {
        source: connection.credential,
        tenant: connection.tenant_id,
        client: connection.client_id,
        secret_file: connection.client_secret_file,
        certificate_file: connection.client_certificate_file,
        federated_token_file: connection.federated_token_file,
        authority: if authority.contains("://") { authority } else { format!("https://{authority}") },
        audience: connection.audience,
        transport: transport.clone(),
    };
    let signed_in = sign_in.sign_in().await?;
    if verbose {
        eprintln!("{}", signed_in.account);
    }
    Ok(Service::new(host, Credential::Entra(signed_in, sign_in.scope()), transport, rate))
}

fn policy(file: Option<&Path>) -> Result<PolicyKey, Failure> {
    let (text, from) = match file {
        Some(file) => (secret::read(file)?, file.display().to_string()),
        None => {
            let text = environment::var("DPS_CONNECTION_STRING");
            let cure =
                "--auth key needs the policy's connection string: --policy-file FILE (- for stdin), or DPS_CONNECTION_STRING";
            (SecretText::new(&text.ok_or_else(|| Failure::new(Blame::Credential, cure))?), "DPS_CONNECTION_STRING".to_owned())
        }
    };
    PolicyKey::parse(text.expose()).map_err(|wrong| Failure::new(Blame::Credential, format!("{from}: {wrong}")))
}

/// The key's own instance; naming another one would send its signature to somebody else, to no effect.
fn host_of(key: &PolicyKey, named: Option<String>) -> Result<String, Failure> {
    let without_port = |host: &str| host.split(':').next().unwrap_or_default().to_owned();
    match named {
        None => Ok(key.host().to_owned()),
        Some(named) if without_port(&named) == without_port(key.host()) => Ok(named),
        Some(named) => {
            let words = format!("the policy's key is of {}, and --dps-name says {named}; leave one of them out", key.host());
            Err(Failure::new(Blame::Usage, words))
        }
    }
}
