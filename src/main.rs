//! The agent, as a program: see `cli` for the verbs.

use std::io::Write;
use std::process::ExitCode;

use dps_agent::blame::Blame;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

fn main() -> ExitCode {
    keep_memory_private();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "dps-agent: the system gives no event queue: {error}");
            return Blame::Storage.into();
        }
    };
    let code = runtime.block_on(dps_agent::cli::run(std::env::args_os().collect()));
    // A name lookup that nobody waits for any more must not hold up the exit.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Keys are in it: no core dump, and no look into it by other programs of the same user.
fn keep_memory_private() {
    // A kernel that forbids either leaves us where every other program is; a gateway that does not start would be worse.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
