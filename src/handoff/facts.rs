//! What a template may say of the connection: the names that stand in it.

use serde::Serialize;
use serde_json::Value;

use crate::config::ExportKey;
use crate::connection::{self, Connection, Shown};
use crate::desk::Served;
use crate::secret::Secret;

/// All that is known, and the key if it may be given away.
pub(crate) struct Facts<'f> {
    served: &'f Served,
    connection: &'f Connection,
    key: Option<Secret<String>>,
    connection_string: Option<Secret<String>>,
}

impl<'f> Facts<'f> {
    /// Of this assignment and connection. The key is looked at only with `leave`.
    pub(crate) fn new(served: &'f Served, connection: &'f Connection, leave: Option<&ExportKey>) -> Self {
        let key = leave.and_then(|leave| served.attestation.export(&connection::key(&served.record), leave));
        let connection_string = connection_string(connection, key.as_ref());
        Self { served, connection, key, connection_string }
    }

    /// The connection string, where there is one.
    pub(crate) fn connection_string(&self) -> Option<&Secret<String>> {
        self.connection_string.as_ref()
    }

    /// What must be shown to nobody who may not speak for this device.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let token = self.connection.password().map(|token| super::signature(token.expose()));
        self.key.iter().map(|key| key.expose().as_str()).chain(token)
    }

    /// The names and their values.
    pub(super) fn names(&self) -> Names<'_> {
        let record = &self.served.record;
        Names {
            connection: self.connection.shown(),
            registration_id: &record.registration_id,
            attestation: self.served.attestation.method(),
            payload: record.payload.as_ref(),
            connection_string: self.connection_string.as_ref().map(|text| text.expose().as_str()),
            shared_access_key: self.key.as_ref().map(|key| key.expose().as_str()),
        }
    }
}

/// What can stand between `{{` and `}}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Names<'f> {
    #[serde(flatten)]
    connection: Shown<'f>,
    registration_id: &'f str,
    attestation: &'static str,
    payload: Option<&'f Value>,
    connection_string: Option<&'f str>,
    shared_access_key: Option<&'f str>,
}

/// For an SDK (IoT Hub, connection strings). With a key that may not be given away, or one in a TPM, there is none.
fn connection_string(connection: &Connection, key: Option<&Secret<String>>) -> Option<Secret<String>> {
    let credential = match (key, connection.certificate()) {
        (Some(key), _) => format!("SharedAccessKey={}", key.expose()),
        (None, Some(_)) => "x509=true".to_owned(),
        (None, None) => return None,
    };
    let credential = Secret::new(credential);
    let gateway = connection.gateway_host.as_ref().map(|gateway| format!(";GatewayHostName={gateway}")).unwrap_or_default();
    let Connection { hub, device_id, .. } = connection;
    Some(Secret::new(format!("HostName={hub};DeviceId={device_id};{}{gateway}", credential.expose())))
}
