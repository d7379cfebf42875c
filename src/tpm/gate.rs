//! Lets one verb at a time to the TPM, each with a patience.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::TpmError;

/// How long a verb may take. A slow TPM needs a minute for one RSA key.
const PATIENCE: Duration = Duration::from_secs(180);

/// Verbs wait here for their turn.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    turn: Arc<Turn>,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Turn {
    is_taken: Mutex<bool>,
    is_free: Condvar,
}

struct Taken<'t>(&'t Turn);

impl Gate {
    pub(super) fn new() -> Self {
        Self { turn: Arc::default(), patience: PATIENCE }
    }

    #[cfg(test)]
    pub(super) fn with_patience(patience: Duration) -> Self {
        Self { turn: Arc::default(), patience }
    }

    #[cfg(test)]
    pub(super) fn is_taken(&self) -> bool {
        *self.turn.is_taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a verb on a thread of its own. Once it has begun it runs to its end, whatever becomes of the future.
    pub(super) async fn pass<T, V>(&self, verb: V) -> Result<T, TpmError>
    where
        T: Send + 'static,
        V: FnOnce() -> Result<T, TpmError> + Send + 'static,
    {
        let turn = Arc::clone(&self.turn);
        let wanted = Arc::new(());
        let is_wanted = Arc::downgrade(&wanted);
        let work = tokio::task::spawn_blocking(move || turn.take(&is_wanted).map(|_taken| apart(verb)));
        match tokio::time::timeout(self.patience, work).await {
            Ok(Ok(Some(done))) => done,
            Ok(Ok(None)) | Err(_) => Err(TpmError::Silent(self.patience)),
            Ok(Err(_)) => Err(TpmError::Broken("the verb's thread ended early".to_owned())),
        }
    }
}

/// Runs a verb on a thread that is gone, with all that belongs to it, when this returns. What libcrypto under tpm2-tss keeps for a
/// thread is freed at the thread's end, and again at the process's: where the two meet, the heap is corrupted.
fn apart<T: Send + 'static>(verb: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(verb).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// How many verbs are at work in this process.
static AT_WORK: Mutex<u32> = Mutex::new(0);
static LESS_WORK: Condvar = Condvar::new();

/// Waits until no verb is at work, or the patience is over.
pub(super) fn quiesce() {
    drop(LESS_WORK.wait_timeout_while(at_work(), PATIENCE, |count| *count > 0));
}

fn at_work() -> MutexGuard<'static, u32> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turn {
    /// `None` if nobody wants the verb any more when its turn comes.
    fn take(&self, wanted: &Weak<()>) -> Option<Taken<'_>> {
        let is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_taken = self.is_free.wait_while(is_taken, |is_taken| *is_taken).unwrap_or_else(PoisonError::into_inner);
        wanted.upgrade()?;
        *is_taken = true;
        *at_work() += 1;
        Some(Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.0.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.is_free.notify_all();
        *at_work() -= 1;
        LESS_WORK.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_verb_that_nobody_wants_any_more_is_not_begun() {
        let gate = Gate::with_patience(PATIENCE);
        let (release, released) = mpsc::channel();
        let has_begun = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&has_begun);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let begun = async {
                while !gate.is_taken() {
                    tokio::task::yield_now().await;
                }
            };
            let first = gate.pass(move || {
                let released: () = released.recv().unwrap();
                Ok(released)
            });
            tokio::select! { biased; _ = first => panic!("it is not released yet"), () = begun => {} }
            let second = gate.pass(move || {
                mark.store(true, Ordering::SeqCst);
                Ok(())
            });
            tokio::select! { biased; _ = second => panic!("the first is at work"), () = tokio::task::yield_now() => {} }
            release.send(()).unwrap();
            assert_eq!(gate.pass(|| Ok(3)).await, Ok(3));
        });
        // Waits for all threads.
        drop(runtime);
        assert!(!has_begun.load(Ordering::SeqCst));
    }

    static GONE: AtomicBool = AtomicBool::new(false);

    struct OfTheThread;

    impl Drop for OfTheThread {
        fn drop(&mut self) {
            GONE.store(true, Ordering::SeqCst);
        }
    }

    thread_local!(static KEPT: OfTheThread = const { OfTheThread });

    #[test]
    fn what_belongs_to_a_verbs_thread_is_gone_when_the_verb_is_done() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let done = runtime.block_on(Gate::new().pass(|| Ok(KEPT.with(|_| GONE.load(Ordering::SeqCst)))));
        assert_eq!((done, GONE.load(Ordering::SeqCst)), (Ok(false), true));
    }
}
