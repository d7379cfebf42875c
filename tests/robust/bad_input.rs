//! Bad input is answered: each kind of broken key, certificate, record, directory, command line and configuration has its words
//! and its exit code, and nothing that is stored is lost by it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dps_emulator::pki::{self, Algorithm, Leaf};
use dps_emulator::{Config, Emulator};

use crate::gateway::{Gateway, KEY, Ran, emulator};

/// A gateway with a record; the record.
fn provisioned(emulator: &Emulator) -> (Gateway, Vec<u8>) {
    let gateway = Gateway::new(emulator, "https");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let record = fs::read(gateway.record()).unwrap();
    (gateway, record)
}

#[test]
fn each_kind_of_broken_key_is_named() {
    let emulator = emulator("", "");
    let (mut gateway, record) = provisioned(&emulator);
    let not_base64 =
        "DIR/device.key holds no symmetric key: it is not base64; put the key there as the portal shows it, on one line";
    let too_short = "DIR/device.key holds no symmetric key: it is base64 of 3 bytes, and a key has 16 to 64";
    let too_long = "DIR/device.key holds no symmetric key: it is base64 of 66 bytes, and a key has 16 to 64";
    let open = "DIR/device.key is open to every user of this machine (mode 0644): chmod o= DIR/device.key, and replace the key if others have been here";
    let large = "DIR/device.key is larger than 64 KiB: this is no key, certificate or password";
    let long = "AAAA".repeat(22);
    let huge = "A".repeat(70_000);
    for (mode, content, message) in [
        (0o600, "", "DIR/device.key holds no symmetric key: it is empty"),
        (0o600, "\n\n", "DIR/device.key holds no symmetric key: it is empty"),
        (0o600, "my secret key", not_base64),
        (0o600, &format!("{KEY}\n{KEY}\n"), not_base64),
        (0o600, "HostName=h;SharedAccessKey=c2VjcmV0", not_base64),
        (0o600, "AAAA", too_short),
        (0o600, &long, too_long),
        (0o644, KEY, open),
        (0o600, &huge, large),
    ] {
        gateway.file("device.key", mode, content);
        assert_eq!(gateway.error(&["provision", "--force"]), (77, message.to_owned()));
        // A record does not make a broken key good.
        assert_eq!(gateway.error(&["provision"]), (77, message.to_owned()));
        assert_eq!(fs::read(gateway.record()).unwrap(), record);
    }
    fs::remove_file(gateway.path("device.key")).unwrap();
    let missing = "cannot read DIR/device.key: No such file or directory (os error 2) (was it copied into the image?)";
    assert_eq!(gateway.error(&["provision", "--force"]), (77, missing.to_owned()));
    fs::create_dir(gateway.path("device.key")).unwrap();
    assert_eq!(gateway.error(&["provision", "--force"]), (77, "DIR/device.key is not a regular file".to_owned()));
    fs::remove_dir(gateway.path("device.key")).unwrap();
    assert!(Command::new("mkfifo").arg(gateway.path("device.key")).status().unwrap().success());
    assert_eq!(gateway.error(&["provision", "--force"]), (77, "DIR/device.key is not a regular file".to_owned()));
    fs::remove_file(gateway.path("device.key")).unwrap();
    gateway.file("device.key", 0o600, format!(" {KEY}\r\n"));
    assert_eq!(gateway.run(&["provision", "--force"]).code, Some(0));
}

#[test]
fn a_broken_secondary_key_is_named_too() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "https");
    let second = gateway.file("second.key", 0o600, "AAAA");
    let gateway = gateway.set(&format!("attestation.secondary_key_file = \"{}\"", second.display()));
    let message = "DIR/second.key holds no symmetric key: it is base64 of 3 bytes, and a key has 16 to 64";
    assert_eq!(gateway.error(&["provision"]), (77, message.to_owned()));
}

#[test]
fn a_systemd_credential_is_used_or_its_absence_explained() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "https").unset("key_file").set("attestation.key_credential = \"dps-key\"");
    let message = "the systemd credential \"dps-key\" is not there: $CREDENTIALS_DIRECTORY is not set; \
                   put LoadCredential=dps-key:FILE into the unit, or use a …_file key";
    assert_eq!(gateway.error(&["provision"]), (77, message.to_owned()));
    let run = |gateway: &Gateway| {
        let mut command = gateway.command(&["provision", "--json"]);
        Ran::of(command.env("CREDENTIALS_DIRECTORY", gateway.path("credentials")))
    };
    fs::create_dir(gateway.path("credentials")).unwrap();
    let ran = run(&gateway);
    let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
    let missing = "cannot read DIR/credentials/dps-key: No such file or directory (os error 2) (was it copied into the image?)";
    assert_eq!((ran.code, gateway.placed(&message).as_str()), (Some(77), missing));
    gateway.file("credentials/dps-key", 0o400, KEY);
    assert_eq!(run(&gateway).code, Some(0));
}

/// An emulator that knows `gw-0001` by this certificate.
fn x509_emulator(certificate_pem: &str) -> Emulator {
    let text = format!(
        "[service]\nid_scope = \"0ne00000000\"\n[[enrollment]]\nregistration_id = \"gw-0001\"\nanswer = \"at-once\"\n\
         certificate_pem = '''{certificate_pem}'''\n"
    );
    Emulator::start(Config::from_toml(&text).unwrap()).unwrap()
}

#[test]
fn keys_are_taken_in_each_of_their_forms() {
    for algorithm in [Algorithm::EcP256, Algorithm::Rsa2048] {
        let leaf = Leaf::self_signed("gw-0001", algorithm, pki::VALID).unwrap();
        let emulator = x509_emulator(&leaf.certificate_pem);
        let traditional = leaf.key.traditional_pem().unwrap();
        let label = if algorithm == Algorithm::EcP256 { "BEGIN EC PRIVATE KEY" } else { "BEGIN RSA PRIVATE KEY" };
        assert!(traditional.contains(label));
        for key in [leaf.key.pkcs8_pem(), traditional] {
            let ran = Gateway::new(&emulator, "mqtt").x509(&leaf.chain_pem, &key).run(&["provision"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
    }
}

#[test]
fn each_kind_of_broken_certificate_or_key_of_it_is_named() {
    let leaf = Leaf::self_signed("gw-0001", Algorithm::EcP256, pki::VALID).unwrap();
    let emulator = x509_emulator(&leaf.certificate_pem);
    let (chain, key) = (leaf.chain_pem.clone(), leaf.key.pkcs8_pem());
    let mut gateway = Gateway::new(&emulator, "mqtt").x509(&chain, &key);
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let record = fs::read(gateway.record()).unwrap();
    let other = Leaf::self_signed("gw-0001", Algorithm::EcP256, pki::VALID).unwrap().key.pkcs8_pem();
    let damaged_chain = chain.replacen('M', "*", 1);
    let damaged_key = key.replacen("MIG", "*IG", 1);
    assert_ne!((&damaged_chain, &damaged_key), (&chain, &key));
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    let no_pair = "the private key in DIR/device-key.pem does not belong to the first certificate in DIR/device.pem: \
                   write the leaf first, and its own key";
    for (chain, key, message) in [
        ("", &*key, "DIR/device.pem holds no usable certificate chain: it has no CERTIFICATE section"),
        (&*key, &*key, "DIR/device.pem holds no usable certificate chain: it has no CERTIFICATE section"),
        (
            &damaged_chain,
            &key,
            "DIR/device.pem holds no usable certificate chain: its PEM is damaged (base64 decode error: InvalidCharacter(42))",
        ),
        (
            &not_der,
            &key,
            "DIR/device.pem holds no usable certificate chain: its first certificate is damaged (unknown/unsupported ASN.1 DER tag: 0x00)",
        ),
        (
            &chain,
            "",
            "DIR/device-key.pem holds no usable private key: it has no section PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY",
        ),
        (
            &chain,
            &damaged_key,
            "DIR/device-key.pem holds no usable private key: its PEM is damaged (base64 decode error: InvalidCharacter(42))",
        ),
        (&chain, &other, no_pair),
    ] {
        gateway.file("device.pem", 0o644, chain);
        gateway.file("device-key.pem", 0o600, key);
        assert_eq!(gateway.error(&["provision", "--force"]), (77, message.to_owned()));
        assert_eq!(fs::read(gateway.record()).unwrap(), record);
    }
    gateway.file("device.pem", 0o644, &chain);
    gateway.file("device-key.pem", 0o644, &key);
    let open = "DIR/device-key.pem is open to every user of this machine (mode 0644): chmod o= DIR/device-key.pem, \
                and replace the key if others have been here";
    assert_eq!(gateway.error(&["provision", "--force"]), (77, open.to_owned()));
    fs::remove_file(gateway.path("device.pem")).unwrap();
    let missing = "DIR/device.pem holds no usable certificate chain: No such file or directory (os error 2)";
    assert_eq!(gateway.error(&["provision", "--force"]), (77, missing.to_owned()));
    assert_eq!(fs::read(gateway.record()).unwrap(), record);
}

/// `openssl` in this directory, for what our own tools do not make.
fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = output.expect("this test needs openssl: apt-get install openssl");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_certificate_names_one_device_and_its_key_has_no_password() {
    let leaf = Leaf::self_signed("gw-0001", Algorithm::EcP256, pki::VALID).unwrap();
    let emulator = x509_emulator(&leaf.certificate_pem);
    let gateway = Gateway::new(&emulator, "mqtt").x509(&leaf.chain_pem, &leaf.key.pkcs8_pem());
    let here = gateway.path("");
    for (subject, message) in [
        (
            "/O=Contoso",
            "DIR/device.pem holds no usable certificate chain: the subject of its first certificate (O=Contoso) has no common name, and DPS knows a device by that",
        ),
        (
            "/CN=gw-0001/CN=gw-0002",
            "DIR/device.pem holds no usable certificate chain: the subject of its first certificate (CN=gw-0002,CN=gw-0001) has more than one common name",
        ),
    ] {
        openssl(&here, &format!("req -x509 -key device-key.pem -out device.pem -days 9 -subj {subject}"));
        assert_eq!(gateway.error(&["provision"]), (77, message.to_owned()));
    }
    openssl(&here, "req -x509 -key device-key.pem -out device.pem -days 9 -subj /CN=gw-0002");
    let other = "the registration ID is \"gw-0001\" but the certificate's common name is \"gw-0002\"; with x509 they must be equal, in upper and lower case too";
    assert_eq!(gateway.error(&["provision"]), (78, other.to_owned()));
    openssl(&here, "pkcs8 -topk8 -in device-key.pem -out encrypted.pem -v2 aes-256-cbc -passout pass:hunter2");
    fs::rename(gateway.path("encrypted.pem"), gateway.path("device-key.pem")).unwrap();
    let encrypted = "DIR/device-key.pem holds no usable private key: it is encrypted, and nobody is there to type the password: \
                     openssl pkey -in FILE -out PLAIN";
    assert_eq!(gateway.error(&["provision"]), (77, encrypted.to_owned()));
}

#[test]
fn each_kind_of_damaged_record_is_set_aside_and_named() {
    let emulator = emulator("", "");
    let (gateway, good) = provisioned(&emulator);
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    for (number, (damaged, why)) in [
        (Vec::new(), "its first line has no end"),
        (good[..40].to_vec(), "its first line has no end"),
        (vec![0; 4096], "its first line has no end"),
        (good[..good.len() - 30].to_vec(), "its checksum is wrong"),
        (b"{}\n".to_vec(), "it has no checksum"),
        (flipped, "its checksum is wrong"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(gateway.record(), &damaged).unwrap();
        let said = format!("the record DIR/state/record is damaged: {why}");
        assert_eq!(gateway.error(&["status"]), (74, format!("{said}; the next registration replaces it")));
        assert_eq!(fs::read(gateway.record()).unwrap(), damaged);
        let ran = gateway.run(&["provision", "--json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let aside = format!("record.damaged-{}", number + 1);
        let warning = format!("{said}; it is kept as DIR/state/{aside}, and the device registers anew\n");
        assert!(gateway.placed(&ran.stderr).ends_with(&warning), "{}", ran.stderr);
        assert_eq!(fs::read(gateway.record().with_file_name(&aside)).unwrap(), damaged);
        assert_eq!(gateway.run(&["status", "--json"]).json()["assignedHub"], "localhost");
    }
}

#[test]
fn directories_that_cannot_be_used_are_named_before_dps_is_asked() {
    let emulator = emulator("", "");
    let mut gateway = Gateway::new(&emulator, "https");
    let (file, state, runtime) = (gateway.file("a-file", 0o644, "precious"), gateway.path("state"), gateway.path("run"));
    let below = file.join("below");
    let not_a_directory = "DIR/a-file is not a directory: remove it, or name another one in the configuration";
    let not_created = "cannot create DIR/a-file/below: Not a directory (os error 20)";
    let fails = |gateway: Gateway, state: &PathBuf, runtime: &PathBuf, message: &str| {
        let gateway = gateway.directories(state, runtime);
        assert_eq!(gateway.error(&["provision", "--force"]), (73, message.to_owned()));
        gateway
    };
    let gateway = fails(gateway, &file, &runtime, not_a_directory);
    let gateway = fails(gateway, &state, &file, not_a_directory);
    let gateway = fails(gateway, &state, &below, not_created);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert!(emulator.transcript("gw-0001").is_empty(), "{:?}", emulator.transcript("gw-0001"));
    drop(gateway);
}

#[test]
fn a_payload_file_is_json_or_named() {
    let emulator = emulator("", "");
    let (mut gateway, record) = provisioned(&emulator);
    let path = gateway.path("payload.json");
    gateway = gateway.set(&format!("dps.payload_file = \"{}\"", path.display()));
    let missing = "dps.payload_file DIR/payload.json: No such file or directory (os error 2)";
    assert_eq!(gateway.error(&["provision", "--force"]), (78, missing.to_owned()));
    gateway.file("payload.json", 0o644, "{\"modelId\": }");
    let broken = "dps.payload_file DIR/payload.json: not JSON: expected value at line 1 column 13";
    assert_eq!(gateway.error(&["provision", "--force"]), (78, broken.to_owned()));
    assert_eq!(fs::read(gateway.record()).unwrap(), record);
    gateway.file("payload.json", 0o644, "{\"modelId\": 1}");
    assert_eq!(gateway.run(&["provision", "--force"]).code, Some(0));
    assert_eq!(emulator.received_payload("gw-0001"), Some(serde_json::json!({"modelId": 1})));
}

#[test]
fn a_transcript_that_cannot_be_written_is_named_before_dps_is_asked() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https");
    let path = gateway.path("missing/transcript");
    let message = "cannot write the transcript DIR/missing/transcript: No such file or directory (os error 2)";
    assert_eq!(gateway.error(&["provision", "--transcript", path.to_str().unwrap()]), (73, message.to_owned()));
    assert!(emulator.transcript_all().is_empty());
}

#[test]
fn a_wrong_command_line_is_answered_for_people_and_machines() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "https");
    let ran = gateway.run(&["provision", "--timeout", "5d"]);
    assert_eq!(ran.code, Some(64));
    assert!(
        ran.stderr
            .starts_with("error: invalid value '5d' for '--timeout <TIME>': \"d\" is no unit; write s, m or h, such as 60s"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stdout, "");
    for (arguments, start) in [
        (vec!["provision", "--timeout", "5d"], "error: invalid value '5d' for '--timeout <TIME>': \"d\" is no unit"),
        (vec!["provison"], "error: unrecognized subcommand 'provison'"),
        (vec!["status", "--force"], "error: unexpected argument '--force' found"),
        (vec!["config"], "error: 'dps-agent config' requires a subcommand but one was not provided"),
    ] {
        let (code, message) = gateway.error(&arguments);
        assert!(code == 64 && message.starts_with(start), "{message}");
    }
    assert_eq!(gateway.run(&["--help"]).code, Some(0));
    let version = gateway.run(&["--version"]);
    assert_eq!((version.code, version.stdout), (Some(0), format!("dps-agent {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_configuration_is_answered_with_place_key_and_cure() {
    let emulator = emulator("", "");
    let (gateway, record) = provisioned(&emulator);
    let mut gateway = gateway;
    let text = fs::read_to_string(gateway.path("config.toml")).unwrap();
    for (from, to, message) in [
        ("[hub]", "[hubs]", "DIR/config.toml:13: [hubs]: "),
        ("transport = \"https\"", "transport = \"carrier-pigeon\"", "DIR/config.toml:4: [dps] transport: "),
        ("mqtt_port = ", "mqtt_port = 8", "DIR/config.toml:5: [dps] mqtt_port: "),
        ("id_scope = \"0ne00000000\"", "id_scope = \"\"", "DIR/config.toml:3: [dps] id_scope: "),
        ("id_scope = \"0ne00000000\"\n", "", "DIR/config.toml: [dps] id_scope: "),
        ("ca_only = true", "ca_only = \"true\"", "DIR/config.toml:8: [dps] ca_only: "),
        ("ca_only = true", "api_version = 2021-06-01", "DIR/config.toml:8: [dps] api_version: "),
        ("method = \"symmetric-key\"", "method = \"x509\"", "DIR/config.toml:12: [attestation] key_file: "),
        ("[dps]", "[dps", "DIR/config.toml:1: "),
    ] {
        assert!(text.contains(from), "{from}");
        gateway.file("config.toml", 0o644, text.replacen(from, to, 1));
        for verb in ["provision", "status", "run"] {
            let (code, said) = gateway.error(&[verb]);
            assert!(code == 78 && said.contains(message), "{verb} with {to}: {said}");
        }
        assert_eq!(fs::read(gateway.record()).unwrap(), record);
    }
    fs::remove_file(gateway.path("config.toml")).unwrap();
    let (code, said) = gateway.error(&["provision"]);
    assert!(code == 78 && said.starts_with("DIR/config.toml: "), "{said}");
    gateway.file("config.toml", 0o644, text);
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
}

#[test]
fn each_kind_of_broken_reply_ends_with_its_words_and_leaves_the_record() {
    let emulator = emulator("", "");
    let (gateway, record) = provisioned(&emulator);
    let strikes = "; three answers in a row: whatever answers there may not be DPS";
    for (fault, code, message) in [
        ("register: html 200 x*", 76, "the answer makes no sense: the body is no JSON (expected value at line 1 column 1)"),
        ("register: body {} x*", 76, "the answer makes no sense: the body has no status"),
        ("register: no-hub x*", 76, "the answer makes no sense: it assigns without assignedHub"),
        ("register: wrong-registration-id x*", 76, "the answer makes no sense: it is for registration ID "),
        ("register: big 200000 x*", 76, "the answer makes no sense: it is larger than 131072 bytes"),
        (
            "register: hub-name evil\\r\\nX: y/path x*",
            76,
            "the answer makes no sense: host name \"evil\\r\\nX: y/path\": a host name is labels",
        ),
        (
            "register: redirect https://elsewhere.example/x x*",
            76,
            "the answer makes no sense: a redirection to elsewhere.example",
        ),
        ("register: unknown-status moon x*", 69, "the registration ended as \"moon\""),
        ("register: status 404 code=404201 x*", 69, "the service answered 404, error code 404201"),
        ("register: status 403 x*", 77, "the service answered 403"),
    ] {
        emulator.set_faults("gw-0001", &[fault]).unwrap();
        let (found, said) = gateway.error(&["provision", "--force", "--timeout", "60s"]);
        assert!(found == code && said.starts_with(message), "{fault}: {found} {said}");
        assert_eq!(said.ends_with(strikes), code == 76, "{said}");
        assert_eq!(fs::read(gateway.record()).unwrap(), record, "{fault}");
    }
    emulator.set_faults("gw-0001", &[]).unwrap();
    assert_eq!(gateway.run(&["provision", "--force"]).code, Some(0));
}
