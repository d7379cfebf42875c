//! Who is let in to the service API, and what for; and that it and the device API keep their callers apart.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use base64::{Engine, engine::general_purpose::STANDARD};
use client::api::{Backend, CONTRIBUTOR, POLICY_KEY, READER, SCOPE, TENANT, VERSION};
use client::api::{ask_for_token, call, encoded, jwt, policy_token, refusal, secret_form, tables};
use client::{KEY, Mqtt, dps_token, emulator, in_one_hour, symmetric, token, user_name};
use dps_emulator::Emulator;
use dps_emulator::pki::{Algorithm, Key};
use serde_json::{Value, json};

const PROVIDER: &str = "Microsoft.Devices/provisioningServices/";

/// Each kind of call, with the permission that it takes and the right.
const CALLS: [(&str, &str, &str, &str, &str); 17] = [
    ("GET", "/enrollments/x", "", "enrollments/read", "EnrollmentRead"),
    ("POST", "/enrollments/query", r#"{"query":"SELECT * FROM enrollments"}"#, "enrollments/read", "EnrollmentRead"),
    ("PUT", "/enrollments/x", "{}", "enrollments/write", "EnrollmentWrite"),
    ("POST", "/enrollments", r#"{"mode":"create","enrollments":[{}]}"#, "enrollments/write", "EnrollmentWrite"),
    ("POST", "/enrollments", r#"{"mode":"updateIfMatchETag","enrollments":[{}]}"#, "enrollments/write", "EnrollmentWrite"),
    ("POST", "/enrollments", r#"{"mode":"delete","enrollments":[{}]}"#, "enrollments/delete", "EnrollmentWrite"),
    ("DELETE", "/enrollments/x", "", "enrollments/delete", "EnrollmentWrite"),
    ("POST", "/enrollments/x/attestationmechanism", "", "attestationmechanism/details/action", "-"),
    ("GET", "/enrollmentGroups/x", "", "enrollmentGroups/read", "EnrollmentRead"),
    (
        "POST",
        "/enrollmentGroups/query",
        r#"{"query":"SELECT * FROM enrollmentGroups"}"#,
        "enrollmentGroups/read",
        "EnrollmentRead",
    ),
    ("PUT", "/enrollmentGroups/x", "{}", "enrollmentGroups/write", "EnrollmentWrite"),
    ("POST", "/enrollmentGroups", r#"{"mode":"update","enrollmentGroups":[{}]}"#, "enrollmentGroups/write", "EnrollmentWrite"),
    ("DELETE", "/enrollmentGroups/x", "", "enrollmentGroups/delete", "EnrollmentWrite"),
    ("POST", "/enrollmentGroups/x/attestationmechanism", "", "attestationmechanism/details/action", "-"),
    ("GET", "/registrations/x", "", "registrationStates/read", "RegistrationStatusRead"),
    ("POST", "/registrations/x/query", "", "registrationStates/read", "RegistrationStatusRead"),
    ("DELETE", "/registrations/x", "", "registrationStates/delete", "RegistrationStatusWrite"),
];

/// The calls that this authorization is let in for; the others must be answered with `refused`.
fn let_in(emulator: &Emulator, authorization: &str, refused: (u16, u64)) -> Vec<(&'static str, &'static str)> {
    let backend = Backend { emulator, authorization: authorization.to_owned() };
    let is_let_in = |(method, path, body, ..): &(&str, &str, &str, &str, &str)| {
        let answer = backend.call(method, path, &[], body);
        let is_refused = [401, 403].contains(&answer.status);
        assert!(!is_refused || refusal(&answer) == refused, "{method} {path}: {}", answer.json());
        !is_refused
    };
    CALLS.iter().filter(|call| is_let_in(call)).map(|call| (call.0, call.1)).collect()
}

fn bearer(emulator: &Emulator, client: &str) -> String {
    let response = ask_for_token(emulator, &secret_form(client, "secret"));
    assert_eq!(response.status, 200, "{}", response.json());
    format!("Bearer {}", response.json()["access_token"].as_str().unwrap())
}

/// A client whose secret is `secret`, with this role.
fn client_table(client: &str, role: &str) -> String {
    format!("[[entra.client]]\nclient_id = \"{client}\"\nsecret = \"secret\"\nroles = [{{ {role} }}]\n")
}

#[test]
fn each_permission_opens_its_calls_and_no_other() {
    let mut permissions: Vec<&str> = CALLS.iter().map(|call| call.3).collect();
    permissions.sort_unstable();
    permissions.dedup();
    assert_eq!(permissions.len(), 9);
    let tables = permissions.iter().map(|name| {
        let role = format!("[[service_api.role]]\nname = \"{name}\"\ndata_actions = [\"{PROVIDER}{name}\"]\n");
        format!("{role}{}", client_table(name, &format!("role = \"{name}\"")))
    });
    let emulator = emulator("", &tables.collect::<String>());
    for name in permissions {
        let token = bearer(&emulator, name);
        let expected: Vec<_> = CALLS.iter().filter(|call| call.3 == name).map(|call| (call.0, call.1)).collect();
        assert_eq!(let_in(&emulator, &token, (403, 403_000)), expected, "{name}");
    }
}

#[test]
fn each_right_opens_its_calls_and_no_other() {
    let rights = [
        "EnrollmentRead",
        "EnrollmentWrite",
        "RegistrationStatusRead",
        "RegistrationStatusWrite",
        "ServiceConfig",
        "DeviceConnect",
    ];
    let policy = |name: &str, rights: &str| {
        let key = STANDARD.encode(POLICY_KEY);
        format!("[[service_api.policy]]\nname = \"{name}\"\nprimary_key = \"{key}\"\nrights = [{rights}]\n")
    };
    let mut tables: String = rights.map(|right| policy(right, &format!("\"{right}\""))).concat();
    tables.push_str(&policy("cli", "\"ServiceConfig\", \"EnrollmentWrite\""));
    let emulator = emulator("", &tables);
    for right in rights {
        let expected: Vec<_> = CALLS.iter().filter(|call| call.4 == right).map(|call| (call.0, call.1)).collect();
        assert_eq!(let_in(&emulator, &policy_token(right), (401, 401_000)), expected, "{right}");
    }
    let details = let_in(&emulator, &policy_token("cli"), (401, 401_000));
    assert!(details.contains(&("POST", "/enrollments/x/attestationmechanism")), "{details:?}");
    assert!(details.contains(&("POST", "/enrollmentGroups/x/attestationmechanism")), "{details:?}");
}

#[test]
fn the_built_in_roles() {
    let tables =
        [("contributor", CONTRIBUTOR), ("reader", READER)].map(|(name, role)| client_table(name, &format!("role = \"{role}\"")));
    let nobody = "[[entra.client]]\nclient_id = \"nobody\"\nsecret = \"secret\"\n";
    let emulator = emulator("", &format!("{}{nobody}", tables.concat()));
    let allowed = |client: &str| let_in(&emulator, &bearer(&emulator, client), (403, 403_000));
    assert_eq!(allowed("contributor").len(), CALLS.len());
    let reads: Vec<_> = CALLS.iter().filter(|call| call.3.ends_with("/read")).map(|call| (call.0, call.1)).collect();
    assert_eq!(allowed("reader"), reads);
    assert_eq!(allowed("nobody"), []);
    assert!(
        emulator
            .transcript_all()
            .contains(&"service-api # refused: no role of nobody allows registrationStates/delete".to_owned())
    );
}

#[test]
fn roles_hold_at_four_scopes() {
    let service = "/subscriptions/1/resourceGroups/factory/providers/Microsoft.Devices/provisioningServices/dps";
    let above = |name: &str| format!("/providers/Microsoft.Management/managementGroups/{name}");
    let scopes = [
        ("default", None, 200),
        ("service", Some(service.to_owned()), 200),
        ("resource-group", Some("/subscriptions/1/resourceGroups/FACTORY".to_owned()), 200),
        ("subscription", Some("/subscriptions/1".to_owned()), 200),
        ("management-group", Some(above("plants")), 200),
        ("other-service", Some(service.replace("/dps", "/dps2")), 403),
        ("other-resource-group", Some("/subscriptions/1/resourceGroups/fact".to_owned()), 403),
        ("other-subscription", Some("/subscriptions/2".to_owned()), 403),
        ("other-management-group", Some(above("offices")), 403),
    ];
    let clients = scopes.iter().map(|(name, scope, _)| {
        let scope = scope.as_ref().map(|scope| format!(", scope = \"{scope}\"")).unwrap_or_default();
        client_table(name, &format!("role = \"{READER}\"{scope}"))
    });
    let api = format!("[service_api]\nresource_id = \"{service}\"\nmanagement_groups = [\"plants\"]\n");
    let emulator = emulator("", &format!("{api}{}", clients.collect::<String>()));
    for (name, _, status) in scopes {
        let backend = Backend { emulator: &emulator, authorization: bearer(&emulator, name) };
        assert_eq!(backend.query("enrollments").status, status, "{name}");
    }
}

/// A call with this authorization; status, error code, and why.
fn why(emulator: &Emulator, authorization: &str) -> ((u16, u64), String) {
    let target = format!("/enrollments/x?{VERSION}");
    let answer = call(emulator, "GET", &target, &[("Authorization", authorization)], "").unwrap();
    let comments = emulator.transcript_all();
    let last = comments.iter().rfind(|line| line.contains(" # refused: ")).cloned().unwrap_or_default();
    (refusal(&answer), last.trim_start_matches("service-api # refused: ").to_owned())
}

#[test]
fn access_tokens_are_verified_in_every_part() {
    let here = emulator("", &tables(CONTRIBUTOR));
    let refused = |token: &str, because: &str| {
        let because = format!("the access token is refused: {because}");
        assert_eq!(why(&here, &format!("Bearer {token}")), ((401, 401_000), because), "{token}");
    };
    let good = Backend::app(&here).authorization.trim_start_matches("Bearer ").to_owned();
    assert_eq!(why(&here, &format!("bearer {good}")).0, (404, 404_201), "the scheme in any case");
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = head.split_once('.').unwrap();
    let decode = |part: &str| -> Value {
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let (header_json, claims_json) = (decode(header), decode(claims));
    let encode = |json: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    for malformed in ["..", "x", "a.b.c", head, &format!("{head}.*"), &format!("e30.W10.{signature}")] {
        refused(malformed, "it is malformed");
    }
    let mut other = claims_json.clone();
    other["exp"] = json!(in_one_hour() * 2);
    refused(&format!("{header}.{}.{signature}", encode(&other)), "the provider's key has not signed it");
    refused(
        &format!("{}.{claims}.", encode(&json!({"alg": "none", "kid": header_json["kid"]}))),
        "the provider's key has not signed it",
    );
    let key = Key::generate(Algorithm::Rsa2048).unwrap();
    refused(&jwt(&key, &header_json, &claims_json), "the provider's key has not signed it");
    // All emulators of one process sign with the same key: what differs is the port, which is in the issuer's name.
    let elsewhere = emulator("", &tables(CONTRIBUTOR));
    let other = Backend::app(&elsewhere).authorization;
    refused(other.trim_start_matches("Bearer "), "another issuer made it");
    let management =
        secret_form("app", "s3cret%2B%2F%3D").replace(&encoded(SCOPE), "https%3A%2F%2Fmanagement.azure.com%2F.default");
    let other = ask_for_token(&here, &management).json()["access_token"].as_str().unwrap().to_owned();
    refused(&other, "it is for another audience");
    let brief = emulator("", &format!("[entra]\ntoken_lifetime = 0\n{}", tables(CONTRIBUTOR)));
    let because = "the access token is refused: it is not valid now".to_owned();
    assert_eq!(why(&brief, &Backend::app(&brief).authorization), ((401, 401_000), because));
    let none = emulator("", "");
    assert_eq!(
        why(&none, &format!("Bearer {good}")),
        ((401, 401_000), "the access token is refused: there is no identity provider".to_owned())
    );
}

#[test]
fn policy_tokens_are_verified_in_every_part() {
    let more = format!("secondary_key = \"{}\"\n", STANDARD.encode("another key of the policy"));
    let policy = format!("[[service_api.policy]]\nname = \"owner\"\nprimary_key = \"{}\"\n{more}", STANDARD.encode(POLICY_KEY));
    let emulator = emulator("", &policy);
    let made = |key: &[u8], resource: &str, expiry: u64, rest: &str| format!("{}{rest}", token(key, resource, expiry));
    let soon = in_one_hour();
    for good in [
        made(POLICY_KEY, "localhost", soon, "&skn=owner"),
        made(POLICY_KEY, "LocalHost", soon, "&skn=owner"),
        made(b"another key of the policy", "localhost", soon, "&skn=owner"),
        made(POLICY_KEY, "localhost%2Fenrollments", soon, "&skn=owner"),
        made(POLICY_KEY, "localhost%2fenrollments%2fx", soon, "&skn=owner"),
    ] {
        assert_eq!(why(&emulator, &good).0, (404, 404_201), "{good}");
    }
    for (bad, because) in [
        (made(KEY, "localhost", soon, "&skn=owner"), "the signature does not verify"),
        (made(POLICY_KEY, "localhost", soon - 3600, "&skn=owner"), "the token has expired"),
        (made(POLICY_KEY, "other.example", soon, "&skn=owner"), "the token is for another resource"),
        (made(POLICY_KEY, "localhost%2FenrollmentGroups", soon, "&skn=owner"), "the token is for another resource"),
        (made(POLICY_KEY, "localhost%2Fenroll", soon, "&skn=owner"), "the token is for another resource"),
        (made(POLICY_KEY, "localhost", soon, "&skn=reader"), "no policy is called reader"),
        (made(POLICY_KEY, "localhost", soon, ""), "the shared access signature is malformed"),
        ("SharedAccessSignature sr=localhost".to_owned(), "the shared access signature is malformed"),
        ("Basic b3duZXI6".to_owned(), "Authorization is neither SharedAccessSignature nor Bearer"),
        (String::new(), "Authorization is neither SharedAccessSignature nor Bearer"),
    ] {
        assert_eq!(why(&emulator, &bad), ((401, 401_000), because.to_owned()), "{bad}");
    }
}

#[test]
fn the_device_api_takes_no_back_end() {
    let emulator = emulator("", &format!("{}{}", tables(CONTRIBUTOR), symmetric("")));
    let own = Backend::app(&emulator).authorization;
    let named = token(KEY, "localhost", in_one_hour());
    let audience = format!("{}%2Fregistrations%2Fgw", client::SCOPE);
    let policys = format!("{}&skn=owner", token(POLICY_KEY, &audience, in_one_hour()));
    let json = ("Content-Type", "application/json");
    for authorization in [&own, &policy_token("owner"), &named, &policys] {
        for (method, rest, body) in
            [("PUT", "/register", r#"{"registrationId":"gw"}"#), ("GET", "/operations/4.x", ""), ("POST", "", "")]
        {
            let target = format!("/{}/registrations/gw{rest}?api-version=2021-06-01", client::SCOPE);
            let answer = call(&emulator, method, &target, &[("Authorization", authorization), json], body).unwrap();
            assert_eq!((answer.status, &answer.json()["errorCode"]), (401, &json!(401_000)), "{authorization} {rest}");
        }
        let code = Mqtt::open(&emulator, None).connect("gw", &user_name("gw"), Some(authorization));
        assert_eq!(code, Ok(5), "{authorization}");
    }
}

#[test]
fn the_service_api_takes_no_device() {
    let emulator = emulator("", &format!("{}{}", tables(CONTRIBUTOR), symmetric("")));
    let devices = [
        (dps_token("gw"), "the shared access signature is malformed"),
        (format!("{}&skn=registration", dps_token("gw")), "no policy is called registration"),
        (client::hub_token("localhost", "gw"), "the shared access signature is malformed"),
        (format!("{}&skn=owner", token(KEY, "localhost", in_one_hour())), "the signature does not verify"),
    ];
    for (token, because) in devices {
        assert_eq!(why(&emulator, &token), ((401, 401_000), because.to_owned()));
    }
    let leaf = dps_emulator::pki::Leaf::self_signed("gw", Algorithm::EcP256, dps_emulator::pki::VALID).unwrap();
    let mut stream = client::tls(&emulator, emulator.https_port(), Some(&leaf));
    let answer = client::exchange(&mut stream, "GET", &format!("/enrollments/gw?{VERSION}"), &[], "").unwrap();
    assert_eq!(refusal(&answer), (401, 401_000), "a certificate is nothing here");
    assert_eq!(emulator.transcript_all().last().unwrap().split(" {").next(), Some("service-api < 401"));
}

#[test]
fn only_the_instance_host_has_it() {
    let emulator = emulator("host = \"dps.example\"", &tables(CONTRIBUTOR));
    let token = format!("{}&skn=owner", token(POLICY_KEY, "dps.example", in_one_hour()));
    let ask = |host: &str| {
        let mut stream = client::tls(&emulator, emulator.https_port(), None);
        let head = format!("GET /enrollments/x?{VERSION} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\n\r\n");
        std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        refusal(&client::response(&mut stream).unwrap())
    };
    assert_eq!(ask("localhost"), (404, 404_000));
    assert_eq!(ask("DPS.example"), (404, 404_201));
    assert_eq!(ask("dps.example:443"), (404, 404_201));
}

#[test]
fn what_is_not_allowed_can_be_answered_with_401() {
    let emulator = emulator("", &format!("[service_api]\nnot_allowed = 401\n{}", tables(READER)));
    let backend = Backend::app(&emulator);
    assert_eq!(refusal(&backend.delete("/enrollments/x")), (401, 401_000));
    assert_eq!(refusal(&backend.get("/enrollments/x")), (404, 404_201));
}

#[test]
fn secrets_stay_out_of_the_transcript() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let backend = Backend::app(&emulator);
    let key = STANDARD.encode(KEY);
    let keys = json!({"primaryKey": key, "secondaryKey": key});
    backend
        .put("/enrollments/gw", &json!({"registrationId": "gw", "attestation": {"type": "symmetricKey", "symmetricKey": keys}}));
    backend.call("POST", "/enrollments/gw/attestationmechanism", &[], "");
    let said = emulator.transcript_all().join("\n");
    let token = backend.authorization.trim_start_matches("Bearer ");
    for secret in [token, &key, "s3cret"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    let lines = [
        format!("entra > POST /{TENANT}/oauth2/v2.0/token"),
        "service-api > POST /enrollments/gw/attestationmechanism".to_owned(),
        r#"service-api < 200 {"symmetricKey":{"primaryKey":"(scrubbed)","secondaryKey":"(scrubbed)"},"type":"symmetricKey"}"#
            .to_owned(),
    ];
    assert!(lines.iter().all(|line| said.contains(line.as_str())), "{said}");
}
