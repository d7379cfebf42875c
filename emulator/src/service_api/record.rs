//! What the service API keeps of an enrollment beyond what a registration needs: its version, its times, and what it only repeats.

use crate::answer::{guid, timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version and times of an enrollment or a group.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// With the quotation marks that are part of it (service API §2.1).
    pub(crate) etag: String,
    pub(crate) created: String,
    pub(crate) updated: String,
    pub(crate) details: Details,
}

/// Members that change nothing here; clients read back what they wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    pub(crate) allocation_policy: Option<Allocation>,
    pub(crate) iot_hubs: Vec<String>,
    pub(crate) capabilities: Capabilities,
    pub(crate) initial_twin: Option<Value>,
    pub(crate) device_information: Option<Value>,
    pub(crate) credential_policy: Option<String>,
    pub(crate) storage_root_key: Option<String>,
    /// The names of the CAs, if they were given by name.
    pub(crate) ca_references: Vec<String>,
}

/// How the service chooses among hubs; the emulator takes the first one, whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Allocation {
    Hashed,
    GeoLatency,
    Static,
    /// By a webhook, which the emulator does not call.
    Custom,
}

/// What the device is created as at its hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Capabilities {
    #[serde(default)]
    pub(crate) iot_edge: bool,
}

impl Default for Record {
    fn default() -> Self {
        Self::new(Details::default())
    }
}

impl Record {
    /// A record that is made now.
    pub(crate) fn new(details: Details) -> Self {
        let now = timestamp();
        Self { etag: etag(), created: now.clone(), updated: now, details }
    }

    /// The next version.
    pub(crate) fn touch(&mut self) {
        self.etag = etag();
        self.updated = timestamp();
    }

    /// The next version, with these details.
    pub(crate) fn replaced(&self, details: Details) -> Self {
        Self { created: self.created.clone(), ..Self::new(details) }
    }
}

fn etag() -> String {
    format!("\"{}\"", guid())
}
