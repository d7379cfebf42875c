//! What `config show` and `config validate` print: every value with its origin, and a text that means the same again.

use serde_json::json;

use super::{DROP_IN, KEY, MAIN, X509, load};
use crate::config::{Loaded, Origin, validation_json};

const EXPECTED: &str = r#"[dps]
host = "global.azure-devices-provisioning.net"  # default
id_scope = "0ne1"  # /etc/dps-agent/config.toml:2
transport = "auto"  # default
mqtt_port = 8884  # /etc/dps-agent/config.d/50-site.toml:2
https_port = 443  # default
ca_only = false  # default
api_version = "2021-06-01"  # default
payload = '{"a":"b\\c"}'  # /etc/dps-agent/config.d/50-site.toml:3
# proxy = "http://h:80"  # environment HTTPS_PROXY; its user and password are not shown
# but not for "a, b"  # environment NO_PROXY

[attestation]
method = "symmetric-key"  # /etc/dps-agent/config.toml:4
registration_id = "gw-1"  # /etc/dps-agent/config.toml:5
key_file = "/k"  # /etc/dps-agent/config.toml:6

[hub]
transport = "auto"  # default
mqtt_port = 8883  # default
https_port = 443  # default
verify = "on-change"  # default

[clock]
trust_service_date = false  # default

[state]
directory = "/var/lib/dps-agent"  # default

[runtime]
directory = "/run/dps-agent"  # default
"#;

const VARIABLES: [(&str, &str); 2] = [("HTTPS_PROXY", "http://u:hunter2@h"), ("NO_PROXY", "a,b")];

fn example() -> Loaded {
    let drop_in = "[dps]\nmqtt_port = 8884\npayload = '{\"a\":\"b\\\\c\"}'\n";
    load(&[(MAIN, KEY), (DROP_IN, drop_in)], &VARIABLES).unwrap()
}

#[test]
fn the_text_shows_every_value_with_its_origin() {
    assert_eq!(example().to_toml(), EXPECTED);
}

#[test]
fn the_text_means_the_same_again() {
    let dps = |lines: &str| KEY.replacen("[attestation]", &format!("{lines}\n[attestation]"), 1);
    let cases = [
        (KEY.to_owned(), &VARIABLES[..]),
        (X509.to_owned(), &[]),
        (dps("proxy = ''"), &VARIABLES),
        (dps("proxy = 'http://h:3128'\nproxy_credentials_file = '/c'\nca_file = \"/it's\"\nca_only = true"), &[]),
        (dps("payload = '''{\"it's\":\n\"a\\\\b\\\"c\"}'''\nca_file = \"/tab\\t'\\\"\\u007f\""), &[]),
        (KEY.replace("registration_id = 'gw-1'", "registration_id_from = 'mac:eth0'\nregistration_id_prefix = 'gw-'"), &[]),
        (format!("{KEY}[hub]\nverify = 'never'\ngateway_host = 'edge'\ngateway_ca_file = '/e'\n[state]\ndirectory = '/s'"), &[]),
    ];
    for (text, variables) in cases {
        let loaded = load(&[("/a\nfile", &text)], variables).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        let shown = loaded.to_toml();
        let again = load(&[(MAIN, &shown)], variables).unwrap_or_else(|errors| panic!("{shown}\n{errors}"));
        assert_eq!(again.config, loaded.config, "{shown}");
    }
}

#[test]
fn the_json_holds_the_same() {
    let json = example().to_json();
    assert_eq!(json["dps"]["id_scope"], json!({ "value": "0ne1", "origin": "/etc/dps-agent/config.toml:2" }));
    assert_eq!(json["dps"]["mqtt_port"], json!({ "value": 8884, "origin": "/etc/dps-agent/config.d/50-site.toml:2" }));
    assert_eq!(json["dps"]["ca_only"], json!({ "value": false, "origin": "default" }));
    let proxy = json!({ "value": "http://h:80", "origin": "environment HTTPS_PROXY", "credentials": "redacted" });
    assert_eq!(json["dps"]["proxy"], proxy);
    assert_eq!(json["dps"]["no_proxy"], json!({ "value": ["a", "b"], "origin": "environment NO_PROXY" }));
    assert_eq!(json["runtime"], json!({ "directory": { "value": "/run/dps-agent", "origin": "default" } }));
    let tables: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(tables, ["attestation", "clock", "dps", "hub", "runtime", "state"]);
}

#[test]
fn the_origin_of_a_single_value_can_be_asked_for() {
    let loaded = example();
    let line = Origin::Line { path: DROP_IN.into(), line: 2, column: 13 };
    assert_eq!(loaded.origin("dps", "mqtt_port"), Some(&line));
    assert_eq!(loaded.origin("hub", "mqtt_port"), Some(&Origin::Default));
    assert_eq!(loaded.origin("dps", "ca_file"), None);
    assert_eq!(loaded.origin("dps", "no_such_key"), None);
}

#[test]
fn validation_as_json_says_where_what_is_wrong() {
    let text = KEY.replace("id_scope = '0ne1'", "  hots =  1").replace("key_file = '/k'", "key_file = '/ké' x");
    let broken = load(&[("F", &text)], &[]);
    let message = "not TOML: unexpected key or value, expected newline, `#`; correct this line";
    let error = json!({ "file": "F", "line": 6, "column": 18, "key": null, "message": message });
    assert_eq!(validation_json(&broken), json!({ "valid": false, "errors": [error], "warnings": [] }));

    let text = KEY.replace("id_scope", "  hots");
    let errors = json!([
        { "file": "F", "line": 2, "column": 3, "key": "dps.hots", "message": "unknown key; did you mean `host`?" },
        {
            "file": "F", "line": null, "column": null, "key": "dps.id_scope",
            "message": "is missing; write id_scope = \"0ne00000000\" as the overview page of your DPS instance shows it"
        },
    ]);
    assert_eq!(validation_json(&load(&[("F", &text)], &[]))["errors"], errors);

    let odd = load(&[("F", &KEY.replace("gw-1", "GW"))], &[]);
    let json = validation_json(&odd);
    assert_eq!((&json["valid"], &json["errors"]), (&json!(true), &json!([])));
    assert_eq!(json["warnings"][0]["key"], "attestation.registration_id");
}

#[test]
fn a_problem_of_the_environment_has_no_file() {
    let broken = load(&[("F", KEY)], &[("HTTPS_PROXY", "https://h:1")]);
    let error = &validation_json(&broken)["errors"][0];
    assert_eq!((&error["file"], &error["key"]), (&json!(null), &json!("dps.proxy")));
}
