//! The record under power cuts and failing disks: the agent is killed, or refused, at each system call that touches its files,
//! and what is there afterwards is the old record or the new one.
//!
//! A first run under `strace` numbers the calls; then each of them is the last one that the agent makes (`strace --inject`).

use std::fs;

use serde_json::json;

use crate::gateway::{Gateway, Ran, emulator};
use crate::strace::{self, Call};

/// What a full, a broken and a read-only disk say.
const ERRORS: [&str; 3] = ["ENOSPC", "EIO", "EROFS"];

const PROVISION: [&str; 3] = ["provision", "--json", "--force"];

/// A gateway before the cut, and how to get it there again.
struct Scene {
    gateway: Gateway,
    /// The content of `record` and of `assignment.json`.
    before: Option<[Vec<u8>; 2]>,
}

impl Scene {
    fn reset(&self) {
        let directories = [self.gateway.record(), self.gateway.assignment()].map(|file| file.parent().unwrap().to_owned());
        for directory in &directories {
            let _ = fs::remove_dir_all(directory);
        }
        if let Some([record, assignment]) = &self.before {
            directories.iter().for_each(|directory| fs::create_dir(directory).unwrap());
            fs::write(self.gateway.record(), record).unwrap();
            fs::write(self.gateway.assignment(), assignment).unwrap();
        }
    }

    /// `provision --force` under strace, from the beginning.
    fn provision(&self, inject: Option<&str>) -> Ran {
        self.reset();
        Ran::of(&mut strace::command(&self.gateway, inject, &PROVISION))
    }

    fn calls(&self) -> Vec<Call> {
        assert_eq!(self.provision(None).code, Some(0));
        strace::calls(&self.gateway)
    }

    /// The record is the old one to the byte, or a whole new one; which, by `status`.
    fn is_old_or_new(&self, new_hub: &str, what: &str) {
        let status = self.gateway.run(&["status", "--json"]);
        let found = fs::read(self.gateway.record()).ok();
        let old = self.before.as_ref().map(|[record, _]| record.clone());
        if found == old {
            let expected = old.map(|_| "localhost");
            assert_eq!(status.json()["assignedHub"].as_str(), expected, "{what}: {status:?}");
            assert_eq!(status.json()["provisioned"], json!(expected.is_some()), "{what}");
        } else {
            assert_eq!(status.json()["assignedHub"], new_hub, "{what}: neither the old record nor a new one: {found:?}");
        }
    }

    /// The next start does what is left to do, and nothing half written stays.
    fn recovers(&self, what: &str) {
        let ran = self.gateway.run(&["provision", "--json"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{what}: {}", ran.stdout);
        assert_eq!(self.gateway.names(), [["record"], ["assignment.json"]], "{what}");
        let assignment: serde_json::Value = serde_json::from_slice(&fs::read(self.gateway.assignment()).unwrap()).unwrap();
        assert_eq!(assignment["assignedHub"], ran.json()["assignedHub"], "{what}");
    }

    /// Kills it at each call.
    fn survives_power_cuts(&self, new_hub: &str) {
        for call in self.calls() {
            let what = format!("killed at {}", call.line);
            let ran = self.provision(Some(&format!("{}:signal=SIGKILL:when={}", call.name, call.number)));
            assert_eq!((ran.code, ran.stdout.as_str()), (None, ""), "{what}");
            self.is_old_or_new(new_hub, &what);
            self.recovers(&what);
        }
    }

    /// Lets each call fail in each way.
    fn survives_failing_disks(&self, new_hub: &str) {
        for call in self.calls() {
            for error in ERRORS {
                let what = format!("{error} at {}", call.line);
                let ran = self.provision(Some(&format!("{}:error={error}:when={}", call.name, call.number)));
                let expected = if call.creates() { 73 } else { 74 };
                if call.is_dispensable() {
                    assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
                } else {
                    assert_eq!(ran.code, Some(expected), "{what}: {ran:?}");
                    self.names_the_file(&ran, &what);
                }
                self.is_old_or_new(new_hub, &what);
                let half_written = self.gateway.names().concat().into_iter().find(|name| name.ends_with(".new"));
                assert_eq!(half_written, None, "{what}");
                self.recovers(&what);
            }
        }
    }

    fn names_the_file(&self, ran: &Ran, what: &str) {
        let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
        let directories = [self.gateway.record(), self.gateway.assignment()].map(|file| file.parent().unwrap().to_owned());
        let named = directories.iter().any(|directory| message.contains(directory.to_str().unwrap()));
        assert!(named && message.contains("(os error "), "{what}: {message}");
    }
}

const HUBS: &str = "hubs = [\"localhost\", \"hub-two\"]";

/// With its emulator: a gateway that is provisioned, and that DPS has moved to `hub-two` since.
fn moved() -> (dps_emulator::Emulator, Scene) {
    let emulator = emulator(HUBS, "hub = \"localhost\"");
    let gateway = Gateway::new(&emulator, "mqtt");
    assert_eq!(gateway.run(&["provision"]).code, Some(0));
    let before = [gateway.record(), gateway.assignment()].map(|file| fs::read(file).unwrap());
    emulator.move_hub("gw-0001", "hub-two").unwrap();
    (emulator, Scene { gateway, before: Some(before) })
}

#[test]
fn a_first_registration_survives_a_power_cut_at_each_call() {
    let emulator = emulator("", "");
    let scene = Scene { gateway: Gateway::new(&emulator, "mqtt"), before: None };
    scene.survives_power_cuts("localhost");
}

#[test]
fn a_replaced_record_survives_a_power_cut_at_each_call() {
    let (_emulator, scene) = moved();
    scene.survives_power_cuts("hub-two");
}

#[test]
fn a_first_registration_survives_a_disk_that_fails_at_each_call() {
    let emulator = emulator("", "");
    let scene = Scene { gateway: Gateway::new(&emulator, "mqtt"), before: None };
    scene.survives_failing_disks("localhost");
}

#[test]
fn a_replaced_record_survives_a_disk_that_fails_at_each_call() {
    let (_emulator, scene) = moved();
    scene.survives_failing_disks("hub-two");
}

/// The damaged file is evidence: it is in its place or beside it, whatever happens to the agent.
#[test]
fn a_damaged_record_is_not_lost_by_a_power_cut_at_each_call() {
    let emulator = emulator("", "");
    let damaged = b"what was left of a record".to_vec();
    let gateway = Gateway::new(&emulator, "mqtt");
    let scene = Scene { gateway, before: Some([damaged.clone(), b"{}".to_vec()]) };
    let aside = scene.gateway.record().with_file_name("record.damaged-1");
    for call in scene.calls() {
        let what = format!("killed at {}", call.line);
        let ran = scene.provision(Some(&format!("{}:signal=SIGKILL:when={}", call.name, call.number)));
        assert_eq!((ran.code, ran.stdout.as_str()), (None, ""), "{what}");
        let kept = fs::read(scene.gateway.record()).is_ok_and(|found| found == damaged);
        assert!(kept || fs::read(&aside).is_ok_and(|found| found == damaged), "{what}");
        let ran = scene.gateway.run(&["provision", "--json"]);
        assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
        let expected = [vec!["record", "record.damaged-1"], vec!["assignment.json"]];
        assert_eq!(scene.gateway.names(), expected, "{what}");
        assert_eq!(fs::read(&aside).unwrap(), damaged, "{what}");
    }
}

/// A kill leaves what the kernel has in memory; a power cut does not. So the order counts too.
#[test]
fn a_file_is_on_the_disk_before_its_name_is_and_its_name_before_anybody_is_told() {
    let (_emulator, scene) = moved();
    let calls = scene.calls();
    for file in ["record", "assignment.json"] {
        let begin = calls.iter().position(|call| call.creates() && call.line.contains(&format!("/{file}.new\""))).unwrap();
        let names: Vec<_> = calls[begin..].iter().take(7).map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["openat", "fchmod", "write", "fsync", "rename", "openat", "fsync"], "{file}: {calls:#?}");
    }
    let place = |what: &str| calls.iter().position(|call| call.name == "rename" && call.line.contains(what)).unwrap();
    assert!(place("/record.new\"") < place("/assignment.json.new\""));
}
