//! A broken file, name, type or value: each kind with its exact message.

use super::Place::{After, AfterX509, Before, Dps, Instead, Whole};
use super::assert_wrong;

#[test]
fn what_is_not_toml_is_said_with_its_line() {
    assert_wrong(&[
        (Whole, "a", "F:1: not TOML: key with no value, expected `=`; write KEY = VALUE"),
        (
            Whole,
            "[dps]\nhost = global.azure\n",
            "F:2: not TOML: string values must be quoted, expected literal string; put the value in quotes",
        ),
        (Whole, "[dps]\nhost = 'a'\nhost = 'b'\n", "F:3: not TOML: duplicate key; the same name stands above; keep one of them"),
        (Whole, "[dps]\n[dps]\n", "F:2: not TOML: duplicate key; the same name stands above; keep one of them"),
        (
            Whole,
            "[dps]\nmqtt_port = 08883\n",
            "F:2: not TOML: unexpected leading zero, expected nothing; an ID made of digits goes in quotes",
        ),
        (Whole, "[dps\nhost = 1", "F:1: not TOML: unclosed table, expected `]`; correct this line"),
        (
            Whole,
            "[dps]\nhost = \"a\nid_scope = 'b'\n",
            "F:2: not TOML: invalid basic string, expected `\"`; close the quotes on the same line, with no others between them",
        ),
        (
            Whole,
            "[dps]\npayload = \"{\"a\":1}\"\n",
            "F:2: not TOML: unexpected key or value, expected newline, `#`; correct this line",
        ),
        (Whole, "[dps]\nca_only = True", "F:2: not TOML: invalid boolean, expected `true`; write true or false in small letters"),
        (
            Whole,
            "[dps]\nhost =\nid_scope\n",
            "F:2: not TOML: string values must be quoted, expected literal string; put the value in quotes\nF:3: not TOML: key with no value, expected `=`; write KEY = VALUE",
        ),
        (
            Whole,
            "[dps]\nhost = [a, b\n",
            "F:2: not TOML: string values must be quoted, expected literal string; put the value in quotes",
        ),
        (
            Whole,
            "[dps]\nhost = a b c\n",
            "F:2: not TOML: string values must be quoted, expected literal string; put the value in quotes",
        ),
        (
            Whole,
            "[dps]\nhost = { a = b c = d }\n",
            "F:2: not TOML: string values must be quoted, expected literal string; put the value in quotes",
        ),
        (
            Whole,
            "[dps]\nca_only = tru, fals\n",
            "F:2: not TOML: invalid boolean, expected `true`; write true or false in small letters",
        ),
    ]);
}

#[test]
fn an_unknown_name_is_answered_with_the_one_that_was_meant() {
    assert_wrong(&[
        (Before, "hots = 1", "F:1: hots: key outside of any table; did you mean `host` under [dps]?"),
        (Before, "ca_file = '/c'", "F:1: ca_file: key outside of any table; it belongs under [dps]"),
        (
            Before,
            "colour = 1",
            "F:1: colour: key outside of any table; write it under one of [dps], [attestation], [hub], [clock], [state], [runtime], [handoff]",
        ),
        (After, "[dsp]\nhost = 'a'", "F:7: [dsp]: unknown table; did you mean `[dps]`?"),
        (After, "[[hbu]]\na = 1", "F:7: [hbu]: unknown table; did you mean `[hub]`?"),
        (
            After,
            "[colours]",
            "F:7: [colours]: unknown table; there are [dps], [attestation], [hub], [clock], [state], [runtime], [handoff]",
        ),
        (
            Whole,
            "dps = 3",
            "F:1: [dps]: is a number where a table should be; write [dps] on a line of its own\nF: [dps] id_scope: is missing; write id_scope = \"0ne00000000\" as the overview page of your DPS instance shows it\nF: [attestation] method: is missing; write method = \"symmetric-key\", method = \"x509\" or method = \"tpm\"",
        ),
        (
            Whole,
            "[[dps]]\nhost = 'a'",
            "F:1: [dps]: is an array of tables where a table should be; write [dps] on a line of its own\nF: [dps] id_scope: is missing; write id_scope = \"0ne00000000\" as the overview page of your DPS instance shows it\nF: [attestation] method: is missing; write method = \"symmetric-key\", method = \"x509\" or method = \"tpm\"",
        ),
        (After, "[state]\n[runtime]\n[hub]\nhost = 'a'", "F:10: [hub] host: unknown key; it belongs under [dps]"),
        (Dps, "hots = 'x'", "F:3: [dps] hots: unknown key; did you mean `host`?"),
        (Dps, "api-version = 'x'", "F:3: [dps] api-version: unknown key; did you mean `api_version`?"),
        (Dps, "method = 'x509'", "F:3: [dps] method: unknown key; it belongs under [attestation]"),
        (
            Dps,
            "colour = 'x'",
            "F:3: [dps] colour: unknown key; [dps] has host, id_scope, transport, mqtt_port, https_port, ca_file, ca_only, api_version, payload, payload_file, proxy, proxy_credentials_file",
        ),
        (
            Dps,
            "\"a\\nb\" = 1",
            "F:3: [dps] a\\nb: unknown key; [dps] has host, id_scope, transport, mqtt_port, https_port, ca_file, ca_only, api_version, payload, payload_file, proxy, proxy_credentials_file",
        ),
        (After, "[runtime]\ndir = '/x'", "F:8: [runtime] dir: unknown key; [runtime] has directory"),
    ]);
}

#[test]
fn a_wrong_type_is_named_with_the_right_one() {
    assert_wrong(&[
        (
            Dps,
            "api_version = 2021-06-01",
            "F:3: [dps] api_version: is a TOML date without quotes; put it in quotes: api_version = \"2021-06-01\"",
        ),
        (Dps, "host = ['a']", "F:3: [dps] host: is an array where a text should be; write one text in quotes"),
        (Dps, "host = 5", "F:3: [dps] host: is a number where a text should be; put it in quotes"),
        (Dps, "host = 1.5", "F:3: [dps] host: is a number with a fraction where a text should be; put it in quotes"),
        (Dps, "host = { a = 1 }", "F:3: [dps] host: is a table where a text should be; write one text in quotes"),
        (Dps, "host = true", "F:3: [dps] host: is a boolean where a text should be; put it in quotes"),
        (
            Dps,
            "mqtt_port = '8883'",
            "F:3: [dps] mqtt_port: is a text where a number should be; remove the quotes: mqtt_port = 8883",
        ),
        (Dps, "mqtt_port = 'many'", "F:3: [dps] mqtt_port: is a text where a port should be; write a number from 1 to 65535"),
        (
            Dps,
            "mqtt_port = 1.5",
            "F:3: [dps] mqtt_port: is a number with a fraction where a port should be; write a number from 1 to 65535",
        ),
        (Dps, "mqtt_port = [1]", "F:3: [dps] mqtt_port: is an array where a port should be; write a number from 1 to 65535"),
        (
            Dps,
            "mqtt_port = 2021-06-01",
            "F:3: [dps] mqtt_port: is a TOML date where a port should be; write a number from 1 to 65535",
        ),
        (Dps, "mqtt_port = 0", "F:3: [dps] mqtt_port: 0 is no port; ports are 1 to 65535"),
        (Dps, "mqtt_port = 0x1ffff", "F:3: [dps] mqtt_port: 0x1ffff is no port; ports are 1 to 65535"),
        (Dps, "https_port = -1", "F:3: [dps] https_port: -1 is no port; ports are 1 to 65535"),
        (After, "[hub]\nmqtt_port = 65536", "F:8: [hub] mqtt_port: 65536 is no port; ports are 1 to 65535"),
        (
            Dps,
            "ca_only = 'true'",
            "F:3: [dps] ca_only: is a text where true or false should be; remove the quotes: ca_only = true",
        ),
        (
            Dps,
            "ca_only = 'yes'",
            "F:3: [dps] ca_only: is a text where true or false should be; write ca_only = true or ca_only = false",
        ),
        (
            Dps,
            "ca_only = 1",
            "F:3: [dps] ca_only: is a number where true or false should be; write ca_only = true or ca_only = false",
        ),
        (
            Instead("id_scope = '0ne1'"),
            "id_scope = 5",
            "F:2: [dps] id_scope: is a number where a text should be; put it in quotes",
        ),
        (
            Instead("method = 'symmetric-key'"),
            "method = true",
            "F:4: [attestation] method: is a boolean where a text should be; put it in quotes",
        ),
    ]);
}

#[test]
fn a_value_that_does_not_fit_is_answered_with_the_rule() {
    assert_wrong(&[
        (
            Dps,
            "host = 'https://a.b/c'",
            "F:3: [dps] host: holds more than a host name; write only host = \"a.b\", ports have keys of their own",
        ),
        (
            Dps,
            "host = 'a.b:8883'",
            "F:3: [dps] host: holds more than a host name; write only host = \"a.b\", ports have keys of their own",
        ),
        (
            Dps,
            "host = '[::1]:443'",
            "F:3: [dps] host: holds more than a host name; write only host = \"[::1]\", ports have keys of their own",
        ),
        (
            Dps,
            "host = '-'",
            "F:3: [dps] host: does not fit; a host name is labels of letters, digits and '-' joined by dots, or an IP address; without scheme, port or path",
        ),
        (Dps, "host = ''", "F:3: [dps] host: is empty; write a value or remove the line"),
        (
            Instead("id_scope = '0ne1'"),
            "id_scope = '0ne 1'",
            "F:2: [dps] id_scope: does not fit; an ID scope is 1 to 128 letters, digits, '-', '_' or '.', as the DPS overview page shows it (such as 0ne00000000)",
        ),
        (
            Dps,
            "transport = 'htps'",
            "F:3: [dps] transport: unknown value; write one of \"auto\", \"mqtt\", \"mqtt-ws\", \"https\"; did you mean \"https\"?",
        ),
        (Dps, "transport = 'x'", "F:3: [dps] transport: unknown value; write one of \"auto\", \"mqtt\", \"mqtt-ws\", \"https\""),
        (
            Dps,
            "api_version = '2021-6-1'",
            "F:3: [dps] api_version: not an API version; write a date as 2021-06-01, or 2021-11-01-preview",
        ),
        (
            Dps,
            "api_version = '2021-06-01-beta'",
            "F:3: [dps] api_version: not an API version; write a date as 2021-06-01, or 2021-11-01-preview",
        ),
        (
            Dps,
            "payload = '{'",
            "F:3: [dps] payload: is not JSON: EOF while parsing an object at line 1 column 1 of the text between the quotes; correct it, or use payload_file",
        ),
        (
            Dps,
            "payload = '{\"a\":1} x'",
            "F:3: [dps] payload: is not JSON: trailing characters at line 1 column 9 of the text between the quotes; correct it, or use payload_file",
        ),
        (
            Dps,
            "payload_file = 'p'",
            "F:3: [dps] payload_file: not an absolute path; begin it with '/', since a daemon has no directory of its own",
        ),
        (
            Dps,
            "ca_file = 'roots.pem'",
            "F:3: [dps] ca_file: not an absolute path; begin it with '/', since a daemon has no directory of its own",
        ),
        (
            Instead("key_file = '/k'"),
            "key_file = 'device.key'",
            "F:6: [attestation] key_file: not an absolute path; begin it with '/', since a daemon has no directory of its own",
        ),
        (Instead("key_file = '/k'"), "key_file = ''", "F:6: [attestation] key_file: is empty; write a value or remove the line"),
        (
            Instead("key_file = '/k'"),
            "key_file = \"/k\\u0000\"",
            "F:6: [attestation] key_file: holds a NUL character, which no path can; remove it",
        ),
        (
            Instead("key_file = '/k'"),
            "key_file = 'MDEyMzQ1Njc4OWFiY2RlZg=='",
            "F:6: [attestation] key_file: holds a key where a path belongs; write the key into a file and that file's path into key_file",
        ),
        (
            Instead("key_file = '/k'"),
            "key_credential = 'a/b'",
            "F:6: [attestation] key_credential: not a credential's name; write the NAME of LoadCredential=NAME:PATH, of letters, digits, '-', '_', '.'",
        ),
        (
            Instead("key_file = '/k'"),
            "key_credential = '..'",
            "F:6: [attestation] key_credential: not a credential's name; write the NAME of LoadCredential=NAME:PATH, of letters, digits, '-', '_', '.'",
        ),
        (
            After,
            "[state]\ndirectory = 'state'",
            "F:8: [state] directory: not an absolute path; begin it with '/', since a daemon has no directory of its own",
        ),
        (After, "[runtime]\ndirectory = ''", "F:8: [runtime] directory: is empty; write a value or remove the line"),
        (
            After,
            "[hub]\ntransport = 'https'",
            "F:8: [hub] transport: the proof is an MQTT connection, which HTTPS cannot make; write \"mqtt-ws\", which uses the same port",
        ),
        (After, "[hub]\ntransport = 'ws'", "F:8: [hub] transport: unknown value; write one of \"auto\", \"mqtt\", \"mqtt-ws\""),
        (After, "[hub]\nverify = 'always'", "F:8: [hub] verify: unknown value; write one of \"on-change\", \"never\""),
        (
            After,
            "[hub]\ngateway_host = 'edge:8883'",
            "F:8: [hub] gateway_host: holds more than a host name; write only gateway_host = \"edge\", ports have keys of their own",
        ),
        (
            Instead("method = 'symmetric-key'"),
            "method = 'x.509'",
            "F:4: [attestation] method: unknown value; write one of \"symmetric-key\", \"x509\", \"tpm\"; did you mean \"x509\"?",
        ),
        (
            Instead("registration_id = 'gw-1'"),
            "registration_id = 'gw 1'",
            "F:5: [attestation] registration_id: does not fit; a registration ID consists of letters, digits and '-', '.', '_', ':'",
        ),
        (
            Instead("registration_id = 'gw-1'"),
            "registration_id = 'gw.'",
            "F:5: [attestation] registration_id: does not fit; the last character of a registration ID is a letter, a digit or a dash",
        ),
    ]);
}

#[test]
fn a_source_of_the_registration_id_is_one_that_exists() {
    assert_wrong(&[
        (
            AfterX509,
            "registration_id_from = 'serial'",
            "F:7: [attestation] registration_id_from: unknown source; write certificate-cn (with x509), tpm-ek:hex or tpm-ek:base32 (with tpm), device-tree-serial, dmi-serial, mac:INTERFACE, machine-id or file:/PATH; did you mean \"dmi-serial\"?",
        ),
        (
            AfterX509,
            "registration_id_from = 'bios'",
            "F:7: [attestation] registration_id_from: unknown source; write certificate-cn (with x509), tpm-ek:hex or tpm-ek:base32 (with tpm), device-tree-serial, dmi-serial, mac:INTERFACE, machine-id or file:/PATH",
        ),
        (
            AfterX509,
            "registration_id_from = 'mac'",
            "F:7: [attestation] registration_id_from: names no network interface; write for instance \"mac:eth0\"",
        ),
        (
            AfterX509,
            "registration_id_from = 'mac:'",
            "F:7: [attestation] registration_id_from: names no network interface; write for instance \"mac:eth0\"",
        ),
        (
            AfterX509,
            "registration_id_from = 'mac:a/b'",
            "F:7: [attestation] registration_id_from: names no network interface; write for instance \"mac:eth0\"",
        ),
        (
            AfterX509,
            "registration_id_from = 'mac:abcdefghijklmnop'",
            "F:7: [attestation] registration_id_from: names no network interface; write for instance \"mac:eth0\"",
        ),
        (
            AfterX509,
            "registration_id_from = 'file:x'",
            "F:7: [attestation] registration_id_from: names no absolute path; write for instance \"file:/etc/serial\"",
        ),
        (
            AfterX509,
            "registration_id_from = 'machine-id'\nregistration_id_prefix = 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'",
            "F:8: [attestation] registration_id_prefix: not the beginning of a registration ID; use at most 127 letters, digits and '-', '.', '_', ':'",
        ),
        (
            AfterX509,
            "registration_id_from = 'machine-id'\nregistration_id_prefix = 'gw 1'",
            "F:8: [attestation] registration_id_prefix: not the beginning of a registration ID; use at most 127 letters, digits and '-', '.', '_', ':'",
        ),
    ]);
}

#[cfg(not(feature = "tpm"))]
#[test]
fn a_build_without_tpm_support_says_so() {
    assert_wrong(&[(
        super::Place::AfterTpm,
        "ek_unique = 'tcg'",
        "F:4: [attestation] method: this dps-agent was built without TPM support; install one that was built with the feature \"tpm\", or use \"symmetric-key\" or \"x509\"",
    )]);
}
