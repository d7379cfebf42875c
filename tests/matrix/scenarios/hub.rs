//! The proof at the hub: proven, refused for a while or for good, unproven, not to be trusted, not wanted.

use crate::scenario::{Blame, On, Port, Scenario, Step};

const REGISTERED: &str = "
    @open
    > register
    < 200 {assigned}
    @close";

const REFUSED: &str = "DPS has assigned localhost, but that hub refuses {id} (the service refused CONNECT with return code 5); a new \
    identity takes time to spread; else look whether the device is disabled there, or the hub does not trust the certificate's CA";

pub fn all() -> Vec<Scenario> {
    [unproven(), refusals()].into_iter().flatten().collect()
}

fn refusals() -> Vec<Scenario> {
    vec![
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"hub: connack 5 x2\"]"],
            ..Scenario::new(
                "hub-refuses-at-first",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 < 200 {assigned}
                 @close
                 @refused
                 @refused
                 @hub",
                )],
            )
        },
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"hub: connack 5 x*\"]"],
            ..Scenario::new(
                "hub-refuses-for-ever",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Hub,
                        REFUSED,
                        "@open
                 > register
                 < 200 {assigned}
                 @close
                 @refused
                 @refused
                 @refused
                 @open
                 > register
                 < 200 {assigned2}
                 @close
                 (
                 @refused
                 )+",
                    )
                    .within("30s"),
                ],
            )
        },
        // The only word that the hub has said is no.
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"hub: connack 5\", \"hub: silence x*\"]"],
            ..Scenario::new(
                "hub-refuses-then-is-silent",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Hub,
                        REFUSED,
                        "@open
                 > register
                 < 200 {assigned}
                 @close
                 @refused
                 (
                 > hub connect {hub-via} localhost {id}
                 ! silence
                 )+",
                    )
                    .within("8s"),
                ],
            )
        },
        distrusted(
            "hub-not-to-be-trusted",
            &["hub_certificate = \"unknown-ca\"", DPS],
            Blame::Untrusted,
            "the certificate of localhost is not trusted: its issuer *",
        ),
        distrusted(
            "hub-certificate-expired",
            &["hub_certificate = \"expired\"", DPS],
            Blame::Untrusted,
            "the certificate of localhost is not trusted: it expired on * GMT; our clock says * GMT",
        ),
        distrusted(
            "hub-certificate-not-yet-valid",
            &["hub_certificate = \"not-yet-valid\"", DPS],
            Blame::Clock,
            "the certificate of localhost is not valid yet: it begins on * GMT; our clock says * GMT*",
        ),
        Scenario {
            device: &["answer = \"at-once\""],
            hub: &["verify = \"never\""],
            ..Scenario::new("no-proof-wanted", On::ALL, vec![Step::adopts(REGISTERED).proof("unverified")])
        },
    ]
}

/// DPS is 127.0.0.1 here: an address has no SNI, so the hub is who is asked for by name.
const DPS: &str = "host = \"127.0.0.1\"";

fn distrusted(name: &'static str, service: &'static [&'static str], blame: Blame, message: &'static str) -> Scenario {
    let said = "
        @open
        > register
        < 200 {assigned}
        @close
        - ! tls";
    Scenario {
        service,
        device: &["answer = \"at-once\""],
        dps: &[DPS],
        ..Scenario::new(name, On::ALL, vec![Step::fails(blame, message, said).at_once()])
    }
}

fn unproven() -> Vec<Scenario> {
    let fails =
        |name, device, said| Scenario { device, ..Scenario::new(name, On::ALL, vec![Step::adopts(said).proof("unproven")]) };
    vec![
        Scenario {
            device: &["answer = \"at-once\""],
            closed: &[Port::HubMqtt, Port::HubHttps],
            ..Scenario::new("hub-unreachable", On::ALL, vec![Step::adopts(REGISTERED).proof("unproven")])
        },
        fails(
            "drop-at-hub",
            &["answer = \"at-once\"", "faults = [\"hub: drop\"]"],
            "@open
             > register
             < 200 {assigned}
             @close
             > hub connect {hub-via} localhost {id}
             ! drop",
        ),
        fails(
            "silence-at-hub",
            &["answer = \"at-once\"", "faults = [\"hub: silence\"]"],
            "@open
             > register
             < 200 {assigned}
             @close
             > hub connect {hub-via} localhost {id}
             ! silence",
        ),
        fails(
            "garbage-at-hub",
            &["answer = \"at-once\"", "faults = [\"hub: garbage\"]"],
            "@open
             > register
             < 200 {assigned}
             @close
             > hub connect {hub-via} localhost {id}
             ! garbage",
        ),
        fails(
            "busy-at-hub",
            &["answer = \"at-once\"", "faults = [\"hub: connack 3\"]"],
            "@open
             > register
             < 200 {assigned}
             @close
             > hub connect {hub-via} localhost {id}
             < connack 3",
        ),
    ]
}
