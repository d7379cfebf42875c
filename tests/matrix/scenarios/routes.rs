//! `transport = "auto"`: the next way at once where the network fails before authentication, and only there.

use crate::scenario::{Blame, Code, On, Port, Scenario, Step};

const AT_ONCE: &str = "answer = \"at-once\"";

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            device: &[AT_ONCE],
            ..Scenario::new(
                "begins-with-mqtt",
                On::AUTO,
                vec![
                    Step::adopts("@open mqtt\n> register\n< 200 {assigned}\n@close mqtt\n@hub mqtt")
                        .with(|adopted| adopted.transport = Some("mqtt")),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE],
            closed: &[Port::DpsMqtt, Port::HubMqtt],
            ..Scenario::new(
                "mqtt-closed",
                On::AUTO,
                vec![
                    Step::adopts("@open mqtt-ws\n> register\n< 200 {assigned}\n@close mqtt-ws\n@hub mqtt-ws")
                        .with(|adopted| adopted.transport = Some("mqtt-ws")),
                    // What worked last is tried first: nobody knocks at the closed port, and the hub is known.
                    Step::adopts("@open mqtt-ws\n> register\n< 200 {assigned}\n@close mqtt-ws")
                        .forced()
                        .with(|adopted| adopted.transport = Some("mqtt-ws")),
                ],
            )
        },
        Scenario {
            service: &["faults = [\"connect: drop\"]"],
            device: &[AT_ONCE],
            closed: &[Port::DpsMqtt, Port::HubMqtt],
            ..Scenario::new(
                "only-https-gets-out",
                On::AUTO,
                vec![
                    Step::adopts("- ! drop\n@open https\n> register\n< 200 {assigned}\n@hub mqtt-ws")
                        .with(|adopted| adopted.transport = Some("https")),
                    Step::adopts("@open https\n> register\n< 200 {assigned}")
                        .forced()
                        .with(|adopted| adopted.transport = Some("https")),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE, "faults = [\"connect: silence\"]"],
            ..Scenario::new(
                "silence-on-mqtt",
                On::AUTO,
                vec![
                    Step::adopts(
                        "> connect mqtt\n! silence\n@open mqtt-ws\n> register\n< 200 {assigned}\n@close mqtt-ws\n@hub mqtt",
                    )
                    .at_least(10)
                    .with(|adopted| adopted.transport = Some("mqtt-ws")),
                ],
            )
        },
        Scenario {
            service: &["faults = [\"tls: drop\"]"],
            device: &[AT_ONCE],
            ..Scenario::new(
                "mqtt-broken-at-tls",
                On::AUTO,
                vec![
                    Step::adopts("- ! drop\n@open mqtt-ws\n> register\n< 200 {assigned}\n@close mqtt-ws\n@hub mqtt")
                        .with(|adopted| adopted.transport = Some("mqtt-ws")),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE, "faults = [\"register: drop\"]"],
            ..Scenario::new(
                "stays-after-authentication",
                On::AUTO,
                vec![
                    Step::adopts(
                        "@open mqtt\n> register\n! drop\n@open mqtt\n> register\n< 200 {assigned}\n@close mqtt\n@hub mqtt",
                    )
                    .with(|adopted| adopted.transport = Some("mqtt")),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE, "faults = [\"register: status 429 retry-after=2\"]"],
            ..Scenario::new(
                "a-wait-belongs-to-the-service",
                On::AUTO,
                vec![
                Step::adopts(
                    "@open mqtt\n> register\n< 429 retry-after=2 429001\n> register\n< 200 {assigned}\n@close mqtt\n@hub mqtt",
                )
                .at_least(2)
                .with(|adopted| adopted.transport = Some("mqtt")),
            ],
            )
        },
        Scenario {
            service: &["server_certificate = \"unknown-ca\""],
            ..Scenario::new(
                "untrusted-is-the-end",
                On::AUTO,
                vec![Step::fails(Blame::Untrusted, "the certificate of localhost is not trusted: *", "- ! tls").at_once()],
            )
        },
        Scenario {
            enrolled: false,
            ..Scenario::new(
                "a-refusal-is-the-end",
                On::AUTO,
                vec![
                    Step::fails(
                        Blame::Refused,
                        "the service answered 404, error code 404201: *",
                        "@open mqtt\n> register\n< 404 404201\n@close mqtt",
                    )
                    .code(Code::Of(404_201))
                    .at_once(),
                ],
            )
        },
    ]
}
