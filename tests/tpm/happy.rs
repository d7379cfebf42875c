//! What a TPM gateway does when nothing goes wrong, to the letter: the conversation, the round trips and the TPM's commands.

use crate::flights::Flights;
use crate::hostile_gateway::{Gateway, ID};

/// What was said, without what differs from time to time: operation IDs, bodies and times.
fn kinds(transcript: &str) -> Vec<String> {
    let shortened = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let kept = match words[..] {
            ["<", "connack", ..] => 3,
            ["<", ..] | [">", "query", ..] => 2,
            _ => words.len(),
        };
        words[..kept].join(" ")
    };
    transcript.lines().filter(|line| !line.starts_with('#')).map(shortened).collect()
}

const CONVERSATION: [&str; 15] = [
    "> connect https",
    "> challenge",
    "< 401",
    "= answered",
    "> register",
    "< 202",
    "pause 2.000",
    "> query",
    "< 200",
    "= imported",
    "> disconnect",
    "= assigned localhost gw-tpm",
    "> hub connect mqtt localhost gw-tpm",
    "< connack 0",
    "= proven",
];

#[test]
fn a_registration_is_one_connection_with_as_few_round_trips_as_can_be() {
    for (tls, round_trips) in [("1.3", 5), ("1.2", 6)] {
        let mut gateway = Gateway::answered("polls = 0");
        let key = crate::hostile_gateway::endorsement_key(&gateway.tpm);
        gateway.meets(&crate::hostile_gateway::emulator(&format!("tls = [\"{tls}\"]"), ID, &key, "polls = 0"));
        let flights = Flights::start(gateway.emulator.https_port());
        gateway.set(&format!("dps.https_port = {}", flights.port()));
        let file = gateway.path("transcript");
        gateway.run(&["provision", "--transcript", file.to_str().unwrap()]).well();
        assert_eq!(kinds(&std::fs::read_to_string(file).unwrap()), CONVERSATION);
        let counts = flights.counts();
        println!("TLS {tls}: {} connection to DPS, {} round trips with TCP's, one poll", counts.connections, counts.round_trips);
        assert_eq!((counts.connections, counts.round_trips), (1, round_trips), "TLS {tls}");
    }
}

#[test]
fn the_commands_of_the_tpm_are_counted() {
    let gateway = Gateway::new();
    gateway.relay.rules(&[]);
    gateway.provision();
    println!("first registration: {} commands: {:?}", gateway.relay.codes().len(), gateway.relay.codes());
    gateway.relay.rules(&[]);
    assert!(gateway.works());
    println!("token: {} commands: {:?}", gateway.relay.codes().len(), gateway.relay.codes());
    gateway.relay.rules(&[]);
    gateway.provision();
    println!("start: {} commands: {:?}", gateway.relay.codes().len(), gateway.relay.codes());
    gateway.relay.rules(&[]);
    gateway.run(&["provision", "--force"]).well();
    println!("again: {} commands: {:?}", gateway.relay.codes().len(), gateway.relay.codes());
}
