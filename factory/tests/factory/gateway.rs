//! `config`: what it writes into an image.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::bench::{Bench, certificate};

const KEY: &str = "YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=";

#[test]
fn a_gateway_with_a_key() {
    let bench = Bench::plain();
    bench.put("gw-1.key", KEY);
    let ran = bench.run(&[
        "config",
        "--root",
        "image",
        "--id-scope",
        "0ne00000000",
        "--at",
        "symmetricKey",
        "--rid",
        "gw-1",
        "--key-file",
        "gw-1.key",
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout, "image/etc/dps-agent/device.key\nimage/etc/dps-agent/config.d/50-factory.toml\n");
    assert_eq!(
        bench.read("image/etc/dps-agent/config.d/50-factory.toml"),
        "# Written by dps-factory.\n[dps]\nid_scope = \"0ne00000000\"\n\n[attestation]\nmethod = \"symmetric-key\"\n\
         key_file = \"/etc/dps-agent/device.key\"\nregistration_id = \"gw-1\"\n"
    );
    assert_eq!(bench.read("image/etc/dps-agent/device.key"), format!("{KEY}\n"));
    let mode = fs::metadata(bench.path("image/etc/dps-agent/device.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_gateway_with_a_certificate_and_one_with_a_tpm() {
    let bench = Bench::plain();
    bench.put("gw-1.pem", &certificate("gw-1"));
    bench.put("gw-1-key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let x509 = ["config", "--root", "image", "--id-scope", "0ne00000000", "--attestation-type", "x509"];
    let files = ["--certificate-file", "gw-1.pem", "--private-key-file", "gw-1-key.pem"];
    assert_eq!(bench.run(&[&x509[..], &files[..]].concat()).code, Some(0));
    assert_eq!(bench.read("image/etc/dps-agent/device.pem"), bench.read("gw-1.pem"));
    let ran = bench.run(&[&x509[..], &files[..], &["--rid", "gw-2"]].concat());
    assert_eq!(ran.code, Some(65));
    assert_eq!(
        ran.stderr,
        "dps-factory: gw-1.pem: certificate: its common name is \"gw-1\", and the registration ID \"gw-2\"; they must be equal\n"
    );
    let ran = bench.run(&[
        "config",
        "--root",
        "tpm",
        "--id-scope",
        "0ne00000000",
        "--at",
        "tpm",
        "--host",
        "line7.azure-devices-provisioning.net",
    ]);
    assert_eq!(ran.stdout, "tpm/etc/dps-agent/config.d/50-factory.toml\n");
    assert_eq!(
        bench.read("tpm/etc/dps-agent/config.d/50-factory.toml"),
        "# Written by dps-factory.\n[dps]\nid_scope = \"0ne00000000\"\nhost = \"line7.azure-devices-provisioning.net\"\n\n\
         [attestation]\nmethod = \"tpm\"\n"
    );
}

#[test]
fn what_cannot_work_is_not_written() {
    let bench = Bench::plain();
    bench.put("key", "too short");
    let config = |more: &[&str]| bench.run(&[&["config", "--root", "image", "--id-scope", "0ne00000000"], more].concat());
    for (arguments, code, message) in [
        (
            vec!["--at", "symmetricKey", "--rid", "gw-1"],
            64,
            "symmetricKey needs --key-file with the device's key (enroll --keys makes it, derive-key too)",
        ),
        (
            vec!["--at", "symmetricKey", "--key-file", "key"],
            64,
            "a gateway with a symmetric key needs --registration-id or --registration-id-from",
        ),
        (vec!["--at", "symmetricKey", "--rid", "gw-1", "--key-file", "key"], 77, "key: a symmetric key: it is not base64"),
        (vec!["--at", "tpm", "--key-file", "key"], 64, "--key-file is of no use with --attestation-type tpm"),
        (
            vec!["--at", "tpm", "--host", "a\"b"],
            64,
            "\"a\\\"b\": is empty, or has quotes, backslashes or control characters in it",
        ),
        (vec!["--at", "x509"], 64, "x509 needs --certificate-file and --private-key-file"),
    ] {
        let ran = config(&arguments);
        assert_eq!((ran.code, ran.stderr), (Some(code), format!("dps-factory: {message}\n")));
    }
    let scope = bench.run(&["config", "--root", "image", "--id-scope", "0ne 0", "--at", "tpm"]);
    assert_eq!(scope.stderr, "dps-factory: --id-scope \"0ne 0\": it is 1 to 128 letters, digits, '-', '_' or '.'\n");
    assert!(!bench.path("image").exists());
}
