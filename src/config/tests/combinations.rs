//! What cannot stand together, and what is missing: each kind with its exact message.

use super::Place::{After, AfterX509, Dps, Instead, Whole};
use super::assert_wrong;

#[test]
fn what_has_to_be_there_is_asked_of_the_main_file() {
    assert_wrong(&[
        (
            Whole,
            "",
            "F: [dps] id_scope: is missing; write id_scope = \"0ne00000000\" as the overview page of your DPS instance shows it\nF: [attestation] method: is missing; write method = \"symmetric-key\", method = \"x509\" or method = \"tpm\"",
        ),
        (
            Instead("method = 'symmetric-key'"),
            "method = 'x509'\n#",
            "F:7: [attestation] key_file: belongs to method \"symmetric-key\", but F:4 says method = \"x509\"; remove one of the two\nF: [attestation] certificate_file: is missing; write the path of the PEM chain, the device's own certificate first\nF: [attestation] private_key_file: is missing; write the path of the PEM private key of the certificate",
        ),
        (
            Instead("id_scope = '0ne1'"),
            "",
            "F: [dps] id_scope: is missing; write id_scope = \"0ne00000000\" as the overview page of your DPS instance shows it",
        ),
        (
            Instead("registration_id = 'gw-1'"),
            "",
            "F: [attestation] registration_id: is missing; write registration_id = \"gw-0001\", or registration_id_from = one of device-tree-serial, dmi-serial, mac:INTERFACE, machine-id or file:/PATH",
        ),
        (
            Instead("key_file = '/k'"),
            "",
            "F: [attestation] key_file: is missing; write key_file = \"/etc/dps-agent/device.key\" (base64 text of the device's key), or key_credential",
        ),
        (
            Instead("key_file = '/k'"),
            "secondary_key_file = '/s'",
            "F: [attestation] key_file: is missing; write key_file = \"/etc/dps-agent/device.key\" (base64 text of the device's key), or key_credential",
        ),
        (
            Whole,
            "[dps]\nid_scope = '0ne1'\n[attestation]\nmethod = 'x509'",
            "F: [attestation] certificate_file: is missing; write the path of the PEM chain, the device's own certificate first\nF: [attestation] private_key_file: is missing; write the path of the PEM private key of the certificate",
        ),
    ]);
}

#[test]
fn what_cannot_stand_together_names_both_places() {
    assert_wrong(&[
        (
            Dps,
            "ca_only = true",
            "F:3: [dps] ca_only: nothing would be trusted without ca_file; name a file of root certificates in ca_file, or remove ca_only",
        ),
        (
            Dps,
            "payload = '{}'\npayload_file = '/p'",
            "F:4: [dps] payload_file: cannot stand beside payload of F:3; keep one of them",
        ),
        (
            After,
            "[hub]\ngateway_ca_file = '/c'",
            "F:8: [hub] gateway_ca_file: is of no use without gateway_host; write gateway_host, or use [dps] ca_file for the hub itself",
        ),
        (
            After,
            "key_credential = 'k'",
            "F:7: [attestation] key_credential: cannot stand beside key_file of F:6; keep one of them",
        ),
        (
            After,
            "secondary_key_file = '/s'\nsecondary_key_credential = 's'",
            "F:8: [attestation] secondary_key_credential: cannot stand beside secondary_key_file of F:7; keep one of them",
        ),
        (
            After,
            "certificate_file = '/c'\nprivate_key_file = '/p'",
            "F:7: [attestation] certificate_file: belongs to method \"x509\", but F:4 says method = \"symmetric-key\"; remove one of the two\nF:8: [attestation] private_key_file: belongs to method \"x509\", but F:4 says method = \"symmetric-key\"; remove one of the two",
        ),
        (
            AfterX509,
            "key_file = '/k'\nkey_credential = 'k'\nsecondary_key_file = '/s'\nsecondary_key_credential = 's'",
            "F:7: [attestation] key_file: belongs to method \"symmetric-key\", but F:4 says method = \"x509\"; remove one of the two\nF:8: [attestation] key_credential: belongs to method \"symmetric-key\", but F:4 says method = \"x509\"; remove one of the two\nF:9: [attestation] secondary_key_file: belongs to method \"symmetric-key\", but F:4 says method = \"x509\"; remove one of the two\nF:10: [attestation] secondary_key_credential: belongs to method \"symmetric-key\", but F:4 says method = \"x509\"; remove one of the two",
        ),
        (
            After,
            "registration_id_from = 'machine-id'",
            "F:7: [attestation] registration_id_from: cannot stand beside registration_id of F:5; keep one of them",
        ),
        (
            After,
            "registration_id_prefix = 'gw-'",
            "F:7: [attestation] registration_id_prefix: goes before registration_id_from only, and F:5 writes the whole ID; put the prefix into it",
        ),
        (
            AfterX509,
            "registration_id_prefix = 'gw-'",
            "F:7: [attestation] registration_id_prefix: the ID has to equal the certificate's common name, so nothing can go before it; remove the prefix or choose another registration_id_from",
        ),
        (
            Instead("registration_id = 'gw-1'"),
            "registration_id_from = 'certificate-cn'",
            "F:5: [attestation] registration_id_from: there is no certificate with method = \"symmetric-key\" of F:4; use another source, or write registration_id",
        ),
        (
            Instead("registration_id = 'gw-1'"),
            "registration_id_prefix = 'gw-'",
            "F: [attestation] registration_id: is missing; write registration_id = \"gw-0001\", or registration_id_from = one of device-tree-serial, dmi-serial, mac:INTERFACE, machine-id or file:/PATH",
        ),
    ]);
}

#[test]
fn a_proxy_is_an_http_proxy_without_a_password_in_its_url() {
    assert_wrong(&[
        (
            Dps,
            "proxy = 'http://user:hunter2@h:1'",
            "F:3: [dps] proxy: holds a user name or password; write them as USER:PASSWORD into a file that only root can read, and name it in proxy_credentials_file",
        ),
        (
            Dps,
            "proxy = 'https://h:1'",
            "F:3: [dps] proxy: TLS to the proxy itself is not supported; write http://HOST:PORT (what goes through it is TLS all the same)",
        ),
        (Dps, "proxy = 'socks5://h:1'", "F:3: [dps] proxy: only HTTP proxies are supported; write http://HOST:PORT"),
        (Dps, "proxy = 'h:1'", "F:3: [dps] proxy: has no scheme; write http://HOST:PORT"),
        (Dps, "proxy = 'http://h:0'", "F:3: [dps] proxy: has no usable port; write http://HOST:PORT, ports are 1 to 65535"),
        (Dps, "proxy = 'http://h:1/x'", "F:3: [dps] proxy: has something after the port; write http://HOST:PORT"),
        (Dps, "proxy = 'http://h h'", "F:3: [dps] proxy: has no usable host; write http://HOST:PORT"),
        (
            Dps,
            "proxy_credentials_file = '/c'",
            "F:3: [dps] proxy_credentials_file: there is no proxy to show credentials to; write proxy = \"http://HOST:PORT\", or remove it",
        ),
        (
            Dps,
            "proxy = ''\nproxy_credentials_file = '/c'",
            "F:4: [dps] proxy_credentials_file: there is no proxy to show credentials to; write proxy = \"http://HOST:PORT\", or remove it",
        ),
    ]);
}
