//! A machine in the middle that alters, loses or repeats one command or response at a time, at each command of a registration anew.
//! Whatever it does, the agent ends with an error that has a name and with its old key, or with a new key that works.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::hostile_gateway::{Gateway, ID, each};
use crate::relay::{Act, Bit, When};
use crate::wire::{Code, HEADER};

/// So many gateways are tormented side by side: most of the time they wait for a second try.
const GATEWAYS: usize = 8;

/// Without `DPS_AGENT_ATTACKS=all`, one attack of so many, and another one in each process.
const ONE_OF: usize = 5;

/// What the man in the middle does, at which command, and what came of it.
struct Attack {
    number: usize,
    code: Code,
    act: Act,
}

/// What the agent came to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It has a new key, which works.
    NoEffect,
    /// The same, at a second try within the same run.
    Healed,
    /// It has said why not, and has its old key.
    Named(i32, String),
}

const HOW: [&str; 5] = ["command altered", "response altered", "command lost", "response lost", "response repeated"];

fn how(act: Act) -> &'static str {
    match act {
        Act::FlipCommand(_) => HOW[0],
        Act::FlipResponse(_) => HOW[1],
        Act::LoseCommand => HOW[2],
        Act::LoseResponse => HOW[3],
        Act::Replay => HOW[4],
        Act::Delay(_) | Act::Answer(_) => "nothing of the kind",
    }
}

/// Bits of a frame of this length: of its tag, of its code, and some of what follows, from both ends. Its size is left alone, since
/// with another both sides would wait for more.
fn bits(length: usize) -> Vec<Bit> {
    let body = length - HEADER;
    let places = [0, 1, 2, 3, 5, 9].into_iter().map(|eighth| HEADER + body * eighth / 10);
    let places = [1, 9].into_iter().chain(places.filter(|place| *place < length)).chain([length - 1]);
    let mut bits: Vec<_> = places.enumerate().map(|(at, place)| Bit(isize::try_from(place).unwrap(), (at % 8) as u8)).collect();
    bits.sort_by_key(|bit| bit.0);
    bits.dedup_by_key(|bit| bit.0);
    bits
}

/// Everything that is to be done to a registration that goes like this one.
fn attacks(gateway: &Gateway) -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (at, exchange) in gateway.relay.exchanges().into_iter().enumerate() {
        let (number, code) = (at + 1, exchange.code);
        let commands = bits(exchange.command.len()).into_iter().map(Act::FlipCommand);
        let responses = bits(exchange.response.unwrap().len()).into_iter().map(Act::FlipResponse);
        let others = [Act::LoseCommand, Act::LoseResponse, Act::Replay];
        attacks.extend(commands.chain(responses).chain(others).map(|act| Attack { number, code, act }));
    }
    attacks
}

/// One attack on a gateway that works, and works again afterwards.
fn outcome(gateway: &Gateway, attack: &Attack) -> Outcome {
    let (old, generation) = (gateway.hub_key(), gateway.emulator.hub_key_generation(ID));
    let asked = gateway.asked().len();
    gateway.relay.rules(&[(When::Number(attack.number), attack.act)]);
    let ran = gateway.run(&["provision", "--force", "--timeout", "40s", "--json"]);
    assert_eq!(gateway.relay.applied(), 1, "it came to pass");
    gateway.relay.rules(&[]);
    let outcome = match ran.failure() {
        None => {
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert_ne!(gateway.hub_key(), old);
            assert!(gateway.works(), "it has adopted a key that does not work");
            match gateway.asked()[asked..] {
                [_, _, _, _, _] => Outcome::NoEffect,
                _ => Outcome::Healed,
            }
        }
        Some((code, message)) => {
            assert_eq!(gateway.hub_key(), old, "the old key is intact");
            let is_rotated = gateway.emulator.hub_key_generation(ID) != generation;
            assert_eq!(gateway.works(), !is_rotated, "{message}");
            Outcome::Named(code, message)
        }
    };
    let healed = gateway.provision();
    assert!(gateway.works(), "it heals: {outcome:?}");
    assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()), "{outcome:?}, {}; {}", ran.stderr, healed.stderr);
    outcome
}

/// Without what differs from time to time.
fn class(message: &str) -> String {
    let mut class = message.split("; ").next().unwrap().to_owned();
    for cut in [" (trackingId ", ", trackingId "] {
        class = class.split(cut).next().unwrap().to_owned();
    }
    class
}

#[test]
fn every_alteration_ends_in_an_error_with_a_name_or_has_no_effect() {
    let gateways: Vec<_> = (0..GATEWAYS).map(|_| fresh()).collect();
    gateways[0].relay.rules(&[]);
    gateways[0].run(&["provision", "--force"]).well();
    let all = attacks(&gateways[0]);
    let (commands, count) = (gateways[0].relay.codes().len(), all.len());
    let first = std::process::id() as usize % ONE_OF;
    let attacks: Vec<_> = if is_all() { all } else { all.into_iter().skip(first).step_by(ONE_OF).collect() };
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::<(&str, String), BTreeMap<Outcome, usize>>::new());
    thread::scope(|scope| {
        for gateway in &gateways {
            let (next, attacks, outcomes) = (&next, &attacks, &outcomes);
            scope.spawn(move || {
                while let Some(attack) = attacks.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let name = format!("{} of command {}, {}: {:?}", how(attack.act), attack.number, attack.code, attack.act);
                    let guard = Told(&name);
                    let outcome = outcome(gateway, attack);
                    drop(guard);
                    let outcome = match outcome {
                        Outcome::Named(code, message) => Outcome::Named(code, class(&message)),
                        good @ (Outcome::NoEffect | Outcome::Healed) => good,
                    };
                    let key = (how(attack.act), attack.code.to_string());
                    *outcomes.lock().unwrap().entry(key).or_default().entry(outcome).or_default() += 1;
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    println!(
        "{} of {count} attacks on a registration anew of {commands} TPM commands (DPS_AGENT_ATTACKS=all for all)",
        attacks.len()
    );
    report(&outcomes);
    let total: usize = outcomes.values().flat_map(BTreeMap::values).sum();
    assert_eq!(total, attacks.len());
}

fn fresh() -> Gateway {
    let mut gateway = Gateway::new();
    gateway.set("attestation.identity_handle = \"0x81000100\"");
    gateway.provision();
    gateway
}

#[expect(clippy::disallowed_methods, reason = "how thorough to be is a matter of the machine's time")]
fn is_all() -> bool {
    std::env::var("DPS_AGENT_ATTACKS").is_ok_and(|which| which == "all")
}

fn report(outcomes: &BTreeMap<(&str, String), BTreeMap<Outcome, usize>>) {
    for way in HOW {
        let of_it = || outcomes.iter().filter(|((how, _), _)| *how == way);
        let count = |wanted: fn(&Outcome) -> bool| -> usize {
            of_it().flat_map(|(_, found)| found).filter(|(outcome, _)| wanted(outcome)).map(|(_, count)| count).sum()
        };
        let (none, healed) = (count(|outcome| *outcome == Outcome::NoEffect), count(|outcome| *outcome == Outcome::Healed));
        let named = count(|outcome| matches!(outcome, Outcome::Named(..)));
        println!("  {way}: {named} ended in an error with a name, {healed} in a second try, {none} had no effect");
        for ((_, code), found) in of_it() {
            for (outcome, count) in found {
                match outcome {
                    Outcome::NoEffect => println!("    {code:18} {count:3} no effect: a new key, which works"),
                    Outcome::Healed => println!("    {code:18} {count:3} a new key, which works, at the second try"),
                    Outcome::Named(exit_code, message) => println!("    {code:18} {count:3} {exit_code} {message}"),
                }
            }
        }
    }
}

/// Tells which attack it was, should it be the last.
struct Told<'n>(&'n str);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", self.0);
        }
    }
}

#[test]
fn a_key_that_is_never_loaded_as_it_should_be_ends_in_an_error_and_not_in_a_loop() {
    for (command, act) in [
        ("Load", Act::FlipCommand(Bit(-40, 0))),
        ("Import", Act::FlipCommand(Bit(-200, 3))),
        ("ActivateCredential", Act::FlipCommand(Bit(-10, 1))),
        ("HMAC", Act::FlipResponse(Bit(20, 1))),
    ] {
        let gateway = fresh();
        let old = gateway.hub_key();
        gateway.relay.rules(&[each(command, act)]);
        let (exit_code, message) = gateway.fails(&["provision", "--force", "--timeout", "40s"]);
        println!("{command} altered each time: {exit_code} {message}");
        assert!([71, 76, 77].contains(&exit_code), "{command}: {exit_code} {message}");
        assert_eq!(gateway.hub_key(), old);
        gateway.relay.rules(&[]);
        gateway.provision();
        assert!(gateway.works());
    }
}
