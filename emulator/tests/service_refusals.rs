//! What the service API refuses, throttles and loses on request.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use client::api::{Backend, CONTRIBUTOR, VERSION, call, policy_token, refusal, symmetric, tables, with};
use client::emulator;
use client::tpm::keys;
use serde_json::{Value, json};

#[test]
fn bodies_that_are_wrong_are_explained() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::owner(&emulator);
    let key = |key: &str| json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": key}});
    let own = |attestation: &Value| json!({"registrationId": "gw", "attestation": attestation});
    let x509 = |x509: Value| own(&json!({"type": "x509", "x509": x509}));
    let cases = [
        (json!([]), "The body is no JSON object."),
        (json!({"attestation": key("")}), "The ID in the body is not the one in the address."),
        (symmetric("gw2"), "The ID in the body is not the one in the address."),
        (json!({"registrationId": "gw"}), "attestation is missing."),
        (with(symmetric("gw"), &json!({"colour": "red"})), "The body is no enrollment: unknown field `colour`"),
        (with(symmetric("gw"), &json!({"provisioningStatus": "on"})), "The body is no enrollment: unknown variant `on`"),
        (with(symmetric("gw"), &json!({"deviceId": "a b"})), "deviceId is not valid."),
        (with(symmetric("gw"), &json!({"iotHubs": ["elsewhere"]})), "The hub elsewhere is not linked."),
        (with(symmetric("gw"), &json!({"iotHubHostName": "elsewhere"})), "The hub elsewhere is not linked."),
        (with(symmetric("gw"), &json!({"allocationPolicy": "custom"})), "The emulator calls no webhook: "),
        (with(symmetric("gw"), &json!({"credentialPolicyName": "p"})), "credentialPolicyName needs a later api-version."),
        (with(symmetric("gw"), &json!({"enrollmentGroupId": "g"})), "A member belongs to the other kind of enrollment."),
        (own(&json!({"type": "none"})), "attestation.type none is not one of symmetricKey, x509 and tpm."),
        (own(&json!({"type": "tpm"})), "attestation.tpm is missing."),
        (own(&json!({"type": "x509", "x509": {}, "tpm": {"endorsementKey": ""}})), "attestation has a member of another type."),
        (own(&key("*")), "A key is not base64."),
        (own(&key("YQ==")), "A key has not 16 to 64 bytes."),
        (x509(json!({})), "x509 needs clientCertificates."),
        (x509(json!({"clientCertificates": {}})), "x509 needs a primary certificate."),
        (x509(json!({"clientCertificates": {"primary": {}}})), "A certificate is missing."),
        (x509(json!({"clientCertificates": {"primary": {"certificate": "*"}}})), "A certificate is neither PEM nor base64."),
        (x509(json!({"clientCertificates": {"primary": {"certificate": "YWJj"}}})), "A certificate is no X.509."),
    ];
    for (body, message) in cases {
        let refused = backend.put("/enrollments/gw", &body);
        assert_eq!(refusal(&refused), (400, 400_000), "{body}");
        let said = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(said.starts_with(message), "{body}: {said}");
    }
    let group = json!({"enrollmentGroupId": "g", "attestation": {"type": "tpm", "tpm": {"endorsementKey": keys().0}}});
    let refused = backend.put("/enrollmentGroups/g", &group);
    assert_eq!(refused.json()["message"], "A TPM has an individual enrollment; no group takes it.");
    assert_eq!(backend.query("enrollments").json(), json!([]));
}

#[test]
fn calls_that_are_none() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let token = policy_token("owner");
    let ask = |method: &str, target: &str, more: &[(&str, &str)], body: &str| {
        let headers = [&[("Authorization", token.as_str())], more].concat();
        refusal(&call(&emulator, method, target, &headers, body).unwrap())
    };
    let json = [("Content-Type", "application/json")];
    let versioned = |path: &str| format!("{path}?{VERSION}");
    assert_eq!(ask("GET", "/enrollments/gw", &[], ""), (400, 400_000), "no api-version");
    assert_eq!(ask("GET", "/enrollments/gw?api-version=1999-01-01", &[], ""), (400, 400_000));
    assert_eq!(ask("PUT", &versioned("/enrollments/gw"), &[("Content-Type", "text/plain")], "{}"), (415, 415_000));
    assert_eq!(ask("PATCH", &versioned("/enrollments/gw"), &json, "{}"), (405, 405_000));
    assert_eq!(ask("GET", &versioned("/enrollments"), &[], ""), (405, 405_000), "the ID is missing");
    assert_eq!(ask("PUT", &versioned("/registrations/gw"), &json, "{}"), (405, 405_000));
    assert_eq!(ask("GET", &versioned("/enrollments/gw/more"), &[], ""), (404, 404_000));
    assert_eq!(ask("GET", &versioned("/registrations"), &[], ""), (404, 404_000));
}

#[test]
fn the_rate_is_held_and_throttled_calls_do_nothing() {
    let limited = |more: &str| format!("[service_api]\noperations_per_minute = 12\n{more}\n{}", tables(CONTRIBUTOR));
    let emulator_with = |more: &str| emulator("", &limited(more));
    let each = emulator_with("");
    let backend = Backend::owner(&each);
    let many: Vec<Value> = (0..10).map(|number| symmetric(&format!("gw-{number}"))).collect();
    assert_eq!(backend.post("/enrollments", &json!({"mode": "create", "enrollments": many})).status, 200);
    let refused = backend.post("/enrollments", &json!({"mode": "delete", "enrollments": many[..3]}));
    assert_eq!((refusal(&refused), each.throttled()), ((429, 429_001), 1));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=58).contains(&seconds), "{seconds}");
    assert_eq!(backend.query("enrollments").json().as_array().unwrap().len(), 10);
    assert_eq!(backend.get("/enrollments/gw-9").status, 200);
    assert_eq!(backend.get("/enrollments/gw-9").status, 429);
    let one = emulator_with("bulk_counts = \"one\"");
    let backend = Backend::owner(&one);
    backend.post("/enrollments", &json!({"mode": "create", "enrollments": many}));
    let rest: Vec<u16> = (0..12).map(|_| backend.get("/enrollments/gw-9").status).collect();
    assert_eq!(rest, [[200; 11].as_slice(), &[429]].concat());
}

#[test]
fn faults_of_the_service_api() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::app(&emulator);
    emulator
        .set_service_faults(&["service-api: status 503 retry-after=2", "service-api: late-drop", "entra: status 500"])
        .unwrap();
    let busy = backend.put("/enrollments/gw", &symmetric("gw"));
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("2")));
    let target = format!("/enrollments/gw?{VERSION}");
    let headers = [("Authorization", backend.authorization.as_str()), ("Content-Type", "application/json")];
    let lost = call(&emulator, "PUT", &target, &headers, &symmetric("gw").to_string());
    assert_eq!(lost.map(|answer| answer.status), Err(client::End::Closed));
    assert_eq!(backend.get("/enrollments/gw").status, 200, "it was done, and nobody told");
    let form = client::api::secret_form("app", "x");
    let statuses = [(), ()].map(|()| client::api::ask_for_token(&emulator, &form).status);
    assert_eq!(statuses, [500, 401]);
}
