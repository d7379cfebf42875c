//! The configuration as it stands in TOML, and the checks that turn it into what is used.

use super::service_api::{self, RawEntra, RawServiceApi};
use super::{
    Attestation, Config, Enrollment, Fail, Group, Kinder, Reprovision, ServerCertificate, ServerKey, Service, Settings,
    TlsVersion, WrongKey,
};
use crate::fault::Fault;
use crate::service_api::Record;
use crate::tpm::ParentKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The api-versions that DPS has had (DPS device API §3). Those from 2025 on: availability UNCONFIRMED.
const API_VERSIONS: [&str; 8] = [
    "2018-04-01",
    "2018-09-01-preview",
    "2019-03-31",
    "2021-06-01",
    "2021-10-01",
    "2021-11-01-preview",
    "2025-07-01-preview",
    "2026-04-01",
];

/// Reads and checks a text; the error is a message and the offset of what is wrong.
pub(super) fn read(text: &str) -> Result<Config, (String, Option<usize>)> {
    let raw: Raw = toml::from_str(text).map_err(|error| (error.message().to_owned(), error.span().map(|span| span.start)))?;
    let mut known = HashSet::new();
    let enrollments = raw.enrollment.into_iter().map(|table| spanned(table, |table| once(&mut known, table.try_into()?)));
    let enrollments = enrollments.collect::<Result<Vec<_>, _>>()?;
    let groups = raw.group.into_iter().map(|table| spanned(table, Group::try_from)).collect::<Result<Vec<_>, _>>()?;
    let service = spanned(raw.service, Service::try_from)?;
    let (service_api, entra) = service_api::read(raw.service_api, raw.entra, &service.host)?;
    Ok(Config { service, enrollments, groups, service_api, entra })
}

pub(super) fn spanned<R, T>(table: Spanned<R>, check: impl FnOnce(R) -> Result<T, Wrong>) -> Result<T, (String, Option<usize>)> {
    let start = table.span().start;
    check(table.into_inner()).map_err(|wrong| (wrong.message, Some(wrong.at.unwrap_or(start))))
}

fn once(known: &mut HashSet<String>, enrollment: Enrollment) -> Result<Enrollment, Wrong> {
    if known.insert(enrollment.registration_id.to_lowercase()) {
        Ok(enrollment)
    } else {
        Err(format!("registration_id \"{}\" is there twice", enrollment.registration_id).into())
    }
}

/// What is wrong with a table.
pub(super) struct Wrong {
    pub(super) message: String,
    /// Where, if that is not where the table begins.
    pub(super) at: Option<usize>,
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self { message, at: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    service: Spanned<RawService>,
    #[serde(default)]
    enrollment: Vec<Spanned<RawEnrollment>>,
    #[serde(default)]
    group: Vec<Spanned<RawGroup>>,
    service_api: Option<Spanned<RawServiceApi>>,
    entra: Option<Spanned<RawEntra>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    id_scope: String,
    host: Option<String>,
    listen: Option<IpAddr>,
    #[serde(default)]
    mqtt_port: u16,
    #[serde(default)]
    https_port: u16,
    tls: Option<Vec<TlsVersion>>,
    server_key: Option<ServerKey>,
    server_certificate: Option<ServerCertificate>,
    hub_certificate: Option<ServerCertificate>,
    ca_file: Option<PathBuf>,
    ca_key_file: Option<PathBuf>,
    ca_out: Option<PathBuf>,
    hubs: Option<Vec<String>>,
    transcript_file: Option<PathBuf>,
    wrong_key_on_mqtt: Option<WrongKey>,
    api_versions: Option<Vec<String>>,
    #[serde(default)]
    faults: Vec<Spanned<String>>,
    #[serde(default)]
    kinder: Vec<Kinder>,
}

impl TryFrom<RawService> for Service {
    type Error = Wrong;

    fn try_from(raw: RawService) -> Result<Self, Wrong> {
        if raw.id_scope.is_empty() || !raw.id_scope.is_ascii() || raw.id_scope.contains('/') {
            return Err(format!("id_scope \"{}\" must be ASCII without \"/\"", raw.id_scope).into());
        }
        let own_ca = match (raw.ca_file, raw.ca_key_file) {
            (Some(ca), Some(key)) => Some((ca, key)),
            (None, None) => None,
            _ => return Err("ca_file and ca_key_file go together".to_owned().into()),
        };
        let host = raw.host.unwrap_or_else(|| "localhost".to_owned());
        let hubs = raw.hubs.filter(|hubs| !hubs.is_empty()).unwrap_or_else(|| vec!["localhost".to_owned()]);
        if raw.hub_certificate.is_some() && hubs.contains(&host) {
            let cure = "hub_certificate is chosen by name: host must differ from the hubs, \"127.0.0.1\" for example";
            return Err(cure.to_owned().into());
        }
        Ok(Self {
            id_scope: raw.id_scope,
            host,
            listen: raw.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            mqtt_port: raw.mqtt_port,
            https_port: raw.https_port,
            tls: raw.tls.filter(|versions| !versions.is_empty()).unwrap_or_else(|| vec![TlsVersion::V12]),
            server_key: raw.server_key.unwrap_or(ServerKey::Rsa),
            server_certificate: raw.server_certificate.unwrap_or(ServerCertificate::Good),
            hub_certificate: raw.hub_certificate,
            own_ca,
            ca_out: raw.ca_out,
            hubs,
            transcript_file: raw.transcript_file,
            wrong_key_on_mqtt: raw.wrong_key_on_mqtt.unwrap_or(WrongKey::Response),
            api_versions: raw.api_versions.unwrap_or_else(|| API_VERSIONS.map(str::to_owned).to_vec()),
            faults: faults(raw.faults)?,
            kinder: raw.kinder,
        })
    }
}

/// Every key that an enrollment and a group share; `flatten` would lose the lines of errors.
macro_rules! enrollment_table {
    ($name:ident { $($own:ident: $type:ty),* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($own: $type,)*
            primary_key: Option<String>,
            secondary_key: Option<String>,
            certificate_file: Option<PathBuf>,
            certificate_pem: Option<String>,
            endorsement_key: Option<Spanned<String>>,
            hub: Option<String>,
            enabled: Option<bool>,
            payload: Option<serde_json::Value>,
            #[serde(default)]
            polls: u32,
            answer: Option<RawAnswer>,
            retry_after: Option<RetryAfter>,
            fail: Option<Fail>,
            #[serde(default)]
            hub_delay: u32,
            #[serde(default)]
            hub_refusals: u32,
            #[serde(default)]
            faults: Vec<Spanned<String>>,
        }

        impl $name {
            fn attestation(&self) -> Result<Attestation, Wrong> {
                attestation(
                    [self.primary_key.as_deref(), self.secondary_key.as_deref()],
                    self.certificate_file.as_deref(),
                    self.certificate_pem.as_deref(),
                    self.endorsement_key.as_ref(),
                )
            }

            fn settings(self, device_id: Option<String>) -> Result<Settings, Wrong> {
                Ok(Settings {
                    device_id,
                    hub: self.hub,
                    enabled: self.enabled.unwrap_or(true),
                    payload: self.payload,
                    polls: self.polls,
                    at_once: self.answer.is_some(),
                    retry_after: self.retry_after.map(RetryAfter::text),
                    fail: self.fail,
                    hub_delay: self.hub_delay,
                    hub_refusals: self.hub_refusals,
                    faults: faults(self.faults)?,
                    reprovision: Reprovision::default(),
                })
            }
        }
    };
}

enrollment_table!(RawEnrollment { registration_id: String, device_id: Option<String> });
enrollment_table!(RawGroup { name: String });

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawAnswer {
    AtOnce,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RetryAfter {
    Seconds(u64),
    Text(String),
}

impl RetryAfter {
    fn text(self) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl TryFrom<RawEnrollment> for Enrollment {
    type Error = Wrong;

    fn try_from(mut raw: RawEnrollment) -> Result<Self, Wrong> {
        let registration_id = std::mem::take(&mut raw.registration_id);
        if !crate::names::is_registration_id(&registration_id) {
            return Err(format!(
                "registration_id \"{registration_id}\": 1 to 128 of A-Z a-z 0-9 - . _ :, not ending in . _ or :"
            )
            .into());
        }
        let device_id = raw.device_id.take();
        Ok(Self { registration_id, attestation: raw.attestation()?, settings: raw.settings(device_id)? })
    }
}

impl TryFrom<RawGroup> for Group {
    type Error = Wrong;

    fn try_from(mut raw: RawGroup) -> Result<Self, Wrong> {
        let name = std::mem::take(&mut raw.name);
        if let Some(key) = &raw.endorsement_key {
            let message = "endorsement_key: a TPM has an enrollment of its own, an [[enrollment]]; no [[group]] takes it";
            return Err(Wrong { message: message.to_owned(), at: Some(key.span().start) });
        }
        Ok(Self { name, attestation: raw.attestation()?, settings: raw.settings(None)?, record: Record::default() })
    }
}

fn attestation(
    keys: [Option<&str>; 2],
    file: Option<&Path>,
    pem: Option<&str>,
    endorsement_key: Option<&Spanned<String>>,
) -> Result<Attestation, Wrong> {
    let keys = keys.into_iter().flatten().map(key).collect::<Result<Vec<_>, _>>()?;
    let pem = match (file, pem) {
        (None, pem) => pem.map(str::to_owned),
        (Some(_), Some(_)) => {
            return Err("certificate_file or certificate_pem, not both".to_owned().into());
        }
        (Some(file), None) => {
            Some(std::fs::read_to_string(file).map_err(|error| format!("certificate_file {}: {error}", file.display()))?)
        }
    };
    match (keys.is_empty(), pem, endorsement_key) {
        (false, None, None) => Ok(Attestation::SymmetricKey(keys)),
        (true, None, Some(key)) => tpm(key),
        (true, Some(pem), None) => CertificateDer::from_pem_slice(pem.as_bytes())
            .map(|certificate| Attestation::X509(vec![certificate]))
            .map_err(|error| format!("the certificate is no PEM: {error}").into()),
        _ => Err("needs one of primary_key (and secondary_key), certificate_file, certificate_pem and endorsement_key"
            .to_owned()
            .into()),
    }
}

fn tpm(key: &Spanned<String>) -> Result<Attestation, Wrong> {
    let parsed = crate::challenge::parse(key.get_ref()).and_then(ParentKey::restricted);
    let parsed = parsed.map_err(|wrong| Wrong {
        message: format!("endorsement_key: {wrong}; it must be the base64 TPM2B_PUBLIC of an RSA-2048 EK"),
        at: Some(key.span().start),
    });
    Ok(Attestation::Tpm(Box::new(parsed?)))
}

/// Decodes a key and checks its length.
pub(super) fn key(text: &str) -> Result<Vec<u8>, String> {
    // The text itself stays out of the message: it may be a real key.
    let key = STANDARD.decode(text).map_err(|_| "a key is not base64".to_owned())?;
    // DPS device API §4.2.
    if (16..=64).contains(&key.len()) { Ok(key) } else { Err(format!("a key has {} bytes, not 16 to 64", key.len())) }
}

fn faults(texts: Vec<Spanned<String>>) -> Result<Vec<Fault>, Wrong> {
    let parse =
        |text: Spanned<String>| Fault::parse(text.get_ref()).map_err(|message| Wrong { message, at: Some(text.span().start) });
    texts.into_iter().map(parse).collect()
}
