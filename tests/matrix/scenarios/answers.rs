//! What the service decides: assignments in all their forms, refusals for good, and the second run of each.

use crate::scenario::{Act, Blame, Code, On, Scenario, Step};

const NOT_FOUND: &str = "the service answered 404, error code 404201: Not found. (trackingId *); no enrollment with this \
    registration ID in this ID scope: enroll the device, or correct id_scope or registration_id";
const DISABLED: &str = "the registration ended as \"disabled\"; the enrollment is disabled: enable it in DPS";
const FAILED: &str = "the registration ended as \"failed\", error code 400207: Custom allocation failed with status code: 400; \
    the cause is in the DPS instance: its allocation policy, its webhook or its link to the hub";
const FAIL: &str = "fail = { code = 400207, message = \"Custom allocation failed with status code: 400\" }";
const AT_ONCE: &str = "answer = \"at-once\"";

const POLLED: &str = "
    @open
    > register
    < 202 assigning op1
    > query op1
    < 200 {assigned}
    @close
    @hub";

pub fn all() -> Vec<Scenario> {
    [assigned(), refused(), again()].into_iter().flatten().collect()
}

fn assigned() -> Vec<Scenario> {
    vec![
        Scenario { device: &[AT_ONCE], ..Scenario::new("assigned-at-once", On::ALL, vec![Step::adopts("@assigned")]) },
        Scenario {
            device: &["polls = 2"],
            ..Scenario::new(
                "assigned-after-polling",
                On::ALL,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 < 202 assigning op1
                 > query op1
                 < 202 assigning op1
                 > query op1
                 < 202 assigning op1
                 > query op1
                 < 200 {assigned}
                 @close
                 @hub",
                    )
                    .at_least(6),
                ],
            )
        },
        Scenario {
            device: &["retry_after = 4"],
            ..Scenario::new(
                "assigned-after-the-wait-it-asks-for",
                On::ALL,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 < 202 retry-after=4 assigning op1
                 > query op1
                 < 200 {assigned}
                 @close
                 @hub",
                    )
                    .at_least(4),
                ],
            )
        },
        Scenario {
            device: &["device_id = \"Line-7.Gateway\"", AT_ONCE],
            ..Scenario::new(
                "device-id-of-its-own",
                On::INDIVIDUAL,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 < 200 assigned op1 localhost Line-7.Gateway initialAssignment
                 @close
                 > hub connect {hub-via} localhost Line-7.Gateway
                 < connack 0
                 > disconnect",
                    )
                    .with(|adopted| adopted.device_id = Some("Line-7.Gateway")),
                ],
            )
        },
        Scenario {
            device: &["hub = \"LocalHost\"", AT_ONCE],
            ..Scenario::new(
                "hub-as-it-is-spelled",
                On::ALL,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 < 200 assigned op1 LocalHost {id} initialAssignment
                 @close
                 > hub connect {hub-via} LocalHost {id}
                 < connack 0
                 > disconnect",
                    )
                    .with(|adopted| adopted.hub = "LocalHost"),
                ],
            )
        },
        Scenario {
            device: &["payload = { model = \"dtmi:x;1\", limits = [1, 2.5] }", AT_ONCE],
            ..Scenario::new(
                "payload-returned",
                On::ALL,
                vec![Step::adopts("@assigned").with(|adopted| adopted.payload = r#"{"model":"dtmi:x;1","limits":[1,2.5]}"#)],
            )
        },
        Scenario {
            device: &[AT_ONCE],
            dps: &[r#"payload = '{"modelId":"dtmi:com:example:Thermostat;1"}'"#],
            ..Scenario::new(
                "payload-sent",
                On::ALL,
                vec![Step::adopts("@assigned").received(r#"{"modelId":"dtmi:com:example:Thermostat;1"}"#)],
            )
        },
    ]
}

fn refused() -> Vec<Scenario> {
    vec![
        Scenario {
            device: &[FAIL],
            ..Scenario::new(
                "failed",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        FAILED,
                        "@open
                 > register
                 < 202 assigning op1
                 > query op1
                 < 200 failed op1 400207
                 @close",
                    )
                    .code(Code::Of(400_207))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &[FAIL, AT_ONCE],
            ..Scenario::new(
                "failed-at-once",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        FAILED,
                        "@open
                 > register
                 < 200 failed op1 400207
                 @close",
                    )
                    .code(Code::Of(400_207))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["enabled = false"],
            ..Scenario::new(
                "disabled",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        DISABLED,
                        "@open
                 > register
                 < 200 disabled
                 @close",
                    )
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE, "faults = [\"register: unknown-status blocked-by-moon\"]"],
            ..Scenario::new(
                "unknown-status",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        "the registration ended as \"blocked-by-moon\"; *",
                        "@open
                 > register
                 < 200 blocked-by-moon op1 localhost {id} initialAssignment
                 @close",
                    )
                    .at_once(),
                ],
            )
        },
        Scenario {
            enrolled: false,
            ..Scenario::new(
                "unknown",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        NOT_FOUND,
                        "@open
                 > register
                 < 404 404201
                 @close",
                    )
                    .code(Code::Of(404_201))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE],
            dps: &["id_scope = \"0ne00OTHER\""],
            ..Scenario::new(
                "unknown-id-scope",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        NOT_FOUND,
                        "@open
                 > register
                 < 404 404201
                 @close",
                    )
                    .code(Code::Of(404_201))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &["faults = [\"query: status 404\"]"],
            ..Scenario::new(
                "unknown-at-query",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        "the service answered 404, error code 404201: *",
                        "@open
                 > register
                 < 202 assigning op1
                 > query op1
                 < 404 404201
                 @close",
                    )
                    .code(Code::Of(404_201))
                    .at_once(),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE, "faults = [\"register: status 400\"]"],
            ..Scenario::new(
                "bad-request",
                On::ALL,
                vec![Step::fails(Blame::Refused,
                "the service answered 400, error code 400000: A fault was asked for. (trackingId *); the service does not \
                 understand this request: check id_scope, registration_id and api_version",
                "@open
                 > register
                 < 400 400000
                 @close",
            ).code(Code::Of(400_000)).at_once()],
            )
        },
        Scenario {
            device: &["faults = [\"query: lost-operation\"]"],
            ..Scenario::new(
                "lost-operation",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 < 202 assigning op1
                 > query op1
                 < 404 404203
                 > register
                 < 202 assigning op2
                 > query op2
                 < 200 {assigned2}
                 @close
                 @hub",
                )],
            )
        },
    ]
}

/// What was stored serves, survives, and is replaced as a whole.
fn again() -> Vec<Scenario> {
    vec![
        Scenario::new("second-run-asks-nobody", On::ALL, vec![Step::adopts(POLLED), Step::adopts("")]),
        Scenario::new(
            "forced-without-change",
            On::ALL,
            vec![
                Step::adopts(POLLED),
                // Nothing is new, so the hub is left alone: it allows one connection per device.
                Step::adopts(
                    "@open
                 > register
                 < 202 assigning op1
                 > query op1
                 < 200 {assigned}
                 @close",
                )
                .forced(),
            ],
        ),
        Scenario {
            service: &["hubs = [\"localhost\", \"127.0.0.1\"]"],
            ..Scenario::new(
                "hub-moves",
                On::ALL,
                vec![
                    Step::adopts(POLLED),
                    Step::adopts("").after(&[Act::MoveHub("127.0.0.1")]),
                    Step::adopts(
                        "@open
                     > register
                     < 202 assigning op1
                     > query op1
                     < 200 assigned op1 127.0.0.1 {id} deviceDataMigrated
                     @close
                     > hub connect {hub-via} 127.0.0.1 {id}
                     < connack 0
                     > disconnect",
                    )
                    .forced()
                    .with(|adopted| {
                        adopted.generation = 2;
                        adopted.hub = "127.0.0.1";
                        adopted.substatus = "deviceDataMigrated";
                    }),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE],
            ..Scenario::new(
                "disabled-later",
                On::ALL,
                vec![
                    Step::adopts("@assigned"),
                    Step::fails(
                        Blame::Refused,
                        DISABLED,
                        "@open
                     > register
                     < 200 disabled
                     @close",
                    )
                    .forced()
                    .after(&[Act::Disable]),
                    Step::adopts(""),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE, "enabled = false"],
            ..Scenario::new(
                "enabled-later",
                On::ALL,
                vec![
                    Step::fails(
                        Blame::Refused,
                        DISABLED,
                        "@open
                     > register
                     < 200 disabled
                     @close",
                    ),
                    Step::adopts("@assigned").after(&[Act::Enable]),
                ],
            )
        },
        Scenario {
            device: &[AT_ONCE],
            ..Scenario::new(
                "network-fails-later",
                On::ALL,
                vec![
                    Step::adopts("@assigned"),
                    Step::fails(
                        Blame::Network,
                        "*localhost:PORT*",
                        "(
                     > connect {via}
                     ! drop
                     )+",
                    )
                    .forced()
                    .within("6s")
                    .after(&[Act::Faults(&["connect: drop x*"])]),
                    Step::adopts(""),
                ],
            )
        },
    ]
}
