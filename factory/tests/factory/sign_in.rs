//! By what the program signs in, and the account that it gives of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::bench::{Bench, POLICY_KEY, SECRET, STATION, TENANT, ended, with_input};

const LIST: [&str; 5] = ["enrollment", "list", "--ca-file", "ca.pem", "--verbose"];

fn in_tenant(bench: &Bench, client: &str, more: &[&str]) -> Command {
    let mut command = bench.command(&[&LIST[..], more].concat());
    command.args(["--tenant-id", TENANT, "--client-id", client]);
    command
}

#[test]
fn a_secret_from_a_file_or_stdin_and_never_from_an_argument() {
    let bench = Bench::plain();
    bench.put("secret", SECRET);
    let ran = ended(in_tenant(&bench, STATION, &["--client-secret-file", "secret"]).spawn().unwrap());
    let account =
        "workload-identity: not here, no --federated-token-file or AZURE_FEDERATED_TOKEN_FILE\nclient-secret: signed in\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), account));
    let ran = with_input(in_tenant(&bench, STATION, &["--client-secret-file", "-", "--credential", "client-secret"]), SECRET);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "client-secret: signed in\n"));
    let ran = ended(in_tenant(&bench, STATION, &["--client-secret", SECRET]).spawn().unwrap());
    assert_eq!(ran.code, Some(64));
    assert!(ran.stderr.contains("a similar argument exists: '--client-secret-file'"), "{}", ran.stderr);

    fs::set_permissions(bench.path("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let ran = ended(in_tenant(&bench, STATION, &["--client-secret-file", "secret"]).spawn().unwrap());
    assert_eq!(ran.code, Some(77));
    assert!(ran.stderr.ends_with("client-secret: secret: its mode 0644 opens it to others; chmod 600 it\n"), "{}", ran.stderr);
}

#[test]
fn a_wrong_secret_ends_the_search_and_is_not_shown() {
    let bench = Bench::plain();
    bench.put("secret", "another-secret");
    let mut command = in_tenant(&bench, STATION, &["--client-secret-file", "secret"]);
    // Somebody is signed in to the Azure CLI, too; the search must not come to them.
    az(&bench, "exit 0");
    command.env("PATH", bench.path("bin"));
    let ran = ended(command.spawn().unwrap());
    assert_eq!(ran.code, Some(77));
    assert!(ran.stderr.starts_with("dps-factory: not signed in to Microsoft Entra ID at https://localhost:"), "{}", ran.stderr);
    assert!(ran.stderr.contains("AADSTS7000215"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("azure-cli") && !ran.stderr.contains("another-secret"), "{}", ran.stderr);
}

#[test]
fn with_nothing_configured_the_account_names_all_that_was_looked_for() {
    let bench = Bench::plain();
    let ran = ended(bench.command(&LIST).spawn().unwrap());
    assert_eq!(ran.code, Some(77));
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(
        (lines[1], lines[2], lines[3], lines[5], lines[6]),
        (
            "workload-identity: not here, no --federated-token-file or AZURE_FEDERATED_TOKEN_FILE",
            "client-secret: not here, no --client-secret-file or AZURE_CLIENT_SECRET",
            "client-certificate: not here, no --client-certificate-file or AZURE_CLIENT_CERTIFICATE_PATH",
            "azure-cli: not here, no az in PATH",
            "configure one of them, or use --auth key",
        )
    );
    let nowhere = "no metadata service answers at http://127.0.0.1:1/ within a second, and IDENTITY_ENDPOINT is not set";
    assert_eq!(lines[4], format!("managed-identity: not here, {nowhere}"));
}

#[test]
fn a_certificate_signs_in() {
    let key = rsa_certificate();
    let authority = Bench::plain();
    authority.put("cert.pem", &key.0);
    let more = format!(
        "[[entra.client]]\nclient_id = \"55555555-5555-5555-5555-555555555555\"\ncertificate_file = \"{}\"\nroles = [{{ role = \"station\" }}]\n",
        authority.path("cert.pem").display()
    );
    let bench = Bench::new("", "", &more);
    bench.put("client.pem", &format!("{}{}", key.0, key.1));
    let sign_in = |file: &str| {
        let more = ["--client-certificate-file", file];
        ended(in_tenant(&bench, "55555555-5555-5555-5555-555555555555", &more).spawn().unwrap())
    };
    let ran = sign_in("client.pem");
    assert_eq!((ran.code, ran.stderr.lines().last()), (Some(0), Some("client-certificate: signed in")), "{}", ran.stderr);
    let other = rsa_certificate();
    bench.put("client.pem", &format!("{}{}", other.0, other.1));
    assert_eq!(sign_in("client.pem").code, Some(77));
    bench.put("client.pem", &key.1);
    let ran = sign_in("client.pem");
    assert!(ran.stderr.ends_with("client-certificate: client.pem: no CERTIFICATE section in it\n"), "{}", ran.stderr);
}

/// A certificate with an RSA key, and the key, both PEM, by openssl: rcgen with ring makes no RSA keys.
fn rsa_certificate() -> (String, String) {
    let arguments =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=factory", "-days", "30", "-keyout", "-", "-out", "-"];
    let output = Command::new("openssl").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (key, certificate) = text.split_at(text.find("-----BEGIN CERTIFICATE-----").unwrap());
    (certificate.to_owned(), key.to_owned())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the token has to be of now, for a provider that looks at the clock")]
fn a_workload_identity_signs_in() {
    let (certificate, key) = rsa_certificate();
    let issuer = Bench::plain();
    issuer.put("issuer.pem", &certificate);
    let more = format!(
        "[[entra.client]]\nclient_id = \"66666666-6666-6666-6666-666666666666\"\nroles = [{{ role = \"station\" }}]\n\
         federated = {{ issuer = \"https://cluster.example\", subject = \"system:serviceaccount:line:7\", \
         audience = \"api://AzureADTokenExchange\", certificate_file = \"{}\" }}\n",
        issuer.path("issuer.pem").display()
    );
    let bench = Bench::new("", "", &more);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |subject: &str| {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({ "alg": "RS256", "typ": "JWT" }));
        let claims = part(json!({ "iss": "https://cluster.example", "sub": subject, "aud": "api://AzureADTokenExchange",
            "iat": now, "nbf": now, "exp": now + 600 }));
        let der =
            <rustls_pki_types::PrivateKeyDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(key.as_bytes()).unwrap();
        let pair = ring::rsa::KeyPair::from_pkcs8(der.secret_der()).unwrap();
        let mut signature = vec![0; pair.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        pair.sign(&ring::signature::RSA_PKCS1_SHA256, &random, format!("{head}.{claims}").as_bytes(), &mut signature).unwrap();
        format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let sign_in = |subject: &str| {
        bench.put("token", &token(subject));
        ended(in_tenant(&bench, "66666666-6666-6666-6666-666666666666", &["--federated-token-file", "token"]).spawn().unwrap())
    };
    let ran = sign_in("system:serviceaccount:line:7");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "workload-identity: signed in\n"));
    assert_eq!(sign_in("system:serviceaccount:line:8").code, Some(77));
}

#[test]
fn the_managed_identities_of_a_virtual_machine_and_of_app_service_sign_in() {
    let more = "[entra]\nmanaged_identity = \"127.0.0.1:0\"\nidentity_header = \"of-the-tests\"\n\
                [[entra.client]]\nclient_id = \"77777777-7777-7777-7777-777777777777\"\nmanaged = true\nroles = [{ role = \"station\" }]\n";
    let bench = Bench::new("", "", more);
    let port = bench.emulator.managed_identity_port().unwrap();
    let mut machine = bench.command(&LIST);
    machine.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("http://127.0.0.1:{port}"));
    let ran = ended(machine.spawn().unwrap());
    assert_eq!((ran.code, ran.stderr.lines().last()), (Some(0), Some("managed-identity: signed in")), "{}", ran.stderr);
    let mut service = bench.command(&[&LIST[..], &["--credential", "managed-identity"]].concat());
    service.env("IDENTITY_ENDPOINT", format!("http://127.0.0.1:{port}/msi/token")).env("IDENTITY_HEADER", "of-the-tests");
    let ran = ended(service.spawn().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "managed-identity: signed in\n"));
    let mut arc = bench.command(&[&LIST[..], &["--credential", "managed-identity"]].concat());
    arc.env("IDENTITY_ENDPOINT", format!("http://127.0.0.1:{port}")).env("IMDS_ENDPOINT", "x");
    let ran = ended(arc.spawn().unwrap());
    assert_eq!(ran.code, Some(77));
    assert!(ran.stderr.contains("Azure Arc managed identity isn't supported"), "{}", ran.stderr);
}

/// A program `az` that does this.
fn az(bench: &Bench, script: &str) {
    fs::create_dir(bench.path("bin")).unwrap();
    bench.put("bin/az", &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(bench.path("bin/az"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A token of the station's, by the way of any OAuth client.
fn token(bench: &Bench) -> String {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(bench.emulator.ca_pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_merge([root]).build().unwrap();
    let form = format!(
        "client_id={STATION}&client_secret={SECRET}&grant_type=client_credentials&scope=https%3A%2F%2Fazure-devices-provisioning.net%2F.default"
    );
    let request = client.post(format!("https://{}/{TENANT}/oauth2/v2.0/token", bench.instance()));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async { request.send().await.unwrap().text().await.unwrap() });
    serde_json::from_str::<serde_json::Value>(&answer).unwrap()["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn the_login_of_the_azure_cli_is_the_last_that_is_tried() {
    let bench = Bench::plain();
    // The stand-in prints what the identity provider gave, as az does.
    let answer = json!({ "accessToken": token(&bench), "expires_on": 4_102_444_800_u64, "tokenType": "Bearer" });
    az(&bench, &format!("printf '%s\\n' \"$*\" > {}\necho '{answer}'", bench.path("az.log").display()));
    let mut command = bench.command(&LIST);
    command.env("PATH", bench.path("bin"));
    let ran = ended(command.spawn().unwrap());
    assert_eq!((ran.code, ran.stderr.lines().last()), (Some(0), Some("azure-cli: signed in")), "{}", ran.stderr);
    assert_eq!(
        bench.read("az.log"),
        "account get-access-token -o json --scope https://azure-devices-provisioning.net/.default\n"
    );
}

#[test]
fn the_key_of_a_policy_comes_from_file_environment_or_stdin() {
    let bench = Bench::plain();
    let text = format!("HostName={};SharedAccessKeyName=provisioningserviceowner;SharedAccessKey={POLICY_KEY}", bench.instance());
    bench.put("policy", &text);
    let list = |more: &[&str]| bench.command(&[&["enrollment", "list", "--ca-file", "ca.pem", "--auth", "key"], more].concat());
    assert_eq!(ended(list(&["--policy-file", "policy"]).spawn().unwrap()).code, Some(0));
    assert_eq!(with_input(list(&["--policy-file", "-"]), &text).code, Some(0));
    assert_eq!(ended(list(&[]).env("DPS_CONNECTION_STRING", &text).env_remove("DPS_NAME").spawn().unwrap()).code, Some(0));
    let ran = ended(list(&[]).spawn().unwrap());
    let cure = "dps-factory: --auth key needs the policy's connection string: --policy-file FILE (- for stdin), or DPS_CONNECTION_STRING\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(77), cure));
    let ran = ended(list(&["--policy-file", "policy", "--dps-name", "other"]).spawn().unwrap());
    assert_eq!(ran.code, Some(64));
    assert!(!ran.stderr.contains(POLICY_KEY), "{}", ran.stderr);
}

#[test]
fn a_service_that_nobody_vouches_for_is_not_asked() {
    let bench = Bench::plain();
    let mut command = bench.command(&["enrollment", "list", "--auth", "key"]);
    command.env("DPS_CONNECTION_STRING", format!("HostName=localhost;SharedAccessKeyName=p;SharedAccessKey={POLICY_KEY}"));
    command.env("DPS_NAME", bench.instance());
    let ran = ended(command.spawn().unwrap());
    assert_eq!(ran.code, Some(76), "{}", ran.stderr);
    assert!(ran.stderr.contains("invalid peer certificate: UnknownIssuer"), "{}", ran.stderr);
    // The program has gone when the service reads its alert.
    assert!(bench.emulator.wait_for_line("-", "! tls ", Duration::from_secs(60)));
    assert_eq!(bench.run_as(STATION, &["enrollment", "list"]).code, Some(0));
    let said = bench.emulator.transcript_all();
    let refused: Vec<_> = said.iter().filter(|line| line.starts_with("- ")).collect();
    assert_eq!(refused, ["- ! tls received fatal alert: UnknownCA"], "and only once");
}
