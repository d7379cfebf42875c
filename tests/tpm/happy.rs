//! What a TPM gateway does when nothing goes wrong, to the letter: the conversation, the round trips and the TPM's commands.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use crate::flights::Flights;
use crate::hostile_gateway::{Gateway, ID, emulator, endorsement_key};
use crate::swtpm::Swtpm;

const CONVERSATION: [&str; 15] = [
    "> connect https",
    "> challenge",
    "< 401",
    "= answered",
    "> register",
    "< 202",
    "pause 2.000",
    "> query",
    "< 200",
    "= imported",
    "> disconnect",
    "= assigned localhost gw-tpm",
    "> hub connect mqtt localhost gw-tpm",
    "< connack 0",
    "= proven",
];

const WITH_A_KEY_AT_ITS_HANDLE: &str = "attestation.identity_handle = \"0x81000100\"";

/// What was said, without what differs from time to time: operation IDs, bodies and times.
fn kinds(transcript: &str) -> Vec<String> {
    let shortened = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let kept = match words[..] {
            ["<", "connack", ..] => 3,
            ["<", ..] | [">", "query", ..] => 2,
            _ => words.len(),
        };
        words[..kept].join(" ")
    };
    transcript.lines().filter(|line| !line.starts_with('#')).map(shortened).collect()
}

/// The conversation of a registration.
fn transcript(gateway: &Gateway, arguments: &[&str]) -> Vec<String> {
    let file = gateway.path("transcript");
    gateway.run(&[arguments, &["--transcript", file.to_str().unwrap()]].concat()).well();
    kinds(&fs::read_to_string(file).unwrap())
}

#[test]
fn a_registration_is_one_connection_with_as_few_round_trips_as_can_be() {
    for (tls, round_trips) in [("1.3", 5), ("1.2", 6)] {
        let tpm = Swtpm::start();
        let config = emulator(&format!("tls = [\"{tls}\"]"), ID, &endorsement_key(&tpm), "polls = 0");
        let mut gateway = Gateway::of(tpm, &config);
        let flights = Flights::start(gateway.emulator.https_port());
        gateway.set(&format!("dps.https_port = {}", flights.port()));
        assert_eq!(transcript(&gateway, &["provision"]), CONVERSATION);
        let counts = flights.counts();
        println!("TLS {tls}, TCP connect to assigned with one poll: {} connection, {} round trips", counts.0, counts.1);
        assert_eq!(counts, (1, round_trips), "TLS {tls}");
    }
}

/// What the TPM is asked while the agent does something, in a row: `2 GetCapability, 1 HMAC`.
fn asked_of_the_tpm(gateway: &Gateway, what: &str, arguments: &[&str]) -> String {
    gateway.relay.rules(&[]);
    gateway.run(arguments).well();
    let list = gateway.commands().iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ");
    println!("{what}: {} commands of the TPM: {list}", gateway.relay.codes().len());
    format!("{}: {list}", gateway.relay.codes().len())
}

#[test]
fn the_tpm_is_asked_for_no_more_than_is_needed() {
    let gateway = Gateway::new();
    let asked = [
        asked_of_the_tpm(&gateway, "first registration", &["provision"]),
        asked_of_the_tpm(&gateway, "start with a valid record", &["provision"]),
        asked_of_the_tpm(&gateway, "token", &["token"]),
        asked_of_the_tpm(&gateway, "registration anew", &["provision", "--force"]),
    ];
    let expected = [
        "32: 2 ActivateCredential, 2 CreatePrimary, 2 EvictControl, 5 FlushContext, 3 GetCapability, 2 HMAC, 2 Import, 3 Load, \
         2 PolicySecret, 7 ReadPublic, 2 StartAuthSession",
        "4: 2 GetCapability, 2 ReadPublic",
        "6: 1 FlushContext, 2 GetCapability, 1 HMAC, 1 Load, 1 ReadPublic",
        "25: 2 ActivateCredential, 3 FlushContext, 2 GetCapability, 2 HMAC, 2 Import, 3 Load, 2 PolicySecret, 7 ReadPublic, \
         2 StartAuthSession",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn with_an_identity_handle_a_start_looks_there_too_and_a_token_does_not() {
    let mut gateway = Gateway::new();
    gateway.set(WITH_A_KEY_AT_ITS_HANDLE);
    let asked = [
        asked_of_the_tpm(&gateway, "first registration with identity_handle", &["provision"]),
        asked_of_the_tpm(&gateway, "start with a valid record and identity_handle", &["provision"]),
        asked_of_the_tpm(&gateway, "token with identity_handle", &["token"]),
        asked_of_the_tpm(&gateway, "registration anew with identity_handle", &["provision", "--force"]),
    ];
    let expected = [
        "37: 2 ActivateCredential, 2 CreatePrimary, 3 EvictControl, 6 FlushContext, 3 GetCapability, 2 HMAC, 2 Import, 4 Load, \
         2 PolicySecret, 9 ReadPublic, 2 StartAuthSession",
        "5: 2 GetCapability, 3 ReadPublic",
        "6: 1 FlushContext, 2 GetCapability, 1 HMAC, 1 Load, 1 ReadPublic",
        "31: 2 ActivateCredential, 2 EvictControl, 4 FlushContext, 2 GetCapability, 2 HMAC, 2 Import, 4 Load, 2 PolicySecret, \
         9 ReadPublic, 2 StartAuthSession",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_second_run_asks_nobody_and_changes_nothing() {
    let mut gateway = Gateway::new();
    gateway.set(WITH_A_KEY_AT_ITS_HANDLE);
    let first = gateway.provision();
    let said = gateway.emulator.transcript(ID);
    let files = || ["state/record", "run/assignment.json"].map(|name| fs::read(gateway.path(name)).unwrap());
    let (written, kept) = (files(), gateway.at("0x81000100"));
    assert_eq!(kept, Some(gateway.hub_key()));
    for _ in 0..2 {
        assert_eq!(gateway.provision().stdout, first.stdout);
        assert_eq!(
            (gateway.emulator.transcript(ID), files(), gateway.at("0x81000100")),
            (said.clone(), written.clone(), kept.clone())
        );
    }
    assert!(gateway.works());
}

#[test]
fn a_registration_anew_brings_another_key() {
    let mut gateway = Gateway::answered("polls = 0");
    gateway.set(WITH_A_KEY_AT_ITS_HANDLE);
    gateway.provision();
    let (old, token) = (gateway.hub_key(), gateway.token().unwrap());
    assert!(gateway.emulator.hub_accepts(ID, &token));
    assert_eq!(transcript(&gateway, &["provision", "--force"]), CONVERSATION);
    assert_ne!(gateway.hub_key(), old);
    assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()), "the handle follows");
    assert_eq!(gateway.emulator.hub_key_generation(ID), 2);
    assert!(!gateway.emulator.hub_accepts(ID, &token), "the old key signs no more");
    assert!(gateway.works());
    let record = gateway.record();
    assert_eq!((&record["generation"], &record["proof"], &record["predecessor"]), (&1.into(), &"proven".into(), &().into()));
    assert_eq!(record["made"].as_array().unwrap().len(), 2);
}

#[test]
fn a_token_needs_no_network() {
    let mut gateway = Gateway::new();
    gateway.provision();
    let said = gateway.emulator.transcript(ID);
    for (table, port) in [("dps", "https_port"), ("hub", "mqtt_port"), ("hub", "https_port")] {
        gateway.set(&format!("{table}.{port} = 1"));
    }
    let token = gateway.token().unwrap();
    assert!(token.starts_with("SharedAccessSignature sr=localhost%2Fdevices%2Fgw-tpm&sig="), "{token}");
    assert!(!token.contains("skn="), "{token}");
    assert!(gateway.emulator.hub_accepts(ID, &token));
    assert_eq!(gateway.emulator.transcript(ID), said);
}

#[test]
fn a_move_to_another_hub_is_followed() {
    let tpm = Swtpm::start();
    let config = emulator("hubs = [\"localhost\", \"127.0.0.1\"]", ID, &endorsement_key(&tpm), "answer = \"at-once\"");
    let mut gateway = Gateway::of(tpm, &config);
    gateway.set(WITH_A_KEY_AT_ITS_HANDLE);
    gateway.provision();
    gateway.emulator.move_hub(ID, "127.0.0.1").unwrap();
    assert!(gateway.works(), "until somebody registers, the old hub is the hub");
    gateway.run(&["provision", "--force"]).well();
    let record = gateway.record();
    assert_eq!((&record["assignedHub"], &record["generation"]), (&"127.0.0.1".into(), &2.into()));
    assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()));
    assert!(gateway.works());
}

/// RFC 4648 §6 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |five: &[u8]| (0..5).fold(0, |number, bit| number * 2 + usize::from(five.get(bit).copied().unwrap_or(0)));
    bits.chunks(5).map(|five| char::from(LETTERS[number(five)])).collect()
}

#[test]
fn the_registration_id_is_made_of_the_endorsement_key_or_given() {
    let tpm = Swtpm::start();
    let key = endorsement_key(&tpm);
    let digest = Sha256::digest(STANDARD.decode(&key).unwrap());
    let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let base32 = base32(&digest);
    assert_eq!((hex.len(), base32.len()), (64, 52));
    let mut gateway = Gateway::of(tpm, &emulator("", &hex, &key, ""));
    let from_the_key = [
        (None, &hex),
        (Some("{ from = \"tpm-ek\" }"), &hex),
        (Some("{ from = \"tpm-ek\", encoding = \"hex\" }"), &hex),
        (Some("{ from = \"tpm-ek\", encoding = \"base32\" }"), &base32),
        (Some("\"another-name\""), &"another-name".to_owned()),
    ];
    for (written, id) in from_the_key {
        gateway.unset("registration_id");
        if let Some(written) = written {
            gateway.set(&format!("attestation.registration_id = {written}"));
        }
        gateway.meets(&emulator("", id, &key, "answer = \"at-once\""));
        gateway.run(&["provision", "--force"]).well();
        assert_eq!(gateway.record()["registrationId"], **id, "{written:?}");
        let token = gateway.token().unwrap();
        assert!(gateway.emulator.hub_accepts(id, &token));
    }
}

#[test]
fn dps_is_asked_over_https_whatever_could_be_asked_too() {
    let mut gateway = Gateway::new();
    gateway.set("dps.transport = \"auto\"");
    gateway.provision();
    assert_eq!(
        gateway.asked(),
        ["> connect https", "> challenge", "> register", "> hub connect mqtt localhost gw-tpm", "> disconnect"]
    );
    gateway.set("dps.https_port = 1");
    let (code, message) = gateway.fails(&["provision", "--force", "--timeout", "1s"]);
    assert_eq!(code, 75, "{message}");
    assert_eq!(gateway.asked().len(), 5, "not over MQTT instead");
    for transport in ["mqtt", "mqtt-ws"] {
        gateway.set(&format!("dps.transport = \"{transport}\""));
        let (code, message) = gateway.fails(&["provision"]);
        assert_eq!(code, 78);
        assert!(message.contains("[dps] transport: DPS takes a TPM over HTTPS only, and"), "{message}");
    }
}

#[test]
fn the_handle_is_written_last_and_repaired_from_the_record() {
    let mut gateway = Gateway::new();
    gateway.provision();
    assert_eq!(gateway.at("0x81000100"), None, "nobody wants it there");
    gateway.set(WITH_A_KEY_AT_ITS_HANDLE);
    let evict = "tpm2_evictcontrol -Q -C o -c 0x81000100";
    for arguments in [&["provision"][..], &["provision", "--json"]] {
        gateway.relay.rules(&[]);
        gateway.run(arguments).well();
        assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()));
        gateway.tpm.tool(evict).success();
    }
    let daemon = Daemon::assigned(&gateway);
    daemon.stops();
    assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()), "the daemon repairs it, too");
    gateway.run(&["provision", "--force"]).well();
    let names = gateway.relay.codes().iter().map(ToString::to_string).collect::<Vec<_>>();
    let last = |name: &str| names.iter().rposition(|known| known == name).unwrap();
    assert!(last("EvictControl") > last("HMAC"), "only when the hub has accepted the key: {names:?}");
    assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()));
    assert_eq!(gateway.emulator.hub_key_generation(ID), 2);
}

#[test]
fn what_other_programs_find_at_the_handle_signs_for_the_hub() {
    let mut gateway = Gateway::new();
    gateway.set(WITH_A_KEY_AT_ITS_HANDLE);
    gateway.provision();
    let (audience, expiry) = ("localhost%2Fdevices%2Fgw-tpm", 4_000_000_000_u64);
    fs::write(gateway.tpm.path("text"), format!("{audience}\n{expiry}")).unwrap();
    gateway.tpm.tool("tpm2_hmac -c 0x81000100 -g sha256 -o signature text").success();
    let signature = STANDARD.encode(fs::read(gateway.tpm.path("signature")).unwrap());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let token = format!("SharedAccessSignature sr={audience}&sig={signature}&se={expiry}");
    assert!(gateway.emulator.hub_accepts(ID, &token), "{token}");
}

/// The agent as it stays.
struct Daemon {
    process: std::process::Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Daemon {
    /// Started, and assigned to its hub.
    fn assigned(gateway: &Gateway) -> Self {
        let mut command: Command = gateway.command(&["run"]);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("assigned to localhost as gw-tpm (proven)") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it has ended");
        }
        Self { process, log }
    }

    /// Stops in order, when asked to.
    fn stops(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.log, &mut rest).unwrap();
        assert_eq!(self.process.wait().unwrap().code(), Some(0), "{rest}");
    }
}

#[test]
fn a_start_of_the_daemon_asks_the_tpm_as_little_as_a_start_of_a_verb() {
    let gateway = Gateway::new();
    gateway.provision();
    let said = gateway.emulator.transcript(ID);
    gateway.relay.rules(&[]);
    Daemon::assigned(&gateway).stops();
    assert_eq!(gateway.commands(), [("GetCapability".to_owned(), 2), ("ReadPublic".to_owned(), 2)]);
    assert_eq!(gateway.emulator.transcript(ID), said);
}
