//! A wait that outlives the process: a small file in the state directory, written for long waits only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files;
use crate::lifecycle::{Kept, Lifecycle, Uptime};
use crate::record::Store;

/// A long wait is written down again after a quarter of what is left, and no sooner than this: flash wears.
const LEAST_BETWEEN: Duration = Duration::from_secs(3600);

/// The file, and when it was written last.
pub(super) struct Keep {
    path: PathBuf,
    boot: String,
    written: Option<Uptime>,
}

impl Keep {
    pub(super) fn new(store: &Store, root: &Path) -> Self {
        let boot = std::fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
        Self { path: store.path().with_file_name("wait"), boot: boot.trim().to_owned(), written: None }
    }

    /// Goes on with the wait that is written down, if it is about the same. A file that makes no sense is none.
    pub(super) fn resume(&mut self, life: &mut Lifecycle, about: &str, now: Uptime) {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let Ok(kept) = serde_json::from_slice::<Kept>(&text) else { return };
        life.resume(&kept, &self.boot, about, now);
        self.written = Some(now);
        if let Some((_, due)) = life.registration_due().filter(|(_, due)| *due > now) {
            let left = crate::progress::seconds(due.saturating_sub(now));
            tracing::info!("the last registration failed (blame {}); next try in {left}", kept.blame);
        }
    }

    /// Writes the present wait down, if it is long. Where that fails a restart does not wait, and nothing worse happens.
    pub(super) fn write(&mut self, life: &Lifecycle, about: &str, now: Uptime) {
        let Some(kept) = life.keep(&self.boot, about, now) else { return };
        let Ok(text) = serde_json::to_vec(&kept) else { return };
        if let Err(error) = files::replace(&self.path, &text, 0o600) {
            tracing::debug!("the wait is not written down: {error}");
        }
        self.written = Some(now);
    }

    /// The same when so much of it has passed that losing that would matter.
    pub(super) fn write_now_and_then(&mut self, life: &Lifecycle, about: &str, now: Uptime) {
        let left = life.registration_due().map_or(Duration::ZERO, |(_, due)| due.saturating_sub(now));
        let between = LEAST_BETWEEN.max(left / 4);
        if self.written.is_some_and(|written| now >= written + between) {
            self.write(life, about, now);
        }
    }

    /// There is nothing to wait for any more.
    pub(super) fn forget(&mut self) {
        self.written = None;
        // Usually there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}
