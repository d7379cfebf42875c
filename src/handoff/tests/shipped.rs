//! The templates that the agent brings along, whole, for a key and for a certificate; judged by a shell.

use std::process::Command;

use super::*;
use crate::record::rfc3339;

async fn made(gateway: &Box, file: &str) -> String {
    assert_eq!(gateway.outcome().await.unwrap(), Outcome::Written);
    gateway.text(file)
}

fn lines(source: &str) -> String {
    format!("[handoff.template.a]\nsource = '{source}'\n")
}

/// The token in a text, and when it ends.
fn token(text: &str) -> (String, String) {
    let start = text.find("SharedAccessSignature sr=").unwrap();
    let token = text[start..].split(['"', '\n']).next().unwrap().to_owned();
    (token, rfc3339(schedule::expiry_in(text.as_bytes()).unwrap()))
}

#[tokio::test]
async fn hub_env_with_a_key() {
    let text = made(&Box::with_key(&lines("hub.env")).await, "hub.env").await;
    let (token, ends) = token(&text);
    let expected = format!(
        r#"IOTHUB_HOSTNAME="contoso.azure-devices.net"
IOTHUB_DEVICE_ID="my-device-01"
DEVICE_ID="my-device-01"
IOTHUB_SAS="{token}"
IOTHUB_SAS_EXPIRES_AT="{ends}"
IOTHUB_CA_FILE="/roots.pem"
IOTHUB_MQTT_PORT="8883"
IOTHUB_MQTT_USERNAME="contoso.azure-devices.net/my-device-01/?api-version=2021-04-12"
IOTHUB_GENERATION="3"
"#
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn hub_env_with_a_key_that_may_be_given_away() {
    let text = made(&Box::with_key(&format!("{}export_key = true\n", lines("hub.env"))).await, "hub.env").await;
    let string = format!("HostName=contoso.azure-devices.net;DeviceId=my-device-01;SharedAccessKey={KEY}");
    let expected =
        format!("IOTHUB_DEVICE_SECURITY_TYPE=\"connectionString\"\nIOTHUB_DEVICE_CONNECTION_STRING=\"{string}\"\nIOTHUB_SAS=");
    assert!(text.contains(&expected), "{text}");
}

#[tokio::test]
async fn hub_env_with_a_certificate_and_a_gateway() {
    let gateway = Box::with_certificate(&format!("hub.gateway_host = 'edge.local'\n{}", lines("hub.env"))).await;
    let text = made(&gateway, "hub.env").await;
    let (chain, key) = files(&gateway);
    let expected = format!(
        r#"IOTHUB_HOSTNAME="contoso.azure-devices.net"
IOTHUB_DEVICE_ID="my-device-01"
DEVICE_ID="my-device-01"
GATEWAY_HOSTNAME="edge.local"
IOTHUB_DEVICE_SECURITY_TYPE="connectionString"
IOTHUB_DEVICE_CONNECTION_STRING="HostName=contoso.azure-devices.net;DeviceId=my-device-01;x509=true;GatewayHostName=edge.local"
X509_CERT_FILE="{chain}"
X509_KEY_FILE="{key}"
PATH_TO_CERTIFICATE_FILE="{chain}"
PATH_TO_KEY_FILE="{key}"
IOTHUB_CA_FILE="/roots.pem"
IOTHUB_MQTT_PORT="8883"
IOTHUB_MQTT_USERNAME="contoso.azure-devices.net/my-device-01/?api-version=2021-04-12"
IOTHUB_GENERATION="3"
"#
    );
    assert_eq!(text, expected);
}

fn files(gateway: &Box) -> (String, String) {
    let crate::config::Profile::X509 { chain, key, .. } = &gateway.served.config.attestation else { panic!() };
    (chain.display().to_string(), key.display().to_string())
}

#[tokio::test]
async fn hub_json_is_the_connection_and_more() {
    let gateway = Box::with_key(&lines("hub.json")).await;
    let text = made(&gateway, "hub.json").await;
    let ends = schedule::expiry_in(text.as_bytes()).unwrap();
    let Served { record, config, attestation, .. } = &gateway.served;
    let connection = connection::again(config, attestation, record, ends).await.unwrap();
    let mut expected: Value = serde_json::from_slice(connection.to_json().expose()).unwrap();
    expected["registrationId"] = json!("gw");
    expected["attestation"] = json!("symmetric-key");
    expected["connectionString"] = Value::Null;
    expected["payload"] = record.payload.clone().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
}

const BRIDGE: &str = "\
connection azure-iot-hub
address contoso.azure-devices.net:8883
bridge_protocol_version mqttv311
bridge_tls_version tlsv1.2
bridge_cafile /roots.pem
bridge_insecure false
remote_clientid my-device-01
remote_username contoso.azure-devices.net/my-device-01/?api-version=2021-04-12
CREDENTIAL
cleansession false
try_private false
bridge_attempt_unsubscribe false
notifications true
notifications_local_only true
start_type automatic
restart_timeout 10 300
# Telemetry: publish to az/messages/events/ here.
topic messages/events/# out 1 az/ devices/my-device-01/
# Messages to the device arrive at az/messages/devicebound/ here.
topic messages/devicebound/# in 1 az/ devices/my-device-01/
# Direct methods and the twin: az/methods/... and az/twin/... here.
topic methods/POST/# in 1 az/ $iothub/
topic methods/res/# out 1 az/ $iothub/
topic twin/res/# in 1 az/ $iothub/
topic twin/GET/# out 1 az/ $iothub/
topic twin/PATCH/properties/desired/# in 1 az/ $iothub/
topic twin/PATCH/properties/reported/# out 1 az/ $iothub/
";

#[tokio::test]
async fn a_bridge_of_mosquitto_has_a_token_or_a_certificate() {
    let text = made(&Box::with_key(&lines("mosquitto-bridge.conf")).await, "mosquitto-bridge.conf").await;
    let (token, ends) = token(&text);
    let credential = format!("# Ends at {ends}; a new one is here in good time before.\nremote_password {token}");
    assert_eq!(text, BRIDGE.replace("CREDENTIAL", &credential));
    let gateway = Box::with_certificate(&lines("mosquitto-bridge.conf")).await;
    let (chain, key) = files(&gateway);
    let credential = format!("bridge_certfile {chain}\nbridge_keyfile {key}");
    assert_eq!(made(&gateway, "mosquitto-bridge.conf").await, BRIDGE.replace("CREDENTIAL", &credential));
}

#[tokio::test]
async fn a_device_that_mosquittos_topics_cannot_name_is_refused() {
    let mut gateway = Box::with_key(&lines("mosquitto-bridge.conf")).await;
    gateway.served.record.device_id = "gw#1".into();
    let said =
        "mosquitto-bridge.conf:3: a device ID with '#' or '+' in it cannot be part of mosquitto's topics; rename the device";
    assert_eq!(gateway.said().await, said);
}

#[tokio::test]
async fn thin_edge_has_a_certificate_or_an_error() {
    let gateway = Box::with_certificate(&lines("thin-edge.env")).await;
    let (chain, key) = files(&gateway);
    let expected = format!(
        "TEDGE_AZ_URL=\"contoso.azure-devices.net\"\nTEDGE_AZ_DEVICE_ID=\"my-device-01\"\nTEDGE_AZ_DEVICE_CERT_PATH=\"{chain}\"\n\
         TEDGE_AZ_DEVICE_KEY_PATH=\"{key}\"\nTEDGE_AZ_ROOT_CERT_PATH=\"/roots.pem\"\n"
    );
    assert_eq!(made(&gateway, "thin-edge.env").await, expected);
    assert_eq!(
        Box::with_key(&lines("thin-edge.env")).await.said().await,
        "thin-edge.env:3: thin-edge.io connects to IoT Hub with an X.509 certificate only, and this device has none; use mosquitto-bridge.conf, or method = \"x509\""
    );
}

#[tokio::test]
async fn a_shell_reads_from_an_env_file_what_was_meant() {
    let gateway =
        Box::with_key(&own("a.env", "ODD={{ payload.odd }}\nSITE={{ join([\"at \", payload.site]) }}\nSAS={{ password }}\n"))
            .await;
    gateway.outcome().await.unwrap();
    let script = format!(". {}; printf '%s|%s|%s' \"$ODD\" \"$SITE\" \"$SAS\"", gateway.file("a.env").display());
    let said = String::from_utf8(Command::new("sh").args(["-c", &script]).output().unwrap().stdout).unwrap();
    let (token, _) = token(&gateway.text("a.env"));
    assert_eq!(said, format!("a\"b\\c$d`e|at Hall 4|{token}"));
}
