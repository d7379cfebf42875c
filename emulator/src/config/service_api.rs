//! `[service_api]` and `[entra]`: who may call the service API, and the identity provider that vouches for them.

use super::read::{Wrong, key, spanned};
use crate::service_api::access::{Assignment, Place, Right, Role, is_scope};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use toml::Spanned;

/// `[service_api]`, checked.
#[derive(Debug, Clone)]
pub(crate) struct ServiceApi {
    /// The instance host: where the service API is, and what a policy's token must be made for.
    pub(crate) host: String,
    /// What a Bearer token must be made for.
    pub(crate) audience: String,
    /// The operations that are let through in a minute.
    pub(crate) operations_per_minute: u32,
    /// Whether a bulk call is one operation; otherwise each of its records is.
    pub(crate) bulk_is_one: bool,
    /// The status for a Bearer token whose roles do not allow a call.
    pub(crate) not_allowed: u16,
    /// How many records an answer holds at most.
    pub(crate) page_size: usize,
    pub(crate) place: Place,
    pub(crate) policies: Vec<Policy>,
    /// The certificates that `caReferences` can name.
    pub(crate) authorities: Vec<(String, CertificateDer<'static>)>,
}

/// A shared access policy.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) rights: Vec<Right>,
}

/// `[entra]`, checked.
#[derive(Debug, Clone)]
pub(crate) struct Entra {
    pub(crate) tenant: String,
    /// The name by which clients reach it.
    pub(crate) host: String,
    /// In seconds.
    pub(crate) token_lifetime: u64,
    /// Where the managed-identity endpoint listens, without TLS.
    pub(crate) managed_identity: Option<SocketAddr>,
    /// What the endpoint of App Service wants in `X-IDENTITY-HEADER`.
    pub(crate) identity_header: String,
    pub(crate) clients: Vec<Client>,
}

/// An application, or a managed identity, of the tenant.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) client_id: String,
    pub(crate) object_id: String,
    pub(crate) secret: Option<String>,
    pub(crate) certificate: Option<CertificateDer<'static>>,
    pub(crate) federated: Option<Federated>,
    /// Given out by the managed-identity endpoint.
    pub(crate) managed: bool,
    pub(crate) assignments: Vec<Assignment>,
}

/// A federated credential: whose tokens of another issuer stand for the client.
#[derive(Debug, Clone)]
pub(crate) struct Federated {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: String,
    /// A certificate with the key that the issuer signs with.
    pub(crate) key: CertificateDer<'static>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServiceApi {
    host: Option<String>,
    audience: Option<String>,
    operations_per_minute: Option<u32>,
    bulk_counts: Option<RawBulk>,
    not_allowed: Option<Spanned<u16>>,
    page_size: Option<Spanned<usize>>,
    resource_id: Option<Spanned<String>>,
    #[serde(default)]
    management_groups: Vec<String>,
    #[serde(default)]
    policy: Vec<Spanned<RawPolicy>>,
    #[serde(default)]
    certificate: Vec<Spanned<RawAuthority>>,
    #[serde(default)]
    role: Vec<Spanned<RawRole>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawBulk {
    Each,
    One,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    name: String,
    primary_key: String,
    secondary_key: Option<String>,
    rights: Option<Vec<Right>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthority {
    name: String,
    certificate_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRole {
    name: String,
    data_actions: Vec<String>,
    #[serde(default)]
    not_data_actions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntra {
    tenant: Option<String>,
    host: Option<String>,
    token_lifetime: Option<u64>,
    managed_identity: Option<SocketAddr>,
    identity_header: Option<String>,
    #[serde(default)]
    client: Vec<Spanned<RawClient>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    client_id: String,
    object_id: Option<String>,
    secret: Option<String>,
    certificate_file: Option<PathBuf>,
    federated: Option<RawFederated>,
    #[serde(default)]
    managed: bool,
    #[serde(default)]
    roles: Vec<Spanned<RawAssignment>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFederated {
    issuer: String,
    subject: String,
    audience: Option<String>,
    certificate_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAssignment {
    role: String,
    scope: Option<String>,
}

const RESOURCE: &str = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/factory\
     /providers/Microsoft.Devices/provisioningServices/dps";
const TENANT: &str = "00000000-0000-0000-0000-000000000002";

/// The two tables, which may be missing: then nobody may call. `host` is that of `[service]`.
pub(super) fn read(
    api: Option<Spanned<RawServiceApi>>,
    entra: Option<Spanned<RawEntra>>,
    host: &str,
) -> Result<(ServiceApi, Option<Entra>), (String, Option<usize>)> {
    let (api, roles) = match api {
        Some(api) => spanned(api, |raw| raw.checked(host))?,
        None => RawServiceApi::default().checked(host).map_err(|wrong| (wrong.message, None))?,
    };
    let entra = entra.map(|entra| spanned(entra, |raw| raw.checked(host, &roles, &api.place.resource_id)));
    Ok((api, entra.transpose()?))
}

impl RawServiceApi {
    fn checked(self, host: &str) -> Result<(ServiceApi, Vec<Role>), Wrong> {
        let mut roles = Role::built_in();
        for role in self.role {
            roles.push(inner(role, |raw| Ok(Role::new(raw.name, raw.data_actions, raw.not_data_actions)?))?);
        }
        let policies = self.policy.into_iter().map(|policy| inner(policy, RawPolicy::checked)).collect::<Result<_, _>>()?;
        let authorities =
            self.certificate.into_iter().map(|one| inner(one, |raw| Ok((raw.name, certificate(&raw.certificate_file)?))));
        let resource_id = self.resource_id.map(|id| inner(id, resource_id)).transpose()?;
        let api = ServiceApi {
            host: self.host.unwrap_or_else(|| host.to_owned()),
            audience: self.audience.unwrap_or_else(|| "https://azure-devices-provisioning.net".to_owned()),
            operations_per_minute: self.operations_per_minute.unwrap_or(1000),
            bulk_is_one: matches!(self.bulk_counts, Some(RawBulk::One)),
            not_allowed: self.not_allowed.map_or(Ok(403), |status| inner(status, not_allowed))?,
            page_size: self.page_size.map_or(Ok(100), |size| inner(size, page_size))?,
            place: Place {
                resource_id: resource_id.unwrap_or_else(|| RESOURCE.to_owned()),
                management_groups: self.management_groups,
            },
            policies,
            authorities: authorities.collect::<Result<_, _>>()?,
        };
        Ok((api, roles))
    }
}

impl RawPolicy {
    fn checked(self) -> Result<Policy, Wrong> {
        let keys = [Some(&self.primary_key), self.secondary_key.as_ref()];
        let keys = keys.into_iter().flatten().map(|text| key(text)).collect::<Result<_, _>>()?;
        Ok(Policy { name: self.name, keys, rights: self.rights.unwrap_or_else(|| Right::ALL.to_vec()) })
    }
}

impl RawEntra {
    fn checked(self, host: &str, roles: &[Role], resource_id: &str) -> Result<Entra, Wrong> {
        let clients = self.client.into_iter().map(|client| inner(client, |raw| raw.checked(roles, resource_id)));
        Ok(Entra {
            tenant: self.tenant.unwrap_or_else(|| TENANT.to_owned()),
            host: self.host.unwrap_or_else(|| host.to_owned()),
            token_lifetime: self.token_lifetime.unwrap_or(3599),
            managed_identity: self.managed_identity,
            identity_header: self.identity_header.unwrap_or_else(|| "identity-header".to_owned()),
            clients: clients.collect::<Result<_, _>>()?,
        })
    }
}

impl RawClient {
    fn checked(self, roles: &[Role], resource_id: &str) -> Result<Client, Wrong> {
        let proofs = [self.secret.is_some(), self.certificate_file.is_some(), self.federated.is_some(), self.managed];
        if !proofs.contains(&true) {
            let cure = "needs one of secret, certificate_file, federated and managed = true";
            return Err(format!("client {}: {cure}", self.client_id).into());
        }
        let federated = self.federated.map(|raw| {
            Ok::<_, Wrong>(Federated {
                issuer: raw.issuer,
                subject: raw.subject,
                audience: raw.audience.unwrap_or_else(|| "api://AzureADTokenExchange".to_owned()),
                key: certificate(&raw.certificate_file)?,
            })
        });
        let assignments = self.roles.into_iter().map(|one| inner(one, |raw| raw.checked(roles, resource_id)));
        Ok(Client {
            object_id: self.object_id.unwrap_or_else(|| format!("oid-{}", self.client_id)),
            client_id: self.client_id,
            secret: self.secret,
            certificate: self.certificate_file.map(|file| certificate(&file)).transpose()?,
            federated: federated.transpose()?,
            managed: self.managed,
            assignments: assignments.collect::<Result<_, _>>()?,
        })
    }
}

impl RawAssignment {
    fn checked(self, roles: &[Role], resource_id: &str) -> Result<Assignment, Wrong> {
        let scope = self.scope.unwrap_or_else(|| resource_id.to_owned());
        if !is_scope(&scope) {
            let cure = "a service, a resource group, a subscription or a management group";
            return Err(format!("scope \"{scope}\" is not that of {cure}").into());
        }
        let role = roles.iter().find(|role| role.name.eq_ignore_ascii_case(&self.role)).cloned();
        let role = role.ok_or_else(|| {
            let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
            format!("no role is called \"{}\"; there are: {}", self.role, names.join(", "))
        })?;
        Ok(Assignment { role, scope })
    }
}

fn resource_id(text: String) -> Result<String, Wrong> {
    let is_service = is_scope(&text) && text.to_lowercase().contains("/provisioningservices/");
    let cure = "/subscriptions/…/resourceGroups/…/providers/Microsoft.Devices/provisioningServices/…";
    if is_service { Ok(text) } else { Err(format!("resource_id \"{text}\" has not the form {cure}").into()) }
}

fn not_allowed(status: u16) -> Result<u16, Wrong> {
    if [401, 403].contains(&status) { Ok(status) } else { Err(format!("not_allowed = {status}: 401 or 403").into()) }
}

fn page_size(size: usize) -> Result<usize, Wrong> {
    if size > 0 { Ok(size) } else { Err("page_size must be at least 1".to_owned().into()) }
}

fn certificate(file: &PathBuf) -> Result<CertificateDer<'static>, String> {
    let named = |error: &dyn std::fmt::Display| format!("certificate_file {}: {error}", file.display());
    let pem = std::fs::read(file).map_err(|error| named(&error))?;
    CertificateDer::from_pem_slice(&pem).map_err(|error| named(&error))
}

/// Checks a table inside another one; what is wrong is where that table begins, unless it is known better.
fn inner<R, T>(table: Spanned<R>, check: impl FnOnce(R) -> Result<T, Wrong>) -> Result<T, Wrong> {
    let start = table.span().start;
    check(table.into_inner()).map_err(|wrong| Wrong { at: wrong.at.or(Some(start)), ..wrong })
}
