//! The proxy of the environment: when it counts, what it holds, what it spares, and that its password is never shown.

use std::path::PathBuf;
use std::sync::Arc;

use super::{KEY, MAIN, errors, load};
use crate::config::{Proxy, ProxyCredentials};
use crate::secret::Secret;

fn proxy(text: &str, variables: &[(&str, &str)]) -> Option<Proxy> {
    load(&[(MAIN, text)], variables).unwrap_or_else(|errors| panic!("{variables:?}\n{errors}")).config.proxy
}

fn dps(lines: &str) -> String {
    KEY.replacen("[attestation]", &format!("{lines}\n[attestation]"), 1)
}

/// `host:port` of the proxy that is used.
fn place(text: &str, variables: &[(&str, &str)]) -> Option<String> {
    proxy(text, variables).map(|proxy| format!("{}:{}", proxy.host, proxy.port))
}

#[test]
fn the_environment_counts_where_nothing_is_written() {
    let both = [("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:2")];
    assert_eq!(place(KEY, &both).as_deref(), Some("upper:1"));
    assert_eq!(place(KEY, &both[1..]).as_deref(), Some("lower:2"));
    assert_eq!(place(KEY, &[("HTTPS_PROXY", " "), ("https_proxy", "http://lower:2")]).as_deref(), Some("lower:2"));
    assert_eq!(place(&dps("proxy = 'http://written:3'"), &both).as_deref(), Some("written:3"));
    assert_eq!(place(&dps("proxy = ''"), &both), None);
    assert_eq!(place(KEY, &[("HTTP_PROXY", "http://other:4"), ("NO_PROXY", "a")]), None);
}

#[test]
fn the_environment_is_written_as_everybody_writes_it() {
    for (text, expected) in [
        ("proxy:3128", "proxy:3128"),
        ("http://proxy:3128/", "proxy:3128"),
        ("HTTP://proxy", "proxy:80"),
        ("[::1]:3128", "::1:3128"),
        ("user:p@ss@proxy:1", "proxy:1"),
    ] {
        assert_eq!(place(KEY, &[("HTTPS_PROXY", text)]).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn credentials_of_the_environment_are_decoded_and_never_shown() {
    for (user, expected) in [("user:hunter2", "user:hunter2"), ("us%40er:p%3Aw", "us@er:p:w"), ("user", "user:")] {
        let url = format!("http://{user}@h:1");
        let loaded = load(&[(MAIN, KEY)], &[("HTTPS_PROXY", &url)]).unwrap();
        let credentials = loaded.config.proxy.clone().unwrap().credentials;
        let secret = ProxyCredentials::Environment(Arc::new(Secret::new(expected.to_owned())));
        assert_eq!(credentials, Some(secret), "{user}");
        let everything = format!("{loaded:?}{}{}", loaded.to_toml(), loaded.to_json());
        assert!(!everything.contains(expected) && !everything.contains(&url), "{everything}");
    }
    let from_file = proxy(&dps("proxy_credentials_file = '/c'"), &[("HTTPS_PROXY", "http://h:1")]).unwrap();
    assert_eq!(from_file.credentials, Some(ProxyCredentials::File(PathBuf::from("/c"))));
}

#[test]
fn a_variable_of_no_use_is_named_without_its_text() {
    let cases = [
        (
            "https://u:p@h:1",
            "TLS to the proxy itself is not supported; write http://HOST:PORT (what goes through it is TLS all the same)",
        ),
        ("u:%zz@h:1", "has a user name or password with a '%' that begins no percent-encoding; write it as %25"),
        ("u:%ff@h:1", "has a user name or password that is not UTF-8; write its bytes as UTF-8, percent-encoded"),
        ("http://h:port", "has no usable port; write http://HOST:PORT, ports are 1 to 65535"),
    ];
    for (text, expected) in cases {
        let said = errors(&[(MAIN, KEY)], &[("https_proxy", text)]);
        assert_eq!(said, format!("environment https_proxy: [dps] proxy: {expected}"), "{text}");
    }
}

#[test]
fn credentials_come_from_one_place() {
    assert_eq!(
        errors(&[("F", &dps("proxy_credentials_file = '/c'"))], &[("HTTPS_PROXY", "u:p@h:1")]),
        "F:3: [dps] proxy_credentials_file: cannot stand beside the user name in HTTPS_PROXY of the environment; remove one of them"
    );
}

#[test]
fn what_is_excepted_is_reached_without_the_proxy() {
    let serves = |except: &str, host: &str| {
        let variables = [("HTTPS_PROXY", "http://h:1"), ("no_proxy", except)];
        proxy(KEY, &variables).unwrap().serves(&host.parse().unwrap(), 443)
    };
    for except in
        ["*", "a.example.net", "EXAMPLE.net", ".example.net", "*.example.net", "x, net", "x a.example.net", "example.net:443"]
    {
        assert!(!serves(except, "a.Example.net"), "{except}");
    }
    for except in ["", "b.example.net", "ample.net", "example.net:8883", "a", "10.0.0.0/8", ".", ","] {
        assert!(serves(except, "a.example.net"), "{except}");
    }
    assert!(!serves("::1", "::1") && !serves("[::1]:443", "::1") && !serves("10.0.0.1", "10.0.0.1"));
    assert!(serves("[::1]:8883", "::1") && serves("::2", "::1") && serves("0.0.1", "10.0.0.1"));
}

#[test]
fn a_written_proxy_has_no_exceptions() {
    assert!(proxy(&dps("proxy = 'http://h:1'"), &[("NO_PROXY", "*")]).unwrap().serves(&"a".parse().unwrap(), 443));
}
