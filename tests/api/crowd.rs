//! Many clients, idle ones, slow ones and broken ones: none of them keeps the next one out.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use dps_agent::api::{Limits, Rate, Room};

use crate::agent::Machine;
use crate::client::{Client, post, until};

#[test]
fn a_thousand_who_ask_nothing_do_not_keep_the_next_one_out() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut first = Client::to(&machine.client());
    assert_eq!(first.get("/v1/status").status, 200);
    let idle: Vec<_> = (0..1000).map(|_| Client::to(&machine.client())).collect();
    assert_eq!(Client::to(&machine.client()).post("/v1/connection", "").status, 200);
    let counted = Client::to(&machine.admin()).get("/metrics").body;
    let line = counted.lines().find(|line| line.starts_with("dps_agent_api_evictions_total{socket=\"client\"}")).unwrap();
    // All of one user: 128 may stay, and the last has made room for itself too.
    assert_eq!(line, "dps_agent_api_evictions_total{socket=\"client\"} 874");
    assert!(first.is_ended());
    drop(idle);
}

#[test]
fn a_hundred_at_once_are_all_answered() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let socket = machine.client();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100).map(|_| scope.spawn(|| Client::to(&socket).get("/v1/assignment").status)).collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
    });
}

#[test]
fn where_all_wait_for_an_answer_the_next_one_is_told_so() {
    let machine = Machine::new();
    let room = Room { connections: 4, per_user: 4 };
    let agent = machine.provisioned_with(Limits { clients: room, ..Limits::USUAL });
    let before = agent.desk.watchers();
    let mut waiting: Vec<_> = (0..4).map(|_| Client::to(&machine.client())).collect();
    for client in &mut waiting {
        client.send("GET /v1/assignment?after=3&wait=3600 HTTP/1.1\r\n\r\n");
    }
    until("all four wait", || agent.desk.watchers() == before + 4);
    let refused = Client::to(&machine.client()).get("/v1/status");
    let full = "each connection that this user, or all together, may have is waiting for an answer; try again later";
    assert_eq!((refused.refusal(), refused.field("Retry-After")), ((503, full.to_owned()), Some("1")));
    assert_eq!(Client::to(&machine.admin()).get("/v1/status").status, 200, "admins have a room of their own");
    agent.desk.serve(Some(machine.served(4)));
    assert!(waiting.iter_mut().all(|client| client.receive().status == 200));
    assert_eq!(Client::to(&machine.client()).get("/v1/status").status, 200);
}

#[test]
fn a_request_that_does_not_come_to_its_end_is_refused() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let whole = post("/v1/connection", "{}");
    let mut slow: Vec<_> = [5, 40, whole.len() - 1].map(|length| (length, Client::to(&machine.client()))).into();
    let begun = Instant::now();
    for (length, client) in &mut slow {
        client.send(&whole[..*length]);
    }
    assert_eq!(Client::to(&machine.client()).get("/v1/status").status, 200, "others are answered meanwhile");
    for (_, client) in &mut slow {
        assert_eq!(client.receive().refusal(), (408, "the request was not all there after 10 s".to_owned()));
        assert!(client.no_more().is_ended());
    }
    assert!(begun.elapsed() >= Duration::from_secs(10));
}

#[test]
fn a_request_of_single_bytes_is_understood() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    for byte in post("/v1/connection", "{\"client\":\"device\"}").as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.receive().status, 200);
}

#[test]
fn requests_that_come_all_at_once_are_answered_in_turn() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    client.send(format!("GET /nowhere HTTP/1.1\r\n\r\n{}GET /v1/status HTTP/1.1\r\n\r\n", post("/v1/connection", "{}")));
    assert_eq!([client.receive().status, client.receive().status, client.receive().status], [404, 200, 200]);
    assert!(client.is_left_alone());
}

#[test]
fn half_a_request_is_refused_as_one() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    let answer = client.send("GET /v1/status HT").no_more().receive();
    assert_eq!(answer.refusal(), (400, "the request ends in the middle".to_owned()));
    let mut silent = Client::to(&machine.client());
    assert!(silent.no_more().is_ended());
}

#[test]
fn a_client_that_still_sends_gets_to_read_why_it_is_refused() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    client.send("POST /v1/connection HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n").send(vec![b' '; 1_000_000]);
    assert_eq!(client.receive().refusal(), (413, "the body is larger than 16384 bytes".to_owned()));
    assert!(client.no_more().is_ended());
    let mut client = Client::to(&machine.client());
    client.send(vec![b'A'; 100_000]);
    assert_eq!(client.receive().refusal(), (431, "the head of the request is larger than 8192 bytes".to_owned()));
}

#[test]
fn a_client_that_waits_to_be_encouraged_is() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    client.send("POST /v1/connection HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.receive().status, 100);
    assert_eq!(client.send("{}").receive().status, 200);
}

#[test]
fn a_client_that_reads_nothing_harms_nobody() {
    let machine = Machine::new();
    let usual = Rate { at_once: 100_000, pace: Duration::from_millis(1) };
    let _agent = machine.provisioned_with(Limits { connections: usual, ..Limits::USUAL });
    let deaf = Client::to(&machine.client());
    deaf.stream.set_nonblocking(true).unwrap();
    // Until neither side takes any more.
    while (&deaf.stream).write(post("/v1/connection", "{}").repeat(10).as_bytes()).is_ok() {}
    for _ in 0..20 {
        assert_eq!(Client::to(&machine.client()).get("/v1/status").status, 200);
    }
}

#[test]
fn garbage_is_answered_in_words_and_ends_the_connection() {
    let machine = Machine::new();
    let _agent = machine.provisioned();
    let mut client = Client::to(&machine.client());
    let answer = client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").receive();
    assert_eq!(answer.refusal(), (400, "this is no HTTP/1.1 request: invalid token".to_owned()));
    assert_eq!(answer.field("Connection"), Some("close"));
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}
