//! Cuts the power of a process: counts what it exchanges with the outside, and kills it right before or after one of these events.

use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// When to kill: at the event with this number, from 1. Before it, the other side never hears of it; after it, the other side
/// has done it, and the process has not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Before(usize),
    After(usize),
}

/// Shared by every relay that the process speaks through, so that their events have one order.
#[derive(Clone, Default)]
pub struct Cutter(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Held by the event that is going on.
    turn: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    victim: Option<Pid>,
    cut: Option<Cut>,
    dead: bool,
    events: Vec<String>,
}

impl Cutter {
    /// Starts the process to be killed, if any is to be; counts from the beginning.
    pub fn spawn(&self, command: &mut Command, cut: Option<Cut>) -> Child {
        // Events wait until it is known whom to kill for them.
        let mut state = self.state();
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        *state = State { victim: Pid::from_raw(i32::try_from(child.id()).unwrap()), cut, ..State::default() };
        child
    }

    /// What happened since the last start, each in a few words: `TPM Load`, `DPS request`.
    pub fn events(&self) -> Vec<String> {
        self.state().events.clone()
    }

    /// Whether the process was killed here.
    pub fn has_cut(&self) -> bool {
        self.state().dead
    }

    /// One event, which `pass` makes happen; the next one waits for its end, as an answer does that comes before the request is
    /// known to be through. None if the process was killed at it or earlier: then what comes back is for nobody.
    pub fn around<T>(&self, event: &str, pass: impl FnOnce() -> T) -> Option<T> {
        let _turn = self.0.turn.lock().unwrap();
        let number = self.state().begin(event)?;
        let outcome = pass();
        self.state().end(number)?;
        Some(outcome)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}

impl State {
    fn begin(&mut self, event: &str) -> Option<usize> {
        if self.dead {
            return None;
        }
        self.events.push(event.to_owned());
        let number = self.events.len();
        self.kill_at(Cut::Before(number)).then_some(number)
    }

    fn end(&mut self, number: usize) -> Option<()> {
        (!self.dead && self.kill_at(Cut::After(number))).then_some(())
    }

    /// Whether it lives on.
    fn kill_at(&mut self, now: Cut) -> bool {
        if self.cut != Some(now) {
            return true;
        }
        let victim = self.victim.expect("a process that Cutter::spawn started");
        kill_process(victim, Signal::KILL).unwrap();
        // Dead, not dying: no instruction of it runs any more. Whoever started it may have waited for it already.
        let _reaped = waitid(WaitId::Pid(victim), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        self.dead = true;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60");
        command
    }

    /// What passes of three events, and what killed the process.
    fn passing(cut: Cut) -> (Vec<bool>, Vec<&'static str>) {
        let cutter = Cutter::default();
        let mut child = cutter.spawn(&mut sleeper(), Some(cut));
        let mut reached = Vec::new();
        let passed = ["one", "two", "three"].map(|event| cutter.around(event, || reached.push(event)).is_some());
        assert!(cutter.has_cut());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        (passed.to_vec(), reached)
    }

    #[test]
    fn before_an_event_it_does_not_happen_and_after_it_nobody_hears() {
        assert_eq!(passing(Cut::Before(2)), (vec![true, false, false], vec!["one"]));
        assert_eq!(passing(Cut::After(2)), (vec![true, false, false], vec!["one", "two"]));
    }

    #[test]
    fn without_a_cut_it_counts_and_a_new_start_counts_anew() {
        let cutter = Cutter::default();
        for _ in 0..2 {
            let mut child = cutter.spawn(&mut sleeper(), None);
            assert_eq!(cutter.around("one", || 1), Some(1));
            assert_eq!((cutter.events(), cutter.has_cut()), (vec!["one".to_owned()], false));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
