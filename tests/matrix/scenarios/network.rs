//! Connections that are dropped, fall silent or speak garbage, at each step.

use crate::scenario::{Blame, On, Port, Scenario, Step};

/// Something that goes wrong at one step, once and for ever.
struct Trouble {
    names: [&'static str; 2],
    on: On,
    service: [&'static [&'static str]; 2],
    device: [&'static [&'static str]; 2],
    recovers: &'static str,
    gives_up: &'static str,
    /// How `provision` ends when it never stops, with which patience.
    end: (Blame, &'static str),
    /// How long it takes at least when it happens once.
    at_least: u64,
}

/// Trouble before the emulator can know whose connection it is.
macro_rules! before {
    ($what:literal, $stage:literal, $on:expr, $blame:expr, $timeout:literal, $at_least:literal) => {
        Trouble {
            names: [concat!($what, "-at-", $stage), concat!($what, "-at-", $stage, "-for-ever")],
            on: $on,
            service: [
                &[concat!("faults = [\"", $stage, ": ", $what, "\"]")],
                &[concat!("faults = [\"", $stage, ": ", $what, " x*\"]")],
            ],
            device: [&["answer = \"at-once\""], &[]],
            recovers: concat!("- ! ", $what, "\n@assigned"),
            gives_up: concat!("(\n- ! ", $what, "\n)+"),
            end: ($blame, $timeout),
            at_least: $at_least,
        }
    };
}

/// Trouble at a step of a device's own conversation: `$before` is what was said on that connection until then.
macro_rules! within {
    ($what:literal, $stage:literal, $on:expr, $blame:expr, $timeout:literal, $at_least:literal, $before:literal, $often:literal) => {
        Trouble {
            names: [concat!($what, "-at-", $stage), concat!($what, "-at-", $stage, "-for-ever")],
            on: $on,
            service: [&[], &[]],
            device: [
                &["answer = \"at-once\"", concat!("faults = [\"", $stage, ": ", $what, "\"]")],
                &[concat!("faults = [\"", $stage, ": ", $what, " x*\"]")],
            ],
            recovers: concat!($before, "\n! ", $what, "\n@assigned"),
            gives_up: concat!("(\n", $before, "\n! ", $what, "\n)", $often),
            end: ($blame, $timeout),
            at_least: $at_least,
        }
    };
}

/// Trouble at the first query; the same operation is asked for on the next connection.
macro_rules! query {
    ($what:literal, $blame:expr, $timeout:literal, $at_least:literal, $often:literal) => {
        Trouble {
            names: [concat!($what, "-at-query"), concat!($what, "-at-query-for-ever")],
            on: On::ALL,
            service: [&[], &[]],
            device: [&[concat!("faults = [\"query: ", $what, "\"]")], &[concat!("faults = [\"query: ", $what, " x*\"]")]],
            recovers: concat!(
                "@open\n> register\n< 202 assigning op1\n> query op1\n! ",
                $what,
                "\n@open\n> query op1\n< 200 {assigned}\n@close\n@hub"
            ),
            gives_up: concat!(
                "@open\n> register\n< 202 assigning op1\n> query op1\n! ",
                $what,
                "\n(\n@open\n> query op1\n! ",
                $what,
                "\n)",
                $often
            ),
            end: ($blame, $timeout),
            at_least: $at_least,
        }
    };
}

pub fn all() -> Vec<Scenario> {
    let troubled = troubles().into_iter().flat_map(|trouble| {
        let Trouble { names, on, service, device, recovers, gives_up, end: (blame, timeout), at_least } = trouble;
        let once = vec![Step::adopts(recovers).at_least(at_least)];
        let for_ever = vec![Step::fails(blame, message(blame, names[0]), gives_up).within(timeout)];
        [
            Scenario { service: service[0], device: device[0], ..Scenario::new(names[0], on, once) },
            Scenario { service: service[1], device: device[1], ..Scenario::new(names[1], on, for_ever) },
        ]
    });
    troubled.chain(others()).collect()
}

fn message(blame: Blame, name: &str) -> &'static str {
    match (blame, name.split('-').next()) {
        (Blame::Peer, _) => "the answer makes no sense: *; three answers in a row: whatever answers there may not be DPS",
        (_, Some("silence")) => "no answer within * s from localhost:PORT*",
        _ => "*localhost*",
    }
}

fn troubles() -> Vec<Trouble> {
    use Blame::{Network, Peer};
    vec![
        before!("drop", "tcp", On::ALL, Network, "6s", 0),
        before!("silence", "tcp", On::ALL, Network, "8s", 10),
        before!("garbage", "tcp", On::ALL, Network, "6s", 0),
        before!("drop", "tls", On::ALL, Network, "6s", 0),
        before!("silence", "tls", On::ALL, Network, "8s", 10),
        before!("garbage", "tls", On::ALL, Network, "6s", 0),
        within!("drop", "connect", On::ALL, Network, "6s", 0, "> connect {via}", "+"),
        within!("silence", "connect", On::ALL, Network, "8s", 10, "> connect {via}", "+"),
        within!("garbage", "connect", On::ALL, Peer, "60s", 0, "> connect {via}", "3"),
        within!("drop", "subscribe", On::MQTT, Network, "6s", 0, "> connect {via}\n< connack 0\n> subscribe", "+"),
        within!("silence", "subscribe", On::MQTT, Network, "8s", 10, "> connect {via}\n< connack 0\n> subscribe", "+"),
        within!("garbage", "subscribe", On::MQTT, Peer, "60s", 0, "> connect {via}\n< connack 0\n> subscribe", "3"),
        within!("drop", "register", On::ALL, Network, "6s", 0, "@open\n> register", "+"),
        within!("silence", "register", On::ALL, Network, "8s", 10, "@open\n> register", "+"),
        within!("garbage", "register", On::ALL, Peer, "60s", 0, "@open\n> register", "3"),
        query!("drop", Network, "9s", 0, "*"),
        query!("silence", Network, "9s", 10, "*"),
        query!("garbage", Peer, "60s", 0, "2"),
    ]
}

fn others() -> Vec<Scenario> {
    let upgrade = |name, service, said| Scenario {
        service,
        device: &["answer = \"at-once\""],
        ..Scenario::new(name, On::WEBSOCKET, vec![Step::adopts(said)])
    };
    vec![
        upgrade("drop-at-upgrade", &["faults = [\"connect: drop\"]"], "- ! drop\n@assigned"),
        upgrade("silence-at-upgrade", &["faults = [\"connect: silence\"]"], "- ! silence\n@assigned"),
        upgrade("garbage-at-upgrade", &["faults = [\"connect: garbage\"]"], "- ! garbage\n@assigned"),
        upgrade(
            "busy-at-upgrade",
            &["faults = [\"connect: status 503 retry-after=1\"]"],
            "- > connect mqtt-ws\n- < 503 retry-after=1 503000\n@assigned",
        ),
        Scenario {
            device: &["answer = \"at-once\"", "faults = [\"register: slow 3\"]"],
            ..Scenario::new(
                "slow",
                On::ALL,
                vec![
                    Step::adopts(
                        "@open
                 > register
                 ! slow
                 < 200 {assigned}
                 @close
                 @hub",
                    )
                    .at_least(3),
                ],
            )
        },
        Scenario {
            closed: &[Port::DpsMqtt],
            ..Scenario::new(
                "nobody-listens",
                On::PLAIN_MQTT,
                vec![
                    Step::fails(Blame::Network, "localhost:PORT cannot be reached: Connection refused (os error 111)", "")
                        .within("6s"),
                ],
            )
        },
    ]
}
