//! A raw back end for the tests: calls of the service API and of the identity provider.

use super::{End, KEY, Response, exchange, in_one_hour, tls, token};
use base64::{Engine, engine::general_purpose::STANDARD};
use dps_emulator::Emulator;
use dps_emulator::pki::Key;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

pub const POLICY_KEY: &[u8] = b"policy policy policy policy 1234";
pub const VERSION: &str = "api-version=2021-10-01";
pub const TENANT: &str = "00000000-0000-0000-0000-000000000002";
pub const SCOPE: &str = "https://azure-devices-provisioning.net/.default";
pub const READER: &str = "Device Provisioning Service Data Reader";
pub const CONTRIBUTOR: &str = "Device Provisioning Service Data Contributor";

/// The policy `owner` with every right, and the client `app` with `role` and the secret `s3cret+/=`.
pub fn tables(role: &str) -> String {
    format!(
        "[[service_api.policy]]\nname = \"owner\"\nprimary_key = \"{}\"\n\
         [[entra.client]]\nclient_id = \"app\"\nsecret = \"s3cret+/=\"\nroles = [{{ role = \"{role}\" }}]\n",
        STANDARD.encode(POLICY_KEY)
    )
}

/// A token of a policy for the service on localhost.
pub fn policy_token(name: &str) -> String {
    format!("{}&skn={name}", token(POLICY_KEY, "localhost", in_one_hour()))
}

/// An individual enrollment with a symmetric key.
pub fn symmetric(id: &str) -> Value {
    let keys = json!({"primaryKey": STANDARD.encode(KEY), "secondaryKey": STANDARD.encode("the second key!!")});
    json!({"registrationId": id, "attestation": {"type": "symmetricKey", "symmetricKey": keys}})
}

/// The same body with these members too.
pub fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A back end with one credential.
pub struct Backend<'a> {
    pub emulator: &'a Emulator,
    pub authorization: String,
}

impl<'a> Backend<'a> {
    pub fn owner(emulator: &'a Emulator) -> Self {
        Self { emulator, authorization: policy_token("owner") }
    }

    /// `app` with its secret.
    pub fn app(emulator: &'a Emulator) -> Self {
        let response = ask_for_token(emulator, &secret_form("app", "s3cret%2B%2F%3D"));
        assert_eq!(response.status, 200, "{}", response.json());
        let token = response.json()["access_token"].as_str().unwrap().to_owned();
        Self { emulator, authorization: format!("Bearer {token}") }
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let target = format!("{path}?{VERSION}");
        let own = [("Authorization", self.authorization.as_str()), ("Content-Type", "application/json; charset=utf-8")];
        let own = if body.is_empty() { &own[..1] } else { &own[..] };
        call(self.emulator, method, &target, &[own, headers].concat(), body).unwrap()
    }

    pub fn get(&self, path: &str) -> Response {
        self.call("GET", path, &[], "")
    }

    pub fn put(&self, path: &str, body: &Value) -> Response {
        self.call("PUT", path, &[], &body.to_string())
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.call("POST", path, &[], &body.to_string())
    }

    pub fn delete(&self, path: &str) -> Response {
        self.call("DELETE", path, &[], "")
    }

    pub fn query(&self, list: &str) -> Response {
        self.post(&format!("/{list}/query"), &json!({"query": format!("SELECT * FROM {list}")}))
    }
}

/// One call on a connection of its own.
pub fn call(emulator: &Emulator, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Result<Response, End> {
    exchange(&mut tls(emulator, emulator.https_port(), None), method, target, headers, body)
}

pub fn ask_for_token(emulator: &Emulator, form: &str) -> Response {
    let form_type = [("Content-Type", "application/x-www-form-urlencoded")];
    call(emulator, "POST", &format!("/{TENANT}/oauth2/v2.0/token"), &form_type, form).unwrap()
}

pub fn secret_form(client: &str, secret: &str) -> String {
    format!("grant_type=client_credentials&client_id={client}&client_secret={secret}&scope={}", encoded(SCOPE))
}

pub fn encoded(text: &str) -> String {
    text.replace(':', "%3A").replace('/', "%2F")
}

/// Status and error code, which the header repeats.
pub fn refusal(response: &Response) -> (u16, u64) {
    let code = response.json()["errorCode"].as_u64().unwrap();
    assert_eq!(response.header("x-ms-error-code"), Some(code.to_string().as_str()));
    assert_eq!(response.json()["info"], json!({}));
    (response.status, code)
}

/// A signed token, as somebody else than the emulator would make it.
pub fn jwt(key: &Key, header: &Value, claims: &Value) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let der = PrivateKeyDer::from_pem_slice(key.pkcs8_pem().as_bytes()).unwrap();
    let pair = ring::signature::RsaKeyPair::from_pkcs8(der.secret_der()).unwrap();
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let mut signature = vec![0; pair.public().modulus_len()];
    let scheme: &dyn ring::signature::RsaEncoding =
        if header["alg"] == "PS256" { &ring::signature::RSA_PSS_SHA256 } else { &ring::signature::RSA_PKCS1_SHA256 };
    pair.sign(scheme, &ring::rand::SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
