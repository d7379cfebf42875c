//! How soon a daemon with a valid record answers on its socket, and how long `POST /v1/connection` takes with 64 clients at once.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::contestant::DEVICE;
use super::report::Table;
use crate::credentials::{self, write_secret};
use crate::emulator::{Emulator, ID_SCOPE, Plan};
use crate::workspace::Programs;
use crate::{Done, say};

/// Starts of the daemon.
const STARTS: usize = 21;
/// Clients at the same moment.
const CLIENTS: usize = 64;
/// So often they ask together. Between two rounds the daemon's limit for one user (docs/api.md) lets them all in again.
const ROUNDS: usize = 8;
const BETWEEN: Duration = Duration::from_secs(14);

const CONNECTION: &str = "POST /v1/connection HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"client\":\"device\"}";
/// What the daemon answers without looking anything up: a route that there is not.
const BARE: &str = "GET /v1/nothing HTTP/1.1\r\nHost: agent\r\n\r\n";
const ASSIGNMENT: &str = "GET /v1/assignment HTTP/1.1\r\nHost: agent\r\n\r\n";

/// A gateway's directories, with a record of its assignment.
struct Home {
    config: PathBuf,
    socket: PathBuf,
}

/// # Errors
/// If the gateway does not register, or an answer is not the expected one.
pub fn measure(programs: &Programs, directory: &Path) -> Done<Table> {
    let key = credentials::symmetric_key()?;
    let plan = Plan::on_ports(8883, 443).symmetric_key(DEVICE, &key, "answer = \"at-once\"");
    let emulator = Emulator::start(&programs.emulator, &plan, directory)?;
    let home = Home::new(&programs.agent, directory, &key, &emulator.roots())?;
    say::heading(&format!("{STARTS} starts, then {ROUNDS} rounds of {CLIENTS} clients"));
    let mut starts = (0..STARTS).map(|_| home.start(&programs.agent)).collect::<Done<Vec<_>>>()?;
    let daemon = home.daemon(&programs.agent)?;
    home.answered()?;
    let (mut bare, mut made) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bare.extend(home.crowd(BARE, 404)?);
        made.extend(home.crowd(CONNECTION, 200)?);
        if round + 1 < ROUNDS {
            std::thread::sleep(BETWEEN);
        }
    }
    drop(daemon);
    let ratio = percentile(&mut made, 99).as_secs_f64() / percentile(&mut bare, 99).as_secs_f64();
    let row = |what: &str, times: &mut Vec<Duration>, limit: &str| {
        let cell = |percent| format!("{:.2} ms", percentile(&mut times.clone(), percent).as_secs_f64() * 1000.0);
        vec![what.to_owned(), times.len().to_string(), cell(50), cell(99), limit.to_owned()]
    };
    let rows = vec![
        row("process start to an answered GET /v1/assignment, with a valid record", &mut starts, "median ≤ 20 ms"),
        row("a route that there is not, 64 clients at once", &mut bare, ""),
        row("POST /v1/connection, symmetric key, 64 clients at once", &mut made, "99 % ≤ 2 ms"),
        vec![
            "the last as a multiple of the one before, 99 %".into(),
            String::new(),
            String::new(),
            format!("{ratio:.2}"),
            String::new(),
        ],
    ];
    Ok(Table {
        title: "The daemon's socket",
        note: "The clients are threads of one process on the same two processors, each with a connection of its own that is open already; all write \
               at the same moment, so a time holds the answers to those who came before. Clients and daemon share the processors.",
        headings: &["what", "samples", "median", "99 %", "limit"],
        rows,
    })
}

impl Home {
    fn new(agent: &Path, directory: &Path, key: &str, roots: &Path) -> Done<Self> {
        let home = directory.join("api");
        fs::create_dir_all(&home)?;
        write_secret(&home.join("device.key"), key)?;
        let (text, roots) = (home.display(), roots.display());
        let config = home.join("agent.toml");
        fs::write(
            &config,
            format!(
                "[dps]\nhost = \"localhost\"\nid_scope = \"{ID_SCOPE}\"\ntransport = \"mqtt\"\nca_file = \"{roots}\"\nca_only = true\n\
                 [attestation]\nmethod = \"symmetric-key\"\nregistration_id = \"{DEVICE}\"\nkey_file = \"{text}/device.key\"\n\
                 [hub]\nverify = \"never\"\n[state]\ndirectory = \"{text}/state\"\n[runtime]\ndirectory = \"{text}/run\"\n"
            ),
        )?;
        let registered = Command::new(agent).args(["provision", "--config"]).arg(&config).stdout(Stdio::null()).status()?;
        if !registered.success() {
            return Err("the gateway does not register".into());
        }
        Ok(Self { config, socket: home.join("run/client/api.sock") })
    }

    fn daemon(&self, agent: &Path) -> Done<Killed> {
        let mut command = Command::new(agent);
        command.arg("run").arg("--config").arg(&self.config);
        Ok(Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// From before fork to the last byte of an answer.
    fn start(&self, agent: &Path) -> Done<Duration> {
        let _gone = fs::remove_file(&self.socket);
        let began = Instant::now();
        let _daemon = self.daemon(agent)?;
        self.answered()?;
        Ok(began.elapsed())
    }

    /// Asks for the assignment until it is there.
    fn answered(&self) -> Done {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let asked = UnixStream::connect(&self.socket).ok().map(|mut stream| ask(&mut stream, ASSIGNMENT));
            if asked.transpose()? == Some(200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Err("the daemon does not answer".into())
    }

    /// What each of the clients waited for its answer, which must have this status.
    fn crowd(&self, request: &'static str, expected: u16) -> Done<Vec<Duration>> {
        let barrier = Arc::new(Barrier::new(CLIENTS));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (barrier, socket) = (Arc::clone(&barrier), self.socket.clone());
                std::thread::spawn(move || -> std::io::Result<(u16, Duration)> {
                    let mut stream = UnixStream::connect(socket)?;
                    barrier.wait();
                    let began = Instant::now();
                    let status = ask(&mut stream, request)?;
                    Ok((status, began.elapsed()))
                })
            })
            .collect();
        let mut waited = Vec::new();
        for client in clients {
            let (status, time) = client.join().map_err(|_| "a client has panicked")??;
            if status != expected {
                return Err(format!("the daemon answered {status} instead of {expected}").into());
            }
            waited.push(time);
        }
        Ok(waited)
    }
}

/// Sends a request and reads the whole answer; its status.
fn ask(stream: &mut UnixStream, request: &str) -> std::io::Result<u16> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let whole =
            text.split_once("\r\n\r\n").is_some_and(|(head, body)| length(head).is_some_and(|length| body.len() >= length));
        if whole || read == 0 {
            return Ok(text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0));
        }
    }
}

fn length(head: &str) -> Option<usize> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length:"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 50), Duration::from_millis(101));
        assert_eq!(percentile(&mut times, 99), Duration::from_millis(199));
        assert_eq!(percentile(&mut [], 99), Duration::ZERO);
    }
}
