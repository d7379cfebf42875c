//! TPM enrollments: challenge, registration and hub key, as a TPM sees them.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use base64::{Engine, engine::general_purpose::STANDARD};
use client::tpm::{Device, ID, activated, body, emulator_for, enrollment, hub_token, keys};
use client::{KEY, Mqtt, SCOPE, in_one_hour, symmetric, token};
use dps_emulator::{Config, Emulator};
use serde_json::Value;

fn connect(emulator: &Emulator, hub: &str, key: &[u8]) -> u8 {
    let user = format!("{hub}/{ID}/?api-version=2021-04-12");
    let code = Mqtt::open(emulator, None).connect(ID, &user, Some(&hub_token(key, hub))).unwrap();
    assert_eq!(emulator.hub_accepts(ID, &hub_token(key, hub)), code == 0, "hub_accepts says the same");
    code
}

/// A public area of the vector with these bytes at `at`, base64.
fn changed(key: &str, at: usize, bytes: &[u8]) -> String {
    let mut public = STANDARD.decode(key).unwrap();
    public[at..at + bytes.len()].copy_from_slice(bytes);
    STANDARD.encode(public)
}

#[test]
fn challenge_register_poll_and_hub_on_one_connection() {
    let emulator = emulator_for("", &enrollment("polls = 1"));
    let mut device = Device::new(&emulator);
    let challenge = device.show(&keys().0, &keys().1).unwrap();
    assert_eq!((challenge.status, challenge.header("x-ms-error-code")), (401, None));
    let challenge = challenge.json();
    assert_eq!(challenge["keyName"], "registration");
    assert!(challenge["message"].is_string());
    assert_eq!(challenge.get("unencryptedAuthenticationKey"), Some(&Value::Null));
    device.key = activated(&challenge["authenticationKey"]).unwrap();
    let answer = device.register().unwrap();
    assert_eq!(answer.status, 202);
    let operation = answer.json()["operationId"].as_str().unwrap().to_owned();
    assert_eq!(device.query(&operation).unwrap().status, 202);
    assert_eq!(emulator.hub_key_generation(ID), 0, "not before it is assigned");
    let state = device.query(&operation).unwrap().json()["registrationState"].clone();
    assert_eq!((&state["status"], &state["assignedHub"]), (&"assigned".into(), &"localhost".into()));
    let key = activated(&state["tpm"]["authenticationKey"]).unwrap();
    assert_ne!(key, device.key);
    assert_eq!(connect(&emulator, "localhost", &key), 0);
    assert_eq!(connect(&emulator, "localhost", &device.key), 5, "the key of the challenge is none of the hub's");
    let again = device.query(&operation).unwrap().json();
    assert_eq!(activated(&again["registrationState"]["tpm"]["authenticationKey"]).unwrap(), key, "asked twice, the same key");
    let known = &emulator.devices()[0];
    assert_eq!((known.challenges, known.hub_keys, known.attestation.as_str()), (1, 1, "TPM"));
    let lines = emulator.transcript(ID);
    let words: Vec<&str> = lines.iter().map(|line| &line[..line.len().min(11)]).collect();
    assert_eq!(words[..5], ["> connect h", "> challenge", "< 401 {\"aut", "> register", "< 202 {\"ope"]);
    assert!(lines[2].contains("\"authenticationKey\":\"(scrubbed)\""));
}

#[test]
fn a_websocket_at_the_hub() {
    let emulator = emulator_for("", &enrollment(""));
    let (key, hub) = Device::assigned(&emulator);
    let user = format!("{hub}/{ID}/?api-version=2021-04-12");
    let code = |token: &str| Mqtt::websocket(&emulator, None).connect(ID, &user, Some(token));
    assert_eq!(code(&hub_token(&key, &hub)), Ok(0));
    assert_eq!(code(&hub_token(KEY, &hub)), Ok(5));
}

#[test]
fn who_gets_no_challenge() {
    let emulator = emulator_for("", &[enrollment(""), symmetric("")].concat());
    let (endorsement, storage) = keys();
    let refused = |id: &str, body: &str| {
        let target = format!("/{SCOPE}/registrations/{id}/register?api-version=2021-06-01");
        let mut stream = client::tls(&emulator, emulator.https_port(), None);
        let json = [("Content-Type", "application/json")];
        let answer = client::exchange(&mut stream, "PUT", &target, &json, body).unwrap();
        assert_eq!(answer.json().get("authenticationKey"), None);
        (answer.status, answer.json()["errorCode"].as_u64().unwrap())
    };
    let of = |id: &str| body(&endorsement, &storage).replace(ID, id);
    assert_eq!(refused("nobody", &of("nobody")), (404, 404_201));
    assert_eq!(refused("gw", &of("gw")), (401, 401_000), "enrolled with a key");
    assert_eq!(refused(ID, &of("other")), (400, 400_000));
    assert_eq!(refused(ID, &format!("{{\"registrationId\":\"{ID}\"}}")), (401, 401_000), "no keys shown");
    // The modulus counts, and so does what stands around it: here the policy.
    assert_eq!(refused(ID, &body(&changed(&endorsement, 200, &[0]), &storage)), (401, 401_000));
    assert_eq!(refused(ID, &body(&changed(&endorsement, 20, &[0]), &storage)), (401, 401_000));
    let ecc = changed(&storage, 2, &[0, 0x23]);
    let signing = changed(&storage, 6, &[0, 4, 4, 0x72]);
    for wrong in [&ecc, &signing, "AAAA", "%", ""] {
        assert_eq!(refused(ID, &body(&endorsement, wrong)), (400, 400_000), "{wrong}");
    }
    assert_eq!(refused(ID, &body("AAAA", &storage)), (400, 400_000));
    for tpm in ["1", "{}", "{\"endorsementKey\":\"AAAA\"}", "{\"endorsementKey\":1,\"storageRootKey\":2}"] {
        assert_eq!(refused(ID, &format!("{{\"registrationId\":\"{ID}\",\"tpm\":{tpm}}}")), (400, 400_000), "{tpm}");
    }
    assert_eq!(emulator.challenges(ID), 0);
    assert!(emulator.transcript_all().contains(&format!("{ID} # refused: another endorsement key is enrolled")));
}

#[test]
fn kinder_about_the_keys() {
    let (endorsement, storage) = keys();
    let status = |kinder: &str, endorsement: &str, storage: &str| {
        let emulator = emulator_for(&format!("kinder = [{kinder}]"), &enrollment(""));
        let answer = Device::new(&emulator).show(endorsement, storage).unwrap();
        (answer.status, answer.json().get("authenticationKey").is_some())
    };
    let other = changed(&endorsement, 20, &[0]);
    assert_eq!(status("", &other, &storage), (401, false));
    assert_eq!(status("'skip-endorsement-key'", &other, &storage), (401, true));
    let signing = changed(&storage, 6, &[0, 4, 4, 0x72]);
    assert_eq!(status("", &endorsement, &signing), (400, false));
    assert_eq!(status("'skip-storage-key'", &endorsement, &signing), (401, true));
}

/// The status of a register call with this token, after the newest of two challenges.
fn registered(kinder: &str, token: impl Fn(&Device, &Device) -> String, body: &str) -> u16 {
    let emulator = emulator_for(&format!("kinder = [{kinder}]"), &enrollment(""));
    let (old, mut new) = (Device::challenged(&emulator), Device::challenged(&emulator));
    assert_ne!(old.key, new.key, "each challenge has its key");
    let token = token(&old, &new);
    new.call("PUT", "/register", Some(&token), body).unwrap().status
}

#[test]
fn tokens_are_checked_with_the_newest_challenge() {
    let sr = format!("{SCOPE}%2Fregistrations%2F{ID}");
    let good = |_: &Device, new: &Device| new.token();
    let old = |old: &Device, _: &Device| old.token();
    let nameless = |_: &Device, new: &Device| token(&new.key, &sr, in_one_hour());
    let misnamed = |_: &Device, new: &Device| new.token().replace("skn=registration", "skn=other");
    let late = |_: &Device, new: &Device| format!("{}&skn=registration", token(&new.key, &sr, in_one_hour() - 3601));
    let elsewhere =
        |_: &Device, new: &Device| format!("{}&skn=registration", token(&new.key, &sr.replace(ID, "tpm-2"), in_one_hour()));
    assert_eq!(registered("", good, ""), 202, "the keys need not be repeated");
    assert_eq!(registered("", good, &format!("{{\"registrationId\":\"{ID}\",\"tpm\":null}}")), 202);
    assert_eq!(registered("", old, ""), 401);
    assert_eq!(registered("'skip-challenge'", old, ""), 202);
    assert_eq!(registered("", nameless, ""), 401);
    assert_eq!(registered("'skip-key-name'", nameless, ""), 202);
    assert_eq!(registered("", misnamed, ""), 401);
    assert_eq!(registered("", late, ""), 401);
    assert_eq!(registered("", elsewhere, ""), 401);
    assert_eq!(registered("'skip-signature'", old, ""), 202);
}

#[test]
fn keys_that_are_repeated_are_the_same() {
    let (endorsement, storage) = keys();
    let good = |_: &Device, new: &Device| new.token();
    assert_eq!(registered("", good, &body(&endorsement, &storage)), 202);
    let other = changed(&storage, 100, &[0, 0]);
    assert_eq!(registered("", good, &body(&endorsement, &other)), 401);
    assert_eq!(registered("'skip-same-keys'", good, &body(&endorsement, &other)), 202);
    assert_eq!(registered("", good, &body(&changed(&endorsement, 20, &[0]), &storage)), 401);
    assert_eq!(registered("", good, &body(&endorsement, "AAAA")), 400);
}

#[test]
fn nothing_without_a_challenge() {
    let emulator = emulator_for("", &enrollment(""));
    let mut device = Device::new(&emulator);
    device.key = KEY.to_vec();
    let answer = device.register().unwrap();
    assert_eq!((answer.status, answer.json().get("authenticationKey")), (401, None));
    assert!(emulator.transcript_all().contains(&format!("{ID} # refused: no challenge was asked for")));
}

#[test]
fn polls_end_with_the_next_challenge() {
    let emulator = emulator_for("", &enrollment("polls = 9"));
    let mut device = Device::challenged(&emulator);
    let operation = device.register().unwrap().json()["operationId"].as_str().unwrap().to_owned();
    assert_eq!(device.query(&operation).unwrap().status, 202);
    let mut newer = Device::challenged(&emulator);
    assert_eq!(device.query(&operation).unwrap().status, 401);
    assert_eq!(newer.query(&operation).unwrap().status, 202, "the operation is the device's");
}

#[test]
fn the_lookup_is_challenged_too() {
    let emulator = emulator_for("", &enrollment(""));
    let (endorsement, storage) = keys();
    let mut device = Device::new(&emulator);
    let answer = device.call("POST", "", None, &body(&endorsement, &storage)).unwrap();
    assert_eq!(answer.status, 401);
    device.key = activated(&answer.json()["authenticationKey"]).unwrap();
    let token = device.token();
    let mut look_up = || device.call("POST", "", Some(&token), &body(&endorsement, &storage)).unwrap();
    assert_eq!(look_up().json()["errorCode"], 404_201);
    Device::assigned(&emulator);
    assert_eq!(look_up().status, 401, "another challenge since");
    let mut device = Device::challenged(&emulator);
    let token = device.token();
    let state = device.call("POST", "", Some(&token), &format!("{{\"registrationId\":\"{ID}\"}}")).unwrap().json();
    assert_eq!((&state["assignedHub"], &state["tpm"]), (&"localhost".into(), &serde_json::json!({})), "and no key");
    assert_eq!(emulator.hub_key_generation(ID), 1);
}

#[test]
fn no_tpm_over_mqtt() {
    let user = client::user_name(ID);
    let ask = |emulator: &Emulator, websocket: bool, token: &str| {
        let open = if websocket { Mqtt::websocket } else { Mqtt::open };
        let mut client = open(emulator, None);
        match client.connect(ID, &user, Some(token)).unwrap() {
            0 => {
                assert_eq!(client.subscribe(client::FILTER, 1), Ok(1));
                client.register().unwrap().0
            }
            code => format!("connack {code}"),
        }
    };
    let answers = |service: &str| {
        let emulator = emulator_for(service, &enrollment("answer = \"at-once\""));
        let token = Device::challenged(&emulator).token();
        [false, true].map(|websocket| ask(&emulator, websocket, &token))
    };
    assert_eq!(answers(""), ["$dps/registrations/res/401/?$rid=1"; 2]);
    assert_eq!(answers("wrong_key_on_mqtt = \"connack\""), ["connack 5"; 2]);
    assert_eq!(answers("kinder = [\"skip-transport\"]"), ["$dps/registrations/res/200/?$rid=1"; 2]);
}

/// The codes that the first and the second hub key get at the hub, after the second assignment.
fn after_the_second_key(kinder: &str) -> [u8; 2] {
    let emulator = emulator_for(&format!("kinder = [{kinder}]"), &enrollment(""));
    let (first, hub) = Device::assigned(&emulator);
    let mut device = Device::challenged(&emulator);
    assert_eq!(device.register().unwrap().status, 202);
    assert_eq!(connect(&emulator, &hub, &first), 0, "good until the new one is decided on");
    let (second, _) = Device::assigned(&emulator);
    assert_eq!(emulator.hub_key_generation(ID), 2);
    [first, second].map(|key| connect(&emulator, &hub, &key))
}

#[test]
fn the_newest_hub_key_alone_is_good() {
    assert_eq!(after_the_second_key(""), [5, 0]);
    assert_eq!(after_the_second_key("'skip-hub-key'"), [0, 0]);
}

#[test]
fn a_move_takes_the_old_identity_away_with_the_register_call() {
    let emulator = emulator_for("hubs = [\"localhost\", \"127.0.0.1\"]", &enrollment(""));
    let (first, hub) = Device::assigned(&emulator);
    emulator.move_hub(ID, "127.0.0.1").unwrap();
    let mut device = Device::challenged(&emulator);
    assert_eq!(connect(&emulator, &hub, &first), 0, "a challenge moves nobody");
    assert_eq!(device.register().unwrap().status, 202);
    assert_eq!(connect(&emulator, &hub, &first), 5);
    let (second, hub) = Device::assigned(&emulator);
    assert_eq!((hub.as_str(), connect(&emulator, &hub, &second), connect(&emulator, &hub, &first)), ("127.0.0.1", 0, 5));
}

#[test]
fn a_snapshot_brings_back_keys_and_identities_here_and_elsewhere() {
    let start = || emulator_for("hubs = [\"localhost\", \"127.0.0.1\"]", &enrollment(""));
    let emulator = start();
    let (first, _) = Device::assigned(&emulator);
    let then = emulator.snapshot();
    emulator.move_hub(ID, "127.0.0.1").unwrap();
    let (second, moved) = Device::assigned(&emulator);
    assert_eq!((connect(&emulator, &moved, &second), connect(&emulator, "localhost", &first)), (0, 5));
    for emulator in [emulator, start()] {
        emulator.restore(&then);
        assert_eq!((connect(&emulator, &moved, &second), connect(&emulator, "localhost", &first)), (5, 0));
        assert_eq!(emulator.hub_key_generation(ID), 1);
        assert_eq!(Device::assigned(&emulator).1, "localhost", "the move is undone");
    }
}

#[test]
fn what_is_no_endorsement_key_is_refused_with_its_line() {
    let explained = |table: &str| {
        let text = format!("[service]\nid_scope = \"0ne\"\n{table}");
        Config::from_toml(&text).unwrap_err().to_string()
    };
    let with = |key: &str| explained(&enrollment("").replace(&keys().0, key));
    let wrong =
        |why: &str| format!("configuration:5: endorsement_key: {why}; it must be the base64 TPM2B_PUBLIC of an RSA-2048 EK");
    assert_eq!(with("%"), wrong("it is not base64"));
    assert_eq!(with("AAAA"), wrong("it goes on after its end"));
    assert_eq!(with(&changed(&keys().0, 2, &[0, 0x23])), wrong("it is an ECC key; only RSA-2048 is known here"));
    let attributes = "attributes 0x000400b2 are not those of a restricted decryption key";
    assert_eq!(with(&changed(&keys().0, 6, &[0, 4, 0, 0xb2])), wrong(attributes));
    let group = format!("[[group]]\nname = \"g\"\nendorsement_key = \"{}\"", keys().0);
    let cure = "endorsement_key: a TPM has an enrollment of its own, an [[enrollment]]; no [[group]] takes it";
    assert_eq!(explained(&group), format!("configuration:5: {cure}"));
    let two = enrollment(&format!("primary_key = \"{}\"", STANDARD.encode(KEY)));
    let one = "needs one of primary_key (and secondary_key), certificate_file, certificate_pem and endorsement_key";
    assert_eq!(explained(&two), format!("configuration:3: {one}"));
}
