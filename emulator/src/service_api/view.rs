//! Enrollments, groups and registrations as the service API shows them (service API §3).

use super::record::Record;
use crate::attest::Proof;
use crate::config::{Attestation, Group, Settings};
use crate::registration::registration_state;
use crate::service::Device;
use crate::tpm::ParentKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// An individual enrollment.
pub(super) fn individual(device: &Device, record: &Record) -> Value {
    let mut view = common(&device.settings, record);
    view["registrationId"] = device.registration_id.as_str().into();
    view["attestation"] = device_attestation(device, record, false);
    set(&mut view, "deviceId", device.settings.device_id.clone());
    set(&mut view, "optionalDeviceInformation", record.details.device_information.clone());
    set(&mut view, "registrationState", registration(device));
    view
}

/// An enrollment group.
pub(super) fn group(group: &Group) -> Value {
    let mut view = common(&group.settings, &group.record);
    view["enrollmentGroupId"] = group.name.as_str().into();
    view["attestation"] = group_attestation(group, false);
    view
}

fn common(settings: &Settings, record: &Record) -> Value {
    let details = &record.details;
    let mut view = json!({
        "capabilities": details.capabilities,
        "provisioningStatus": if settings.enabled { "enabled" } else { "disabled" },
        "reprovisionPolicy": settings.reprovision,
        "createdDateTimeUtc": record.created,
        "lastUpdatedDateTimeUtc": record.updated,
        "etag": record.etag,
    });
    set(&mut view, "allocationPolicy", details.allocation_policy);
    set(&mut view, "initialTwin", details.initial_twin.clone());
    set(&mut view, "credentialPolicyName", details.credential_policy.clone());
    set(&mut view, "iotHubs", hubs(settings, record));
    view
}

/// A move that nobody asked for by the service API shows all the same.
fn hubs(settings: &Settings, record: &Record) -> Option<Vec<String>> {
    let hub = settings.hub.as_ref()?;
    let wanted = &record.details.iot_hubs;
    Some(if wanted.first() == Some(hub) { wanted.clone() } else { vec![hub.clone()] })
}

/// The state of a registration, without what proves the device's identity (service API §3.4).
pub(super) fn registration(device: &Device) -> Option<Value> {
    let assignment = device.registration.assignment.as_ref()?;
    let mut state = registration_state(device, assignment);
    if let Some(members) = state.as_object_mut() {
        members.retain(|name, _| !["symmetricKey", "x509", "tpm"].contains(&name.as_str()));
    }
    Some(state)
}

/// How a device proves its identity, `with_keys` or without.
pub(super) fn device_attestation(device: &Device, record: &Record, with_keys: bool) -> Value {
    match &device.proof {
        Some(Proof::Keys(keys) | Proof::HubKeys(keys)) => symmetric_key(keys, with_keys),
        Some(Proof::Certificate(certificates) | Proof::IssuedBy(certificates)) => x509("clientCertificates", certificates),
        Some(Proof::Tpm(tpm)) => {
            let mut keys = json!({"endorsementKey": public(tpm.enrolled())});
            set(&mut keys, "storageRootKey", record.details.storage_root_key.clone());
            json!({"type": "tpm", "tpm": keys})
        }
        None => json!({"type": "none"}),
    }
}

/// How the members of a group prove theirs.
pub(super) fn group_attestation(group: &Group, with_keys: bool) -> Value {
    let names = &group.record.details.ca_references;
    match &group.attestation {
        Attestation::SymmetricKey(keys) => symmetric_key(keys, with_keys),
        Attestation::X509(_) if !names.is_empty() => {
            json!({"type": "x509", "x509": {"caReferences": pair(names.iter().map(|name| json!(name)))}})
        }
        Attestation::X509(certificates) => x509("signingCertificates", certificates),
        Attestation::Tpm(key) => json!({"type": "tpm", "tpm": {"endorsementKey": public(key)}}),
    }
}

fn symmetric_key(keys: &[Vec<u8>], with_keys: bool) -> Value {
    let mut view = json!({"type": "symmetricKey"});
    if with_keys {
        let keys: Vec<String> = keys.iter().map(|key| STANDARD.encode(key)).collect();
        view["symmetricKey"] = json!({"primaryKey": keys.first(), "secondaryKey": keys.get(1).or(keys.first())});
    }
    view
}

fn public(key: &ParentKey) -> String {
    STANDARD.encode(key.to_tpm2b())
}

fn x509(member: &str, certificates: &[CertificateDer<'_>]) -> Value {
    let views = certificates.iter().map(|certificate| json!({"info": info(certificate)}));
    json!({"type": "x509", "x509": {member: pair(views)}})
}

fn pair(mut items: impl Iterator<Item = Value>) -> Value {
    let mut view = json!({"primary": items.next()});
    set(&mut view, "secondary", items.next());
    view
}

fn info(der: &CertificateDer<'_>) -> Value {
    let thumbprints = json!({
        "sha1Thumbprint": hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
        "sha256Thumbprint": thumbprint(der),
    });
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return thumbprints };
    let mut info = json!({
        "subjectName": certificate.subject().to_string(),
        "issuerName": certificate.issuer().to_string(),
        "notBeforeUtc": time(certificate.validity().not_before),
        "notAfterUtc": time(certificate.validity().not_after),
        "serialNumber": hex(certificate.raw_serial()),
        "version": certificate.version().0 + 1,
    });
    for name in ["sha1Thumbprint", "sha256Thumbprint"] {
        info[name] = thumbprints[name].clone();
    }
    info
}

/// The SHA-256 of a certificate, as Azure writes it.
pub(super) fn thumbprint(der: &CertificateDer<'_>) -> String {
    hex(digest::digest(&digest::SHA256, der).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn time(at: ASN1Time) -> String {
    let at = at.to_datetime();
    let (date, (hour, minute, second)) = (at.date(), at.time().as_hms());
    format!("{}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year(), u8::from(date.month()), date.day())
}

fn set<T: serde::Serialize>(view: &mut Value, name: &str, value: Option<T>) {
    if let Some(value) = value {
        view[name] = json!(value);
    }
}
