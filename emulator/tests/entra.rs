//! The identity provider: how clients prove who they are, what they are given, and what is wrong with what they show.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod client;

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use client::api::{CONTRIBUTOR, SCOPE, TENANT, VERSION, ask_for_token, call, encoded, jwt, secret_form, tables};
use client::{emulator, in_one_hour};
use dps_emulator::pki::{Algorithm, Leaf, VALID};
use dps_emulator::{Config, Emulator};
use ring::digest;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::PathBuf;

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Status, `error` and the one number in `error_codes`.
fn fault(response: &client::Response) -> (u16, String, u64) {
    let body = response.json();
    let code = body["error_codes"][0].as_u64().unwrap();
    let described = body["error_description"].as_str().unwrap();
    assert!(described.starts_with(&format!("AADSTS{code}: ")), "{described}");
    (response.status, body["error"].as_str().unwrap().to_owned(), code)
}

fn page(emulator: &Emulator, path: &str) -> Value {
    call(emulator, "GET", path, &[], "").unwrap().json()
}

/// Whether the service API lets this answer's token in.
fn works(emulator: &Emulator, answer: &Value) -> bool {
    let bearer = format!("Bearer {}", answer["access_token"].as_str().unwrap());
    let target = format!("/enrollments/x?{VERSION}");
    call(emulator, "GET", &target, &[("Authorization", &bearer)], "").unwrap().status == 404
}

#[test]
fn a_secret_is_worth_a_token_that_the_published_key_verifies() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let answer = ask_for_token(&emulator, &secret_form("APP", "s3cret%2B%2F%3D")).json();
    assert_eq!(
        (&answer["token_type"], &answer["expires_in"], &answer["ext_expires_in"]),
        (&json!("Bearer"), &json!(3599), &json!(3599))
    );
    assert!(works(&emulator, &answer));
    let metadata = page(&emulator, &format!("/{TENANT}/v2.0/.well-known/openid-configuration"));
    let base = format!("https://localhost:{}/{TENANT}", emulator.https_port());
    assert_eq!(metadata["issuer"], format!("{base}/v2.0"));
    assert_eq!(metadata["token_endpoint"], format!("{base}/oauth2/v2.0/token"));
    let keys_path = metadata["jwks_uri"].as_str().unwrap().split_once(&format!(":{}", emulator.https_port())).unwrap().1;
    let key = page(&emulator, keys_path)["keys"][0].clone();
    let token = answer["access_token"].as_str().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let [n, e] = ["n", "e"].map(|name| decode(key[name].as_str().unwrap()));
    let public = ring::signature::RsaPublicKeyComponents { n: &n, e: &e };
    let verified = public.verify(&ring::signature::RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decode(signature));
    assert_eq!(verified, Ok(()));
    let (header, claims) = signed.split_once('.').unwrap();
    let [header, claims] = [header, claims].map(|part| serde_json::from_slice::<Value>(&decode(part)).unwrap());
    assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &key["kid"]));
    assert_eq!((&claims["iss"], &claims["tid"]), (&metadata["issuer"], &json!(TENANT)));
    assert_eq!((&claims["aud"], &claims["appid"]), (&json!("https://azure-devices-provisioning.net"), &json!("app")));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 3599);
    let instance = page(&emulator, "/common/discovery/instance");
    assert_eq!(instance["tenant_discovery_endpoint"], format!("{base}/v2.0/.well-known/openid-configuration"));
}

#[test]
fn what_is_wrong_with_a_request_has_its_number() {
    let emulator = emulator("", &tables(CONTRIBUTOR));
    let good = secret_form("app", "s3cret%2B%2F%3D");
    let scope = encoded(SCOPE);
    for (form, status, error, code) in [
        (String::new(), 400, "invalid_request", 900_144),
        (good.replace("client_credentials", "password"), 400, "unsupported_grant_type", 70_003),
        (good.replace("client_id=app", "x=y"), 400, "invalid_request", 900_144),
        (good.replace("client_id=app", "client_id=other"), 400, "unauthorized_client", 700_016),
        (good.replace("client_secret", "x"), 400, "invalid_request", 900_144),
        (good.replace("s3cret%2B", "s3cret"), 401, "invalid_client", 7_000_215),
        (good.replace(&scope, "https%3A%2F%2Fazure-devices-provisioning.net"), 400, "invalid_scope", 1_002_012),
        (good.replace(&scope, "https%3A%2F%2Fother.example%2F.default"), 400, "invalid_resource", 500_011),
        (good.replace(&format!("scope={scope}"), ""), 400, "invalid_request", 900_144),
    ] {
        assert_eq!(fault(&ask_for_token(&emulator, &form)), (status, error.to_owned(), code), "{form}");
    }
    let elsewhere = call(&emulator, "POST", "/other/oauth2/v2.0/token", &[], &good).unwrap();
    assert_eq!(fault(&elsewhere), (400, "invalid_request".to_owned(), 90_002));
    assert_eq!(call(&emulator, "GET", &format!("/{TENANT}/oauth2/v2.0/token"), &[], "").unwrap().status, 405);
    assert_eq!(call(&client::emulator("", ""), "POST", &format!("/{TENANT}/oauth2/v2.0/token"), &[], &good).unwrap().status, 404);
}

/// A file of this test.
fn file(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("dps-emulator-{}-{name}.pem", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

fn assertion_form(assertion: &str) -> String {
    let kind = encoded(ASSERTION);
    format!(
        "grant_type=client_credentials&client_id=app&scope={}&client_assertion_type={kind}&client_assertion={assertion}",
        encoded(SCOPE)
    )
}

fn thumbprint(leaf: &Leaf, algorithm: &'static digest::Algorithm) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap();
    digest::digest(algorithm, &der).as_ref().to_vec()
}

#[test]
fn a_certificate_signs_an_assertion() {
    let [own, other] = ["app", "other"].map(|name| Leaf::self_signed(name, Algorithm::Rsa2048, VALID).unwrap());
    let path = file("app", &own.certificate_pem);
    let client = format!("certificate_file = \"{}\"\nroles = [{{ role = \"{CONTRIBUTOR}\" }}]\n", path.display());
    let emulator = emulator("", &format!("[[entra.client]]\nclient_id = \"app\"\n{client}"));
    std::fs::remove_file(path).unwrap();
    let url = format!("https://localhost:{}/{TENANT}", emulator.https_port());
    let (sha1, sha256) = (thumbprint(&own, &digest::SHA1_FOR_LEGACY_USE_ONLY), thumbprint(&own, &digest::SHA256));
    let now = in_one_hour() - 3600;
    let claims = json!({"aud": format!("{url}/oauth2/v2.0/token"), "iss": "app", "sub": "app", "nbf": now, "exp": now + 300});
    let header = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(&sha256)});
    let ask =
        |header: &Value, claims: &Value, leaf: &Leaf| ask_for_token(&emulator, &assertion_form(&jwt(&leaf.key, header, claims)));
    let older = json!({"alg": "RS256", "typ": "JWT", "x5t": URL_SAFE_NO_PAD.encode(&sha1)});
    let rust_sdk = json!({"alg": "RS256", "typ": "JWT", "x5t": STANDARD.encode(&sha1)});
    for header in [&header, &older, &rust_sdk] {
        let answer = ask(header, &claims, &own);
        assert_eq!(answer.status, 200, "{header}: {}", answer.json());
        assert!(works(&emulator, &answer.json()));
    }
    let issuer = json!({"aud": format!("{url}/v2.0"), "iss": "app", "sub": "app", "exp": now + 300});
    assert_eq!(ask(&header, &issuer, &own).status, 200, "the audience of 2020");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    for (header, claims, leaf, code) in [
        (&header, &claims, &other, 700_027),
        (&json!({"alg": "RS256", "x5t": URL_SAFE_NO_PAD.encode(&sha256)}), &claims, &own, 700_027),
        (&json!({"alg": "RS256"}), &claims, &own, 700_027),
        (&json!({"alg": "none", "x5t": URL_SAFE_NO_PAD.encode(&sha1)}), &claims, &own, 700_027),
        (&header, &with("aud", json!("https://elsewhere.example")), &own, 700_023),
        (&header, &with("sub", json!("other")), &own, 700_213),
        (&header, &with("iss", json!("other")), &own, 700_211),
        (&header, &with("exp", json!(now)), &own, 700_024),
        (&header, &with("exp", Value::Null), &own, 700_024),
        (&header, &with("nbf", json!(now + 1000)), &own, 700_024),
    ] {
        assert_eq!(fault(&ask(header, claims, leaf)), (401, "invalid_client".to_owned(), code), "{header} {claims}");
    }
    let no_kind = assertion_form("x").replace(&encoded(ASSERTION), "x");
    assert_eq!(fault(&ask_for_token(&emulator, &no_kind)).2, 900_144);
}

#[test]
fn a_token_of_another_issuer_stands_for_a_client() {
    let [issuer, other] = ["issuer", "other"].map(|name| Leaf::self_signed(name, Algorithm::Rsa2048, VALID).unwrap());
    let path = file("issuer", &issuer.certificate_pem);
    let federated = format!(
        "federated = {{ issuer = \"https://cluster.example\", subject = \"system:serviceaccount:a:b\", certificate_file = \"{}\" }}",
        path.display()
    );
    let client = format!("[[entra.client]]\nclient_id = \"app\"\n{federated}\nroles = [{{ role = \"{CONTRIBUTOR}\" }}]\n");
    let emulator = emulator("", &client);
    std::fs::remove_file(path).unwrap();
    let claims = json!({
        "iss": "https://cluster.example",
        "sub": "system:serviceaccount:a:b",
        "aud": "api://AzureADTokenExchange",
        "exp": in_one_hour(),
    });
    let header = json!({"alg": "RS256", "kid": "whatever"});
    let ask = |claims: &Value, leaf: &Leaf| ask_for_token(&emulator, &assertion_form(&jwt(&leaf.key, &header, claims)));
    assert!(works(&emulator, &ask(&claims, &issuer).json()));
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    for (claims, leaf, code) in [
        (&claims, &other, 700_027),
        (&with("iss", json!("https://cluster.example/")), &issuer, 700_211),
        (&with("iss", json!("app")), &issuer, 700_211),
        (&with("sub", json!("system:serviceaccount:a:c")), &issuer, 700_213),
        (&with("aud", json!("https://azure-devices-provisioning.net")), &issuer, 700_212),
        (&with("exp", json!(in_one_hour() - 3600)), &issuer, 700_024),
    ] {
        assert_eq!(fault(&ask(claims, leaf)), (401, "invalid_client".to_owned(), code), "{claims}");
    }
}

/// One request without TLS; status and JSON.
fn plain(emulator: &Emulator, path: &str, headers: &[&str]) -> (u16, Value) {
    let mut stream = client::tcp(emulator.managed_identity_port().unwrap());
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn a_machine_has_an_identity() {
    let managed = |id: &str, role: &str| {
        format!(
            "[[entra.client]]\nclient_id = \"{id}\"\nobject_id = \"o-{id}\"\nmanaged = true\nroles = [{{ role = \"{role}\" }}]\n"
        )
    };
    let service = "[entra]\nmanaged_identity = \"127.0.0.1:0\"\nidentity_header = \"h\"\n";
    let app = "[[entra.client]]\nclient_id = \"app\"\nsecret = \"s\"\n";
    let emulator = emulator("", &format!("{service}{app}{}{}", managed("own", CONTRIBUTOR), managed("other", CONTRIBUTOR)));
    let resource = "resource=https%3A%2F%2Fazure-devices-provisioning.net";
    let vm = format!("/metadata/identity/oauth2/token?api-version=2018-02-01&{resource}");
    let (status, answer) = plain(&emulator, &vm, &["Metadata: true"]);
    assert_eq!((status, &answer["client_id"], &answer["token_type"]), (200, &json!("own"), &json!("Bearer")));
    assert!(works(&emulator, &answer));
    let number = |name: &str| answer[name].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!((number("expires_in"), number("expires_on") - number("not_before")), (3599, 3599));
    for (more, expected) in [("&client_id=OTHER", "other"), ("&object_id=o-other", "other"), ("&client_id=own", "own")] {
        assert_eq!(plain(&emulator, &format!("{vm}{more}"), &["Metadata: true"]).1["client_id"], expected, "{more}");
    }
    let app_service = format!("/msi/token?api-version=2019-08-01&{resource}");
    let (status, answer) = plain(&emulator, &app_service, &["X-IDENTITY-HEADER: h"]);
    assert!(status == 200 && works(&emulator, &answer));
    for (path, headers, refused) in [
        (vm.clone(), vec![], 400),
        (vm.clone(), vec!["Metadata: true", "X-Forwarded-For: 1.2.3.4"], 400),
        (vm.replace("2018-02-01", "1"), vec!["Metadata: true"], 400),
        (vm.replace("azure-devices", "other"), vec!["Metadata: true"], 400),
        (format!("{vm}&client_id=app"), vec!["Metadata: true"], 400),
        (app_service.clone(), vec!["X-IDENTITY-HEADER: x"], 401),
        (app_service, vec!["Metadata: true"], 401),
        ("/metadata/instance".to_owned(), vec!["Metadata: true"], 404),
        ("/enrollments/x".to_owned(), vec!["Metadata: true"], 404),
    ] {
        assert_eq!(plain(&emulator, &path, &headers).0, refused, "{path} {headers:?}");
    }
    assert_eq!(client::emulator("", &tables(CONTRIBUTOR)).managed_identity_port(), None);
}

#[test]
fn a_wrong_configuration_is_explained() {
    let explained = |text: &str| Config::from_toml(&format!("[service]\nid_scope = \"0ne\"\n{text}")).unwrap_err().to_string();
    let client = |rest: &str| explained(&format!("[entra]\n[[entra.client]]\nclient_id = \"app\"\n{rest}"));
    for (text, message) in [
        (explained("[service_api]\ncolour = 1"), "configuration:4: unknown field `colour`"),
        (explained("[service_api]\nnot_allowed = 404"), "configuration:4: not_allowed = 404: 401 or 403"),
        (explained("[service_api]\npage_size = 0"), "configuration:4: page_size must be at least 1"),
        (
            explained("[service_api]\nresource_id = \"/subscriptions/1\""),
            "configuration:4: resource_id \"/subscriptions/1\" has not the form /",
        ),
        (
            explained("[[service_api.policy]]\nname = \"x\"\nprimary_key = \"YQ==\""),
            "configuration:3: a key has 1 bytes, not 16 to 64",
        ),
        (
            explained("[[service_api.policy]]\nname = \"x\"\nprimary_key = \"YQ==\"\nrights = [\"All\"]"),
            "configuration:6: unknown variant `All`",
        ),
        (
            explained("[[service_api.role]]\nname = \"x\"\ndata_actions = [\"enrollments/read\"]"),
            "configuration:3: data action \"enrollments/read\" is none of the Device Provisioning Service",
        ),
        (
            explained("[[service_api.certificate]]\nname = \"x\"\ncertificate_file = \"/no/such.pem\""),
            "configuration:3: certificate_file /no/such.pem: ",
        ),
        (client(""), "configuration:4: client app: needs one of secret, certificate_file, federated and managed = true"),
        (
            client("secret = \"s\"\nroles = [\n{ role = \"x\" }]"),
            "configuration:8: no role is called \"x\"; there are: Device Provisioning Service Data",
        ),
        (
            client(&format!(
                "secret = \"s\"\nroles = [{{ role = \"{CONTRIBUTOR}\", scope = \"/subscriptions/1/enrollments/x\" }}]"
            )),
            "configuration:7: scope \"/subscriptions/1/enrollments/x\" is not that of a service, a resource group, a subscription",
        ),
    ] {
        assert!(text.starts_with(message), "{text}");
    }
}
