//! What changes without anybody telling us: files of the identity, the record, and the machine's clock.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Clock;

/// Files, as they were when they were last looked at.
pub(super) struct Watched(Vec<(PathBuf, Option<Stamp>)>);

/// What is different once a file was replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Nothing,
    Identity,
    Record,
}

impl Watched {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths.into_iter().map(|path| (stamp(&path), path)).map(|(stamp, path)| (path, stamp)).collect())
    }

    /// From now on they are as they should be.
    pub(super) fn refresh(&mut self) {
        self.0.iter_mut().for_each(|(path, known)| *known = stamp(path));
    }

    /// What has changed since the last look. A file that is gone for the moment is being replaced.
    pub(super) fn what_changed(&mut self, record: &Path) -> Changed {
        let mut changed = Changed::Nothing;
        for (path, known) in &mut self.0 {
            let now = stamp(path);
            if now == *known || (now.is_none() && path != record) {
                continue;
            }
            *known = now;
            match path == record {
                true if changed == Changed::Nothing => changed = Changed::Record,
                true => {}
                false => changed = Changed::Identity,
            }
        }
        changed
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.len(),
        // Of the inode, not of the content: it cannot be set back.
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// How the machine's clock stands to the time since its start.
pub(super) struct WallClock {
    started: u64,
}

impl WallClock {
    /// A clock that is kept in step moves by less than this between two looks.
    const STEP: u64 = 60;

    pub(super) fn now() -> Self {
        Self { started: started(Clock::wall(), Clock::uptime()) }
    }

    /// Whether somebody has set the clock since the last look.
    pub(super) fn was_set(&mut self) -> bool {
        let before = std::mem::replace(self, Self::now());
        before.started.abs_diff(self.started) > Self::STEP
    }
}

/// When the machine was started, by its clock of now.
fn started(wall: u64, uptime: Duration) -> u64 {
    // A clock at 1970 is younger than the machine.
    (1_u64 << 40).saturating_add(wall).saturating_sub(uptime.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_noticed_once_and_a_missing_one_waited_for() {
        let directory = std::env::temp_dir().join(format!("dps-agent-watch-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (key, record) = (directory.join("key"), directory.join("record"));
        std::fs::write(&key, "1").unwrap();
        let mut watched = Watched::new(vec![key.clone(), record.clone()]);
        let mut look = || watched.what_changed(&record);
        assert_eq!(look(), Changed::Nothing);
        std::fs::remove_file(&key).unwrap();
        assert_eq!(look(), Changed::Nothing, "it may be on its way");
        std::fs::write(&key, "22").unwrap();
        assert_eq!((look(), look()), (Changed::Identity, Changed::Nothing));
        std::fs::write(&record, "r").unwrap();
        assert_eq!((look(), look()), (Changed::Record, Changed::Nothing));
        std::fs::write(&record, "rr").unwrap();
        std::fs::write(&key, "333").unwrap();
        assert_eq!((look(), look()), (Changed::Identity, Changed::Nothing));
        std::fs::remove_file(&record).unwrap();
        assert_eq!(look(), Changed::Record, "somebody has reset the device");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_clock_at_1970_is_no_reason_to_panic() {
        assert!(started(0, Duration::from_secs(3600)) < started(0, Duration::from_secs(60)));
    }
}
