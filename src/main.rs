//! The agent, as a program: see `cli` for the verbs.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "dps-agent: the system gives no event queue: {error}");
            return ExitCode::from(71);
        }
    };
    let code = runtime.block_on(dps_agent::cli::run(std::env::args_os().collect()));
    // A name lookup that nobody waits for any more must not hold up the exit.
    runtime.shutdown_background();
    ExitCode::from(code)
}
