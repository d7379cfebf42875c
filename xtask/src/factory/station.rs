//! A factory's bench PC: `dps-factory` in a folder, signed in by an application's secret.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Done;

const TENANT: &str = "00000000-0000-0000-0000-000000000002";
/// May read and write enrollments.
pub const STATION: &str = "11111111-1111-1111-1111-111111111111";
/// May only read.
pub const READER: &str = "22222222-2222-2222-2222-222222222222";
/// May do everything.
pub const OWNER: &str = "33333333-3333-3333-3333-333333333333";
pub const SECRET: &str = "a-client-secret-of-the-demo";

/// Where the program runs, and against what.
#[derive(Debug)]
pub struct Station {
    pub program: PathBuf,
    pub directory: PathBuf,
    pub port: u16,
    pub rate: u32,
}

/// A run that goes on.
#[derive(Debug)]
pub struct Run(Child);

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Station {
    /// Begins to enroll all identities and to report, with its progress on the terminal.
    ///
    /// # Errors
    /// If the program does not start.
    pub fn enroll(&self) -> Done<Run> {
        let arguments = ["enroll", "identities", "--keys", "keys", "--report", "report"];
        started(self.command(STATION, &arguments).stderr(Stdio::inherit()))
    }

    /// # Errors
    /// If the program does not start.
    pub fn run(&self, client: &str, arguments: &[&str]) -> Done<Ran> {
        started(self.command(client, arguments).stderr(Stdio::piped()))?.finish()
    }

    fn command(&self, client: &str, arguments: &[&str]) -> Command {
        let here = format!("localhost:{}", self.port);
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.directory);
        if arguments.first() != Some(&"config") {
            command.args(["--ca-file", "roots.pem", "--rate", &self.rate.to_string()]);
        }
        command.env("DPS_NAME", &here).env("AZURE_AUTHORITY_HOST", format!("https://{here}")).env("NO_PROXY", "localhost");
        command.env("AZURE_TENANT_ID", TENANT).env("AZURE_CLIENT_ID", client).env("AZURE_CLIENT_SECRET", SECRET);
        for other in ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"] {
            command.env_remove(other);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }
}

fn started(command: &mut Command) -> Done<Run> {
    command.spawn().map(Run).map_err(|error| format!("cannot start dps-factory: {error}").into())
}

impl Run {
    /// Waits for its end.
    ///
    /// # Errors
    /// If what it said cannot be read.
    pub fn finish(self) -> Done<Ran> {
        let output = self.0.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// Kills it as soon as `when` is true.
    ///
    /// # Errors
    /// If it ends before that.
    pub fn kill_when(mut self, when: impl Fn() -> bool) -> Done {
        while !when() {
            if let Some(status) = self.0.try_wait()? {
                let ran = self.finish()?;
                return Err(format!("it ended with {status} before it could be killed: {}{}", ran.stdout, ran.stderr).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Ran {
    /// What it printed, if it ended with this code.
    ///
    /// # Errors
    /// Otherwise.
    pub fn expect(self, code: i32) -> Done<String> {
        if self.code == Some(code) {
            Ok(self.stdout)
        } else {
            Err(format!("dps-factory ended with {:?}: {}", self.code, self.stderr).into())
        }
    }
}
