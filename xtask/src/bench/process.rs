//! Measures one process: time until it prints its answer, processor time, peak memory.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::Done;

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From before fork to the last line of the answer.
    pub answer: Duration,
    /// User and system time until its end.
    pub processor: Duration,
}

/// Binds this thread, and what it starts from now on, to one CPU.
///
/// # Errors
/// If there is no such CPU.
pub fn pin(cpu: usize) -> Done {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu)?;
    Ok(nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?)
}

/// Runs `command`, which must print an answer.
///
/// # Errors
/// If it does not.
pub fn run(command: &mut Command, is_answer: impl Fn(&str) -> bool) -> Done<Cost> {
    let before = children()?;
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let printed = answer_of(child.stdout.take(), is_answer);
    let answer = began.elapsed();
    child.wait()?;
    printed?;
    Ok(Cost { answer, processor: children()?.saturating_sub(before) })
}

/// Runs `command` and returns the peak of its resident memory in KiB.
///
/// The kernel forgets `VmHWM` with the process, so strace holds the process at its very end until the figure is read.
///
/// # Errors
/// If it does not print an answer, or cannot be traced.
pub fn peak_memory(command: &Command, is_answer: impl Fn(&str) -> bool) -> Done<u64> {
    let mut held = Command::new("strace");
    held.args(["-f", "-qqq", "-o", "/dev/null", "-e", "trace=exit_group", "-e", "inject=exit_group:delay_enter=300000"]);
    held.arg(command.get_program()).args(command.get_args());
    held.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut strace = held.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let reader = strace.stdout.take().map(|output| std::thread::spawn(move || std::io::read_to_string(output)));
    let mut peak = 0;
    while strace.try_wait()?.is_none() {
        peak = only_child(strace.id()).and_then(|pid| high_water(&pid)).unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = reader.ok_or("strace has no stdout")?.join().map_err(|_| "the reader panicked")??;
    answer_of(Some(said.as_bytes()), is_answer)?;
    Ok(peak)
}

fn only_child(parent: u32) -> Option<String> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

fn high_water(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn answer_of(output: Option<impl std::io::Read>, is_answer: impl Fn(&str) -> bool) -> Done {
    let mut said = String::new();
    for line in output.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        said += &line?;
        if is_answer(&said) {
            return Ok(());
        }
    }
    Err(format!("no answer, but: {said}").into())
}

fn children() -> Done<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let microseconds = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    Ok(Duration::from_micros(u64::try_from(microseconds)?))
}
