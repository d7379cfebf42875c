//! Waiting for another assignment.

use std::time::{Duration, Instant};

use crate::agent::Machine;
use crate::client::{Client, until};

/// Sends a request that will wait, and waits until the agent has it.
fn ask(machine: &Machine, agent: &crate::agent::Agent, target: &str) -> Client {
    let before = waiting(agent);
    let mut client = Client::to(&machine.client());
    client.send(format!("GET {target} HTTP/1.1\r\n\r\n"));
    until("the request is there", || waiting(agent) > before);
    client
}

fn waiting(agent: &crate::agent::Agent) -> usize {
    agent.desk.watchers()
}

#[test]
fn a_first_assignment_is_heard_of_by_all_who_wait() {
    let machine = Machine::new();
    let agent = machine.start();
    let mut clients = [0; 5].map(|_| ask(&machine, &agent, "/v1/assignment?wait=3600"));
    agent.desk.serve(Some(machine.served(1)));
    for client in &mut clients {
        assert_eq!(client.receive().json()["generation"], 1);
    }
}

#[test]
fn a_change_is_heard_of_exactly_once() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let mut client = ask(&machine, &agent, "/v1/assignment?after=3&wait=3600");
    // What consumers get is the same: nobody need hear of it.
    agent.desk.serve(Some(machine.served(3)));
    agent.desk.tell(|status| status.attempts += 1);
    agent.desk.serve(Some(machine.served(4)));
    assert_eq!(client.receive().json()["generation"], 4);
    client.send("GET /v1/assignment?after=4&wait=1 HTTP/1.1\r\n\r\n");
    let same = client.receive();
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    // Who was away meanwhile hears of it at once, and so does who knows of generations that were never here.
    assert_eq!(client.get("/v1/assignment?after=3&wait=3600").json()["generation"], 4);
    assert_eq!(client.get("/v1/assignment?after=9&wait=3600").json()["generation"], 4);
}

#[test]
fn time_that_runs_out_is_told_from_no_assignment() {
    let machine = Machine::new();
    let agent = machine.start();
    let mut client = Client::to(&machine.client());
    let begun = Instant::now();
    assert_eq!(client.get("/v1/assignment?wait=1").status, 503);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    agent.desk.serve(Some(machine.served(1)));
    assert_eq!(client.get("/v1/assignment?after=1").status, 304);
    assert_eq!(client.get("/v1/assignment?after=1&wait=1").status, 304);
}

#[test]
fn who_goes_away_while_waiting_gives_up_the_seat() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let gone = ask(&machine, &agent, "/v1/assignment?after=3&wait=3600");
    let with_one = waiting(&agent);
    drop(gone);
    until("the wait is over", || waiting(&agent) < with_one);
    let mut gone = ask(&machine, &agent, "/v1/assignment?after=3&wait=3600");
    gone.no_more();
    drop(gone);
    until("the wait of who had said all is over", || waiting(&agent) < with_one);
}

#[test]
fn who_only_has_no_more_to_say_is_answered() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let mut client = ask(&machine, &agent, "/v1/assignment?after=3&wait=3600");
    client.no_more();
    agent.desk.serve(Some(machine.served(4)));
    assert_eq!(client.receive().json()["generation"], 4);
    assert!(client.is_ended());
}

#[test]
fn who_waits_when_the_agent_stops_is_told() {
    let machine = Machine::new();
    let agent = machine.provisioned();
    let mut waiting = ask(&machine, &agent, "/v1/assignment?after=3&wait=3600");
    let mut idle = Client::to(&machine.client());
    assert_eq!(idle.get("/v1/status").status, 200);
    agent.stop();
    assert_eq!(waiting.receive().refusal(), (503, "the agent is stopping".to_owned()));
    assert!(waiting.is_ended() && idle.is_ended());
    assert!(!machine.client().exists() && !machine.admin().exists());
    assert!(!machine.runtime().join("metrics.prom").exists(), "it would tell of an agent that is not there");
    assert!(machine.client().parent().unwrap().is_dir(), "a container may have mounted it");
}
