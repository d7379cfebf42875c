//! Enrollments made, read, changed and removed through the service API, and what devices make of them.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use base64::{Engine, engine::general_purpose::STANDARD};
use client::api::{Backend, CONTRIBUTOR, refusal, symmetric, tables, with};
use client::tpm::{Device, keys};
use client::{KEY, SCOPE, emulator, https_register, in_one_hour, token};
use dps_emulator::Emulator;
use dps_emulator::pki::{Algorithm, Authority, Leaf, VALID};
use serde_json::{Value, json};

/// Registers `id` with a key; the state in the answer.
fn register(emulator: &Emulator, id: &str, key: &[u8]) -> Value {
    let token = token(key, &format!("{SCOPE}%2Fregistrations%2F{id}"), in_one_hour());
    outcome(emulator, id, Some(&token), None)
}

fn register_by(emulator: &Emulator, id: &str, leaf: &Leaf) -> Value {
    outcome(emulator, id, None, Some(leaf))
}

/// Registers and polls once; the state in the answer, or the error code.
fn outcome(emulator: &Emulator, id: &str, token: Option<&str>, leaf: Option<&Leaf>) -> Value {
    let mut stream = client::tls(emulator, emulator.https_port(), leaf);
    let headers: Vec<(&str, &str)> = token.iter().map(|token| ("Authorization", *token)).collect();
    let mut ask = |method: &str, rest: &str| {
        let target = format!("/{SCOPE}/registrations/{id}/{rest}?api-version=2021-06-01");
        client::exchange(&mut stream, method, &target, &headers, "").unwrap().json()
    };
    let answer = ask("PUT", "register");
    match answer["operationId"].as_str() {
        Some(operation) if !operation.is_empty() => ask("GET", &format!("operations/{operation}"))["registrationState"].clone(),
        Some(_) => answer["registrationState"].clone(),
        None => answer["errorCode"].clone(),
    }
}

#[test]
fn an_enrollment_from_its_creation_to_its_end() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    for backend in [Backend::owner(&emulator), Backend::app(&emulator)] {
        assert_eq!(refusal(&backend.get("/enrollments/gw")), (404, 404_201));
        let made = backend.put("/enrollments/gw", &symmetric("gw"));
        assert_eq!(made.status, 200, "{}", made.json());
        let read = backend.get("/enrollments/gw").json();
        assert_eq!(read, made.json());
        assert_eq!(read["attestation"], json!({"type": "symmetricKey"}), "no keys");
        assert_eq!((&read["provisioningStatus"], &read["capabilities"]["iotEdge"]), (&json!("enabled"), &json!(false)));
        let details = backend.call("POST", "/enrollments/gw/attestationmechanism", &[], "").json();
        assert_eq!(details, symmetric("gw")["attestation"]);
        assert_eq!(https_register(&emulator).unwrap().status, 202);
        assert_eq!(backend.query("enrollments").json(), json!([read]));
        let gone = backend.delete("/enrollments/gw");
        assert_eq!((gone.status, gone.header("content-length"), gone.body.len()), (204, None, 0));
        assert_eq!(refusal(&backend.delete("/enrollments/gw")), (404, 404_201));
        assert_eq!(https_register(&emulator).unwrap().json()["errorCode"], 404_201);
        assert_eq!(backend.query("enrollments").json(), json!([]));
    }
}

#[test]
fn what_is_written_is_read_back_and_replaced_as_a_whole() {
    let emulator = emulator("hubs = [\"localhost\", \"hub2.example\"]", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let more = json!({
        "deviceId": "Other Device".replace(' ', "#"),
        "optionalDeviceInformation": {"plant": 7},
        "capabilities": {"iotEdge": true},
        "initialTwin": {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}},
        "allocationPolicy": "static",
        "iotHubs": ["hub2.example"],
        "provisioningStatus": "disabled",
        "reprovisionPolicy": {"updateHubAssignment": true, "migrateDeviceData": false},
    });
    let first = backend.put("/enrollments/GW-1", &with(symmetric("GW-1"), &more)).json();
    for (name, value) in more.as_object().unwrap() {
        assert_eq!(&first[name], value, "{name}");
    }
    assert_eq!(register(&emulator, "GW-1", KEY)["status"], "disabled");
    let second = backend.put("/enrollments/gw-1", &symmetric("gw-1")).json();
    assert_eq!(second["registrationId"], "GW-1", "one record, whatever the case");
    assert_eq!(second["createdDateTimeUtc"], first["createdDateTimeUtc"]);
    assert_ne!(second["etag"], first["etag"]);
    for name in ["deviceId", "optionalDeviceInformation", "initialTwin", "allocationPolicy", "iotHubs"] {
        assert_eq!(second.get(name), None, "{name}");
    }
    assert_eq!((&second["capabilities"]["iotEdge"], &second["provisioningStatus"]), (&json!(false), &json!("enabled")));
    assert_eq!(second["reprovisionPolicy"], json!({"updateHubAssignment": true, "migrateDeviceData": true}));
}

#[test]
fn keys_that_are_left_out_are_made() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let body = json!({"registrationId": "gw", "attestation": {"type": "symmetricKey"}});
    let keys = || backend.call("POST", "/enrollments/gw/attestationmechanism", &[], "").json()["symmetricKey"].clone();
    assert_eq!(backend.put("/enrollments/gw", &body).status, 200);
    let (first, decode) = (keys(), |key: &Value| STANDARD.decode(key.as_str().unwrap()).unwrap());
    let (primary, secondary) = (decode(&first["primaryKey"]), decode(&first["secondaryKey"]));
    assert_eq!((primary.len(), secondary.len(), primary == secondary), (64, 64, false));
    assert_eq!(register(&emulator, "gw", &primary)["status"], "assigned");
    assert_eq!(register(&emulator, "gw", &secondary)["status"], "assigned");
    assert_eq!(backend.put("/enrollments/gw", &body).status, 200);
    assert_ne!(keys(), first, "a PUT without them makes new ones");
    assert_eq!(register(&emulator, "gw", &primary), 401_000);
}

#[test]
fn a_version_that_is_not_the_last_one_is_refused() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let put = |etag: &str| backend.call("PUT", "/enrollments/gw", &[("If-Match", etag)], &symmetric("gw").to_string());
    let delete = |etag: &str| backend.call("DELETE", "/enrollments/gw", &[("If-Match", etag)], "");
    assert_eq!(refusal(&put("*")), (412, 412_000), "it is not there");
    assert_eq!(refusal(&put("\"x\"")), (412, 412_000));
    assert_eq!(refusal(&delete("*")), (404, 404_201));
    let first = backend.put("/enrollments/gw", &symmetric("gw")).json()["etag"].as_str().unwrap().to_owned();
    assert!(first.starts_with('"') && first.ends_with('"'), "{first}");
    let second = put(&first).json()["etag"].as_str().unwrap().to_owned();
    assert_eq!(refusal(&put(&first)), (412, 412_000));
    assert_eq!(refusal(&delete(&first)), (412, 412_000));
    let third = put(second.trim_matches('"'));
    assert_eq!(third.status, 200, "without its quotation marks, too");
    assert_eq!(put("*").status, 200);
    assert_eq!(delete("*").status, 204);
    backend.put("/enrollments/gw", &symmetric("gw"));
    emulator.set_enabled("gw", false).unwrap();
    let now = backend.get("/enrollments/gw").json();
    assert_eq!(now["provisioningStatus"], "disabled", "what tests change shows, too");
    assert_eq!(delete(now["etag"].as_str().unwrap()).status, 204);
}

#[test]
fn a_bulk_does_what_can_be_done_and_names_the_rest() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::app(&emulator);
    let bulk = |mode: &str, enrollments: &[Value]| {
        let answer = backend.post("/enrollments", &json!({"mode": mode, "enrollments": enrollments}));
        assert_eq!(answer.status, 200, "{}", answer.json());
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        assert_eq!(answer.json()["isSuccessful"], errors.is_empty());
        errors.iter().map(|one| (one["registrationId"].clone(), one["errorCode"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(bulk("create", &[symmetric("a"), symmetric("b")]), []);
    let wrong = json!({"registrationId": "d", "attestation": {"type": "tpm", "tpm": {"endorsementKey": "AAAA"}}});
    let result = bulk("create", &[symmetric("b"), symmetric("c"), wrong, symmetric("C"), json!({"x": 1})]);
    assert_eq!(
        result,
        [(json!("b"), 409_000), (json!("d"), 400_000), (json!("C"), 409_000), (Value::Null, 400_000)],
        "c is made, and only once"
    );
    let disabled = |id: &str| with(symmetric(id), &json!({"provisioningStatus": "disabled"}));
    assert_eq!(bulk("update", &[disabled("a"), disabled("z")]), [(json!("z"), 404_201)]);
    let a = backend.get("/enrollments/a").json();
    assert_eq!(a["provisioningStatus"], "disabled");
    let versions =
        [with(symmetric("a"), &json!({"etag": a["etag"]})), with(symmetric("b"), &json!({"etag": a["etag"]})), symmetric("c")];
    assert_eq!(bulk("updateIfMatchETag", &versions), [(json!("b"), 412_000), (json!("c"), 400_000)]);
    assert_eq!(backend.get("/enrollments/a").json()["provisioningStatus"], "enabled");
    assert_eq!(bulk("delete", &[json!({"registrationId": "a"}), symmetric("a"), symmetric("b")]), [(json!("a"), 404_201)]);
    let left: Vec<Value> = backend.query("enrollments").json().as_array().unwrap().clone();
    assert_eq!(left.iter().map(|one| one["registrationId"].as_str().unwrap()).collect::<Vec<_>>(), ["c"]);
    let groups =
        json!({"mode": "create", "enrollmentGroups": [{"enrollmentGroupId": "fleet", "attestation": {"type": "symmetricKey"}}]});
    assert_eq!(backend.post("/enrollmentGroups", &groups).json(), json!({"isSuccessful": true, "errors": []}));
    let again = backend.post("/enrollmentgroups/", &groups).json();
    let error = json!({"enrollmentGroupId": "fleet", "errorCode": 409_000, "errorStatus": "The record exists."});
    assert_eq!(again, json!({"isSuccessful": false, "errors": [error]}));
}

#[test]
fn a_bulk_of_more_than_ten_or_of_none_is_refused() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let many = |count: u32| (0..count).map(|number| symmetric(&format!("gw-{number}"))).collect::<Vec<_>>();
    assert_eq!(backend.post("/enrollments", &json!({"mode": "create", "enrollments": many(10)})).status, 200);
    for body in [
        json!({"mode": "create", "enrollments": many(11)}),
        json!({"mode": "create", "enrollments": []}),
        json!({"mode": "create"}),
        json!({"mode": "replace", "enrollments": many(1)}),
        json!({"enrollments": many(1)}),
        json!({"mode": "create", "enrollmentGroups": many(1)}),
    ] {
        assert_eq!(refusal(&backend.post("/enrollments", &body)), (400, 400_000), "{body}");
    }
    assert_eq!(backend.query("enrollments").json().as_array().unwrap().len(), 10);
}

#[test]
fn queries_come_in_pages() {
    let emulator = emulator("", &format!("[service_api]\npage_size = 3\n{}", tables(CONTRIBUTOR)));
    let backend = Backend::owner(&emulator);
    let all: Vec<Value> = ["d", "b", "A", "c"].map(symmetric).to_vec();
    backend.post("/enrollments", &json!({"mode": "create", "enrollments": all}));
    let ask = |list: &str, headers: &[(&str, &str)]| {
        let query = json!({"query": format!("select * from {list}")}).to_string();
        backend.call("POST", &format!("/{list}/query"), headers, &query)
    };
    let ids = |page: &client::Response| {
        page.json().as_array().unwrap().iter().map(|one| one["registrationId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = ask("enrollments", &[]);
    assert_eq!((ids(&first), first.header("x-ms-max-item-count")), (vec!["A".into(), "b".into(), "c".into()], Some("3")));
    assert_eq!(first.header("x-ms-item-type"), Some("enrollment"));
    let token = first.header("x-ms-continuation").unwrap();
    let last = ask("enrollments", &[("x-ms-continuation", token), ("x-ms-max-item-count", "50")]);
    assert_eq!((ids(&last), last.header("x-ms-continuation")), (vec!["d".into()], None));
    let two = ask("enrollments", &[("x-ms-max-item-count", "2")]);
    assert_eq!(ids(&two), ["A", "b"]);
    backend.delete("/enrollments/c");
    let token = two.header("x-ms-continuation").unwrap();
    let rest = ask("enrollments", &[("x-ms-max-item-count", "2"), ("x-ms-continuation", token)]);
    assert_eq!((ids(&rest), rest.header("x-ms-continuation")), (vec!["d".into()], None), "what goes meanwhile breaks nothing");
    for (list, headers) in [
        ("enrollments", [("x-ms-continuation", "x")]),
        ("enrollmentGroups", [("x-ms-continuation", token)]),
        ("enrollments", [("x-ms-max-item-count", "0")]),
        ("enrollments", [("x-ms-max-item-count", "many")]),
    ] {
        assert_eq!(refusal(&ask(list, &headers)), (400, 400_000), "{list} {headers:?}");
    }
    for query in ["", "SELECT * FROM devices", "SELECT * FROM enrollments WHERE 1 = 1", "SELECT deviceId FROM enrollments"] {
        let refused = backend.post("/enrollments/query", &json!({"query": query}));
        assert_eq!(refusal(&refused), (400, 400_000), "{query}");
    }
}

#[test]
fn a_tpm_registers_by_its_enrollment() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let (endorsement, storage) = keys();
    let tpm = json!({"type": "tpm", "tpm": {"endorsementKey": endorsement, "storageRootKey": storage}});
    let body = json!({"registrationId": "tpm-1", "attestation": tpm});
    let made = backend.put("/enrollments/tpm-1", &body).json();
    assert_eq!(made["attestation"], tpm);
    assert_eq!(backend.call("POST", "/enrollments/tpm-1/attestationmechanism", &[], "").json(), tpm);
    let mut device = Device::challenged(&emulator);
    assert_eq!(backend.put("/enrollments/tpm-1", &body).status, 200, "in the middle of it");
    assert_eq!(device.register().unwrap().status, 202, "the challenge is still good");
    let other = json!({"registrationId": "tpm-2", "attestation": {"type": "tpm", "tpm": {"endorsementKey": "AAAA"}}});
    let refused = backend.put("/enrollments/tpm-2", &other);
    assert_eq!(refused.json()["message"], "tpm.endorsementKey: it goes on after its end.");
}

#[test]
fn certificates_of_devices_and_of_groups() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let ca = Authority::root("Fleet", Algorithm::EcP256).unwrap();
    let [own, next, member] = ["gw", "gw", "member"].map(|name| ca.leaf(name, Algorithm::EcP256, VALID).unwrap());
    let certificate = |leaf: &Leaf| json!({"certificate": leaf.certificate_pem});
    let x509 = |pair: Value| json!({"type": "x509", "x509": {"clientCertificates": pair}});
    let enroll = |pair: Value| backend.put("/enrollments/gw", &json!({"registrationId": "gw", "attestation": x509(pair)})).json();
    let made = enroll(json!({"primary": certificate(&own), "secondary": certificate(&next)}));
    let info = &made["attestation"]["x509"]["clientCertificates"]["primary"]["info"];
    assert_eq!((&info["subjectName"], &info["issuerName"], &info["version"]), (&json!("CN=gw"), &json!("CN=Fleet"), &json!(3)));
    assert_eq!((info["sha1Thumbprint"].as_str().unwrap().len(), info["sha256Thumbprint"].as_str().unwrap().len()), (40, 64));
    for leaf in [&own, &next] {
        assert_eq!(register_by(&emulator, "gw", leaf)["status"], "assigned");
    }
    // What was read is written back: the certificates stay as they are. Then the first one goes.
    assert_eq!(backend.put("/enrollments/gw", &made).json()["attestation"], made["attestation"]);
    enroll(json!({"primary": made["attestation"]["x509"]["clientCertificates"]["secondary"]}));
    assert_eq!(register_by(&emulator, "gw", &next)["status"], "assigned");
    assert_eq!(register_by(&emulator, "gw", &own), 401_002);
    // A group lets in whom its CA vouches for; an enrollment that is disabled keeps one of them out, one that is deleted does not.
    let der = STANDARD.encode(
        rustls_pki_types::pem::PemObject::from_pem_slice(ca.certificate_pem().as_bytes())
            .map(|der: rustls_pki_types::CertificateDer<'_>| der.to_vec())
            .unwrap(),
    );
    let group = json!({
        "enrollmentGroupId": "fleet",
        "attestation": {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": der}}}},
    });
    assert_eq!(register_by(&emulator, "member", &member), 404_201);
    assert_eq!(backend.put("/enrollmentGroups/fleet", &group).status, 200);
    assert_eq!(register_by(&emulator, "member", &member)["status"], "assigned");
    enroll(json!({"primary": certificate(&own)}));
    backend.put("/enrollments/gw", &with(backend.get("/enrollments/gw").json(), &json!({"provisioningStatus": "disabled"})));
    assert_eq!(register_by(&emulator, "gw", &own)["status"], "disabled");
    backend.delete("/enrollments/gw");
    assert_eq!(register_by(&emulator, "gw", &own)["status"], "assigned");
}

#[test]
fn groups_and_the_registrations_of_their_members() {
    let emulator = emulator("hubs = [\"localhost\", \"hub2.example\"]", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let keys = json!({"primaryKey": STANDARD.encode(KEY), "secondaryKey": STANDARD.encode("the second key!!")});
    let group = json!({"enrollmentGroupId": "fleet", "attestation": {"type": "symmetricKey", "symmetricKey": keys}});
    assert_eq!(refusal(&backend.get("/enrollmentGroups/fleet")), (404, 404_201));
    let made = backend.put("/enrollmentGroups/fleet", &group).json();
    assert_eq!(made["attestation"], json!({"type": "symmetricKey"}));
    assert_eq!(backend.get("/ENROLLMENTGROUPS/Fleet").json(), made);
    assert_eq!(backend.call("POST", "/enrollmentgroups/fleet/attestationmechanism", &[], "").json(), group["attestation"]);
    assert_eq!(backend.query("enrollmentGroups").json(), json!([made]));
    for (id, group_key) in [("one", KEY), ("two", b"the second key!!".as_slice())] {
        let state = register(&emulator, id, &dps_emulator::sas::derived_key(group_key, id));
        assert_eq!(state["status"], "assigned", "{id}");
    }
    assert_eq!(register(&emulator, "three", KEY), 401_000, "not the group's own key");
    let states = backend.call("POST", "/registrations/fleet/query", &[("x-ms-max-item-count", "1")], "");
    assert_eq!(
        (states.json()[0]["registrationId"].as_str(), states.header("x-ms-item-type")),
        (Some("one"), Some("registrationState"))
    );
    let next = [("x-ms-continuation", states.header("x-ms-continuation").unwrap())];
    let states = backend.call("POST", "/registrations/fleet/query", &next, "");
    assert_eq!(states.json().as_array().unwrap().len(), 1, "and three has not registered");
    assert_eq!((states.json()[0]["registrationId"].as_str(), states.header("x-ms-continuation")), (Some("two"), None));
    // A change of the group is one of its members.
    let moved = with(group.clone(), &json!({"iotHubs": ["hub2.example"], "reprovisionPolicy": {"migrateDeviceData": false}}));
    assert_eq!(backend.put("/enrollmentGroups/fleet", &moved).json()["iotHubs"], json!(["hub2.example"]));
    let state = register(&emulator, "one", &dps_emulator::sas::derived_key(KEY, "one"));
    assert_eq!((&state["assignedHub"], &state["substatus"]), (&json!("hub2.example"), &json!("deviceDataReset")));
    // The registrations of a group outlive it.
    assert_eq!(backend.delete("/enrollmentGroups/fleet").status, 204);
    assert_eq!(register(&emulator, "one", &dps_emulator::sas::derived_key(KEY, "one")), 404_201);
    assert_eq!(backend.call("POST", "/registrations/fleet/query", &[], "").json().as_array().unwrap().len(), 2);
    for id in ["one", "two"] {
        assert_eq!(backend.delete(&format!("/registrations/{id}")).status, 204);
    }
    assert_eq!(refusal(&backend.call("POST", "/registrations/fleet/query", &[], "")), (404, 404_201));
}

#[test]
fn group_certificates_by_name() {
    let ca = Authority::root("Known", Algorithm::EcP256).unwrap();
    let file = std::env::temp_dir().join(format!("dps-emulator-{}-known.pem", std::process::id()));
    std::fs::write(&file, ca.certificate_pem()).unwrap();
    let known = format!("[[service_api.certificate]]\nname = \"known\"\ncertificate_file = \"{}\"\n", file.display());
    let emulator = emulator("", &format!("{}{known}", tables(CONTRIBUTOR)));
    std::fs::remove_file(file).unwrap();
    let backend = Backend::owner(&emulator);
    let group = |name: &str| {
        let attestation = json!({"type": "x509", "x509": {"caReferences": {"primary": name}}});
        json!({"enrollmentGroupId": "fleet", "attestation": attestation})
    };
    let refused = backend.put("/enrollmentGroups/fleet", &group("unknown"));
    assert_eq!((refusal(&refused), &refused.json()["message"]), ((400, 400_000), &json!("No certificate is called unknown.")));
    let made = backend.put("/enrollmentGroups/fleet", &group("known")).json();
    assert_eq!(made["attestation"], group("known")["attestation"]);
    let leaf = ca.leaf("gw", Algorithm::EcP256, VALID).unwrap();
    assert_eq!(register_by(&emulator, "gw", &leaf)["status"], "assigned");
}

#[test]
fn registration_states_are_read_and_forgotten() {
    let emulator = emulator("hubs = [\"localhost\", \"hub2.example\"]", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    backend.put("/enrollments/gw", &symmetric("gw"));
    assert_eq!(refusal(&backend.get("/registrations/gw")), (404, 404_201), "not registered");
    assert_eq!(refusal(&backend.delete("/registrations/gw")), (404, 404_201));
    assert_eq!(register(&emulator, "gw", KEY)["substatus"], "initialAssignment");
    let state = backend.get("/registrations/gw").json();
    assert_eq!(
        (&state["assignedHub"], &state["deviceId"], &state["status"]),
        (&json!("localhost"), &json!("gw"), &json!("assigned"))
    );
    assert_eq!(state.get("symmetricKey"), None);
    assert_eq!(backend.get("/enrollments/gw").json()["registrationState"], state);
    let never = with(symmetric("gw"), &json!({"iotHubs": ["hub2.example"], "reprovisionPolicy": {"updateHubAssignment": false}}));
    backend.put("/enrollments/gw", &never);
    assert_eq!(register(&emulator, "gw", KEY)["assignedHub"], "localhost", "it stays where it is");
    let delete = |etag: &str| backend.call("DELETE", "/registrations/gw", &[("If-Match", etag)], "");
    assert_eq!(refusal(&delete("\"x\"")), (412, 412_000));
    assert_eq!(delete(state["etag"].as_str().unwrap()).status, 204);
    assert_eq!(refusal(&backend.get("/registrations/gw")), (404, 404_201));
    let state = register(&emulator, "gw", KEY);
    assert_eq!((&state["assignedHub"], &state["substatus"]), (&json!("hub2.example"), &json!("initialAssignment")));
}

#[test]
fn enrollments_of_the_configuration_are_there_too() {
    let tables = format!("{}{}", tables(CONTRIBUTOR), client::symmetric("device_id = \"own\"\npolls = 1"));
    let emulator = emulator("", &tables);
    let backend = Backend::owner(&emulator);
    let read = backend.get("/enrollments/gw").json();
    assert_eq!((&read["registrationId"], &read["deviceId"]), (&json!("gw"), &json!("own")));
    backend.put("/enrollments/gw", &with(read, &symmetric("gw")));
    assert_eq!(register(&emulator, "gw", KEY), Value::Null, "it still has to be polled twice");
    emulator.remove("gw").unwrap();
    assert_eq!(refusal(&backend.get("/enrollments/gw")), (404, 404_201));
    backend.put("/enrollments/gw", &symmetric("gw"));
    assert_eq!(register(&emulator, "gw", KEY)["status"], "assigned");
    assert!(emulator.enroll_again("gw").is_err(), "the removed one does not come back over the new one");
}
