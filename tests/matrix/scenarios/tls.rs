//! TLS versions, kinds of keys, and certificates that must not be trusted.

use crate::scenario::{Blame, On, Scenario, Step};

const AT_ONCE: &[&str] = &["answer = \"at-once\""];

pub fn all() -> Vec<Scenario> {
    let speaks =
        |name, service| Scenario { service, device: AT_ONCE, ..Scenario::new(name, On::ALL, vec![Step::adopts("@assigned")]) };
    let untrusted = |name, service, message| Scenario {
        service,
        device: AT_ONCE,
        ..Scenario::new(name, On::ALL, vec![Step::fails(Blame::Untrusted, message, "- ! tls").at_once()])
    };
    vec![
        speaks("tls-1.2-only", &["tls = [\"1.2\"]", "server_key = \"rsa\""]),
        speaks("tls-1.2-ecdsa", &["tls = [\"1.2\"]", "server_key = \"ecdsa\""]),
        speaks("tls-1.3-only", &["tls = [\"1.3\"]"]),
        speaks("tls-1.3-ecdsa", &["tls = [\"1.3\"]", "server_key = \"ecdsa\""]),
        speaks("tls-both", &["tls = [\"1.2\", \"1.3\"]"]),
        untrusted(
            "expired-server-certificate",
            &["server_certificate = \"expired\""],
            "the certificate of localhost is not trusted: it expired on * GMT; our clock says * GMT",
        ),
        untrusted(
            "expired-server-certificate-tls-1.3",
            &["server_certificate = \"expired\"", "tls = [\"1.3\"]"],
            "the certificate of localhost is not trusted: it expired on * GMT; our clock says * GMT",
        ),
        untrusted(
            "wrong-server-name",
            &["server_certificate = \"wrong-name\""],
            "the certificate of localhost is not trusted: it is for *wrong-name.example*; check the host name, and who answers there",
        ),
        untrusted(
            "unknown-server-ca",
            &["server_certificate = \"unknown-ca\""],
            "the certificate of localhost is not trusted: its issuer \"CN=dps-emulator throw-away CA *\" is not trusted; if this \
             network inspects TLS or the service is a private one, put that CA into ca_file",
        ),
        // Our clock may be wrong: it may come right while we wait.
        Scenario {
            service: &["server_certificate = \"not-yet-valid\""],
            ..Scenario::new("server-certificate-not-yet-valid", On::ALL, vec![Step::fails(
                Blame::Clock,
                "the certificate of localhost is not valid yet: it begins on * GMT; our clock says * GMT; set this machine's clock",
                "(
                 - ! tls
                 )+",
            ).within("6s")])
        },
    ]
}
