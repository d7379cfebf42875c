//! The agent under `strace`: which system calls it makes on its files, and how it is killed right before or right after one of them.

use std::fs;
use std::process::Command;

use crate::gateway::Gateway;

/// The calls by which files come and go, under each name that an architecture has for them.
const CALLS: &str =
    "open,openat,write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,chmod,fchmod,fchmodat,flock";

/// A call on the files of the state and the runtime directory.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// Its place among the calls of that name, from 1.
    pub number: usize,
    /// As strace writes it, with its outcome.
    pub line: String,
}

/// Which side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// The agent with these arguments under strace, which kills it at the call.
///
/// Before a call: SIGKILL when it is about to enter the kernel, which then skips the call. After it: SIGPWR at the same place. The
/// agent does not handle it and it is fatal, but not so urgent that the kernel skips the call: the process ends on its way back,
/// and no further instruction of it runs.
pub fn command(gateway: &Gateway, cut: Option<(&Call, Side)>, arguments: &[&str]) -> Command {
    let mut strace = strace();
    strace.args(["-f", "-qq", "-o"]).arg(gateway.path("strace")).args(["-e", &format!("trace={CALLS}")]);
    for path in ours(gateway) {
        strace.args(["-P", &path]);
    }
    if let Some((call, side)) = cut {
        let signal = if side == Side::Before { "SIGKILL" } else { "SIGPWR" };
        strace.arg(format!("--inject={}:signal={signal}:when={}", call.name, call.number));
    }
    strace.arg(env!("CARGO_BIN_EXE_dps-agent"));
    gateway.under(strace, arguments)
}

/// The calls of the last run, in order.
pub fn calls(gateway: &Gateway) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in lines(gateway).into_iter().filter(|line| line.contains('(')) {
        let name = line.split('(').next().unwrap().to_owned();
        let number = calls.iter().filter(|call| call.name == name).count() + 1;
        calls.push(Call { name, number, line });
    }
    for needed in ["openat", "write", "fsync", "rename"] {
        assert!(calls.iter().any(|call| call.name.starts_with(needed)), "strace shows no {needed}: {calls:#?}");
    }
    calls
}

/// Whether the last run ended exactly there: the call is the last one, and has an outcome only if it was to have one.
pub fn was_cut_at(gateway: &Gateway, call: &Call, side: Side) -> bool {
    let lines: Vec<_> = lines(gateway).into_iter().filter(|line| line.contains('(')).collect();
    let reached = lines.iter().filter(|line| line.starts_with(&format!("{}(", call.name))).count();
    let last =
        lines.last().is_some_and(|last| last.starts_with(&format!("{}(", call.name)) && done(last) == (side == Side::After));
    reached == call.number && last
}

fn done(line: &str) -> bool {
    line.rsplit_once(" = ").is_some_and(|(_, outcome)| !outcome.starts_with('?'))
}

/// The agent lets nobody but root look into its memory; other users are root in a namespace of their own.
fn strace() -> Command {
    let found = Command::new("strace").arg("--version").output();
    assert!(found.is_ok_and(|output| output.status.success()), "this test needs strace: apt-get install strace");
    if rustix::process::geteuid().is_root() {
        return Command::new("strace");
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "strace"]);
    unshare
}

/// What strace has written, without the numbers of the threads and what it says of signals.
fn lines(gateway: &Gateway) -> Vec<String> {
    let text = fs::read_to_string(gateway.path("strace")).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap().1.trim_start().to_owned());
    lines.filter(|line| !line.starts_with("---") && !line.starts_with("+++")).collect()
}

/// Paths that `strace -P` matches: the directories, and what is made in them.
fn ours(gateway: &Gateway) -> Vec<String> {
    let of = |(directory, name): (&str, &str)| {
        let inside = [name, &format!("{name}.new"), ".probe"].map(|name| gateway.path(directory).join(name));
        inside.into_iter().chain([gateway.path(directory)]).map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    [("state", "record"), ("run", "assignment.json")].map(of).concat()
}
