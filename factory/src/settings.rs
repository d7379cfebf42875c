//! What a record holds besides the attestation, as it is asked for on the command line; and how it differs from what is there.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::certificate::Certificate;
use crate::failure::{Blame, Failure};
use crate::id::DeviceId;

/// What an individual enrollment and a group have in common (DPS service API §3.1). What is not asked for is left as it is.
#[derive(Debug, Default, Clone, Args)]
pub struct Settings {
    /// How the service chooses a hub
    #[arg(long, alias = "ap", value_name = "POLICY")]
    allocation_policy: Option<Allocation>,
    /// Host names of the hubs to choose from
    #[arg(long, alias = "ih", value_name = "HOST", value_delimiter = ' ', num_args = 1..)]
    iot_hubs: Vec<String>,
    /// The function that a custom allocation asks
    #[arg(long, alias = "wh", value_name = "URL", requires = "api_version")]
    webhook_url: Option<String>,
    /// The API version that the function expects
    #[arg(long, alias = "av", value_name = "VERSION", requires = "webhook_url")]
    api_version: Option<String>,
    /// What happens to a device's data when it registers anew
    #[arg(long, alias = "rp", value_name = "POLICY")]
    reprovision_policy: Option<Reprovision>,
    /// Whether the device may register
    #[arg(long, alias = "ps", value_name = "STATUS")]
    provisioning_status: Option<Status>,
    /// Whether the device is an IoT Edge device
    #[arg(long, alias = "ee", value_name = "BOOL")]
    edge_enabled: Option<bool>,
    /// Tags of the first twin, JSON
    #[arg(long, alias = "tags", value_name = "JSON")]
    initial_twin_tags: Option<String>,
    /// Desired properties of the first twin, JSON
    #[arg(long, alias = "props", value_name = "JSON")]
    initial_twin_properties: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
enum Allocation {
    Hashed,
    GeoLatency,
    Static,
    Custom,
}

/// The words of the Azure CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reprovision {
    /// The hub is chosen anew, and data move there
    #[value(name = "reprovisionandmigratedata")]
    AndMigrateData,
    /// The hub is chosen anew, and the device begins afresh
    #[value(name = "reprovisionandresetdata")]
    AndResetData,
    /// The device keeps its hub
    #[value(name = "never")]
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Enabled,
    Disabled,
}

impl Settings {
    /// The members that were asked for.
    ///
    /// # Errors
    /// If a JSON text is none, or options contradict each other.
    pub fn asked(&self) -> Result<Map<String, Value>, Failure> {
        let mut asked = Map::new();
        let mut set = |name: &str, value: Value| asked.insert(name.to_owned(), value);
        self.check_allocation()?;
        if let Some(policy) = self.allocation_policy.and_then(|policy| policy.to_possible_value()) {
            set("allocationPolicy", json!(policy.get_name()));
        }
        if self.webhook_url.is_some() {
            set("customAllocationDefinition", json!({ "webhookUrl": self.webhook_url, "apiVersion": self.api_version }));
        }
        if !self.iot_hubs.is_empty() {
            set("iotHubs", json!(self.iot_hubs));
        }
        if let Some(policy) = self.reprovision_policy {
            set("reprovisionPolicy", policy.member());
        }
        if let Some(status) = self.provisioning_status.and_then(|status| status.to_possible_value()) {
            set("provisioningStatus", json!(status.get_name()));
        }
        if let Some(edge) = self.edge_enabled {
            set("capabilities", json!({ "iotEdge": edge }));
        }
        let twin = self.twin()?;
        if !twin.is_empty() {
            set("initialTwin", Value::Object(twin));
        }
        Ok(asked)
    }

    fn check_allocation(&self) -> Result<(), Failure> {
        let custom = self.allocation_policy == Some(Allocation::Custom);
        let words = "--allocation-policy custom and --webhook-url with --api-version go together";
        if custom == self.webhook_url.is_some() { Ok(()) } else { Err(Failure::new(Blame::Usage, words)) }
    }

    fn twin(&self) -> Result<Map<String, Value>, Failure> {
        let mut twin = Map::new();
        if let Some(tags) = &self.initial_twin_tags {
            twin.insert("tags".to_owned(), object("--initial-twin-tags", tags)?);
        }
        if let Some(desired) = &self.initial_twin_properties {
            twin.insert("properties".to_owned(), json!({ "desired": object("--initial-twin-properties", desired)? }));
        }
        Ok(twin)
    }
}

impl Reprovision {
    fn member(self) -> Value {
        let (moves, migrates) = match self {
            Self::AndMigrateData => (true, true),
            Self::AndResetData => (true, false),
            Self::Never => (false, false),
        };
        json!({ "updateHubAssignment": moves, "migrateDeviceData": migrates })
    }
}

/// A JSON object from the command line.
///
/// # Errors
/// Names the option and what is wrong.
pub fn object(option: &str, text: &str) -> Result<Value, Failure> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Failure::new(Blame::Usage, format!("{option}: is JSON, but no object; write '{{\"name\": \"value\"}}'"))),
        Err(error) => Err(Failure::new(Blame::Usage, format!("{option}: not JSON: {error}"))),
    }
}

/// A member of a record that is not as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Such as `reprovisionPolicy.migrateDeviceData`.
    pub member: String,
    /// What is there.
    pub is: String,
    /// What was asked.
    pub wanted: String,
}

/// `member: is → wanted`.
impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} → {}", self.member, self.is, self.wanted)
    }
}

/// Where `record` is not as `wanted` asks. Members that were not asked for are not looked at.
pub fn differences(record: &Value, wanted: &Map<String, Value>) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, wanted) in wanted {
        match (name.as_str(), &record[name]) {
            // The service disregards its case, and it is how the record was found.
            ("registrationId" | "enrollmentGroupId", _) => {}
            ("attestation", is) => attestation("attestation", is, wanted, &mut found),
            (name, is) => values(name, is, wanted, &mut found),
        }
    }
    found
}

fn values(member: &str, is: &Value, wanted: &Value, found: &mut Vec<Difference>) {
    if let Value::Object(members) = wanted {
        members.iter().for_each(|(name, wanted)| values(&format!("{member}.{name}"), &is[name], wanted, found));
    } else if is != wanted {
        found.push(Difference { member: member.to_owned(), is: shown(is), wanted: shown(wanted) });
    }
}

/// Of an attestation only what names the device counts: a read shows certificates as thumbprints and keys not at all.
fn attestation(member: &str, is: &Value, wanted: &Value, found: &mut Vec<Difference>) {
    let mut differ = |member: String, is: String, wanted: String| {
        if is != wanted {
            found.push(Difference { member, is, wanted });
        }
    };
    differ(format!("{member}.type"), shown(&is["type"]), shown(&wanted["type"]));
    if is["type"] != wanted["type"] {
        return;
    }
    let key = |of: &Value| of["tpm"]["endorsementKey"].as_str().unwrap_or("none").to_owned();
    differ(format!("{member}.tpm.endorsementKey"), key(is), key(wanted));
    for (kind, slot) in
        [("clientCertificates", "primary"), ("clientCertificates", "secondary"), ("signingCertificates", "primary")]
    {
        let asked = &wanted["x509"][kind][slot];
        if !asked.is_null() {
            differ(format!("{member}.x509.{kind}.{slot}"), thumbprint(&is["x509"][kind][slot]), thumbprint(asked));
        }
    }
    for slot in ["primaryKey", "secondaryKey"] {
        // Both are there only if keys were asked for; neither is shown.
        let keys = is["symmetricKey"][slot].as_str().zip(wanted["symmetricKey"][slot].as_str());
        if keys.is_some_and(|(is, wanted)| is != wanted) {
            differ(format!("{member}.symmetricKey.{slot}"), "another key".to_owned(), "the given key".to_owned());
        }
    }
}

/// The SHA-256 of a certificate as an enrollment shows or holds it.
fn thumbprint(certificate: &Value) -> String {
    let shown = certificate["info"]["sha256Thumbprint"].as_str().map(str::to_ascii_uppercase);
    let held = || Certificate::parse(certificate["certificate"].as_str()?).ok().map(|certificate| certificate.sha256());
    shown.or_else(held).map_or_else(|| "none".to_owned(), |sha256| format!("SHA-256 {sha256}"))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The record as a PUT has to send it, which replaces all: what is there, changed where it was asked, without what is read-only.
pub fn merged(record: &Value, wanted: &Map<String, Value>) -> Value {
    let mut merged = record.clone();
    if let Some(members) = merged.as_object_mut() {
        for read_only in ["registrationState", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"] {
            members.remove(read_only);
        }
        if wanted.contains_key("iotHubs") {
            members.remove("iotHubHostName");
        }
        if wanted.get("allocationPolicy").is_some_and(|policy| policy != "custom") {
            members.remove("customAllocationDefinition");
        }
    }
    for (name, value) in wanted {
        match name.as_str() {
            "registrationId" | "enrollmentGroupId" => {}
            "attestation" => merged[name] = value.clone(),
            _ => merge(&mut merged[name], value),
        }
    }
    merged
}

fn merge(into: &mut Value, wanted: &Value) {
    match (into, wanted) {
        (Value::Object(into), Value::Object(wanted)) => {
            for (name, value) in wanted {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, wanted) => *into = wanted.clone(),
    }
}

/// The members of an individual enrollment that its device's identity gives.
pub fn of_device(registration_id: &str, device_id: Option<&DeviceId>, attestation: Value) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("registrationId".to_owned(), json!(registration_id));
    members.extend(device_id.map(|id| ("deviceId".to_owned(), json!(id.as_str()))));
    members.insert("attestation".to_owned(), attestation);
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::tests::made;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn lines(record: &Value, wanted: Value) -> Vec<String> {
        differences(record, &map(wanted)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_was_asked_for_differs() {
        let record = json!({ "registrationId": "gw-1", "provisioningStatus": "disabled", "iotHubs": ["a"],
            "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": true } });
        assert_eq!(lines(&record, json!({ "registrationId": "gw-1" })), [""; 0]);
        assert_eq!(
            lines(
                &record,
                json!({ "iotHubs": ["b"], "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false } })
            ),
            ["iotHubs: [\"a\"] → [\"b\"]", "reprovisionPolicy.migrateDeviceData: true → false"]
        );
        assert_eq!(lines(&record, json!({ "deviceId": "d" })), ["deviceId: none → d"]);
    }

    #[test]
    fn a_certificate_is_compared_by_its_thumbprint() {
        let (own, other) = (made("gw-1", 2030), made("gw-1", 2031));
        let sha256 = Certificate::parse(&own).unwrap().sha256();
        let shown = json!({ "attestation": { "type": "x509",
            "x509": { "clientCertificates": { "primary": { "info": { "sha256Thumbprint": sha256.to_lowercase() } } } } } });
        let wanted = |certificate: &str| json!({ "attestation": { "type": "x509", "x509": { "clientCertificates": { "primary": { "certificate": certificate } } } } });
        assert_eq!(lines(&shown, wanted(&own)), [""; 0]);
        assert_eq!(lines(&wanted(&own), wanted(&own)), [""; 0]);
        let expected = format!(
            "attestation.x509.clientCertificates.primary: SHA-256 {sha256} → SHA-256 {}",
            Certificate::parse(&other).unwrap().sha256()
        );
        assert_eq!(lines(&shown, wanted(&other)), [expected]);
    }

    #[test]
    fn another_attestation_is_one_difference_and_keys_are_not_shown() {
        let tpm = |key: &str| json!({ "attestation": { "type": "tpm", "tpm": { "endorsementKey": key } } });
        let keys = |key: &str| json!({ "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": key } } });
        assert_eq!(lines(&tpm("A"), tpm("B")), ["attestation.tpm.endorsementKey: A → B"]);
        assert_eq!(lines(&tpm("A"), keys("S")), ["attestation.type: tpm → symmetricKey"]);
        assert_eq!(lines(&json!({ "attestation": { "type": "symmetricKey" } }), keys("S")), [""; 0], "a read shows no keys");
        assert_eq!(lines(&keys("R"), keys("S")), ["attestation.symmetricKey.primaryKey: another key → the given key"]);
    }

    #[test]
    fn an_update_keeps_what_was_not_asked_for() {
        let record = json!({ "registrationId": "gw-1", "etag": "\"1\"", "deviceId": "d", "iotHubHostName": "a", "createdDateTimeUtc": "x",
            "registrationState": { "status": "assigned" }, "initialTwin": { "tags": { "line": 7, "site": "a" } },
            "attestation": { "type": "x509", "x509": { "clientCertificates": { "primary": { "info": {} } } } } });
        let wanted =
            json!({ "iotHubs": ["b"], "initialTwin": { "tags": { "site": "b" } }, "attestation": { "type": "symmetricKey" } });
        assert_eq!(
            merged(&record, &map(wanted)),
            json!({ "registrationId": "gw-1", "etag": "\"1\"", "deviceId": "d", "iotHubs": ["b"],
                "initialTwin": { "tags": { "line": 7, "site": "b" } }, "attestation": { "type": "symmetricKey" } })
        );
    }

    #[test]
    fn options_become_the_members_of_the_documents() {
        let settings = Settings {
            allocation_policy: Some(Allocation::Custom),
            webhook_url: Some("https://f".to_owned()),
            api_version: Some("2021-10-01".to_owned()),
            reprovision_policy: Some(Reprovision::AndResetData),
            provisioning_status: Some(Status::Disabled),
            edge_enabled: Some(true),
            initial_twin_tags: Some("{\"line\":7}".to_owned()),
            initial_twin_properties: Some("{\"a\":1}".to_owned()),
            iot_hubs: vec!["a.azure-devices.net".to_owned()],
        };
        assert_eq!(
            Value::Object(settings.asked().unwrap()),
            json!({ "allocationPolicy": "custom", "customAllocationDefinition": { "webhookUrl": "https://f", "apiVersion": "2021-10-01" },
                "iotHubs": ["a.azure-devices.net"], "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
                "provisioningStatus": "disabled", "capabilities": { "iotEdge": true },
                "initialTwin": { "tags": { "line": 7 }, "properties": { "desired": { "a": 1 } } } })
        );
        let alone = Settings { allocation_policy: Some(Allocation::Custom), ..Settings::default() };
        assert_eq!(alone.asked().unwrap_err().blame, Blame::Usage);
        let wrong = Settings { initial_twin_tags: Some("[".to_owned()), ..Settings::default() };
        assert!(wrong.asked().unwrap_err().message.starts_with("--initial-twin-tags: not JSON: "));
    }
}
