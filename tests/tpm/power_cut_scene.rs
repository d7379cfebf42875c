//! Before the power is cut: what is on the gateway and at the service, how it gets there again, and where there is something to cut.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::cutter::Cut;
use crate::gateway::{Gateway, ID};
use crate::power_cut_files::{self as files, Call, Side};
use crate::swtpm::{Snapshot, Swtpm};

/// The directories of the agent, and their modes.
const DIRECTORIES: [(&str, u32); 2] = [("state", 0o700), ("run", 0o755)];

const SERVICE: &str = "hubs = [\"localhost\", \"hub-two\"]";

/// Every hub is reached at localhost, and the token names the hub.
const HUB: &str = "transport = \"mqtt\"\ngateway_host = \"localhost\"";

pub const HANDLE: &str = "0x81000100";

/// All that outlives a power cut, here and at the service.
pub struct Moment {
    directories: BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>,
    tpm: Snapshot,
    service: dps_emulator::Snapshot,
}

/// What the agent is about to do when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    First,
    Again,
    Moved,
    /// Like `Again`, and the key before is one that another program made: it is at the handle and nowhere else.
    Adopted,
}

/// A registration that is cut again and again.
pub struct Scene {
    pub story: Story,
    pub has_handle: bool,
    before: Moment,
    /// Signed with the key before the registration, if there is one.
    pub old_token: Option<String>,
    /// How many TPM commands, messages and calls on files the whole has, uncut.
    pub counts: [usize; 3],
    pub points: Vec<Point>,
}

/// A place to cut.
#[derive(Debug, Clone)]
pub struct Point {
    pub kind: Kind,
    at: At,
    pub what: String,
    /// From here on the new key has been kept, and the hub accepts it: it must not be lost any more.
    pub is_kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tpm,
    Message,
    File,
}

pub const KINDS: [(Kind, &str); 3] = [(Kind::Tpm, "TPM command"), (Kind::Message, "message"), (Kind::File, "file call")];

#[derive(Debug, Clone)]
enum At {
    Event(Cut),
    Call(Call, Side),
}

/// A gateway on which all scenes can be played: the same TPM in each, if it is given the same memory.
pub fn gateway(tpm: &Snapshot) -> Gateway {
    let mut own = Swtpm::start();
    own.restore(tpm);
    Gateway::of(own, SERVICE, "")
}

impl Moment {
    pub fn of(gateway: &Gateway) -> Self {
        let existing = DIRECTORIES.iter().filter(|(name, _)| gateway.path(name).exists());
        let content = |name: &&'static str| {
            let entries = fs::read_dir(gateway.path(name)).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
        };
        let directories = existing.map(|(name, _)| (*name, content(name))).collect();
        Self { directories, tpm: gateway.tpm.remembered(), service: gateway.emulator.snapshot() }
    }

    /// Makes it so again. The TPM's power is off for a moment; the network is up.
    pub fn restore(&self, gateway: &mut Gateway) {
        for (directory, mode) in DIRECTORIES {
            let _ = fs::remove_dir_all(gateway.path(directory));
            let Some(files) = self.directories.get(directory) else { continue };
            fs::create_dir(gateway.path(directory)).unwrap();
            fs::set_permissions(gateway.path(directory), Permissions::from_mode(mode)).unwrap();
            for (name, content) in files {
                fs::write(gateway.path(directory).join(name), content).unwrap();
                fs::set_permissions(gateway.path(directory).join(name), Permissions::from_mode(mode & 0o640)).unwrap();
            }
        }
        gateway.tpm.restore(&self.tpm);
        gateway.emulator.restore(&self.service);
        gateway.to_dps.down(false);
        gateway.to_hub.down(false);
    }
}

impl Scene {
    /// Plays it on a gateway that nobody has used yet, once without a cut.
    pub fn new(gateway: &mut Gateway, story: Story, has_handle: bool) -> Self {
        let mut scene =
            Self { story, has_handle, before: Moment::of(gateway), old_token: None, counts: [0; 3], points: Vec::new() };
        scene.configure(gateway);
        if story != Story::First {
            assert_eq!(gateway.run(&["provision"], None).code, Some(0));
            let token = gateway.run(&["token", "--expiry-in", "24h"], None);
            scene.old_token = Some(token.stdout.trim().to_owned());
        }
        if story == Story::Adopted {
            fs::remove_dir_all(gateway.path("state")).unwrap();
            assert_eq!(gateway.run(&["adopt", "--hub", "localhost"], None).code, Some(0));
        }
        if story == Story::Moved {
            gateway.emulator.move_hub(ID, "hub-two").unwrap();
        }
        scene.before = Moment::of(gateway);
        scene.trace(gateway);
        scene
    }

    pub fn name(&self) -> String {
        let story = match self.story {
            Story::First => "first",
            Story::Again => "again, same hub",
            Story::Moved => "again, other hub",
            Story::Adopted => "adopted key",
        };
        if self.has_handle { format!("{story}, {HANDLE}") } else { story.to_owned() }
    }

    /// The gateway before the registration.
    pub fn restore(&self, gateway: &mut Gateway) {
        self.configure(gateway);
        self.before.restore(gateway);
    }

    /// From the beginning to the cut. Tells what is wrong if that is not where the power went.
    pub fn cut(&self, gateway: &mut Gateway, point: &Point) -> Result<(), String> {
        self.restore(gateway);
        let (ran, there) = match &point.at {
            At::Event(cut) => {
                let ran = gateway.run(self.arguments(), Some(*cut));
                let (Cut::Before(number) | Cut::After(number)) = cut;
                let events = gateway.cutter.events();
                let there = gateway.cutter.has_cut() && events.len() == *number && point.what.ends_with(&events[number - 1]);
                (ran, there)
            }
            At::Call(call, side) => {
                let ran = gateway.run_command(&mut files::command(gateway, Some((call, *side)), self.arguments()), None);
                (ran, files::was_cut_at(gateway, call, *side))
            }
        };
        if there && ran.code.is_none() && ran.stdout.is_empty() { Ok(()) } else { Err(format!("it was not cut there: {ran:?}")) }
    }

    fn configure(&self, gateway: &Gateway) {
        let handle = if self.has_handle { format!("identity_handle = \"{HANDLE}\"") } else { String::new() };
        gateway.configure(&handle, HUB);
    }

    fn arguments(&self) -> &'static [&'static str] {
        if self.story == Story::First { &["provision"] } else { &["provision", "--force"] }
    }

    fn trace(&mut self, gateway: &mut Gateway) {
        self.restore(gateway);
        gateway.to_tpm.rules(&[]);
        let said = gateway.emulator.transcript(ID).len();
        let ran = gateway.run_command(&mut files::command(gateway, None, self.arguments()), None);
        assert_eq!(ran.code, Some(0), "{}: {ran:?}", self.name());
        let events = gateway.cutter.events();
        let proof = events.iter().position(|event| event == "hub request").unwrap();
        for (index, event) in events.iter().enumerate() {
            let kind = if event.starts_with("TPM ") { Kind::Tpm } else { Kind::Message };
            let [before, after] = [Cut::Before(index + 1), Cut::After(index + 1)].map(At::Event);
            let is_kept = index >= proof;
            self.add(kind, [(before, is_kept), (after, is_kept)], &format!("{}: {event}", index + 1));
        }
        let calls = files::calls(gateway);
        // The last time the record says how the proof ended, and the time before that it says that there is a new key.
        let records =
            calls.iter().enumerate().filter(|(_, call)| call.name.starts_with("rename") && call.line.contains("/record"));
        let kept = records.map(|(index, _)| index).rev().nth(1).expect("a record of the new key, and one of its proof");
        for (index, call) in calls.into_iter().enumerate() {
            let what = format!("{} {}: {}", call.name, call.number, call.line);
            let [before, after] = [At::Call(call.clone(), Side::Before), At::Call(call, Side::After)];
            self.add(Kind::File, [(before, index > kept), (after, index >= kept)], &what);
        }
        let lines = gateway.emulator.transcript(ID);
        assert_eq!(self.counts[..2], [gateway.to_tpm.codes().len(), messages(&lines[said..])], "{}: {events:#?}", self.name());
    }

    fn add(&mut self, kind: Kind, sides: [(At, bool); 2], what: &str) {
        self.counts[kind as usize] += 1;
        for ((at, is_kept), side) in sides.into_iter().zip(["before", "after"]) {
            self.points.push(Point { kind, at, what: format!("{side} {what}"), is_kept });
        }
    }
}

/// How many requests and answers the service has seen, by its own account.
fn messages(transcript: &[String]) -> usize {
    const MESSAGES: [&str; 5] = ["> challenge", "> register", "> query", "> hub connect", "< "];
    transcript.iter().filter(|line| MESSAGES.iter().any(|message| line.starts_with(message))).count()
}
