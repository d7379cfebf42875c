//! Credentials as systemd asks for them: from an abstract address, without a word, and with patience.

use std::os::unix::net::UnixStream as Peer;
use std::path::PathBuf;
use std::time::Instant;

use futures_util::FutureExt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, socket};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::*;
use crate::handoff::tests::{Box as Gateway, KEY};

/// A deadline that only ends a hang.
const PATIENT: Duration = Duration::from_secs(120);

/// The socket, and the desk behind it.
struct Counter {
    path: PathBuf,
    desk: Arc<Desk>,
    _serving: JoinSet<()>,
}

impl Counter {
    fn open(user: u32) -> Self {
        let path = short_path();
        let listener = UnixListener::bind(&path).unwrap();
        let (desk, _) = Desk::new(now());
        let mut serving = JoinSet::new();
        serving.spawn(serve_user(listener, desk.clone(), user));
        Self { path, desk, _serving: serving }
    }

    async fn with(settings: &str) -> Self {
        let counter = Self::open(me());
        counter.desk.serve(Some(Gateway::with_key(settings).await.served));
        counter
    }

    /// Connects as systemd does for this unit and credential, and says at once that nothing will be sent.
    fn ask(&self, unit: &str, credential: &str) -> UnixStream {
        self.ask_as(Some(format!("{:016x}/unit/{unit}/{credential}", getrandom::u64().unwrap()).as_bytes()))
    }

    fn ask_as(&self, name: Option<&[u8]>) -> UnixStream {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        if let Some(name) = name {
            bind(&socket, &SocketAddrUnix::new_abstract_name(name).unwrap()).unwrap();
        }
        connect(&socket, &SocketAddrUnix::new(&self.path).unwrap()).unwrap();
        let peer = Peer::from(socket);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        peer.set_nonblocking(true).unwrap();
        UnixStream::from_std(peer).unwrap()
    }

    async fn answer(&self, unit: &str, credential: &str) -> Vec<u8> {
        all(self.ask(unit, credential)).await
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The path of a socket has 107 bytes at most, and a build directory may be deep.
fn short_path() -> PathBuf {
    std::env::temp_dir().join(format!("dps-agent-{:016x}", getrandom::u64().unwrap()))
}

fn now() -> Instant {
    crate::clock::Clock::with_floor(None).instant()
}

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

async fn all(mut stream: UnixStream) -> Vec<u8> {
    let mut text = Vec::new();
    tokio::time::timeout(PATIENT, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    text
}

/// An answer as text. A refusal is not printed.
fn text(answer: Vec<u8>) -> String {
    assert!(!is_refusal(&answer), "refused");
    String::from_utf8(answer).unwrap()
}

/// What systemd refuses: more than 1 MiB, and than 1 MiB and 128 KiB where it could be encrypted.
fn is_refusal(answer: &[u8]) -> bool {
    answer.len() > (1024 + 128) * 1024 && answer.iter().all(|byte| *byte == 0)
}

#[tokio::test]
async fn a_unit_gets_its_connection_and_the_desk_remembers_it() {
    let counter = Counter::with("").await;
    let json: Value = serde_json::from_str(&text(counter.answer("my-app.service", "hub.json").await)).unwrap();
    assert_eq!((&json["host"], &json["deviceId"]), (&"contoso.azure-devices.net".into(), &"my-device-01".into()));
    assert!(json["password"].as_str().unwrap().starts_with("SharedAccessSignature sr="));
    let env = text(counter.answer("other@1.service", "hub.env").await);
    assert!(env.starts_with("IOTHUB_HOSTNAME=\"contoso.azure-devices.net\"\n"), "{env}");
    let given = counter.desk.last_given().unwrap();
    assert_eq!((given.by.as_str(), given.uid, given.generation), ("credential hub.env for other@1.service", Some(me()), 3));
}

#[tokio::test]
async fn who_asks_before_there_is_an_assignment_waits_for_it() {
    let counter = Counter::open(me());
    let (mut one, other) = (counter.ask("a.service", "hub.json"), counter.ask("b.service", "hub.env"));
    // The one that waits is not answered, and does not keep others from being heard.
    let refused = all(counter.ask("c.service", "hub.xml")).await;
    assert!(is_refusal(&refused));
    let mut byte = [0];
    assert!(one.read(&mut byte).now_or_never().is_none());
    counter.desk.serve(Some(Gateway::with_key("").await.served));
    assert!(all(one).await.starts_with(b"{"));
    assert!(all(other).await.starts_with(b"IOTHUB_HOSTNAME="));
}

#[tokio::test]
async fn who_goes_away_is_noticed_though_it_had_nothing_to_say_from_the_start() {
    let (listener, path) = {
        let path = short_path();
        (UnixListener::bind(&path).unwrap(), path)
    };
    let (desk, _) = Desk::new(now());
    let counter = Counter { path, desk, _serving: JoinSet::new() };
    let peer = counter.ask("a.service", "hub.json");
    let (stream, _) = listener.accept().await.unwrap();
    let mut gone = Box::pin(hung_up(&stream));
    for _ in 0..100 {
        assert!((&mut gone).now_or_never().is_none(), "it has only closed the way that it does not use");
        tokio::task::yield_now().await;
    }
    drop(peer);
    tokio::time::timeout(PATIENT, gone).await.unwrap();
}

#[tokio::test]
async fn a_pattern_narrows_who_may_have_a_credential() {
    let counter = Counter::with(
        "[handoff.credentials]\n'hub.json' = ['telegraf.service', 'my-*@1.service', 'a*b*.service']\n'hub.env' = []\n",
    )
    .await;
    for (unit, may) in [
        ("telegraf.service", true),
        ("telegraf.service2", false),
        ("xtelegraf.service", false),
        ("ab.service", true),
        ("axbx.service", true),
        ("axx.service", false),
    ] {
        let answer = counter.answer(unit, "hub.json").await;
        assert_eq!((answer.starts_with(b"{"), is_refusal(&answer)), (may, !may), "{unit}");
    }
    assert!(is_refusal(&counter.answer("telegraf.service", "hub.env").await));
}

#[tokio::test]
async fn a_connection_string_is_given_only_where_the_key_may_be() {
    let counter = Counter::with("").await;
    assert!(is_refusal(&counter.answer("a.service", "connection-string").await));
    let counter = Counter::with("[handoff.credentials]\nexport_key = true\n'connection-string' = ['a.service']\n").await;
    let expected = format!("HostName=contoso.azure-devices.net;DeviceId=my-device-01;SharedAccessKey={KEY}");
    assert_eq!(text(counter.answer("a.service", "connection-string").await), expected);
    assert!(is_refusal(&counter.answer("b.service", "connection-string").await));
    let env = text(counter.answer("a.service", "hub.env").await);
    assert!(!env.contains(KEY), "the leave is for the connection string alone");
}

#[tokio::test]
async fn who_is_not_systemd_is_refused() {
    let counter = Counter::open(me() + 1);
    counter.desk.serve(Some(Gateway::with_key("").await.served));
    assert!(is_refusal(&counter.answer("a.service", "hub.json").await));
    let counter = Counter::with("").await;
    for name in
        [None, Some(&b"x"[..]), Some(b"x/unit/a.service"), Some(b"x/user/a.service/hub.json"), Some(b"\xff/unit/a/hub.json")]
    {
        assert!(is_refusal(&all(counter.ask_as(name)).await), "{name:?}");
    }
}

#[test]
fn the_name_of_the_peer_tells_unit_and_credential() {
    let parsed = parse(b"9784ed9ee54c6576/unit/c-good.service/hub.json").unwrap().unwrap();
    assert_eq!((parsed.unit.as_str(), parsed.credential), ("c-good.service", Credential::HubJson));
    assert_eq!(
        parse(b"97/unit/a.service/x/y").unwrap().unwrap_err(),
        "\"a.service\" asks for the credential \"x/y\"; write LoadCredential= with one of hub.json, hub.env, connection-string"
    );
    assert!(parse(b"97/unit/a.service").is_none());
}
