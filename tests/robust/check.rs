//! `check`: each way to fail with its words and exit code, and nothing to say where all is well.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::thread;

use dps_emulator::pki::{self, Algorithm, Authority, Leaf};
use serde_json::Value;

use crate::gateway::{Gateway, Ran, emulator};

/// The `found` and `cure` of the first check with this name and result.
fn line(ran: &Ran, id: &str, result: &str) -> (String, String, String) {
    let json = ran.json();
    let all = json["checks"].as_array().unwrap();
    let check = all.iter().find(|check| check["id"] == id && check["result"] == result);
    let check = check.unwrap_or_else(|| panic!("no {result} {id} in {json:#}"));
    let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
    (text("tried"), text("found"), text("cure"))
}

fn results(ran: &Ran) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    ran.json()["checks"].as_array().unwrap().iter().map(|check| (text(&check["id"]), text(&check["result"]))).collect()
}

/// Runs the check and compares the one line that failed.
fn fails(gateway: &Gateway, arguments: &[&str], code: i32, id: &str, expected: [&str; 3]) {
    let ran = gateway.run(&[&["check", "--json"], arguments].concat());
    let (tried, found, cure) = line(&ran, id, "failed");
    assert_eq!([tried, found, cure].map(|text| gateway.placed(&text)), expected);
    let (first, _) = results(&ran).into_iter().find(|(_, result)| result == "failed").unwrap();
    assert_eq!((first.as_str(), ran.code, ran.json()["ok"].as_bool()), (id, Some(code), Some(false)));
    assert_eq!(ran.stderr, "");
}

#[test]
fn where_all_is_well_each_transport_says_so_and_nothing_is_changed() {
    let emulator = emulator("", "");
    for transport in ["mqtt", "mqtt-ws", "https"] {
        let gateway = Gateway::new(&emulator, transport);
        let ran = gateway.run(&["check", "--json"]);
        let mut expected = vec![
            ("config", "ok"),
            ("state-directory", "ok"),
            ("runtime-directory", "ok"),
            ("credentials", "ok"),
            ("certificate", "skipped"),
            ("registration-id", "ok"),
            ("record", "ok"),
            ("clock", "ok"),
            ("tls", "ok"),
            ("dns", "ok"),
            ("proxy", "skipped"),
            ("tcp", "ok"),
            ("tls", "ok"),
            ("dps", "ok"),
        ];
        if transport == "https" {
            expected.push(("clock", "ok"));
        }
        expected.push(("hub", "skipped"));
        let found = results(&ran);
        assert_eq!(found.iter().map(|(id, result)| (id.as_str(), result.as_str())).collect::<Vec<_>>(), expected, "{transport}");
        assert_eq!((ran.code, ran.json()["ok"].as_bool()), (Some(0), Some(true)));
        assert!(!gateway.record().parent().unwrap().exists() && !gateway.assignment().parent().unwrap().exists());
    }
    let said = emulator.transcript("gw-0001");
    assert!(!said.iter().any(|line| line.starts_with("> register") || line.starts_with("> hub")), "{said:#?}");
}

#[test]
fn with_an_assignment_the_hub_is_reached_and_not_logged_in_to() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https").set("hub.transport = \"mqtt\"");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let record = fs::read(gateway.record()).unwrap();
    let ran = gateway.run(&["check", "--json"]);
    let (tried, found, _) = line(&ran, "hub", "ok");
    assert_eq!(tried, format!("TCP and TLS with localhost:{}", emulator.mqtt_port()));
    assert!(found.ends_with("; not logged in: a hub lets a device in once, and that connection belongs to the programs here"));
    assert_eq!(line(&ran, "record", "ok").1, "assigned to localhost as gw-0001 (unverified)");
    assert_eq!(line(&ran, "dps", "ok").1, "assigned to localhost");
    assert_eq!(fs::read(gateway.record()).unwrap(), record);
    assert!(!emulator.transcript_all().iter().any(|line| line.contains("> hub")));
}

#[test]
fn people_get_aligned_lines_with_the_cure_below() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "mqtt");
    gateway.file("device.key", 0o644, crate::gateway::KEY);
    let ran = gateway.run(&["check", "--offline"]);
    assert_eq!(ran.code, Some(77));
    let expected = "\
ok       config             read DIR/config.toml: valid
ok       state-directory    look whether DIR/state can be written: it is not there yet, and the agent can create it
ok       runtime-directory  look whether DIR/run can be written: it is not there yet, and the agent can create it
failed   credentials        read the key DIR/device.key: DIR/device.key is open to every user of this machine (mode 0644)
                            -> chmod o= DIR/device.key, and replace the key if others have been here
skipped  certificate        nothing: this device proves itself by a key
skipped  registration-id    find the name under which this device registers: the credentials come first
ok       record             read the record in DIR/state: none: this device is not provisioned yet
";
    assert!(gateway.placed(&ran.stdout).starts_with(expected), "{}", gateway.placed(&ran.stdout));
    assert!(!ran.stdout.contains("dns"));
}

#[test]
fn a_wrong_configuration_ends_it_at_once() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "pigeon");
    let ran = gateway.run(&["check", "--json"]);
    assert_eq!(ran.code, Some(78));
    let (_, found, cure) = line(&ran, "config", "failed");
    assert!(gateway.placed(&found).starts_with("DIR/config.toml:4: [dps] transport: "), "{found}");
    assert_eq!(cure, "each line says where and what; `dps-agent config validate` checks again");
    assert!(results(&ran).iter().skip(1).all(|(_, result)| result == "skipped"));
    assert_eq!(line(&ran, "hub", "skipped").1, "without a valid configuration it is not known what to look at");
}

#[test]
fn directories_that_cannot_be_written_are_named() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "mqtt");
    let file = gateway.file("a-file", 0o644, "");
    let runtime = gateway.path("run");
    let gateway = gateway.directories(&file, &runtime);
    let expected = [
        "look whether DIR/a-file can be written",
        "it is not a directory",
        "remove it, or name another one in the configuration",
    ];
    fails(&gateway, &["--offline"], 73, "state-directory", expected);
    let state = gateway.path("state");
    let gateway = gateway.directories(&state, &file.join("run"));
    let expected = [
        "look whether DIR/a-file/run can be written",
        "Not a directory (os error 20)",
        "the agent's user must own it: chown USER DIR/a-file/run",
    ];
    fails(&gateway, &["--offline"], 73, "runtime-directory", expected);
}

/// Permission bits do not bind root, so that a test run by root takes another user for this.
#[test]
fn a_directory_with_the_wrong_permissions_is_named() {
    const NOBODY: u32 = 65534;
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let (state, agent) = (gateway.path("state"), gateway.path("agent"));
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(gateway.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_dps-agent"), &agent).unwrap();
    let mut command = gateway.under(std::process::Command::new(&agent), &["check", "--json", "--offline"]);
    let owner = fs::metadata(&state).map(|found| std::os::unix::fs::MetadataExt::uid(&found)).unwrap();
    if owner == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let ran = Ran::of(&mut command);
    let (_, found, cure) = line(&ran, "state-directory", "failed");
    assert_eq!(found, format!("no: Permission denied (os error 13); it belongs to user {owner} with mode 0500"));
    assert_eq!(gateway.placed(&cure), "the agent's user must own it: chown USER DIR/state");
    assert_eq!(ran.code, Some(73));
}

#[test]
fn a_directory_that_others_can_write_is_worth_a_warning() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    fs::create_dir(gateway.path("state")).unwrap();
    fs::set_permissions(gateway.path("state"), Permissions::from_mode(0o777)).unwrap();
    let ran = gateway.run(&["check", "--json", "--offline"]);
    let (_, found, cure) = line(&ran, "state-directory", "warning");
    assert_eq!(found, "mode 0777 lets other users replace what is in it");
    assert_eq!(gateway.placed(&cure), "chmod 0700 DIR/state");
    assert_eq!(ran.code, Some(0));
}

#[test]
fn a_missing_key_is_named() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    fs::remove_file(gateway.path("device.key")).unwrap();
    let expected = [
        "read the key DIR/device.key",
        "cannot read DIR/device.key: No such file or directory (os error 2) (was it copied into the image?)",
        "put it there, readable by the agent's user and no other",
    ];
    fails(&gateway, &["--offline"], 77, "credentials", expected);
    let (_, reason, _) = line(&gateway.run(&["check", "--json"]), "dps", "skipped");
    assert_eq!(reason, "there is no usable credential to show, see above");
}

#[test]
fn a_certificate_is_held_against_the_clock() {
    let emulator = emulator("", "");
    let device = |days| Leaf::self_signed("gw-0001", Algorithm::EcP256, days).unwrap();
    let gateway = |leaf: Leaf| Gateway::new(&emulator, "mqtt").x509(&leaf.chain_pem, &leaf.key.pkcs8_pem());
    let said = |gateway: &Gateway, result| {
        let ran = gateway.run(&["check", "--json", "--offline"]);
        let (_, found, cure) = line(&ran, "certificate", result);
        (found, cure, ran.code)
    };
    let expired = said(&gateway(device(pki::EXPIRED)), "failed");
    let cure = "put a new certificate there; if it is newer than this, set the clock";
    assert_eq!(expired, ("the certificate expired 24 h ago".into(), cure.into(), Some(77)));
    // How many whole days are left depends on the seconds that this test has taken.
    let either = |said: (String, String, Option<i32>), words: [&str; 2], cure: &str, code| {
        assert!(words.contains(&said.0.as_str()), "{}", said.0);
        assert_eq!((said.1.as_str(), said.2), (cure, Some(code)));
    };
    let early = ["the certificate is not valid before 6 days from now", "the certificate is not valid before 7 days from now"];
    let cure = "set this machine's clock: timedatectl set-ntp true, or date -s";
    either(said(&gateway(device(pki::NOT_YET_VALID)), "failed"), early, cure, 75);
    let late = ["valid for 9 more days", "valid for 10 more days"];
    either(said(&gateway(device(-1..=10)), "warning"), late, "renew it before it ends", 0);
    let good = ["valid for 399 more days", "valid for 400 more days"];
    either(said(&gateway(device(-1..=400)), "ok"), good, "", 0);
}

#[test]
fn a_registered_certificate_is_known_over_each_transport() {
    let root = Authority::root("fleet", Algorithm::EcP256).unwrap();
    let leaf = root.leaf("gw-0001", Algorithm::EcP256, -1..=400).unwrap();
    let text = format!(
        "[service]\nid_scope = \"0ne00000000\"\n[[enrollment]]\nregistration_id = \"gw-0001\"\ncertificate_pem = '''{}'''\n",
        leaf.certificate_pem
    );
    let emulator = dps_emulator::Emulator::start(dps_emulator::Config::from_toml(&text).unwrap()).unwrap();
    for transport in ["mqtt", "mqtt-ws", "https"] {
        let ran = Gateway::new(&emulator, transport).x509(&leaf.chain_pem, &leaf.key.pkcs8_pem()).run(&["check", "--json"]);
        assert_eq!((ran.code, ran.json()["ok"].as_bool()), (Some(0), Some(true)), "{ran:?}");
        line(&ran, "dps", "ok");
    }
}

#[test]
fn a_damaged_or_foreign_record_is_worth_a_warning() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let gateway = gateway.set("attestation.registration_id = \"gw-0002\"");
    let (_, found, cure) = line(&gateway.run(&["check", "--json", "--offline"]), "record", "warning");
    assert_eq!(found, "it is of another ID scope, registration ID or credential than the configured one");
    assert_eq!(cure, "the next registration replaces it");
    fs::write(gateway.record(), "{}\n").unwrap();
    let ran = gateway.run(&["check", "--json", "--offline"]);
    let (_, found, cure) = line(&ran, "record", "warning");
    assert_eq!(gateway.placed(&found), "the record DIR/state/record is damaged: it has no checksum");
    assert_eq!(cure, "the next registration sets it aside and makes a new one");
    assert_eq!((ran.code, fs::read(gateway.record()).unwrap()), (Some(0), b"{}\n".to_vec()));
}

#[test]
fn nobody_to_trust_ends_the_way_before_it_begins() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https");
    fs::remove_file(gateway.path("ca.pem")).unwrap();
    let ran = gateway.run(&["check", "--json"]);
    let (tried, found, cure) = line(&ran, "tls", "failed");
    assert_eq!(gateway.placed(&tried), "load whom to trust: DIR/ca.pem");
    assert!(
        gateway.placed(&found).starts_with("the CA file DIR/ca.pem cannot be read as PEM certificates: "),
        "{}",
        gateway.placed(&found)
    );
    assert_eq!(cure, "correct ca_file in [dps], or install the package ca-certificates");
    assert_eq!(line(&ran, "tcp", "skipped").1, "there is nobody to trust, see above");
    assert_eq!((line(&ran, "dps", "skipped").1.as_str(), ran.code), ("no way to it is open, see above", Some(78)));
}

#[test]
fn a_name_without_address_is_named() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt").set("dps.host = \"no-such-host.invalid\"");
    let ran = gateway.run(&["check", "--json"]);
    let (tried, found, cure) = line(&ran, "dns", "failed");
    assert_eq!(tried, "look up no-such-host.invalid");
    // The resolver's own words differ with the machine.
    assert!(found.starts_with("the name no-such-host.invalid cannot be looked up: "), "{found}");
    assert_eq!(cure, "look at the spelling of the host, and at the name server in /etc/resolv.conf");
    assert_eq!(line(&ran, "tcp", "skipped").1, "the name cannot be looked up");
    assert_eq!(ran.code, Some(75));
}

#[test]
fn a_closed_port_is_named_and_no_more_than_a_warning_where_another_is_open() {
    let emulator = emulator("", "");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gateway = Gateway::new(&emulator, "mqtt").set(&format!("dps.mqtt_port = {closed}"));
    let expected = [
        &format!("connect to localhost:{closed}"),
        &format!("localhost:{closed} cannot be reached: Connection refused (os error 111)"),
        "look at cable, route and firewall: this port must be open outwards; transport = \"auto\" tries 443 too",
    ];
    fails(&gateway, &[], 75, "tcp", expected);
    let ran = gateway.run(&["check", "--json"]);
    assert_eq!(line(&ran, "tls", "skipped").1, "there is no connection");
    assert_eq!(line(&ran, "dps", "skipped").1, "no way to it is open, see above");
    let ran = gateway.set("dps.transport = \"auto\"").run(&["check", "--json"]);
    assert_eq!(line(&ran, "tcp", "warning").0, format!("connect to localhost:{closed}"));
    assert_eq!(
        (line(&ran, "dps", "ok").1.as_str(), ran.code),
        ("no registration yet: it has never registered, or is not enrolled in this ID scope", Some(0))
    );
}

#[test]
fn a_silent_port_is_named() {
    let emulator = emulator("faults = [\"tls: silence\"]", "");
    let port = emulator.mqtt_port();
    let gateway = Gateway::new(&emulator, "mqtt");
    let expected = [
        &format!("TLS with localhost:{port}"),
        &format!("no answer within 10 s from localhost:{port}"),
        "something on the way may cut TLS off: a firewall, a proxy, or a port where another service answers",
    ];
    fails(&gateway, &[], 75, "tls", expected);
}

#[test]
fn a_ca_that_nobody_trusts_is_named() {
    let server = emulator("", "");
    let mut gateway = Gateway::new(&server, "https");
    gateway.file("ca.pem", 0o644, emulator("", "").ca_pem());
    let ran = gateway.run(&["check", "--json"]);
    let (_, found, cure) = line(&ran, "tls", "failed");
    let start = "the certificate of localhost is not trusted: its issuer \"CN=dps-emulator throw-away CA ";
    assert!(found.starts_with(start) && found.ends_with("\" is not trusted"), "{found}");
    assert_eq!(cure, "if this network inspects TLS or the service is a private one, put that CA into ca_file");
    assert_eq!(ran.code, Some(76));
    let expired = emulator("server_certificate = \"expired\"", "");
    let ran = Gateway::new(&expired, "https").run(&["check", "--json"]);
    let (_, found, cure) = line(&ran, "tls", "failed");
    assert!(found.starts_with("the certificate of localhost is not trusted: it expired on "), "{found}");
    assert_eq!(cure, "look at the clock; if it is right, whoever runs the service must renew the certificate");
    assert_eq!(ran.code, Some(76));
}

/// A proxy that answers each CONNECT with this header.
fn proxy(header: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(header.as_bytes());
        }
    });
    port
}

#[test]
fn the_way_through_a_proxy_is_told_for_each_port() {
    let emulator = emulator("", "");
    let port = crate::proxy::proxy("user:password".to_owned());
    let mut gateway = Gateway::new(&emulator, "auto");
    let file = gateway.file("proxy", 0o600, "user:password");
    let gateway = gateway
        .set(&format!("dps.proxy = \"http://127.0.0.1:{port}\""))
        .set(&format!("dps.proxy_credentials_file = \"{}\"", file.display()));
    let ran = gateway.run(&["check", "--json"]);
    let network: Vec<_> = results(&ran).into_iter().skip(9).collect();
    let expected = [
        ("dns", "skipped"),
        ("tcp", "skipped"),
        ("proxy", "ok"),
        ("tls", "ok"),
        ("proxy", "ok"),
        ("tls", "ok"),
        ("dps", "ok"),
        ("clock", "ok"),
        ("hub", "skipped"),
    ];
    assert_eq!(network, expected.map(|(id, result)| (id.to_owned(), result.to_owned())));
    let (tried, _, _) = line(&ran, "proxy", "ok");
    assert_eq!(tried, format!("ask the proxy 127.0.0.1:{port} for localhost:{}", emulator.mqtt_port()));
    let gateway = Gateway::new(&emulator, "https");
    let mut command = gateway.command(&["check", "--json"]);
    let ran = Ran::of(command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "localhost"));
    assert_eq!((line(&ran, "proxy", "skipped").1.as_str(), ran.code), ("NO_PROXY takes this host out", Some(0)));
}

#[test]
fn a_proxy_that_is_down_or_wants_credentials_is_named() {
    let emulator = emulator("", "");
    let https = emulator.https_port();
    let cure = "look at proxy and proxy_credentials_file in [dps], and at the log of the proxy";
    let port = proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    let gateway = Gateway::new(&emulator, "https").set(&format!("dps.proxy = \"http://127.0.0.1:{port}\""));
    let tried = format!("ask the proxy 127.0.0.1:{port} for localhost:{https}");
    let found = format!(
        "the proxy 127.0.0.1:{port} answered CONNECT localhost:{https} with 407: it wants credentials, or other ones: \
         proxy_credentials_file names a file with user:password"
    );
    fails(&gateway, &[], 75, "proxy", [&tried, &found, cure]);
    let ran = gateway.run(&["check", "--json"]);
    assert_eq!(line(&ran, "tcp", "skipped").1, "the proxy connects to localhost");
    assert_eq!(line(&ran, "dns", "skipped").1, "it is an address");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gateway = gateway.set(&format!("dps.proxy = \"http://127.0.0.1:{closed}\""));
    let tried = format!("ask the proxy 127.0.0.1:{closed} for localhost:{https}");
    let found = format!("127.0.0.1:{closed} cannot be reached: Connection refused (os error 111)");
    let cure = "look at cable, route and firewall: this port must be open outwards; transport = \"auto\" tries 443 too";
    fails(&gateway, &[], 75, "proxy", [&tried, &found, cure]);
}

#[test]
fn what_dps_says_is_told_with_its_meaning() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "https");
    gateway.file("device.key", 0o600, "d3Jvbmcga2V5LCB3cm9uZyBrZXksIHdyb25nIGtleSE=");
    let ran = gateway.run(&["check", "--json"]);
    let (tried, found, cure) = line(&ran, "dps", "failed");
    assert_eq!(tried, "ask localhost over https how gw-0001 stands there");
    assert!(found.starts_with("the service answered 401, error code 401000: Unauthorized (trackingId "), "{found}");
    assert!(cure.starts_with("the key or certificate may not be the enrolled one"), "{cure}");
    assert_eq!(ran.code, Some(77));
    gateway.file("second.key", 0o600, crate::gateway::KEY);
    let second = format!("attestation.secondary_key_file = \"{}\"", gateway.path("second.key").display());
    let ran = gateway.set(&second).run(&["check", "--json"]);
    assert_eq!(line(&ran, "dps", "warning").1, "it refuses the primary key and accepts the secondary one");
    assert_eq!(ran.code, Some(0));
}

#[test]
fn a_device_that_dps_does_not_know_any_more_is_told_so() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    emulator.remove("gw-0001").unwrap();
    let ran = gateway.run(&["check", "--json"]);
    let (_, found, cure) = line(&ran, "dps", "warning");
    assert_eq!(found, "it does not know this device any more, though there is a record");
    assert_eq!(cure, "look whether the enrollment was removed; `dps-agent provision --force` registers anew");
    assert_eq!(ran.code, Some(0));
}
