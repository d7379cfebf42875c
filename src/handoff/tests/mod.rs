//! Files as programs get them: what stands in them, when they are written, and what is said when they cannot be made.

mod shipped;
mod trouble;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use dps_emulator::pki::{Algorithm, Leaf, VALID};
use serde_json::{Value, json};

use super::*;
use crate::attestation::Attestation;
use crate::clock::Clock;
use crate::config::Config;
use crate::record::Record;
use crate::transport::tests::scratch;

/// The key of the published examples.
pub(super) const KEY: &str = "hTUUURcibF5BNRAhZjMcrLQ6mpSM4d767jtb+Sxxax0=";

/// A gateway with an assignment, and its runtime directory.
pub(super) struct Box {
    pub(super) served: Served,
    pub(super) runtime: PathBuf,
}

pub(super) fn secret(name: &str, text: &str) -> PathBuf {
    let path = scratch(name, text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

impl Box {
    /// With a symmetric key; `settings` are more lines of the configuration.
    pub(super) async fn with_key(settings: &str) -> Self {
        let key = secret("key", KEY);
        Self::new(&format!(
            "attestation.method = 'symmetric-key'\nattestation.registration_id = 'gw'\nattestation.key_file = {key:?}\n{settings}"
        ))
        .await
    }

    /// With a certificate.
    pub(super) async fn with_certificate(settings: &str) -> Self {
        let leaf = Leaf::self_signed("gw", Algorithm::EcP256, VALID).unwrap();
        let chain = scratch("chain.pem", leaf.chain_pem.as_bytes());
        let key = secret("key.pem", &leaf.key.pkcs8_pem());
        Self::new(&format!("attestation.method = 'x509'\nattestation.certificate_file = {chain:?}\nattestation.private_key_file = {key:?}\n{settings}"))
            .await
    }

    async fn new(settings: &str) -> Self {
        let runtime = scratch("x", b"").with_file_name("run");
        let text = format!(
            "dps.id_scope = '0ne1'\ndps.ca_file = '/roots.pem'\ndps.ca_only = true\nruntime.directory = {runtime:?}\n{settings}\n"
        );
        let config = Config::from_layers(vec![("config.toml".into(), text)], &|_| None).unwrap().config;
        let attestation = Attestation::open(&config.attestation, Path::new("/"), None, None).await.unwrap();
        let served = Served {
            record: record(),
            config: Arc::new(config),
            attestation: Arc::new(attestation),
            clock: Clock::with_floor(None),
        };
        Self { served, runtime }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.runtime.join("handoff").join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// What became of the one template.
    pub(super) async fn outcome(&self) -> Result<Outcome, Failure> {
        let mut made = Handoff::new(0).render(&self.served).await;
        assert_eq!(made.len(), 1);
        made.remove(0).outcome
    }

    /// What is said of the one template that fails, with the directory of a template cut off.
    pub(super) async fn said(&self) -> String {
        let message = self.outcome().await.unwrap_err().message;
        let names = message.find("own.template").filter(|_| message.starts_with('/'));
        names.map_or(message.clone(), |at| format!("DIR/{}", &message[at..]))
    }
}

fn record() -> Record {
    Record {
        id_scope: "0ne1".into(),
        registration_id: "gw".into(),
        identity: String::new(),
        assigned_hub: "contoso.azure-devices.net".into(),
        device_id: "my-device-01".into(),
        substatus: None,
        payload: Some(json!({"site": "Hall 4", "odd": "a\"b\\c$d`e", "lines": "a\nb", "many": [1, 2]})),
        assigned_at: 0,
        ..Record::example()
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// A template of the operator's, as the last line of the configuration.
pub(super) fn own(file: &str, text: &str) -> String {
    format!("[handoff.template.own]\nsource = {:?}\nfile = '{file}'\n", scratch("own.template", text.as_bytes()))
}

#[tokio::test]
async fn a_file_is_written_once_and_stays_while_nothing_changes_even_over_a_restart() {
    let gateway = Box::with_key("[handoff.template.a]\nsource = 'hub.env'\n").await;
    assert_eq!(gateway.outcome().await.unwrap(), Outcome::Written);
    let (text, number) = (gateway.text("hub.env"), inode(&gateway.file("hub.env")));
    assert_eq!(gateway.outcome().await.unwrap(), Outcome::Unchanged, "each time another Handoff");
    assert_eq!((gateway.text("hub.env"), inode(&gateway.file("hub.env"))), (text, number));
    assert_eq!(fs::metadata(gateway.file("hub.env")).unwrap().mode() & 0o7777, 0o640);
}

#[tokio::test]
async fn another_hub_another_mode_a_lost_file_and_another_template_make_it_anew() {
    let template = scratch("t", b"at {{ host }}\n");
    let lines = |mode: &str| format!("[handoff.template.a]\nsource = {template:?}\nfile = 'a.txt'\nmode = '{mode}'\n");
    let mut gateway = Box::with_key(&lines("0640")).await;
    let text = |gateway: &Box| gateway.text("a.txt");
    assert_eq!((gateway.outcome().await.unwrap(), text(&gateway)), (Outcome::Written, "at contoso.azure-devices.net\n".into()));
    gateway.served.record.assigned_hub = "fabrikam.azure-devices.net".into();
    assert_eq!((gateway.outcome().await.unwrap(), text(&gateway)), (Outcome::Written, "at fabrikam.azure-devices.net\n".into()));
    fs::remove_file(gateway.file("a.txt")).unwrap();
    assert_eq!((gateway.outcome().await.unwrap(), text(&gateway)), (Outcome::Written, "at fabrikam.azure-devices.net\n".into()));
    fs::write(&template, "now {{ port }}\n").unwrap();
    assert_eq!((gateway.outcome().await.unwrap(), text(&gateway)), (Outcome::Written, "now 8883\n".into()));
    fs::set_permissions(gateway.file("a.txt"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(gateway.outcome().await.unwrap(), Outcome::Written);
    assert_eq!(fs::metadata(gateway.file("a.txt")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(gateway.outcome().await.unwrap(), Outcome::Unchanged);
}

#[tokio::test]
async fn a_token_is_replaced_when_it_is_due_and_the_next_look_is_told() {
    let gateway = Box::with_key(&own("a.conf", "{{ password }}\n")).await;
    let mut handoff = Handoff::new(0);
    assert_eq!(handoff.next(0), None, "before anything was made");
    handoff.render(&gateway.served).await;
    let text = gateway.text("a.conf");
    let ends = schedule::expiry_in(text.as_bytes()).unwrap();
    assert_eq!(handoff.next(ends - 86_400), Some(Duration::from_secs(69_120)), "80 % of 24 h");
    assert_eq!(handoff.next(ends), Some(Duration::ZERO));
    // The same file, as if it had been made a day ago: its token is of the past, and signed for that.
    let old = connection::again(&gateway.served.config, &gateway.served.attestation, &gateway.served.record, ends - 86_400).await;
    fs::write(gateway.file("a.conf"), format!("{}\n", old.unwrap().password().unwrap().expose())).unwrap();
    assert!(matches!(handoff.render(&gateway.served).await[0].outcome, Ok(Outcome::Written)));
    let now = schedule::expiry_in(gateway.text("a.conf").as_bytes()).unwrap();
    assert!((ends..ends + 3600).contains(&now), "{ends} {now}");
}

#[tokio::test]
async fn without_a_token_in_the_file_nothing_is_due() {
    for gateway in [
        Box::with_key(&own("a.conf", "{{ hub }} {% if password %}there is one{% endif %}\n")).await,
        Box::with_certificate("[handoff.template.a]\nsource = 'hub.env'\n").await,
    ] {
        let mut handoff = Handoff::new(0);
        assert!(matches!(handoff.render(&gateway.served).await[0].outcome, Ok(Outcome::Written)));
        assert_eq!(handoff.next(0), None);
        assert!(matches!(handoff.render(&gateway.served).await[0].outcome, Ok(Outcome::Unchanged)));
    }
}

#[tokio::test]
async fn a_file_belongs_to_its_group() {
    // The test's own groups are the only ones it can be sure of.
    let own = nix::unistd::getgid().as_raw();
    let gateway = Box::with_key(&format!("[handoff.template.a]\nsource = 'hub.json'\ngroup = '{own}'\nmode = '0660'\n")).await;
    assert_eq!(gateway.outcome().await.unwrap(), Outcome::Written);
    let found = fs::metadata(gateway.file("hub.json")).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o7777), (own, 0o660));
}

#[tokio::test]
async fn what_no_template_makes_any_more_is_removed() {
    let gateway = Box::with_key("[handoff.template.a]\nsource = 'hub.json'\nfile = 'a.json'\n").await;
    gateway.outcome().await.unwrap();
    fs::write(gateway.file("old.env"), "A=secret").unwrap();
    fs::write(gateway.file("a.json.new"), "half").unwrap();
    gateway.outcome().await.unwrap();
    let names: Vec<_> = fs::read_dir(gateway.runtime.join("handoff")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.json"]);
}

#[tokio::test]
async fn without_templates_no_directory_is_made() {
    let gateway = Box::with_key("").await;
    assert!(Handoff::new(0).render(&gateway.served).await.is_empty());
    assert!(!gateway.runtime.join("handoff").exists());
}

#[tokio::test]
async fn the_key_is_given_away_only_where_that_is_allowed() {
    let lines = |leave: &str| format!("{}{leave}", own("a.json", "[{{ connectionString }}, {{ sharedAccessKey }}]"));
    let both = |gateway: &Box| serde_json::from_str::<Value>(&gateway.text("a.json")).unwrap();
    let kept = Box::with_key(&lines("")).await;
    kept.outcome().await.unwrap();
    assert_eq!(both(&kept), json!([null, null]));
    let given = Box::with_key(&lines("export_key = true\n")).await;
    given.outcome().await.unwrap();
    let text = format!("HostName=contoso.azure-devices.net;DeviceId=my-device-01;SharedAccessKey={KEY}");
    assert_eq!(both(&given), json!([text, KEY]));
    let certified = Box::with_certificate(&lines("")).await;
    certified.outcome().await.unwrap();
    assert_eq!(both(&certified), json!(["HostName=contoso.azure-devices.net;DeviceId=my-device-01;x509=true", null]));
}

#[tokio::test]
async fn a_connection_string_through_a_gateway_names_it() {
    let settings = format!("hub.gateway_host = 'edge.local'\n{}export_key = true\n", own("a.txt", "{{ connectionString }}"));
    let gateway = Box::with_key(&settings).await;
    gateway.outcome().await.unwrap();
    let text =
        format!("HostName=contoso.azure-devices.net;DeviceId=my-device-01;SharedAccessKey={KEY};GatewayHostName=edge.local");
    assert_eq!(gateway.text("a.txt"), text);
}
