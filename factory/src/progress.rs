//! How far a long run is: a bar for a person at a terminal, a line now and then for a log.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// How often a log hears of it.
const LINES: Duration = Duration::from_secs(10);

/// Counts devices on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// When the last line for a log was; `None` at a terminal, which has the bar.
    told: Option<Mutex<Instant>>,
}

impl Progress {
    /// For so many devices.
    pub fn new(devices: usize, what: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(u64::try_from(devices).ok(), target);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}, {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar, told: (!terminal).then(|| Mutex::new(Instant::now())) }
    }

    /// So many more are done.
    pub fn add(&self, devices: usize) {
        self.bar.inc(u64::try_from(devices).unwrap_or_default());
        let Some(told) = &self.told else { return };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= LINES {
            *told = Instant::now();
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
            eprintln!("dps-factory: {} {done} of {all}", self.bar.message());
        }
    }

    /// The end of this part.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
