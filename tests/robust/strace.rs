//! The agent under `strace`, which numbers the system calls on its files and can tamper with each of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::gateway::Gateway;

/// The calls by which files come and go, under each name that an architecture has for them.
const CALLS: &str =
    "open,openat,write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,chmod,fchmod,fchmodat";

/// A call to tamper with.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// Its place among the calls of that name on our files, from 1.
    pub number: usize,
    pub line: String,
    is_first_of_its_file: bool,
}

impl Call {
    /// What the agent can do without: what it reads for the clock's floor and tidies up when it starts, and the last
    /// `assignment.json` for comparison.
    pub fn is_dispensable(&self) -> bool {
        let looks_at = |name: &str| self.line.contains("O_RDONLY") && self.line.contains(name);
        let looks = (self.is_first_of_its_file && looks_at("/record\"")) || looks_at("/assignment.json\"");
        looks || (self.name.starts_with("unlink") && self.line.contains("ENOENT"))
    }

    /// That makes a file or directory, or gives it its mode: failing here means that the directory cannot be written.
    pub fn creates(&self) -> bool {
        self.line.contains("O_CREAT") || self.name.starts_with("mkdir") || self.name.starts_with("fchmod")
    }
}

/// The agent with these arguments under strace, which tampers as `inject` says (`CALL:signal=SIGKILL:when=1`).
pub fn command(gateway: &Gateway, inject: Option<&str>, arguments: &[&str]) -> Command {
    let mut strace = strace();
    strace.args(["-f", "-qq", "-o"]).arg(log(gateway)).args(["-e", &format!("trace={CALLS}")]);
    for path in ours(gateway) {
        strace.args(["-P", &path]);
    }
    strace.args(inject.map(|inject| format!("--inject={inject}")));
    strace.arg(env!("CARGO_BIN_EXE_dps-agent"));
    gateway.under(strace, arguments)
}

/// The agent with these arguments under strace, which shows what it asks for itself.
pub fn limits(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut strace = strace();
    strace.args(["-f", "-qq", "-o"]).arg(log(gateway)).args(["-e", "trace=prctl,prlimit64,setrlimit"]);
    strace.arg(env!("CARGO_BIN_EXE_dps-agent"));
    gateway.under(strace, arguments)
}

/// The calls that the last run made on the agent's files, in order.
pub fn calls(gateway: &Gateway) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for (_, line) in lines(gateway).into_iter().filter(|(_, line)| line.contains('(')) {
        let name = line.split('(').next().unwrap().to_owned();
        let number = calls.iter().filter(|call| call.name == name).count() + 1;
        let file = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let is_first_of_its_file = !calls.iter().any(|call| call.name == name && file(&call.line) == file(&line));
        calls.push(Call { name, number, line, is_first_of_its_file });
    }
    for needed in ["openat", "write", "fsync", "rename"] {
        assert!(calls.iter().any(|call| call.name.starts_with(needed)), "strace shows no {needed}: {calls:#?}");
    }
    calls
}

/// The agent's process, once it has touched a file.
pub fn process(gateway: &Gateway) -> i32 {
    lines(gateway).first().unwrap().0
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

pub fn log(gateway: &Gateway) -> std::path::PathBuf {
    gateway.path("strace")
}

/// Each line with the number of its process.
fn lines(gateway: &Gateway) -> Vec<(i32, String)> {
    let text = fs::read_to_string(log(gateway)).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(process, line)| (process.parse().unwrap(), line.trim_start().to_owned())).collect()
}

/// Paths that `strace -P` matches: the directories, and what is made in them.
fn ours(gateway: &Gateway) -> Vec<String> {
    let of = |file: &Path| {
        let (directory, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
        let inside = [name, &format!("{name}.new"), ".probe"].map(|name| directory.join(name));
        inside.into_iter().chain([directory.to_owned()]).map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    [of(&gateway.record()), of(&gateway.assignment())].concat()
}
