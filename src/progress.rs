//! Says what goes on while it goes on: to a person at a terminal, to the log of a daemon, or to nobody.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::desk::Desk;

/// Where progress is told.
#[derive(Debug, Clone)]
pub enum Progress {
    /// One line on stderr, rewritten in place, with the seconds that are left of a wait.
    Terminal,
    /// A log line each, and the daemon's status.
    Daemon(Arc<Desk>),
    /// Nowhere.
    Silent,
}

impl Progress {
    /// For a verb that a person may be waiting for.
    pub fn for_person() -> Self {
        if io::stderr().is_terminal() { Self::Terminal } else { Self::Silent }
    }

    /// What is being done now.
    pub fn doing(&self, what: fmt::Arguments<'_>) {
        match self {
            Self::Terminal => rewrite(what),
            Self::Daemon(desk) => {
                tracing::info!("{what}");
                desk.tell(|status| status.doing = what.to_string());
            }
            Self::Silent => {}
        }
    }

    /// Waits, and says why and how long.
    pub async fn wait(&self, length: Duration, why: &dyn fmt::Display) {
        match self {
            Self::Terminal => count_down(length, why).await,
            Self::Daemon(_) => {
                self.doing(format_args!("{why}; next try in {}", seconds(length)));
                sleep(length).await;
            }
            Self::Silent => sleep(length).await,
        }
    }

    /// Nothing goes on any more: clears the line.
    pub fn done(&self) {
        match self {
            Self::Terminal => rewrite(format_args!("")),
            Self::Daemon(_) | Self::Silent => {}
        }
    }
}

async fn count_down(mut left: Duration, why: &dyn fmt::Display) {
    const SECOND: Duration = Duration::from_secs(1);
    while !left.is_zero() {
        rewrite(format_args!("{why}; next try in {}", seconds(left)));
        let step = left.min(SECOND);
        sleep(step).await;
        left -= step;
    }
}

/// A length of time in the unit that fits.
pub fn seconds(length: Duration) -> String {
    match length.as_secs() {
        0..=9 => format!("{:.1} s", length.as_secs_f64()),
        whole @ 10..=119 => format!("{whole} s"),
        whole => format!("{} min", whole / 60),
    }
}

fn rewrite(line: fmt::Arguments<'_>) {
    let mut stderr = io::stderr().lock();
    // A terminal that has gone away is no reason to stop.
    let _ = write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_the_unit_that_fits() {
        let told = |millis| seconds(Duration::from_millis(millis));
        assert_eq!([told(300), told(12_400), told(119_999), told(3_600_000)], ["0.3 s", "12 s", "119 s", "60 min"]);
    }
}
