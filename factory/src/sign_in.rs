//! Microsoft Entra ID, through Microsoft's own `azure_identity`: which identity, by which of its credentials, and an account of what was tried.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, Transport, Url};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use clap::ValueEnum;

use crate::assertion::CertificateAssertion;
use crate::failure::{Blame, Failure};
use crate::secret::{self, SecretText};
use crate::{cloud, environment, http};

/// How long the metadata service, which is on this machine's own link, may take to be there.
const PROBE: Duration = Duration::from_secs(1);
/// How long it may take to give a token, if nobody said that it would. Other clouds have something at the same address, too.
const PATIENCE: Duration = Duration::from_secs(15);
/// Its address on every virtual machine of Azure (DPS service API §6.1).
const METADATA: &str = "http://169.254.169.254";

/// By what to prove who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The first of those below that is configured here
    Auto,
    /// A token file of Kubernetes or of a pipeline: --federated-token-file, --tenant-id, --client-id
    WorkloadIdentity,
    /// An application's secret: --client-secret-file or AZURE_CLIENT_SECRET, --tenant-id, --client-id
    ClientSecret,
    /// An application's certificate: --client-certificate-file, --tenant-id, --client-id
    ClientCertificate,
    /// The identity of this virtual machine or App Service; --client-id if it has several
    ManagedIdentity,
    /// Whoever is signed in with `az login`
    AzureCli,
}

/// In the order in which `auto` tries them: what was set up for this process before what belongs to machine and person.
const SOURCES: [Source; 5] =
    [Source::WorkloadIdentity, Source::ClientSecret, Source::ClientCertificate, Source::ManagedIdentity, Source::AzureCli];

impl Source {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::WorkloadIdentity => "workload-identity",
            Self::ClientSecret => "client-secret",
            Self::ClientCertificate => "client-certificate",
            Self::ManagedIdentity => "managed-identity",
            Self::AzureCli => "azure-cli",
        }
    }
}

/// Who signs in, and where.
#[derive(Debug)]
pub struct SignIn {
    /// By what.
    pub source: Source,
    /// The directory.
    pub tenant: Option<String>,
    /// The application, or the user-assigned identity.
    pub client: Option<String>,
    /// The application's secret; `-` is the standard input.
    pub secret_file: Option<PathBuf>,
    /// The application's certificate and key.
    pub certificate_file: Option<PathBuf>,
    /// The token of the outside world.
    pub federated_token_file: Option<PathBuf>,
    /// Where identities sign in.
    pub authority: String,
    /// For whom the tokens are.
    pub audience: String,
    /// The way there.
    pub transport: Transport,
}

/// What came of a source.
enum Tried {
    /// It is not configured here.
    NotHere(String),
    /// It gives tokens.
    Works(Arc<dyn TokenCredential>),
}

/// An identity that has given a token, and how we came to it.
#[derive(Debug)]
pub struct SignedIn {
    /// It.
    pub credential: Arc<dyn TokenCredential>,
    /// A line for each source that was looked at.
    pub account: String,
}

impl SignIn {
    /// What a token is asked for.
    pub fn scope(&self) -> String {
        format!("{}/.default", self.audience.trim_end_matches('/'))
    }

    /// Signs in once. What is configured and does not work ends the search: another identity might be allowed more than was meant.
    ///
    /// # Errors
    /// With an account of what was tried.
    pub async fn sign_in(&self) -> Result<SignedIn, Failure> {
        let automatic = self.source == Source::Auto;
        let sources = if automatic { SOURCES.to_vec() } else { vec![self.source] };
        let mut account = String::new();
        for source in sources {
            let name = source.name();
            match self.attempt(source).await {
                Ok(Tried::Works(credential)) => {
                    let _infallible = write!(account, "{name}: signed in");
                    return Ok(SignedIn { credential, account });
                }
                Ok(Tried::NotHere(why)) => {
                    let _infallible = writeln!(account, "{name}: not here, {why}");
                }
                Err(why) => {
                    let end = format!("{account}{name}: {why}");
                    return Err(Failure::new(
                        Blame::Credential,
                        format!("not signed in to Microsoft Entra ID at {}\n{end}", self.authority),
                    ));
                }
            }
        }
        let cure = if automatic { "configure one of them, or use --auth key" } else { "see --help for what it needs" };
        Err(Failure::new(
            Blame::Credential,
            format!("not signed in to Microsoft Entra ID at {}\n{account}{cure}", self.authority),
        ))
    }

    async fn attempt(&self, source: Source) -> Result<Tried, String> {
        let made = match source {
            Source::Auto => Err("nothing of its own".to_owned()),
            Source::WorkloadIdentity => self.workload_identity()?,
            Source::ClientSecret => self.client_secret()?,
            Source::ClientCertificate => self.client_certificate()?,
            Source::ManagedIdentity => self.managed_identity().await?,
            Source::AzureCli => self.azure_cli()?,
        };
        let credential = match made {
            Ok(credential) => credential,
            Err(why) => return Ok(Tried::NotHere(why)),
        };
        let scope = self.scope();
        let scopes = [scope.as_str()];
        let token = credential.get_token(&scopes, None);
        if source != Source::ManagedIdentity || self.source != Source::Auto {
            return token.await.map(|_| Tried::Works(credential.clone())).map_err(|error| http::chain(&error));
        }
        // A machine without an identity is nobody's mistake.
        Ok(match tokio::time::timeout(PATIENCE, token).await {
            Ok(Ok(_)) => Tried::Works(credential.clone()),
            Ok(Err(error)) => Tried::NotHere(http::chain(&error)),
            Err(_) => Tried::NotHere(format!("the metadata service gives no token within {} s", PATIENCE.as_secs())),
        })
    }

    /// The application, or what of it is missing.
    fn application(&self) -> Result<(&str, &str), String> {
        match (self.tenant.as_deref(), self.client.as_deref()) {
            (Some(tenant), Some(client)) => Ok((tenant, client)),
            (None, _) => Err("no --tenant-id or AZURE_TENANT_ID".to_owned()),
            (_, None) => Err("no --client-id or AZURE_CLIENT_ID".to_owned()),
        }
    }

    fn options(&self) -> ClientOptions {
        ClientOptions {
            transport: Some(self.transport.clone()),
            cloud: Some(Arc::new(cloud::configuration(&self.authority))),
            retry: http::retries(3, Duration::from_secs(60)),
            ..ClientOptions::default()
        }
    }

    fn workload_identity(&self) -> Made {
        let Some(file) = &self.federated_token_file else {
            return absent("no --federated-token-file or AZURE_FEDERATED_TOKEN_FILE");
        };
        let (tenant, client) = self.application()?;
        let made = WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
            credential_options: ClientAssertionCredentialOptions { client_options: self.options() },
            client_id: Some(client.to_owned()),
            tenant_id: Some(tenant.to_owned()),
            token_file_path: Some(file.clone()),
        }));
        of(made).map_err(|wrong| format!("{}: {wrong}", file.display()))
    }

    fn client_secret(&self) -> Made {
        let given = match &self.secret_file {
            Some(file) => Some(secret::read(file).map_err(|failure| failure.message)?),
            None => environment::var("AZURE_CLIENT_SECRET").map(|text| SecretText::new(&text)),
        };
        let Some(given) = given else { return absent("no --client-secret-file or AZURE_CLIENT_SECRET") };
        let (tenant, client) = self.application()?;
        let options = ClientSecretCredentialOptions { client_options: self.options() };
        let made = ClientSecretCredential::new(tenant, client.to_owned(), Secret::new(given.expose().to_owned()), Some(options));
        of(made)
    }

    fn client_certificate(&self) -> Made {
        let Some(file) = &self.certificate_file else {
            return absent("no --client-certificate-file or AZURE_CLIENT_CERTIFICATE_PATH");
        };
        let (tenant, client) = self.application()?;
        let endpoint = format!("{}/{tenant}/oauth2/v2.0/token", self.authority.trim_end_matches('/'));
        let assertion = CertificateAssertion::read(file, client, &endpoint).map_err(|failure| failure.message)?;
        let options = ClientAssertionCredentialOptions { client_options: self.options() };
        let made = ClientAssertionCredential::new(tenant.to_owned(), client.to_owned(), assertion, Some(options));
        of(made)
    }

    async fn managed_identity(&self) -> Made {
        let elsewhere = environment::var("AZURE_POD_IDENTITY_AUTHORITY_HOST");
        let elsewhere =
            elsewhere.map(|host| Url::parse(&host).map_err(|error| format!("AZURE_POD_IDENTITY_AUTHORITY_HOST: {error}")));
        let elsewhere = elsewhere.transpose()?;
        let is_named = environment::var("IDENTITY_ENDPOINT").is_some() || self.source == Source::ManagedIdentity;
        let place = elsewhere.as_ref().map_or(METADATA, Url::as_str);
        if !is_named && !answers(place).await {
            return absent(&format!("no metadata service answers at {place} within a second, and IDENTITY_ENDPOINT is not set"));
        }
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: self.client.clone().map(UserAssignedId::ClientId),
            client_options: ClientOptions { transport: Some(self.metadata(elsewhere)?), ..self.options() },
        };
        of(ManagedIdentityCredential::new(Some(options)))
    }

    /// App Service may offer its endpoint over TLS, a virtual machine never does.
    fn metadata(&self, elsewhere: Option<Url>) -> Result<Transport, String> {
        let app_service = environment::var("IDENTITY_ENDPOINT");
        if app_service.as_ref().is_some_and(|endpoint| endpoint.starts_with("https:")) {
            return Ok(self.transport.clone());
        }
        http::metadata(elsewhere.filter(|_| app_service.is_none())).map_err(|failure| failure.message)
    }

    fn azure_cli(&self) -> Made {
        if !is_on_path("az") {
            return absent("no az in PATH");
        }
        let options = AzureCliCredentialOptions { tenant_id: self.tenant.clone(), ..AzureCliCredentialOptions::default() };
        of(AzureCliCredential::new(Some(options)))
    }
}

/// A credential; or why it is not configured here; or, as the outer error, why what is configured cannot be used.
type Made = Result<Result<Arc<dyn TokenCredential>, String>, String>;

fn absent(why: &str) -> Made {
    Ok(Err(why.to_owned()))
}

fn of<C: TokenCredential + 'static>(made: azure_core::Result<Arc<C>>) -> Made {
    made.map(|credential| Ok(credential as Arc<dyn TokenCredential>)).map_err(|error| http::chain(&error))
}

async fn answers(place: &str) -> bool {
    let address = Url::parse(place).ok().and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)));
    let Some((host, port)) = address else { return false };
    matches!(tokio::time::timeout(PROBE, tokio::net::TcpStream::connect((host, port))).await, Ok(Ok(_)))
}

fn is_on_path(program: &str) -> bool {
    environment::var("PATH").is_some_and(|path| path.split(':').any(|folder| Path::new(folder).join(program).is_file()))
}
