//! The record under power cuts and failing disks: the agent is killed, or refused, at each system call that touches its files,
//! and what is there afterwards is the old record or the new one.
//!
//! A first run under `strace` numbers the calls; then each of them is the last one that the agent makes (`strace --inject`).

use std::fs;
use std::process::Command;

use dps_emulator::Emulator;
use serde_json::Value;

use crate::gateway::{Gateway, Ran, emulator};

/// The calls by which the agent's files come and go.
const CALLS: [&str; 12] = [
    "openat", "write", "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "fchmod", "ftruncate",
];

/// A call to tamper with: its name, and its place among the calls of that name that touch our files, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    name: String,
    number: usize,
}

/// Paths that `strace -P` matches: the directories, and what is made in them.
fn ours(gateway: &Gateway) -> Vec<String> {
    let state = gateway.record().parent().unwrap().to_owned();
    let runtime = gateway.assignment().parent().unwrap().to_owned();
    let within = |directory: &std::path::Path, names: &[&str]| {
        let inside = names.iter().map(|name| directory.join(name));
        std::iter::once(directory.to_owned()).chain(inside).map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    let mut paths = within(&state, &["record", "record.new", ".probe"]);
    paths.extend(within(&runtime, &["assignment.json", "assignment.json.new", ".probe"]));
    paths
}

fn strace(gateway: &Gateway, inject: Option<&str>, arguments: &[&str]) -> Ran {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(gateway.path("strace"));
    strace.arg("-e").arg(format!("trace={}", CALLS.join(",")));
    for path in ours(gateway) {
        strace.arg("-P").arg(path);
    }
    if let Some(inject) = inject {
        strace.arg("-e").arg(format!("inject={inject}"));
    }
    strace.arg(env!("CARGO_BIN_EXE_dps-agent"));
    let found = Command::new("strace").arg("--version").output();
    assert!(found.is_ok_and(|output| output.status.success()), "this test needs strace: apt-get install strace");
    Ran::of(&mut gateway.under(strace, arguments))
}

/// The calls that a run made on our files.
fn calls(gateway: &Gateway) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in fs::read_to_string(gateway.path("strace")).unwrap().lines() {
        println!("{line}");
        let text = line.split_once(' ').unwrap().1.trim_start();
        let Some((name, _)) = text.split_once('(').filter(|(name, _)| CALLS.contains(name)) else { continue };
        let number = calls.iter().filter(|call| call.name == name).count() + 1;
        calls.push(Call { name: name.to_owned(), number });
    }
    calls
}

#[test]
fn dry() {
    let emulator = emulator("hubs = [\"localhost\", \"hub-two\"]", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let ran = strace(&gateway, None, &["provision", "--json"]);
    println!("{ran:?}");
    println!("{:?}", calls(&gateway));
    let ran = strace(&gateway, Some("fsync:signal=SIGKILL:when=1"), &["provision", "--json", "--force"]);
    println!("{ran:?}");
    println!("{:?}", calls(&gateway));
    let ran = strace(&gateway, Some("fsync:error=EIO:when=1"), &["provision", "--json", "--force"]);
    println!("{ran:?}");
    println!("{:?}", calls(&gateway));
}
