//! Answers that make no sense, and true ones that are badly delivered. One gets a new connection; three in a row are the end.

use crate::scenario::{Blame, On, Scenario, Step};

/// An answer that makes no sense: its fault once and for ever, how it looks, and what is said of it.
struct Lie {
    names: [&'static str; 2],
    on: On,
    once: &'static [&'static str],
    for_ever: &'static [&'static str],
    recovers: &'static str,
    gives_up: &'static str,
    message: &'static str,
}

/// The two rows of a lie that is told at the register call.
macro_rules! lie {
    ($name:literal, $on:expr, $fault:literal, $answer:literal, $next:literal, $message:literal, $close:literal) => {
        Lie {
            names: [$name, concat!($name, "-for-ever")],
            on: $on,
            once: &["answer = \"at-once\"", concat!("faults = ['register: ", $fault, "']")],
            for_ever: &["answer = \"at-once\"", concat!("faults = ['register: ", $fault, " x*']")],
            recovers: concat!(
                "@open\n> register\n< ",
                $answer,
                "\n",
                $close,
                "\n@open\n> register\n< 200 ",
                $next,
                "\n@close\n@hub"
            ),
            gives_up: concat!(
                "@open\n> register\n< ",
                $answer,
                "\n",
                $close,
                "\n@open\n> register\n< ",
                $answer,
                "\n",
                $close,
                "\n@open\n> register\n< ",
                $answer,
                "\n",
                $close
            ),
            message: concat!(
                "the answer makes no sense: ",
                $message,
                "; three answers in a row: whatever answers there may not be DPS"
            ),
        }
    };
}

pub fn all() -> Vec<Scenario> {
    let told = lies().into_iter().flat_map(|lie| {
        let once = Scenario { device: lie.once, ..Scenario::new(lie.names[0], lie.on, vec![Step::adopts(lie.recovers)]) };
        let failed = Step::fails(Blame::Peer, lie.message, lie.gives_up).at_once();
        [once, Scenario { device: lie.for_ever, ..Scenario::new(lie.names[1], lie.on, vec![failed]) }]
    });
    told.chain(at_query()).chain(deliveries()).collect()
}

fn lies() -> Vec<Lie> {
    vec![
        lie!("no-json", On::ALL, "body what?", "200 what?", "{assigned}", "the body is no JSON (*)", "@close"),
        lie!("no-status", On::ALL, "body []", "200 []", "{assigned}", "the body has no status", "@close"),
        lie!(
            "no-operation",
            On::ALL,
            "status-body 202 {\"status\":\"assigning\"}",
            "202 assigning",
            "{assigned}",
            "operation ID \"\": *",
            "@close"
        ),
        lie!(
            "strange-status",
            On::MQTT,
            "status-body 302 {}",
            "302",
            "{assigned}",
            "status 302 is none of this protocol",
            "@close"
        ),
        lie!("no-content", On::ALL, "status-body 204", "204", "{assigned}", "status 204 is none of this protocol", "@close"),
        lie!(
            "no-hub",
            On::ALL,
            "no-hub",
            "200 assigned op# {id} initialAssignment",
            "{assigned#}",
            "it assigns without assignedHub",
            "@close"
        ),
        lie!(
            "somebody-else",
            On::ALL,
            "wrong-registration-id",
            "200 assigned op# localhost someone-else initialAssignment",
            "{assigned#}",
            "it is for registration ID \"someone-else\"",
            "@close"
        ),
        lie!(
            "hub-with-path",
            On::ALL,
            "hub-name evil.example/hub",
            "200 assigned op# evil.example/hub {id} initialAssignment",
            "{assigned#}",
            "host name \"evil.example/hub\": *",
            "@close"
        ),
        lie!(
            "hub-with-port",
            On::ALL,
            "hub-name evil.example:8883",
            "200 assigned op# evil.example:8883 {id} initialAssignment",
            "{assigned#}",
            "host name \"evil.example:8883\": *",
            "@close"
        ),
        lie!(
            "hub-with-line-break",
            On::ALL,
            "hub-name evil.example\\r\\nHost: x",
            "200 assigned op# evil.example\\r\\nHost: x {id} initialAssignment",
            "{assigned#}",
            "host name \"evil.example\\r\\nHost: x\": *",
            "@close"
        ),
        lie!(
            "hub-without-name",
            On::ALL,
            "hub-name ",
            "200 assigned op#  {id} initialAssignment",
            "{assigned#}",
            "host name \"\": *",
            "@close"
        ),
        lie!(
            "redirected",
            On::HTTPS,
            "redirect https://evil.example/",
            "307",
            "{assigned}",
            "a redirection to evil.example: *",
            ""
        ),
        lie!("too-large", On::ALL, "big 131073", "200 (131073 bytes)", "{assigned}", "it is larger than 131072 bytes", ""),
    ]
}

fn at_query() -> Vec<Scenario> {
    vec![Scenario {
        device: &["faults = [\"query: no-hub\"]"],
        ..Scenario::new(
            "no-hub-at-query",
            On::ALL,
            vec![Step::adopts(
                "@open
             > register
             < 202 assigning op1
             > query op1
             < 200 assigned op1 {id} initialAssignment
             @close
             @open
             > query op1
             < 200 {assigned}
             @close
             @hub",
            )],
        )
    }]
}

fn deliveries() -> Vec<Scenario> {
    vec![
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: big 131072\"]"],
            ..Scenario::new(
                "as-large-as-may-be",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 < 200 (131072 bytes)
                 @close
                 @hub",
                )],
            )
        },
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: truncate\"]"],
            ..Scenario::new(
                "truncated",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 ! truncate
                 < 200 {assigned}
                 @open
                 > register
                 < 200 {assigned2}
                 @close
                 @hub",
                )],
            )
        },
        Scenario {
            device: &["faults = [\"register: duplicate\"]"],
            ..Scenario::new(
                "duplicated",
                On::ALL,
                vec![Step::adopts(
                    "@open
                 > register
                 ! duplicate
                 < 202 assigning op1
                 https| > connect https
                 > query op1
                 < 200 {assigned}
                 @close
                 @hub",
                )],
            )
        },
        Scenario {
            device: &["faults = [\"register: stale-rid\", \"query: stale-rid\"]"],
            ..Scenario::new(
                "stale-answer-first",
                On::MQTT,
                vec![Step::adopts(
                    "@open
                 > register
                 ! stale-rid
                 < 202 assigning op1
                 > query op1
                 ! stale-rid
                 < 200 {assigned}
                 @close
                 @hub",
                )],
            )
        },
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: only-stale-rid\"]"],
            ..Scenario::new(
                "stale-answer-only",
                On::MQTT,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 ! only-stale-rid
                 < 200 {assigned}
                 @open
                 > register
                 < 200 {assigned2}
                 @close
                 @hub",
                    )
                    .at_least(10),
                ],
            )
        },
    ]
}
