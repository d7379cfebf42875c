//! Enrollments and groups as clients send them (service API §3), checked.

use super::access::Kind;
use super::record::{Allocation, Capabilities, Details};
use super::view::thumbprint;
use crate::config::{Attestation, Reprovision};
use crate::names::is_registration_id;
use crate::tpm::ParentKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use serde_json::Value;

/// An IndividualEnrollment or an EnrollmentGroup. A member that is in neither is refused (UNCONFIRMED).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Body {
    registration_id: Option<String>,
    enrollment_group_id: Option<String>,
    device_id: Option<String>,
    attestation: Option<Mechanism>,
    optional_device_information: Option<Value>,
    capabilities: Option<Capabilities>,
    iot_hub_host_name: Option<String>,
    iot_hubs: Option<Vec<String>>,
    allocation_policy: Option<Allocation>,
    initial_twin: Option<Value>,
    provisioning_status: Option<Status>,
    reprovision_policy: Option<Reprovision>,
    credential_policy_name: Option<String>,
    pub(super) etag: Option<String>,
    /// The rest is read-only, or has nobody to work for it here.
    #[serde(rename = "registrationState")]
    _registration_state: Option<Value>,
    #[serde(rename = "customAllocationDefinition")]
    _custom_allocation_definition: Option<Value>,
    #[serde(rename = "createdDateTimeUtc")]
    _created: Option<String>,
    #[serde(rename = "lastUpdatedDateTimeUtc")]
    _updated: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Enabled,
    Disabled,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mechanism {
    #[serde(rename = "type")]
    kind: String,
    symmetric_key: Option<SymmetricKey>,
    tpm: Option<Tpm>,
    x509: Option<X509>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SymmetricKey {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tpm {
    endorsement_key: String,
    storage_root_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct X509 {
    client_certificates: Option<Pair<Certificate>>,
    signing_certificates: Option<Pair<Certificate>>,
    ca_references: Option<Pair<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair<T> {
    primary: Option<T>,
    secondary: Option<T>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    certificate: Option<String>,
    /// What a read gave: it stands for the certificate that is there.
    info: Option<Value>,
}

/// What a body is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) kind: Kind,
    /// The hubs that are linked to the service.
    pub(super) hubs: &'a [String],
    pub(super) authorities: &'a [(String, CertificateDer<'static>)],
    /// The certificates of the enrollment as it is.
    pub(super) certificates: &'a [CertificateDer<'static>],
    pub(super) api_version: &'a str,
}

/// An enrollment or a group as it is to be.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The registration ID, or the group's ID.
    pub(super) id: String,
    pub(super) device_id: Option<String>,
    pub(super) attestation: Attestation,
    pub(super) hub: Option<String>,
    pub(super) enabled: bool,
    pub(super) reprovision: Reprovision,
    pub(super) details: Details,
}

impl Body {
    /// Reads one; the error is for the client. A list would do for serde, where a member has its place.
    pub(super) fn read(body: Value) -> Result<Self, String> {
        let body = Some(body).filter(Value::is_object).ok_or("The body is no JSON object.")?;
        serde_json::from_value(body).map_err(|error| format!("The body is no enrollment: {error}"))
    }

    /// The ID that it names, of this kind.
    pub(super) fn id(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Individual => self.registration_id.as_deref(),
            Kind::Group => self.enrollment_group_id.as_deref(),
        }
    }

    /// Checks everything; the error is for the client.
    pub(super) fn checked(mut self, known: &Known<'_>) -> Result<Wanted, String> {
        let id = self.checked_id(known.kind)?;
        self.check_allocation(known.hubs)?;
        if self.credential_policy_name.is_some() && known.api_version < "2025-07-01" {
            return Err("credentialPolicyName needs a later api-version.".to_owned());
        }
        let mut details = self.details();
        let attestation = self.attestation.ok_or("attestation is missing.")?.checked(known, &mut details)?;
        Ok(Wanted {
            id,
            device_id: self.device_id,
            attestation,
            hub: details.iot_hubs.first().cloned(),
            enabled: !matches!(self.provisioning_status, Some(Status::Disabled)),
            reprovision: self.reprovision_policy.unwrap_or_default(),
            details,
        })
    }

    /// Takes out what is only repeated.
    fn details(&mut self) -> Details {
        let one_hub = self.iot_hub_host_name.take();
        Details {
            allocation_policy: self.allocation_policy,
            iot_hubs: self.iot_hubs.take().unwrap_or_else(|| one_hub.into_iter().collect()),
            capabilities: self.capabilities.unwrap_or_default(),
            initial_twin: self.initial_twin.take(),
            device_information: self.optional_device_information.take(),
            credential_policy: self.credential_policy_name.take(),
            ..Details::default()
        }
    }

    fn checked_id(&self, kind: Kind) -> Result<String, String> {
        let (id, name) = match kind {
            Kind::Individual => (&self.registration_id, "registrationId"),
            Kind::Group => (&self.enrollment_group_id, "enrollmentGroupId"),
        };
        let id = id.as_ref().ok_or_else(|| format!("{name} is missing."))?;
        if !is_registration_id(id) {
            return Err(format!("{name} is not valid."));
        }
        let strangers = match kind {
            Kind::Individual => [self.enrollment_group_id.is_some(), false, false],
            Kind::Group => [self.registration_id.is_some(), self.device_id.is_some(), self.optional_device_information.is_some()],
        };
        if strangers.contains(&true) {
            return Err("A member belongs to the other kind of enrollment.".to_owned());
        }
        match &self.device_id {
            Some(device) if !is_device_id(device) => Err("deviceId is not valid.".to_owned()),
            Some(_) | None => Ok(id.clone()),
        }
    }

    fn check_allocation(&self, hubs: &[String]) -> Result<(), String> {
        let is_linked = |hub: &&String| hubs.iter().any(|linked| linked.eq_ignore_ascii_case(hub));
        let mut wanted = self.iot_hubs.iter().flatten().chain(&self.iot_hub_host_name);
        match wanted.find(|hub| !is_linked(hub)) {
            Some(hub) => Err(format!("The hub {hub} is not linked.")),
            None if self.allocation_policy == Some(Allocation::Custom) => {
                Err("The emulator calls no webhook: allocationPolicy custom is not there.".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// The documented alphabet of a hub's device IDs.
fn is_device_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-.%_#*?!(),:=@$'".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(legal)
}

impl Mechanism {
    fn checked(self, known: &Known<'_>, details: &mut Details) -> Result<Attestation, String> {
        let others = match self.kind.as_str() {
            "symmetricKey" => [self.tpm.is_some(), self.x509.is_some()],
            "tpm" => [self.symmetric_key.is_some(), self.x509.is_some()],
            "x509" => [self.symmetric_key.is_some(), self.tpm.is_some()],
            other => return Err(format!("attestation.type {other} is not one of symmetricKey, x509 and tpm.")),
        };
        if others.contains(&true) {
            return Err("attestation has a member of another type.".to_owned());
        }
        match (self.kind.as_str(), self.tpm, self.x509) {
            ("symmetricKey", _, _) => self.symmetric_key.unwrap_or_default().checked(),
            (_, Some(tpm), _) if known.kind == Kind::Individual => tpm.checked(details),
            (_, Some(_), _) => Err("A TPM has an individual enrollment; no group takes it.".to_owned()),
            (_, None, Some(x509)) => x509.checked(known, details),
            (kind, None, None) => Err(format!("attestation.{kind} is missing.")),
        }
    }
}

impl SymmetricKey {
    /// What is left out the service makes.
    fn checked(self) -> Result<Attestation, String> {
        let key = |text: Option<String>| text.filter(|text| !text.is_empty()).map_or_else(new_key, |text| decoded(&text));
        Ok(Attestation::SymmetricKey(vec![key(self.primary_key)?, key(self.secondary_key)?]))
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let key = STANDARD.decode(text).map_err(|_| "A key is not base64.".to_owned())?;
    // DPS device API §4.2.
    if (16..=64).contains(&key.len()) { Ok(key) } else { Err("A key has not 16 to 64 bytes.".to_owned()) }
}

fn new_key() -> Result<Vec<u8>, String> {
    let mut key = vec![0; 64];
    SystemRandom::new().fill(&mut key).map_err(|_| "No random numbers.".to_owned())?;
    Ok(key)
}

impl Tpm {
    fn checked(self, details: &mut Details) -> Result<Attestation, String> {
        let key = crate::challenge::parse(&self.endorsement_key).and_then(ParentKey::restricted);
        details.storage_root_key = self.storage_root_key;
        key.map(|key| Attestation::Tpm(Box::new(key))).map_err(|wrong| format!("tpm.endorsementKey: {wrong}."))
    }
}

impl X509 {
    fn checked(self, known: &Known<'_>, details: &mut Details) -> Result<Attestation, String> {
        match (known.kind, self.client_certificates, self.signing_certificates, self.ca_references) {
            (Kind::Individual, Some(pair), None, None) | (Kind::Group, None, Some(pair), None) => {
                Ok(Attestation::X509(pair.each(|one| one.checked(known))?))
            }
            (Kind::Group, None, None, Some(pair)) => {
                details.ca_references = pair.each(Ok)?;
                let found = details.ca_references.iter().map(|name| authority(name, known));
                Ok(Attestation::X509(found.collect::<Result<_, _>>()?))
            }
            // That an individual enrollment can name a CA is UNCONFIRMED: only one client offers it.
            (Kind::Individual, ..) => Err("x509 needs clientCertificates.".to_owned()),
            (Kind::Group, ..) => Err("x509 needs one of signingCertificates and caReferences.".to_owned()),
        }
    }
}

fn authority(name: &str, known: &Known<'_>) -> Result<CertificateDer<'static>, String> {
    let found = known.authorities.iter().find(|(own, _)| own == name);
    found.map(|(_, certificate)| certificate.clone()).ok_or_else(|| format!("No certificate is called {name}."))
}

impl<T> Pair<T> {
    fn each<R>(self, check: impl Fn(T) -> Result<R, String>) -> Result<Vec<R>, String> {
        if self.primary.is_none() {
            return Err("x509 needs a primary certificate.".to_owned());
        }
        self.primary.into_iter().chain(self.secondary).map(check).collect()
    }
}

impl Certificate {
    fn checked(self, known: &Known<'_>) -> Result<CertificateDer<'static>, String> {
        let Some(text) = self.certificate.as_ref().filter(|text| !text.is_empty()) else {
            return self.as_it_is(known);
        };
        let der = match text.contains("-----BEGIN") {
            true => CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| "A certificate is no PEM.".to_owned())?,
            false => STANDARD.decode(text).map_err(|_| "A certificate is neither PEM nor base64.".to_owned())?.into(),
        };
        match x509_parser::parse_x509_certificate(&der) {
            Ok(([], _)) => Ok(der),
            Ok(_) | Err(_) => Err("A certificate is no X.509.".to_owned()),
        }
    }

    fn as_it_is(&self, known: &Known<'_>) -> Result<CertificateDer<'static>, String> {
        let named = self.info.as_ref().and_then(|info| info["sha256Thumbprint"].as_str());
        let is_named = |one: &&CertificateDer<'_>| named.is_some_and(|named| thumbprint(one).eq_ignore_ascii_case(named));
        known.certificates.iter().find(is_named).cloned().ok_or_else(|| "A certificate is missing.".to_owned())
    }
}
