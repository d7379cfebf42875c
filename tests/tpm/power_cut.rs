//! The power is cut right before and right after every TPM command, every message and every call on a file of a registration. What
//! the agent is afterwards is one of two things: able to sign for its hub without a word to DPS, or healed by one registration.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway::{Gateway, ID, Ran};
use crate::power_cut_scene::{HANDLE, KINDS, Kind, Moment, Point, Scene, Story, gateway};
use crate::swtpm::Swtpm;

/// More than there are processors: a registration waits two seconds for its poll.
const WORKERS: usize = 20;

/// Without `DPS_AGENT_POWER_CUTS=all`, one point of so many, and another one in each process. Odd, for both sides of a place.
const ONE_OF: usize = 11;

/// With nobody there, with the hub alone, and with everybody: the patience that this deserves.
const DARK: [&str; 4] = ["provision", "--json", "--timeout", "1s"];
const DUSK: [&str; 4] = ["provision", "--json", "--timeout", "3s"];
const LIGHT: [&str; 4] = ["provision", "--json", "--timeout", "60s"];

/// What became of the gateway after one cut.
struct Outcome {
    scene: usize,
    kind: Kind,
    /// Without DPS it had a token that its hub accepts.
    works_offline: bool,
    /// How long a start with the network up took to be back, where that took a registration; one by one.
    seconds: Vec<f64>,
}

/// What is done, and what went wrong, of all workers.
#[derive(Default)]
struct Results {
    outcomes: Vec<Outcome>,
    failures: Vec<String>,
}

#[test]
fn every_power_cut_leaves_a_gateway_that_works_offline_or_heals() {
    let began = now();
    let tpm = Swtpm::start().snapshot();
    let [plain, at_handle] = [false, true];
    let stories = [
        (Story::First, plain),
        (Story::Again, plain),
        (Story::Moved, plain),
        (Story::Again, at_handle),
        (Story::Moved, at_handle),
        (Story::Adopted, at_handle),
    ];
    let scenes: Vec<_> = thread::scope(|scope| {
        let scenes = stories.map(|(story, has_handle)| {
            let tpm = &tpm;
            scope.spawn(move || Scene::new(&mut gateway(tpm), story, has_handle))
        });
        scenes.map(|scene| scene.join().unwrap()).into_iter().collect()
    });
    for scene in &scenes {
        let counted: usize = scene.counts.iter().sum();
        assert_eq!(scene.points.len(), 2 * counted, "{}: there are points that are not cut", scene.name());
    }
    let all = is_all();
    let phase = std::process::id() as usize;
    let chosen = scenes.iter().enumerate().flat_map(|(number, scene)| scene.points.iter().map(move |point| (number, point)));
    let chosen: VecDeque<_> =
        chosen.enumerate().filter(|(index, _)| all || (index + phase) % ONE_OF == 0).map(|(_, chosen)| chosen).collect();
    let expected = chosen.len();
    let (queue, results) = (Mutex::new(chosen), Mutex::new(Results::default()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut gateway = gateway(&tpm);
                while let Some((number, point)) = next(&queue) {
                    let outcome = play(&mut gateway, &scenes, number, point);
                    let mut results = results.lock().unwrap();
                    match outcome {
                        Ok(outcome) => results.outcomes.push(outcome),
                        Err(why) => results.failures.push(format!("{}, cut {}: {why}", scenes[number].name(), point.what)),
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    say(&table(&scenes, &results.outcomes, all, began.elapsed()));
    assert!(results.failures.is_empty(), "{} cuts:\n{}", results.failures.len(), results.failures.join("\n"));
    assert_eq!(results.outcomes.len(), expected);
}

fn next<T>(queue: &Mutex<VecDeque<T>>) -> Option<T> {
    queue.lock().unwrap().pop_front()
}

/// One cut, and a start after it with the network down and then up, and another one with the network up at once.
fn play(gateway: &mut Gateway, scenes: &[Scene], number: usize, point: &Point) -> Result<Outcome, String> {
    let scene = &scenes[number];
    scene.cut(gateway, point)?;
    let cut = Moment::of(gateway);
    // The old key is not ours to lose: nobody but the service may have taken it away.
    let is_old_good = scene.old_token.as_ref().is_some_and(|token| gateway.emulator.hub_accepts(ID, token));
    let mut outcome = Outcome { scene: number, kind: point.kind, works_offline: false, seconds: Vec::new() };
    gateway.to_dps.down(true);
    gateway.to_hub.down(true);
    let in_the_dark = works_without_dps(gateway, &DARK)?;
    if is_old_good && !in_the_dark {
        return Err("the hub accepts the old key, and the agent has it no more".to_owned());
    }
    gateway.to_hub.down(false);
    outcome.works_offline = works_without_dps(gateway, &DUSK)?;
    if in_the_dark && !outcome.works_offline {
        return Err("it worked offline until it could reach the hub".to_owned());
    }
    if point.is_kept && !outcome.works_offline {
        return Err("the new key was kept, the hub accepts it, and the agent has it no more".to_owned());
    }
    gateway.to_dps.down(false);
    let healed = heal(gateway, scene)?;
    if !outcome.works_offline {
        outcome.seconds.push(healed);
    }
    cut.restore(gateway);
    let healed = heal(gateway, scene)?;
    if !outcome.works_offline {
        outcome.seconds.push(healed);
    }
    Ok(outcome)
}

/// Whether there is a token that the hub accepts when the agent was started without DPS.
fn works_without_dps(gateway: &Gateway, provision: &[&str]) -> Result<bool, String> {
    let ran = gateway.run(provision, None);
    let works = is_accepted(gateway)?;
    match ran.code {
        Some(0) if works => Ok(true),
        // It could not know better, and will ask again.
        Some(75) => Ok(works),
        Some(0) => Err(format!("without DPS it takes a key for good that the hub refuses: {ran:?}")),
        _ => Err(format!("without DPS it ends otherwise than to be tried again: {ran:?}")),
    }
}

/// With the network up: back in so many seconds, for good.
fn heal(gateway: &Gateway, scene: &Scene) -> Result<f64, String> {
    let began = now();
    let ran = gateway.run(&LIGHT, None);
    let seconds = began.elapsed().as_secs_f64();
    if ran.code != Some(0) || !is_accepted(gateway)? {
        return Err(format!("with the network up it does not heal: {ran:?}"));
    }
    let record = record(gateway)?;
    let proof = record["proof"].as_str();
    if proof != Some("proven") || record["unfinished"] == true || !record["predecessor"].is_null() {
        return Err(format!("healed, but the record is not at its end: {record}"));
    }
    for directory in ["state", "run"] {
        let entries = std::fs::read_dir(gateway.path(directory)).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        if names.len() != 1 {
            return Err(format!("healed, but something is left in {directory}: {names:?}"));
        }
    }
    if scene.has_handle { holds_the_key(gateway, &record).map(|()| seconds) } else { Ok(seconds) }
}

/// Whether the hub lets the device in with what `dps-agent token` prints now.
fn is_accepted(gateway: &Gateway) -> Result<bool, String> {
    let Ran { code, stdout, stderr } = gateway.run(&["token"], None);
    match code {
        Some(0) => Ok(gateway.emulator.hub_accepts(ID, stdout.trim())),
        // Not provisioned yet.
        Some(75) => Ok(false),
        _ => Err(format!("token ends with {code:?}: {stderr}")),
    }
}

fn record(gateway: &Gateway) -> Result<Value, String> {
    let text = std::fs::read_to_string(gateway.path("state/record")).map_err(|error| format!("there is no record: {error}"))?;
    serde_json::from_str(text.lines().next().unwrap_or_default()).map_err(|error| format!("{error}: {text}"))
}

/// The newest name of a hub key that the record knows is the name of what is at the handle.
fn holds_the_key(gateway: &Gateway, record: &Value) -> Result<(), String> {
    let at = gateway.tpm.tool(&format!("tpm2_readpublic -c {HANDLE}"));
    let newest = record["made"].as_array().and_then(|made| made.last()?.as_str()).unwrap_or("none");
    if at.code == Some(0) && at.stdout.contains(newest) {
        return Ok(());
    }
    Err(format!("{HANDLE} does not hold the record's key {newest}: {at:?}"))
}

fn table(scenes: &[Scene], outcomes: &[Outcome], all: bool, took: Duration) -> String {
    let total: usize = scenes.iter().map(|scene| scene.points.len()).sum();
    let part = if all { "all".to_owned() } else { format!("one in {ONE_OF}; DPS_AGENT_POWER_CUTS=all for all of them") };
    let mut text = format!("\npower cuts: {} of {total} ({part}), in {:.0} s\n", outcomes.len(), took.as_secs_f64());
    let _ = writeln!(
        text,
        "{:<28} {:<12} {:>8} {:>11} {:>5} {:>14} {:>7} {:>9} {:>8}",
        "registration", "cut at", "uncut run", "cut points", "cut", "works offline", "healed", "median s", "max s"
    );
    for (number, scene) in scenes.iter().enumerate() {
        for (kind, name) in KINDS {
            let of = outcomes.iter().filter(|outcome| outcome.scene == number && outcome.kind == kind);
            let (offline, healed): (Vec<_>, Vec<_>) = of.partition(|outcome| outcome.works_offline);
            let mut seconds: Vec<f64> = healed.iter().flat_map(|outcome| outcome.seconds.iter().copied()).collect();
            seconds.sort_by(f64::total_cmp);
            let show = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
            let _ = writeln!(
                text,
                "{:<28} {name:<12} {:>9} {:>11} {:>5} {:>14} {:>7} {:>9} {:>8}",
                scene.name(),
                scene.counts[kind as usize],
                scene.points.iter().filter(|point| point.kind == kind).count(),
                offline.len() + healed.len(),
                offline.len(),
                healed.len(),
                show(seconds.get(seconds.len() / 2)),
                show(seconds.last())
            );
        }
    }
    text
}

/// On the terminal even where the test harness keeps what is printed to itself.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "how thorough to be is a matter of the machine's time")]
fn is_all() -> bool {
    std::env::var("DPS_AGENT_POWER_CUTS").is_ok_and(|which| which == "all")
}

#[expect(clippy::disallowed_methods, reason = "the test is about time that passes")]
fn now() -> Instant {
    Instant::now()
}
