//! Each source's exact spelling, and each way in which it can fail to name the machine.

mod enrollment;

use std::error::Error as _;

use super::*;
use crate::config::IdentitySource::{CertificateCn, DeviceTreeSerial, DmiSerial, File, Mac, MachineId};

/// A file system with one file, gone at the end of the test.
struct Root(PathBuf);

impl Root {
    fn with(name: &str, path: &str, content: &[u8]) -> Self {
        let root = std::env::temp_dir().join(format!("dps-agent-identity-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        Self(root)
    }

    fn id(&self, from: IdentitySource, prefix: &str) -> Result<RegistrationId, IdentityError> {
        let source = RegistrationIdSource::From { source: from, prefix: prefix.to_owned() };
        registration_id(&source, Known::Nothing, &self.0)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The ID that a file makes.
fn id(name: &str, from: IdentitySource, prefix: &str, path: &str, content: &[u8]) -> String {
    let root = Root::with(name, path, content);
    root.id(from, prefix).unwrap_or_else(|error| panic!("{path}: {error}")).to_string()
}

/// What is said about a file that makes none, with the root's name cut off.
fn error(name: &str, from: IdentitySource, path: &str, content: &[u8]) -> String {
    let root = Root::with(name, path, content);
    root.id(from, "").unwrap_err().to_string().replace(root.0.to_str().unwrap(), "")
}

const DMI_FILE: &str = "sys/class/dmi/id/product_serial";
const ETH0: &str = "sys/class/net/eth0/address";

fn eth0() -> IdentitySource {
    Mac("eth0".to_owned())
}

fn etc_serial() -> IdentitySource {
    File(PathBuf::from("/etc/serial"))
}

#[test]
fn hardware_is_lower_cased_and_what_is_written_stays() {
    let tree = b"10000000ABCD1234\0";
    assert_eq!(id("dt", DeviceTreeSerial, "", "proc/device-tree/serial-number", tree), "10000000abcd1234");
    assert_eq!(id("dt2", DeviceTreeSerial, "Gw-", "sys/firmware/devicetree/base/serial-number", tree), "Gw-10000000abcd1234");
    assert_eq!(id("dmi", DmiSerial, "", DMI_FILE, b"  CZC1234XYZ \n"), "czc1234xyz");
    assert_eq!(id("file", etc_serial(), "gw-", "etc/serial", b" SN_007 \r\nsecond line\n"), "gw-SN_007");
}

#[test]
fn a_hardware_address_has_dashes() {
    assert_eq!(id("mac", eth0(), "gw-", ETH0, b"00:1A:2b:3c:4d:5e\n"), "gw-00-1a-2b-3c-4d-5e");
    let infiniband = b"80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:11:22:33\n";
    assert_eq!(id("mac20", eth0(), "", ETH0, infiniband), "80-00-02-08-fe-80-00-00-00-00-00-00-00-02-c9-03-00-11-22-33");
}

// Printed by `systemd-id128 machine-id --app-specific=5d70dcd8c6574b0c8fc6fb2fd39598b9` of systemd 252 on machines with these IDs.
#[test]
fn the_machine_id_is_hashed_as_systemd_does_it() {
    let hashed = |name, machine_id: &[u8]| id(name, MachineId, "", "etc/machine-id", machine_id);
    assert_eq!(hashed("mid", b"0123456789abcdef0123456789abcdef\n"), "99c846ed7f90416ea95d13a31aa3e3a5");
    assert_eq!(hashed("mid2", b"0123456789ABCDEF0123456789ABCDEF"), "99c846ed7f90416ea95d13a31aa3e3a5");
    assert_eq!(hashed("mid3", b"ffffffffffffffffffffffffffffffff\n"), "ecf25501b45043fcbf7f656a75b833ca");
}

#[test]
fn a_written_id_needs_no_machine() {
    let written = RegistrationIdSource::Written("Gw-1".parse().unwrap());
    assert_eq!(registration_id(&written, Known::Nothing, Path::new("/nowhere")).unwrap().as_str(), "Gw-1");
}

#[test]
fn with_a_certificate_the_id_is_its_common_name() {
    let root = Root::with("cn", DMI_FILE, b"SN1");
    let from = |source| RegistrationIdSource::From { source, prefix: String::new() };
    let ask = |source, common_name: Option<&'static str>| {
        registration_id(&source, common_name.map_or(Known::Nothing, Known::CommonName), &root.0)
            .map_err(|error| error.to_string())
    };
    let equal = "they must be equal, in upper and lower case too";
    let named = |id: &str| Ok(id.parse::<RegistrationId>().unwrap());

    assert_eq!(ask(from(CertificateCn), Some("Gw-1")), named("Gw-1"));
    assert_eq!(ask(from(DmiSerial), Some("sn1")), named("sn1"));
    assert_eq!(ask(RegistrationIdSource::Written("gw-1".parse().unwrap()), Some("gw-1")), named("gw-1"));
    assert_eq!(
        ask(RegistrationIdSource::Written("gw-1".parse().unwrap()), Some("GW-1")),
        Err(format!("the registration ID is \"gw-1\" but the certificate's common name is \"GW-1\"; with x509 {equal}"))
    );
    assert_eq!(
        ask(from(DmiSerial), Some("sn2")),
        Err(format!("the registration ID is \"sn1\" but the certificate's common name is \"sn2\"; with x509 {equal}"))
    );
    let nameless = "the certificate has no common name to register with; issue one whose subject's CN is the registration ID";
    assert_eq!(ask(from(CertificateCn), None), Err(nameless.to_owned()));
    assert_eq!(ask(from(CertificateCn), Some("")), Err(nameless.to_owned()));
    assert_eq!(
        ask(from(CertificateCn), Some("My Gateway")),
        Err("registration_id_from = \"certificate-cn\": the certificate's common name makes \"My Gateway\", but a registration ID consists of letters, digits and '-', '.', '_', ':'; use another source or write registration_id".to_owned())
    );
}

#[test]
fn what_is_not_there_is_named() {
    let cases = [
        (
            DeviceTreeSerial,
            "registration_id_from = \"device-tree-serial\": there is no /proc/device-tree/serial-number or /sys/firmware/devicetree/base/serial-number; this machine has no serial number in a device tree, use another source",
        ),
        (
            DmiSerial,
            "registration_id_from = \"dmi-serial\": there is no /sys/class/dmi/id/product_serial; this machine has no DMI, use another source",
        ),
        (MachineId, "registration_id_from = \"machine-id\": there is no /etc/machine-id; systemd-machine-id-setup writes it"),
        (etc_serial(), "registration_id_from = \"file:/etc/serial\": there is no /etc/serial; write the ID into its first line"),
        (
            Mac("wlan0".to_owned()),
            "registration_id_from = \"mac:wlan0\": there is no such network interface; this machine has eth0",
        ),
    ];
    for (from, expected) in cases {
        assert_eq!(error("absent", from, ETH0, b"00:1a:2b:3c:4d:5e\n"), expected);
    }
    let none = "registration_id_from = \"mac:eth0\": there is no such network interface; this machine has none";
    assert_eq!(error("no-net", eth0(), "etc/serial", b""), none);
}

#[test]
fn what_the_maker_left_in_place_of_a_serial_number_is_refused() {
    for text in
        ["To be filled by O.E.M.", "None", "Default string", "0", "Not Specified", "System Serial Number", "00000000", "XXXX"]
    {
        let said = error("placeholder", DmiSerial, DMI_FILE, text.as_bytes());
        let expected = format!(
            "registration_id_from = \"dmi-serial\": /sys/class/dmi/id/product_serial holds {:?}, which the maker left in place of a serial number; use another source",
            text.to_lowercase()
        );
        assert_eq!(said, expected);
    }
    for text in ["10", "xf", "none1"] {
        assert_eq!(id("serial", DmiSerial, "", DMI_FILE, text.as_bytes()), text);
    }
}

#[test]
fn an_address_that_is_none_is_refused() {
    for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "0a:00:00:01", "1a:2b:3c:4d:5e:6", "1a:2b:3c:4d:5e:xx"] {
        let said = error("bad-mac", eth0(), ETH0, text.as_bytes());
        let expected = format!(
            "registration_id_from = \"mac:eth0\": /sys/class/net/eth0/address holds \"{text}\", which is no hardware address; name another interface"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn a_machine_id_that_is_none_is_refused_without_being_quoted() {
    let said = |text: &[u8]| error("bad-mid", MachineId, "etc/machine-id", text);
    assert_eq!(
        said(b"uninitialized\n"),
        "registration_id_from = \"machine-id\": /etc/machine-id says \"uninitialized\"; the first boot is not complete, or the root file system is read-only; systemd-machine-id-setup writes it"
    );
    for text in ["0123456789abcdef", "00000000000000000000000000000000", "+123456789abcdef0123456789abcdef"] {
        assert_eq!(
            said(text.as_bytes()),
            "registration_id_from = \"machine-id\": /etc/machine-id does not hold 32 hexadecimal digits; systemd-machine-id-setup writes it"
        );
    }
}

#[test]
fn a_file_that_makes_no_id_is_named_with_its_text_and_the_rule() {
    let said = |text: &[u8]| error("bad-file", etc_serial(), "etc/serial", text);
    let start = "registration_id_from = \"file:/etc/serial\": /etc/serial";
    let end = "use another source or write registration_id";
    assert_eq!(said(b"\nSN1\n"), format!("{start} is empty in its first line; put the ID there or use another source"));
    assert_eq!(said(b"SN\xe9"), format!("{start} is not text; an ID is made of ASCII characters, use another source"));
    assert_eq!(
        said(b"SN 1"),
        format!("{start} makes \"SN 1\", but a registration ID consists of letters, digits and '-', '.', '_', ':'; {end}")
    );
    assert_eq!(
        said(b"SN."),
        format!("{start} makes \"SN.\", but the last character of a registration ID is a letter, a digit or a dash; {end}")
    );
    let long = "x".repeat(10_000);
    let shown = "x".repeat(80);
    assert_eq!(said(long.as_bytes()), format!("{start} makes \"{shown}\", but a registration ID has 1 to 128 characters; {end}"));
}

#[test]
fn what_cannot_be_read_says_why_in_its_source() {
    let root = Root::with("directory", "etc/serial/x", b"");
    let error = root.id(etc_serial(), "").unwrap_err();
    let said = error.to_string().replace(root.0.to_str().unwrap(), "");
    assert_eq!(said, "registration_id_from = \"file:/etc/serial\": cannot read /etc/serial");
    assert_eq!(error.source().unwrap().to_string(), "Is a directory (os error 21)");

    // Whoever runs the tests as root can read everything, so this error is made up.
    let machine = Machine { root: Path::new("/"), from: &DmiSerial };
    let denied = machine.unreadable(PathBuf::from("/sys/class/dmi/id/product_serial"), ErrorKind::PermissionDenied.into());
    assert_eq!(
        denied.to_string(),
        "registration_id_from = \"dmi-serial\": only root may read /sys/class/dmi/id/product_serial; run as root, or copy it once into a file and use file:PATH"
    );
}

#[test]
fn an_endorsement_key_has_the_ids_that_microsofts_tools_give_it() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/test-vectors.json")).unwrap();
    let tpm = &vectors["tpm"];
    let cases = tpm["registration_ids"].as_array().unwrap().iter().map(|case| (case, case));
    let cases: Vec<_> =
        cases.chain([(&tpm["activation_blob_static"], &tpm["activation_blob_static"]["registration_ids"])]).collect();
    assert_eq!(cases.len(), 3);
    for (case, expected) in cases {
        let key: PublicArea = serde_json::from_value(case["ek_tpm2b_public_b64"].clone()).unwrap();
        let ask = |encoding| {
            let source = RegistrationIdSource::From { source: IdentitySource::TpmEk(encoding), prefix: "gw-".into() };
            registration_id(&source, Known::EndorsementKey(&key), Path::new("/nowhere")).unwrap().to_string()
        };
        assert_eq!(ask(Encoding::Hex), format!("gw-{}", expected["sha256_hex"].as_str().unwrap()));
        assert_eq!(ask(Encoding::Base32), format!("gw-{}", expected["base32_lower_nopad"].as_str().unwrap()));
    }
}
