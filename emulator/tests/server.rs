//! The server's side of TLS, the files it writes, and the program.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::{PATIENCE, emulator, symmetric, tcp, tls_config};
use dps_emulator::pki::{Algorithm, Authority};
use dps_emulator::{Config, Emulator};
use rustls::{ClientConnection, ProtocolVersion};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A handshake for `name`: the version, or the error.
fn handshake(emulator: &Emulator, name: &str) -> Result<ProtocolVersion, String> {
    let name = name.to_owned().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(tls_config(emulator, None)), name).unwrap();
    let mut stream = tcp(emulator.mqtt_port());
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    Ok(connection.protocol_version().unwrap())
}

#[test]
fn versions_and_keys() {
    let version = |service: &str| handshake(&emulator(service, ""), "localhost");
    assert_eq!(version(""), Ok(ProtocolVersion::TLSv1_2));
    assert_eq!(version("tls = [\"1.2\", \"1.3\"]"), Ok(ProtocolVersion::TLSv1_3));
    assert_eq!(version("tls = [\"1.3\"]\nserver_key = \"ecdsa\""), Ok(ProtocolVersion::TLSv1_3));
}

#[test]
fn names_in_the_certificate() {
    let emulator = emulator("host = \"dps.example\"\nhubs = [\"hub.example\"]", &symmetric("hub = \"other.example\""));
    for name in
        ["localhost", "127.0.0.1", "::1", "global.azure-devices-provisioning.net", "dps.example", "hub.example", "other.example"]
    {
        assert_eq!(handshake(&emulator, name), Ok(ProtocolVersion::TLSv1_2), "{name}");
    }
    assert!(handshake(&emulator, "third.example").is_err());
}

#[test]
fn faults_of_the_certificate() {
    for (fault, expected) in [
        ("expired", "expired"),
        ("not-yet-valid", "not valid yet"),
        ("wrong-name", "not valid for name"),
        ("unknown-ca", "UnknownIssuer"),
    ] {
        let emulator = emulator(&format!("server_certificate = \"{fault}\""), "");
        let error = handshake(&emulator, "localhost").unwrap_err();
        assert!(error.contains(expected), "{fault}: {error}");
        assert!(emulator.wait_for_line("-", "! tls ", PATIENCE), "{fault}");
    }
}

#[test]
fn a_hub_can_have_a_certificate_of_its_own() {
    let emulator = emulator("host = \"127.0.0.1\"\nhub_certificate = \"expired\"", "");
    assert_eq!(handshake(&emulator, "127.0.0.1"), Ok(ProtocolVersion::TLSv1_2));
    assert!(handshake(&emulator, "localhost").unwrap_err().contains("expired"));
    let same = Config::from_toml("[service]\nid_scope = \"0ne\"\nhub_certificate = \"expired\"").unwrap_err();
    assert!(same.to_string().contains("host must differ from the hubs"), "{same}");
}

#[test]
fn two_emulators_do_not_vouch_for_each_other() {
    let (one, two) = (emulator("", ""), emulator("", ""));
    let name = "localhost".try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(tls_config(&one, None)), name).unwrap();
    let result = connection.complete_io(&mut tcp(two.mqtt_port()));
    assert!(result.is_err_and(|error| error.to_string().contains("UnknownIssuer")));
}

#[test]
fn files_that_it_reads_and_writes() {
    let directory = std::env::temp_dir().join(format!("dps-emulator-{}-files", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    let key = dps_emulator::pki::Key::generate(Algorithm::EcP256).unwrap();
    let ca = Authority::root_with("own", key.copy().unwrap()).unwrap();
    std::fs::write(path("ca.pem"), ca.certificate_pem()).unwrap();
    std::fs::write(path("ca.key"), key.pkcs8_pem()).unwrap();
    let service = format!(
        "ca_file = \"{}\"\nca_key_file = \"{}\"\nca_out = \"{}\"\ntranscript_file = \"{}\"",
        path("ca.pem"),
        path("ca.key"),
        path("out.pem"),
        path("transcript")
    );
    let emulator = emulator(&service, &symmetric("answer = \"at-once\""));
    assert_eq!(std::fs::read_to_string(path("out.pem")).unwrap(), ca.certificate_pem());
    assert_eq!(handshake(&emulator, "localhost"), Ok(ProtocolVersion::TLSv1_2));
    client::https_register(&emulator).unwrap();
    let transcript = std::fs::read_to_string(path("transcript")).unwrap();
    let lines: Vec<&str> = transcript.lines().collect();
    assert_eq!(lines[0], format!("# dps-emulator {} transcript 1", env!("CARGO_PKG_VERSION")));
    let tail: Vec<&str> = lines[lines.len() - 3..].iter().map(|line| line.split(" {").next().unwrap()).collect();
    assert_eq!(tail, ["gw > connect https", "gw > register", "gw < 200"]);
    drop(emulator);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_stopped_emulator_frees_its_ports() {
    let emulator = emulator("", "");
    let port = emulator.mqtt_port();
    drop(emulator);
    std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
}

#[test]
fn the_examples_of_the_readme_are_good() {
    let readme = include_str!("../README.md");
    let blocks = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let configurations: Vec<_> = blocks.filter(|block| block.starts_with("[service]")).map(Config::from_toml).collect();
    assert_eq!(configurations.len(), 3);
    for configuration in configurations {
        assert!(configuration.is_ok(), "{configuration:?}");
    }
}

#[test]
fn a_wrong_configuration_is_explained() {
    let explained = |text: &str| Config::from_toml(text).unwrap_err().to_string();
    let service = "[service]\nid_scope = \"0ne\"\n";
    let enrollment = |rest: &str| explained(&format!("{service}[[enrollment]]\nregistration_id = \"gw\"\n{rest}"));
    assert_eq!(explained(""), "configuration:1: missing field `service`");
    assert!(explained(&format!("{service}colour = 1\n")).starts_with("configuration:3: unknown field `colour`, expected one of"));
    assert!(explained(&format!("{service}tls = [\"1.1\"]\n")).starts_with("configuration:3: unknown variant `1.1`"));
    assert_eq!(explained("[service]\nid_scope = \"a/b\"\n"), "configuration:1: id_scope \"a/b\" must be ASCII without \"/\"");
    assert_eq!(explained(&format!("{service}ca_file = \"x\"")), "configuration:1: ca_file and ca_key_file go together");
    let neither =
        "configuration:3: needs one of primary_key (and secondary_key), certificate_file, certificate_pem and endorsement_key";
    assert_eq!(enrollment(""), neither);
    assert_eq!(enrollment("primary_key = \"*\""), "configuration:3: a key is not base64");
    assert_eq!(enrollment("primary_key = \"YQ==\""), "configuration:3: a key has 1 bytes, not 16 to 64");
    assert_eq!(
        enrollment("primary_key = \"MDEyMzQ1Njc4OWFiY2RlZg==\"\nfaults = [\n\"hub: drop\",\n\"drop\"]"),
        "configuration:8: fault \"drop\" has no \"WHERE: WHAT\""
    );
    assert!(enrollment("certificate_file = \"/no/such.pem\"").starts_with("configuration:3: certificate_file /no/such.pem: "));
    let twice = format!("{service}{}{}", symmetric(""), symmetric("").replace("gw", "GW"));
    assert_eq!(explained(&twice), "configuration:7: registration_id \"GW\" is there twice");
}

#[test]
fn the_program_says_where_it_serves_and_stops_on_sigterm() {
    let file = std::env::temp_dir().join(format!("dps-emulator-{}-serve.toml", std::process::id()));
    std::fs::write(&file, "[service]\nid_scope = \"0ne\"\n").unwrap();
    let program = env!("CARGO_BIN_EXE_dps-emulator");
    let mut child = Command::new(program).args(["serve", "--config"]).arg(&file).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let announced: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&announced["idScope"], &announced["caFile"]), (&"0ne".into(), &serde_json::Value::Null));
    tcp(u16::try_from(announced["mqttPort"].as_u64().unwrap()).unwrap());
    tcp(u16::try_from(announced["httpsPort"].as_u64().unwrap()).unwrap());
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_program_explains_its_refusals() {
    let program = env!("CARGO_BIN_EXE_dps-emulator");
    let run = |arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["--help"]).0, 0);
    assert_eq!(run(&[]).0, 64);
    assert_eq!(run(&["serve"]).0, 64);
    let (code, said) = run(&["serve", "--config", "/no/such.toml"]);
    assert_eq!(code, 78);
    assert!(said.starts_with("dps-emulator: /no/such.toml: cannot read it: "), "{said}");
    let file = std::env::temp_dir().join(format!("dps-emulator-{}-bad.toml", std::process::id()));
    std::fs::write(&file, "[service]\nid_scope = 1\n").unwrap();
    let (code, said) = run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(code, 78);
    assert!(said.starts_with(&format!("dps-emulator: {}:2: invalid type: integer", file.display())), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    std::fs::write(&file, format!("[service]\nid_scope = \"0ne\"\nmqtt_port = {port}\n")).unwrap();
    let (code, said) = run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(code, 69);
    assert!(said.starts_with(&format!("dps-emulator: cannot listen on 127.0.0.1:{port}: ")), "{said}");
    std::fs::remove_file(file).unwrap();
}
