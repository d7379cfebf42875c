//! How far a long run is: a bar for a person at a terminal, a line now and then for a log.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Counts devices on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// Lines for a log instead of a bar: at each tenth of the whole.
    lines: Option<AtomicU64>,
}

impl Progress {
    /// For so many devices; with `quiet` nothing is shown.
    pub fn new(devices: usize, what: &'static str, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(u64::try_from(devices).ok(), target);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}, {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar, lines: (!terminal && !quiet).then(AtomicU64::default) }
    }

    /// So many more are done.
    pub fn add(&self, devices: usize) {
        self.bar.inc(u64::try_from(devices).unwrap_or_default());
        let (Some(told), Some(all)) = (&self.lines, self.bar.length().filter(|all| *all > 0)) else { return };
        let tenth = self.bar.position() * 10 / all;
        if told.fetch_max(tenth, Ordering::Relaxed) < tenth {
            eprintln!("dps-factory: {} {} of {all}", self.bar.message(), self.bar.position());
        }
    }

    /// The end of this part.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
