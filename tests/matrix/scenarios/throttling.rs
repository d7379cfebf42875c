//! A service that is busy: it is obeyed, to the second and not a moment less, and up to the patience.

use crate::scenario::{Blame, Code, On, Scenario, Step};

const STILL_ASSIGNING: &str =
    "the service is still assigning a hub; it was asked until the patience ended, and may come right on the next try";

pub fn all() -> Vec<Scenario> {
    [obeyed(), endless()].into_iter().flatten().collect()
}

fn obeyed() -> Vec<Scenario> {
    vec![
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: status 429 retry-after=3\"]"],
            ..Scenario::new(
                "throttled",
                On::ALL,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 < 429 retry-after=3 429001
                 > register
                 < 200 {assigned}
                 @close
                 @hub",
                    )
                    .at_least(3),
                ],
            )
        },
        Scenario {
            device: &["faults = [\"query: status 429 retry-after=3\"]"],
            ..Scenario::new(
                "throttled-at-query",
                On::ALL,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 < 202 assigning op1
                 > query op1
                 < 429 retry-after=3 429001
                 > query op1
                 < 200 {assigned}
                 @close
                 @hub",
                    )
                    .at_least(5),
                ],
            )
        },
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: status 503 retry-after={soon}\"]"],
            ..Scenario::new(
                "throttled-until-a-date",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 < 503 retry-after=DATE 503000
                 > register
                 < 200 {assigned}
                 @close
                 @hub",
                )],
            )
        },
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: status 429 retry-after=soon\"]"],
            ..Scenario::new(
                "throttled-for-an-unknown-time",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 < 429 retry-after=soon 429001
                 > register
                 < 200 {assigned}
                 @close
                 @hub",
                )],
            )
        },
        Scenario {
            device: &[
                "answer = \"at-once\"",
                "faults = [\"register: status 408\", \"register: status 500\", \"register: status 503\"]",
            ],
            ..Scenario::new(
                "busy-in-many-ways",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 < 408 408000
                 > register
                 < 500 500000
                 > register
                 < 503 503000
                 > register
                 < 200 {assigned}
                 @close
                 @hub",
                )],
            )
        },
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"connect: connack 3\"]"],
            ..Scenario::new(
                "busy-at-connect",
                On::MQTT,
                vec![Step::adopts(
                    "> connect {via}
                 < connack 3
                 @assigned",
                )],
            )
        },
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: html 502\"]"],
            ..Scenario::new(
                "gateway-speaks-html",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 < 502 <html><head><title>502</title></head><body><h1>502</h1></body></html>\\r\\n
                 > register
                 < 200 {assigned}
                 @close
                 @hub",
                )],
            )
        },
    ]
}

fn endless() -> Vec<Scenario> {
    vec![
        Scenario {
            device: &["faults = [\"register: status 429 retry-after=3600\"]"],
            ..Scenario::new(
                "throttled-beyond-the-patience",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Busy,
                        "the service answered 429, error code 429001: A fault was asked for. (trackingId *)*",
                        "@open
                 > register
                 < 429 retry-after=3600 429001
                 @close",
                    )
                    .code(Code::Of(429_001))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["faults = [\"register: status 503 retry-after=Thu, 01 Jan 2088 00:00:00 GMT\"]"],
            ..Scenario::new(
                "throttled-until-a-far-date",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Busy,
                        "the service answered 503, error code 503000: A fault was asked for. (trackingId *)*",
                        "@open
                 > register
                 < 503 retry-after=DATE 503000
                 @close",
                    )
                    .code(Code::Of(503_000))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["faults = [\"register: status 429 retry-after=4 x*\"]"],
            ..Scenario::new(
                "throttled-for-ever",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Busy,
                        "the service answered 429, error code 429001: A fault was asked for. (trackingId *)*",
                        "@open
                 (
                 > register
                 < 429 retry-after=4 429001
                 )+
                 @close",
                    )
                    .code(Code::Of(429_001))
                    .within("11s"),
                ],
            )
        },
        Scenario {
            device: &["retry_after = 4", "faults = [\"register: assigning-forever\"]"],
            ..Scenario::new(
                "assigning-for-ever",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Busy,
                        STILL_ASSIGNING,
                        "@open
                 > register
                 < 202 retry-after=4 assigning op1
                 (
                 > query op1
                 < 202 retry-after=4 assigning op1
                 )+
                 @close",
                    )
                    .within("11s"),
                ],
            )
        },
        Scenario {
            device: &["retry_after = 3600"],
            ..Scenario::new(
                "assigning-beyond-the-patience",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Busy,
                        STILL_ASSIGNING,
                        "@open
                 > register
                 < 202 retry-after=3600 assigning op1
                 @close",
                    )
                    .at_once(),
                ],
            )
        },
    ]
}
