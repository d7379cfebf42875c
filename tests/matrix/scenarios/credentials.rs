//! Wrong keys, wrong certificates, and the second key.

use crate::device::Credential;
use crate::scenario::{Blame, Code, On, Scenario, Step};

const ADVICE: &str = "the service answered 401, error code *: * (trackingId *); the key or certificate may not be the enrolled \
    one or may have expired, this machine's clock may be wrong, an IP filter of the DPS instance may exclude this address (DPS \
    does not say which), or something on the way may have taken the client certificate off: `dps-agent check` tells what it can";
const CONNACK_5: &str = "the service refused CONNECT with return code 5; *";
const REFUSED: &str = "
    @open
    > register
    < {unauthorized}
    @close
    @clock 401 401000";

pub fn all() -> Vec<Scenario> {
    let refused = |name, on, credential| Scenario {
        credential,
        ..Scenario::new(name, on, vec![Step::fails(Blame::Unauthorized, ADVICE, REFUSED).code(Code::Unauthorized).at_once()])
    };
    vec![
        refused("wrong-key", On::ALL, Credential::Wrong),
        refused("expired-certificate", On::X509, Credential::Expired),
        refused("missing-intermediate", On::INTERMEDIATE, Credential::LeafOnly),
        Scenario {
            credential: Credential::Wrong,
            service: &["wrong_key_on_mqtt = \"connack\""],
            ..Scenario::new(
                "wrong-key-told-by-connack",
                On::MQTT,
                vec![
                    Step::fails(
                        Blame::Unauthorized,
                        CONNACK_5,
                        "> connect {via}
                 < connack 5
                 @clock 401 401000",
                    )
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["faults = [\"query: status 401\"]"],
            ..Scenario::new(
                "unauthorized-at-query",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Unauthorized,
                        ADVICE,
                        "@open
                 > register
                 < 202 assigning op1
                 > query op1
                 < 401 401000
                 @close
                 @clock 404 404201",
                    )
                    .code(Code::Of(401_000))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["faults = [\"register: status 403\"]"],
            ..Scenario::new(
                "forbidden",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Unauthorized,
                        "the service answered 403, error code 403000: A fault was asked for. (trackingId *); *",
                        "@open
                 > register
                 < 403 403000
                 @close",
                    )
                    .code(Code::Of(403_000))
                    .at_once(),
                ],
            )
        },
        Scenario {
            dps: &["api_version = \"1999-01-01\""],
            ..Scenario::new(
                "unknown-api-version",
                On::MQTT,
                vec![
                    Step::fails(
                        Blame::Unauthorized,
                        CONNACK_5,
                        "> connect {via}
                 < connack 5
                 @clock 400 400000",
                    )
                    .at_once(),
                ],
            )
        },
        Scenario {
            dps: &["api_version = \"1999-01-01\""],
            ..Scenario::new(
                "unknown-api-version",
                On::HTTPS,
                vec![
                    Step::fails(
                        Blame::Refused,
                        "the service answered 400, error code 400000: The api-version is not known. (trackingId *); *",
                        "> connect https
                 > register
                 < 400 400000",
                    )
                    .code(Code::Of(400_000))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["answer = \"at-once\""],
            credential: Credential::SecondaryRight,
            ..Scenario::new(
                "second-key-is-right",
                On::TWO_KEYS,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 < 401 401000
                 @close
                 @assigned",
                    )
                    .with(|adopted| adopted.key = "secondary"),
                ],
            )
        },
        Scenario {
            credential: Credential::BothWrong,
            ..Scenario::new(
                "both-keys-are-wrong",
                On::TWO_KEYS,
                vec![
                    Step::fails(
                        Blame::Unauthorized,
                        ADVICE,
                        "@open
                 > register
                 < 401 401000
                 @close
                 @open
                 > register
                 < 401 401000
                 @close
                 @clock 401 401000",
                    )
                    .code(Code::Of(401_000))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["answer = \"at-once\""],
            credential: Credential::SecondaryRight,
            service: &["wrong_key_on_mqtt = \"connack\""],
            ..Scenario::new(
                "second-key-after-connack",
                On { transports: On::MQTT.transports, ..On::TWO_KEYS },
                vec![
                    Step::adopts(
                        "> connect {via}
                 < connack 5
                 @assigned",
                    )
                    .with(|adopted| adopted.key = "secondary"),
                ],
            )
        },
    ]
}
