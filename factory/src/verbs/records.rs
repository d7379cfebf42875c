//! `enrollment …` and `enrollment-group …`: the same verbs for two kinds of record.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Manner, none};
use crate::args::{AttestationType, Connection, Enrollment, EnrollmentGroup, EnrollmentRecord, GroupRecord, Query};
use crate::certificate::Certificate;
use crate::endorsement::EndorsementKey;
use crate::failure::{Blame, Failure};
use crate::id::EnrollmentId;
use crate::output::{self, Column};
use crate::secret::Key;
use crate::service::{Kind, Service};
use crate::settings::{merged, object};

const INDIVIDUAL: &[Column] = &[
    ("registrationId", "/registrationId"),
    ("attestation", "/attestation/type"),
    ("status", "/provisioningStatus"),
    ("deviceId", "/deviceId"),
    ("registered", "/registrationState/status"),
    ("assignedHub", "/registrationState/assignedHub"),
    ("etag", "/etag"),
];

const GROUP: &[Column] = &[
    ("enrollmentGroupId", "/enrollmentGroupId"),
    ("attestation", "/attestation/type"),
    ("status", "/provisioningStatus"),
    ("allocation", "/allocationPolicy"),
    ("etag", "/etag"),
];

fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Individual => INDIVIDUAL,
        Kind::Group => GROUP,
    }
}

/// `enrollment …`.
///
/// # Errors
/// What ends it badly.
pub async fn individual(verb: Enrollment, manner: Manner) -> Result<(), Failure> {
    let kind = Kind::Individual;
    match verb {
        Enrollment::List { top, connection } => list(kind, "SELECT * FROM enrollments", top.top, connection, manner).await,
        Enrollment::Query(Query { query, top, connection }) => list(kind, &query, top.top, connection, manner).await,
        Enrollment::Show { name, keys, connection } => {
            let service = manner.connect(connection).await?;
            show(&service, kind, &name.enrollment_id, keys.show_keys, manner).await
        }
        Enrollment::Create(record) => {
            let wanted = of_enrollment(&record)?;
            if !wanted.contains_key("attestation") {
                return Err(Failure::new(Blame::Usage, "create needs --attestation-type symmetricKey, x509 or tpm"));
            }
            create(&manner.connect(record.connection).await?, kind, &record.name.enrollment_id, wanted, manner).await
        }
        Enrollment::Update(record) => {
            let wanted = of_enrollment(&record)?;
            let service = manner.connect(record.connection).await?;
            update(&service, kind, &record.name.enrollment_id, &wanted, &record.etag.etag, manner).await
        }
        Enrollment::Delete { enrollment_id, etag, connection } => {
            let service = manner.connect(connection).await?;
            for id in &enrollment_id {
                service.delete(kind, id.as_str(), &etag.etag).await?;
            }
            Ok(())
        }
    }
}

/// `enrollment-group …`.
///
/// # Errors
/// What ends it badly.
pub async fn group(verb: EnrollmentGroup, manner: Manner) -> Result<(), Failure> {
    let kind = Kind::Group;
    match verb {
        EnrollmentGroup::List { top, connection } => {
            list(kind, "SELECT * FROM enrollmentGroups", top.top, connection, manner).await
        }
        EnrollmentGroup::Query(Query { query, top, connection }) => list(kind, &query, top.top, connection, manner).await,
        EnrollmentGroup::Show { name, keys, connection } => {
            let service = manner.connect(connection).await?;
            show(&service, kind, &name.enrollment_id, keys.show_keys, manner).await
        }
        EnrollmentGroup::Create(record) => {
            let mut wanted = of_group(&record)?;
            wanted.entry("attestation").or_insert_with(|| json!({ "type": "symmetricKey" }));
            create(&manner.connect(record.connection).await?, kind, &record.name.enrollment_id, wanted, manner).await
        }
        EnrollmentGroup::Update(record) => {
            let wanted = of_group(&record)?;
            let service = manner.connect(record.connection).await?;
            update(&service, kind, &record.name.enrollment_id, &wanted, &record.etag.etag, manner).await
        }
        EnrollmentGroup::Delete { name, etag, connection } => {
            manner.connect(connection).await?.delete(kind, name.enrollment_id.as_str(), &etag.etag).await
        }
    }
}

async fn list(kind: Kind, query: &str, top: Option<usize>, connection: Connection, manner: Manner) -> Result<(), Failure> {
    let service = manner.connect(connection).await?;
    let records = service.query(kind, query).collect(top.unwrap_or(usize::MAX)).await?;
    output::list(&records, columns(kind), manner.format)
}

async fn show(service: &Service, kind: Kind, id: &EnrollmentId, keys: bool, manner: Manner) -> Result<(), Failure> {
    let mut record = service.get(kind, id.as_str()).await?.ok_or_else(|| none(kind.noun(), id.as_str()))?;
    if keys {
        record["attestation"] = service.attestation(kind, id.as_str()).await?.unwrap_or_default();
    }
    output::one(&record, columns(kind), manner.format)
}

/// A PUT without an ETag may replace what is there (UNCONFIRMED), so we look first.
async fn create(
    service: &Service,
    kind: Kind,
    id: &EnrollmentId,
    wanted: Map<String, Value>,
    manner: Manner,
) -> Result<(), Failure> {
    if service.get(kind, id.as_str()).await?.is_some() {
        let words = format!("the {} {:?} is there already; update changes it", kind.noun(), id.as_str());
        return Err(Failure::new(Blame::Refused, words));
    }
    let record = service.put(kind, id.as_str(), Value::Object(wanted), None).await?;
    output::one(&record, columns(kind), manner.format)
}

/// A PUT replaces all, so what is not asked for is sent as it is, keys included.
async fn update(
    service: &Service,
    kind: Kind,
    id: &EnrollmentId,
    wanted: &Map<String, Value>,
    etag: &str,
    manner: Manner,
) -> Result<(), Failure> {
    let mut record = service.get(kind, id.as_str()).await?.ok_or_else(|| none(kind.noun(), id.as_str()))?;
    if !wanted.contains_key("attestation") && record["attestation"]["type"] == "symmetricKey" {
        record["attestation"] = service.attestation(kind, id.as_str()).await?.ok_or_else(|| none(kind.noun(), id.as_str()))?;
    }
    // What was read just now, unless somebody has named what they had read.
    let read = record["etag"].as_str().unwrap_or("*").to_owned();
    let etag = if etag == "*" { read.as_str() } else { etag };
    let record = service.put(kind, id.as_str(), merged(&record, wanted), Some(etag)).await?;
    output::one(&record, columns(kind), manner.format)
}

fn of_enrollment(record: &EnrollmentRecord) -> Result<Map<String, Value>, Failure> {
    let mut wanted = record.settings.asked()?;
    wanted.insert("registrationId".to_owned(), json!(record.name.enrollment_id.as_str()));
    if let Some(id) = &record.device_id {
        wanted.insert("deviceId".to_owned(), json!(id.as_str()));
    }
    if let Some(information) = &record.device_information {
        wanted.insert("optionalDeviceInformation".to_owned(), object("--device-information", information)?);
    }
    let attestation = attestation_of(record)?;
    wanted.extend(attestation.map(|attestation| ("attestation".to_owned(), attestation)));
    Ok(wanted)
}

fn attestation_of(record: &EnrollmentRecord) -> Result<Option<Value>, Failure> {
    let certificates = (&record.certificate_path, &record.secondary_certificate_path);
    let keys = record.primary_key_file.is_some();
    let lone =
        |option: &str, kind: &str| Err(Failure::new(Blame::Usage, format!("{option} goes with --attestation-type {kind}")));
    match record.attestation_type {
        kind if certificates != (&None, &None) && kind != Some(AttestationType::X509) => lone("--certificate-path", "x509"),
        kind if record.endorsement_key.is_some() && kind != Some(AttestationType::Tpm) => lone("--endorsement-key", "tpm"),
        kind if keys && kind != Some(AttestationType::SymmetricKey) => lone("--primary-key-file", "symmetricKey"),
        None => Ok(None),
        Some(AttestationType::SymmetricKey) => {
            symmetric_key(record.primary_key_file.as_deref(), record.secondary_key_file.as_deref()).map(Some)
        }
        Some(AttestationType::X509) => {
            let Some(primary) = &record.certificate_path else {
                return Err(Failure::new(Blame::Usage, "x509 needs --certificate-path"));
            };
            let pair = certificates_of(primary, record.secondary_certificate_path.as_deref())?;
            Ok(Some(json!({ "type": "x509", "x509": { "clientCertificates": pair } })))
        }
        Some(AttestationType::Tpm) => {
            let Some(key) = &record.endorsement_key else {
                return Err(Failure::new(Blame::Usage, "tpm needs --endorsement-key"));
            };
            let key =
                EndorsementKey::parse(key).map_err(|wrong| Failure::new(Blame::Input, format!("--endorsement-key: {wrong}")))?;
            Ok(Some(json!({ "type": "tpm", "tpm": { "endorsementKey": key.text() } })))
        }
    }
}

fn of_group(record: &GroupRecord) -> Result<Map<String, Value>, Failure> {
    let mut wanted = record.settings.asked()?;
    wanted.insert("enrollmentGroupId".to_owned(), json!(record.name.enrollment_id.as_str()));
    let attestation = match (&record.certificate_path, &record.ca_name, &record.primary_key_file) {
        (Some(primary), _, _) => {
            let pair = certificates_of(primary, record.secondary_certificate_path.as_deref())?;
            Some(json!({ "type": "x509", "x509": { "signingCertificates": pair } }))
        }
        (None, Some(name), _) => {
            let mut names = json!({ "primary": name });
            if let Some(second) = &record.secondary_ca_name {
                names["secondary"] = json!(second);
            }
            Some(json!({ "type": "x509", "x509": { "caReferences": names } }))
        }
        (None, None, Some(primary)) => Some(symmetric_key(Some(primary), record.secondary_key_file.as_deref())?),
        (None, None, None) => None,
    };
    wanted.extend(attestation.map(|attestation| ("attestation".to_owned(), attestation)));
    Ok(wanted)
}

/// Given keys, or those that the service will make.
fn symmetric_key(primary: Option<&Path>, secondary: Option<&Path>) -> Result<Value, Failure> {
    let mut attestation = json!({ "type": "symmetricKey" });
    for (name, file) in [("primaryKey", primary), ("secondaryKey", secondary)] {
        if let Some(file) = file {
            attestation["symmetricKey"][name] = json!(Key::read(file)?.expose());
        }
    }
    Ok(attestation)
}

fn certificates_of(primary: &Path, secondary: Option<&Path>) -> Result<Value, Failure> {
    let mut pair = json!({ "primary": { "certificate": certificate(primary)? } });
    if let Some(secondary) = secondary {
        pair["secondary"] = json!({ "certificate": certificate(secondary)? });
    }
    Ok(pair)
}

/// The first certificate of a file, as base64 of DER.
fn certificate(file: &Path) -> Result<String, Failure> {
    let wrong = |what: String| Failure::new(Blame::Input, format!("{}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    Certificate::parse(&text).map(|certificate| certificate.base64()).map_err(wrong)
}
