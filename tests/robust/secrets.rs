//! No secret leaves the agent but on its way to the peer: canaries in every input, and a search of everything that comes out.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dps_emulator::Emulator;
use dps_emulator::pki::{self, Algorithm, Authority, Key, Leaf};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::daemon::Daemon;
use crate::evidence::{ask, exchange};
use crate::gateway::{Gateway, Ran, emulator};
use crate::proxy::{header, proxy};
use crate::strace;

const PRIMARY: &[u8] = b"canary-one-0123456789-abcdefghij";
const SECONDARY: &[u8] = b"canary-two-0123456789-abcdefghij";
const PASSWORD: &str = "canary-three-pass";

/// What must not be seen, in each spelling that a program might give it.
struct Canaries {
    spellings: Vec<Vec<u8>>,
    /// Of `provision`.
    patience: &'static str,
}

impl Canaries {
    fn new() -> Self {
        // The words of every token; where DPS is quoted they are scrubbed as a whole.
        let token = ["SharedAccessSignature sr=", "SharedAccessSignature%20", "&sig=", "sig%3D"];
        let keys = Self::keys();
        Self { spellings: token.map(Vec::from).into_iter().chain(keys.spellings).collect(), ..keys }
    }

    /// The keys alone: where a token is what was asked for.
    fn keys() -> Self {
        let mut canaries = Self { spellings: Vec::new(), patience: "20s" };
        for secret in [PRIMARY, SECONDARY, PASSWORD.as_bytes(), format!("user:{PASSWORD}").as_bytes()] {
            canaries.add(secret);
        }
        canaries
    }

    fn add(&mut self, secret: &[u8]) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let encoded = STANDARD.encode(secret);
        let spellings = [hex.to_uppercase(), hex, encoded.trim_end_matches('=').to_owned(), URL_SAFE_NO_PAD.encode(secret)];
        self.spellings.push(secret.to_vec());
        self.spellings.extend(spellings.map(String::into_bytes));
    }

    fn look_into(&self, bytes: &[u8], place: &str) {
        for canary in &self.spellings {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_slice());
            assert!(!found, "{:?} in {place}:\n{}", String::from_utf8_lossy(canary), String::from_utf8_lossy(bytes));
        }
    }

    fn look_into_files(&self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            if kind.is_dir() {
                self.look_into_files(&path);
            } else if kind.is_file() {
                self.look_into(&fs::read(&path).unwrap(), &path.display().to_string());
            }
        }
    }

    /// Runs each verb at the highest level of logs and searches all that it says and writes. The exit code of `provision`.
    fn run_all(&self, gateway: &Gateway, environment: &[(&str, &str)]) -> Option<i32> {
        let transcript = gateway.path("transcript");
        let provision = ["provision", "--force", "--timeout", self.patience, "--transcript", transcript.to_str().unwrap()];
        let mut code = None;
        for arguments in [
            &provision[..],
            &["provision", "--json", "--timeout", self.patience],
            &["status"],
            &["status", "--json"],
            &["check"],
            &["check", "--json"],
            &["config", "show"],
            &["config", "show", "--json"],
            &["config", "validate", "--json"],
            &["diag"],
            &["diag", "--json"],
        ] {
            let ran = loud(gateway, arguments, environment);
            self.look_into(ran.stdout.as_bytes(), &format!("the output of {arguments:?}"));
            self.look_into(ran.stderr.as_bytes(), &format!("the log of {arguments:?}"));
            code = code.or(ran.code);
        }
        self.run_daemon(gateway, environment);
        self.look_into(&fs::read(&transcript).unwrap_or_default(), "the transcript");
        for file in [gateway.record(), gateway.assignment()] {
            self.look_into_files(file.parent().unwrap());
        }
        code
    }

    /// `run`, until it has done something or waits.
    fn run_daemon(&self, gateway: &Gateway, environment: &[(&str, &str)]) {
        let log = gateway.path("log");
        let mut command = Command::new("timeout");
        command.args(["--preserve-status", "2"]).arg(env!("CARGO_BIN_EXE_dps-agent"));
        let mut command = gateway.under(command, &["run"]);
        command.env("RUST_LOG", "trace").envs(environment.iter().copied()).stdout(Stdio::null());
        command.stderr(fs::File::create(&log).unwrap()).status().unwrap();
        self.look_into(&fs::read(&log).unwrap(), "the log of run");
    }
}

fn loud(gateway: &Gateway, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = gateway.command(arguments);
    Ran::of(command.env("RUST_LOG", "trace").envs(environment.iter().copied()))
}

/// An emulator whose `gw-0001` has the canaries as its keys.
fn canary_emulator(enrollment: &str) -> Emulator {
    let text = format!(
        "[service]\nid_scope = \"0ne00000000\"\n[[enrollment]]\nregistration_id = \"gw-0001\"\nanswer = \"at-once\"\n\
         primary_key = \"{}\"\nsecondary_key = \"{}\"\n{enrollment}",
        STANDARD.encode(PRIMARY),
        STANDARD.encode(SECONDARY)
    );
    Emulator::start(dps_emulator::Config::from_toml(&text).unwrap()).unwrap()
}

fn canary_gateway(emulator: &Emulator, transport: &str) -> Gateway {
    let mut gateway = Gateway::new(emulator, transport);
    gateway.file("device.key", 0o600, STANDARD.encode(PRIMARY));
    let second = gateway.file("second.key", 0o600, STANDARD.encode(SECONDARY));
    gateway.set(&format!("attestation.secondary_key_file = \"{}\"", second.display())).set("hub.verify = \"on-change\"")
}

#[test]
fn keys_stay_secret_where_all_goes_well() {
    let emulator = canary_emulator("");
    for transport in ["mqtt", "mqtt-ws", "https"] {
        assert_eq!(Canaries::new().run_all(&canary_gateway(&emulator, transport), &[]), Some(0), "{transport}");
    }
}

#[test]
fn keys_stay_secret_in_what_the_daemon_answers_and_hands_over() {
    let emulator = canary_emulator("");
    let table = |name: &str| format!("[handoff.template.{name}]\nsource = \"{name}\"\nfile = \"{name}\"\nmode = \"0640\"\n");
    let gateway = canary_gateway(&emulator, "mqtt").table(&table("hub.env").replace("template.hub.env", "template.env"));
    let gateway = gateway.table(&table("hub.json").replace("template.hub.json", "template.json"));
    let mut command = gateway.command(&["run"]);
    command.env("RUST_LOG", "trace");
    let mut daemon = Daemon::spawn(&gateway, command);
    daemon.wait_for("made DIR/run/handoff/hub.json");
    let (keys, all) = (Canaries::keys(), Canaries::new());
    let admin = gateway.runtime().join("admin/api.sock");
    let (_, connection) = ask(&gateway, "/v1/connection", Some(json!({"client": "device"})));
    assert!(connection["password"].as_str().unwrap().starts_with("SharedAccessSignature "), "{connection}");
    keys.look_into(connection.to_string().as_bytes(), "the connection");
    keys.look_into_files(&gateway.runtime().join("handoff"));
    for target in ["/v1/status", "/v1/assignment", "/v1/nonsense"] {
        all.look_into(ask(&gateway, target, None).1.to_string().as_bytes(), target);
    }
    for target in ["/v1/status", "/metrics"] {
        all.look_into(exchange(&admin, target, None).1.to_string().as_bytes(), target);
    }
    all.look_into(ask(&gateway, "/v1/report", Some(json!({"trouble": "refused"}))).1.to_string().as_bytes(), "a report");
    daemon.wait_for("tried the hub localhost as gw-0001: it accepts this device");
    for arguments in [&["status"][..], &["diag"], &["status", "--json"], &["diag", "--json"]] {
        let ran = loud(&gateway, arguments, &[]);
        all.look_into((ran.stdout + &ran.stderr).as_bytes(), &format!("{arguments:?}"));
    }
    all.look_into(daemon.stop().as_bytes(), "the log");
}

#[test]
fn keys_stay_secret_where_they_are_refused_or_the_answer_is_garbage() {
    // The keys of the other emulator: nobody knows these.
    let emulator = emulator("", "");
    for transport in ["mqtt", "https"] {
        assert_eq!(Canaries::new().run_all(&canary_gateway(&emulator, transport), &[]), Some(77), "{transport}");
    }
    for (fault, code) in [("register: garbage x*", 76), ("register: html 401 x*", 77), ("register: truncate x*", 75)] {
        let emulator = canary_emulator(&format!("faults = [\"{fault}\"]"));
        assert_eq!(Canaries::new().run_all(&canary_gateway(&emulator, "https"), &[]), Some(code), "{fault}");
    }
}

#[test]
fn keys_stay_secret_where_they_are_in_the_wrong_place() {
    let emulator = canary_emulator("");
    let key = STANDARD.encode(PRIMARY);
    let broken = [
        (0o600, format!("HostName=h;SharedAccessKey={key}")),
        (0o600, format!("{key}*")),
        (0o600, format!("{key}{key}")),
        (0o644, key.clone()),
    ];
    for (mode, content) in broken {
        let mut gateway = canary_gateway(&emulator, "https");
        gateway.file("device.key", mode, content);
        assert_eq!(Canaries::new().run_all(&gateway, &[]), Some(77));
    }
    for line in [
        format!("attestation.key_file = \"{key}\""),
        format!("attestation.key_credential = \"{key}\""),
        format!("attestation.registration_id = \"{key}\""),
        format!("dps.id_scope = \"{key}\""),
        format!("dps.host = \"user:{PASSWORD}@host\""),
        format!("dps.proxy = \"http://user:{PASSWORD}@127.0.0.1:3128\""),
    ] {
        // `config show` prints what stands in the configuration, and this one is refused before.
        assert_eq!(Canaries::new().run_all(&canary_gateway(&emulator, "https").set(&line), &[]), Some(78), "{line}");
    }
}

#[test]
fn a_private_key_stays_secret() {
    let leaf = Leaf::self_signed("gw-0001", Algorithm::EcP256, pki::VALID).unwrap();
    let text = format!(
        "[service]\nid_scope = \"0ne00000000\"\n[[enrollment]]\nregistration_id = \"gw-0001\"\nanswer = \"at-once\"\n\
         certificate_pem = '''{}'''\n",
        leaf.certificate_pem
    );
    let emulator = Emulator::start(dps_emulator::Config::from_toml(&text).unwrap()).unwrap();
    let pem = leaf.key.pkcs8_pem();
    let mut canaries = Canaries::new();
    pem.lines().filter(|line| !line.starts_with('-')).for_each(|line| canaries.spellings.push(line.as_bytes().to_vec()));
    // The private number itself (RFC 5915), where `ring` writes it.
    canaries.add(&PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_der()[36..68]);
    let gateway = Gateway::new(&emulator, "mqtt").x509(&leaf.chain_pem, &pem);
    assert_eq!(canaries.run_all(&gateway, &[]), Some(0));
    let other = Leaf::self_signed("gw-0001", Algorithm::EcP256, pki::VALID).unwrap();
    for (chain, key) in [(&other.chain_pem, &pem), (&leaf.chain_pem, &pem.replacen("MIG", "M*G", 1)), (&pem, &pem)] {
        let gateway = Gateway::new(&emulator, "mqtt").x509(chain, key);
        assert_eq!(canaries.run_all(&gateway, &[]), Some(77));
    }
}

#[test]
fn the_password_of_a_proxy_stays_secret() {
    let emulator = canary_emulator("");
    let right = format!("user:{PASSWORD}");
    let canaries = Canaries { patience: "2s", ..Canaries::new() };
    for (accepted, code) in [(right.as_str(), 0), ("somebody:else", 75)] {
        let port = proxy(accepted.to_owned());
        let mut gateway = canary_gateway(&emulator, "https");
        let file = gateway.file("proxy", 0o600, &right);
        let gateway = gateway
            .set(&format!("dps.proxy = \"http://127.0.0.1:{port}\""))
            .set(&format!("dps.proxy_credentials_file = \"{}\"", file.display()));
        assert_eq!(canaries.run_all(&gateway, &[]), Some(code), "{accepted}");
        let url = format!("http://{right}@127.0.0.1:{port}");
        let gateway = canary_gateway(&emulator, "https");
        assert_eq!(canaries.run_all(&gateway, &[("HTTPS_PROXY", &url)]), Some(code), "{accepted}");
    }
    let url = format!("socks5://{right}@127.0.0.1:1");
    assert_eq!(canaries.run_all(&canary_gateway(&emulator, "https"), &[("HTTPS_PROXY", &url)]), Some(78));
}

/// A service that answers each request as `answer` makes it of the token that came with it. Its port and CA.
fn echo(answer: impl Fn(&str) -> String + Send + 'static) -> (u16, String) {
    let authority = Authority::root("echo", Algorithm::EcP256).unwrap();
    let key = Key::generate(Algorithm::EcP256).unwrap();
    let pem = key.pkcs8_pem();
    let chain = authority.server(&key, &["localhost".to_owned()], pki::VALID).unwrap();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let header = header(&mut tls);
            let token = header.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or_default();
            let _ = tls.write_all(answer(token).as_bytes());
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    });
    (port, authority.certificate_pem().to_owned())
}

fn response(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Echo\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

#[test]
fn a_token_that_is_echoed_is_not_repeated() {
    type Echo = fn(&str) -> String;
    let echoes: [(&str, i32, Echo); 10] = [
        ("message", 77, |token| {
            response(401, "", &serde_json::json!({"errorCode": 401_002, "message": format!("bad: {token}")}).to_string())
        }),
        ("tracking ID", 77, |token| response(401, "", &serde_json::json!({"trackingId": token}).to_string())),
        ("page", 77, |token| response(401, "", &format!("<html>{token}</html>"))),
        ("Retry-After", 77, |token| response(401, &format!("Retry-After: {token}\r\n"), "")),
        ("status", 69, |token| response(200, "", &serde_json::json!({"status": token}).to_string())),
        ("operation", 76, |token| {
            response(202, "", &serde_json::json!({"status": "assigning", "operationId": token}).to_string())
        }),
        ("hub", 76, |token| {
            let state = serde_json::json!({"assignedHub": token, "deviceId": "d"});
            response(200, "", &serde_json::json!({"status": "assigned", "registrationState": state}).to_string())
        }),
        ("device", 76, |token| {
            let state = serde_json::json!({"assignedHub": "h", "deviceId": token});
            response(200, "", &serde_json::json!({"status": "assigned", "registrationState": state}).to_string())
        }),
        ("location", 76, |token| {
            response(302, &format!("Location: https://elsewhere.example/?{}\r\n", token.replace(' ', "%20")), "")
        }),
        ("member", 76, |token| response(200, "", &format!("{{\"status\":\"assigning\",\"{}\":[]}}", token.replace('"', "")))),
    ];
    let emulator = canary_emulator("");
    let play = |(place, code, answer): (&str, i32, Echo)| {
        let (port, ca) = echo(answer);
        let mut gateway = canary_gateway(&emulator, "https").set(&format!("dps.https_port = {port}"));
        gateway.file("ca.pem", 0o644, ca);
        assert_eq!(Canaries::new().run_all(&gateway, &[]), Some(code), "{place}");
    };
    // Most of their time they wait.
    thread::scope(|scope| echoes.map(|scenario| scope.spawn(move || play(scenario))).map(|played| played.join().unwrap()));
}

#[test]
fn memory_is_not_dumped() {
    let emulator = canary_emulator("");
    let gateway = canary_gateway(&emulator, "https");
    assert_eq!(Ran::of(&mut strace::limits(&gateway, &["config", "validate"])).code, Some(0));
    let log = fs::read_to_string(strace::log(&gateway)).unwrap();
    let dumpable = ["prctl(PR_SET_DUMPABLE, SUID_DUMP_DISABLE", "prctl(PR_SET_DUMPABLE, 0"];
    assert!(dumpable.iter().any(|call| log.contains(call)), "{log}");
    assert!(log.contains("RLIMIT_CORE, {rlim_cur=0, rlim_max=0}"), "{log}");
}
