//! What systemd is told of the daemon: that it serves, what it is at, and that it is alive (sd_notify(3)).
//!
//! Nothing of it happens without `$NOTIFY_SOCKET`.

use std::cell::RefCell;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock::Clock;
use crate::desk::{State, Status};
use crate::record::rfc3339;

/// A manager that does not take a message in this time has trouble of its own.
const PATIENCE: Duration = Duration::from_secs(5);
/// systemd cuts longer texts off.
const LONGEST_STATUS: usize = 1000;

/// The service manager that has started us, if it wants to hear from us.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    said: RefCell<String>,
}

impl Manager {
    /// As `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID` have it. What cannot be used is logged, and the same as nothing.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let Some(address) = environment("NOTIFY_SOCKET").filter(|text| !text.is_empty()) else { return Self::default() };
        let socket = connect(&address).inspect_err(|error| tracing::warn!("$NOTIFY_SOCKET cannot be used: {error}")).ok();
        let theirs = environment("WATCHDOG_PID").is_some_and(|pid| pid != std::process::id().to_string());
        let watchdog = environment("WATCHDOG_USEC").filter(|_| !theirs).and_then(|text| text.parse().ok());
        let watchdog = watchdog.filter(|micros| *micros > 0).map(Duration::from_micros);
        Self { socket, watchdog, said: RefCell::default() }
    }

    /// Whoever asks is answered from now on; also after [`Self::reloading`].
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        // The monotonic time tells this from an earlier reload (Type=notify-reload).
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", Clock::monotonic().as_micros()));
    }

    /// We are going.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The daemon's loop has turned. Whoever hangs must not say this.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// The longest time that may pass between two [`Self::alive`], with room for a busy machine.
    pub fn longest_nap(&self) -> Duration {
        self.watchdog.map_or(Duration::MAX, |watchdog| watchdog / 3)
    }

    /// What the daemon is at, where that is something new.
    pub fn tell(&self, status: &Status, clock: Clock) {
        self.say(&in_words(status, clock));
    }

    /// The same in these words.
    pub fn say(&self, words: &str) {
        let line = one_line(words);
        if *self.said.borrow() != line {
            self.send(&format!("STATUS={line}"));
            self.said.replace(line);
        }
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!("systemd does not hear us: {error}");
        }
    }
}

/// A path, or an abstract name behind `@`.
fn connect(address: &str) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if address.starts_with('/') => SocketAddr::from_pathname(address)?,
        None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn in_words(status: &Status, clock: Clock) -> String {
    let Status { state, doing, next_attempt, last_error, .. } = status;
    let waits = *state == State::Waiting;
    let next = next_attempt.filter(|_| waits).map_or(String::new(), |moment| {
        let left = moment.saturating_duration_since(clock.instant()).as_secs();
        format!(" at {}", rfc3339(to_the_minute(clock.now().saturating_add(left))))
    });
    let why =
        last_error.as_ref().filter(|_| waits).map_or(String::new(), |(failure, _)| format!("; the last one failed: {failure}"));
    format!("{doing}{next}{why}")
}

/// Two clocks are read one after the other: to the second it would be another time at each look.
fn to_the_minute(seconds: u64) -> u64 {
    seconds.saturating_add(30) / 60 * 60
}

/// A line break would begin another assignment, and what a service says of a failure is its own choice.
fn one_line(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_STATUS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blame::Blame;
    use crate::desk::Desk;
    use crate::failure::Failure;

    /// A manager of systemd's kind, listening at an abstract name, and what it has heard.
    fn listening(name: &str, watchdog: &str) -> (Manager, UnixDatagram) {
        let name = format!("dps-agent-notify-{}-{name}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let environment = |asked: &str| match asked {
            "NOTIFY_SOCKET" => Some(format!("@{name}")),
            "WATCHDOG_USEC" => Some(watchdog.to_owned()),
            _ => None,
        };
        (Manager::from_environment(&environment), systemd)
    }

    fn heard(systemd: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut message = [0; 4096];
        while let Ok(length) = systemd.recv(&mut message) {
            all.push(String::from_utf8(message[..length].to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn without_a_socket_nothing_happens() {
        let manager = Manager::from_environment(&|_| None);
        manager.ready();
        manager.alive();
        assert_eq!((manager.socket.is_none(), manager.longest_nap()), (true, Duration::MAX));
        for unusable in ["", "vsock:2:1", "/nowhere/at/all"] {
            assert!(Manager::from_environment(&|_| Some(unusable.to_owned())).socket.is_none(), "{unusable}");
        }
    }

    #[test]
    fn it_speaks_as_sd_notify_does() {
        let (manager, systemd) = listening("speaks", "3000000");
        manager.ready();
        manager.alive();
        manager.stopping();
        assert_eq!(heard(&systemd), ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
        assert_eq!(manager.longest_nap(), Duration::from_secs(1));
        let before = Clock::monotonic().as_micros();
        manager.reloading();
        let said = heard(&systemd).concat();
        let micros: u128 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=Clock::monotonic().as_micros()).contains(&micros), "{said}");
    }

    #[test]
    fn nobody_watches_without_an_interval_or_for_another_process() {
        for (watchdog, pid) in [("0", None), ("soon", None), ("3000000", Some("1"))] {
            let (_, systemd) = listening(&format!("unwatched-{watchdog}"), watchdog);
            let name = format!("@dps-agent-notify-{}-unwatched-{watchdog}", std::process::id());
            let environment = |asked: &str| match asked {
                "NOTIFY_SOCKET" => Some(name.clone()),
                "WATCHDOG_USEC" => Some(watchdog.to_owned()),
                _ => pid.map(str::to_owned),
            };
            let manager = Manager::from_environment(&environment);
            manager.alive();
            assert_eq!((heard(&systemd), manager.longest_nap()), (vec![], Duration::MAX), "{watchdog}");
        }
    }

    #[test]
    fn a_status_is_one_line_and_said_once() {
        let (manager, systemd) = listening("status", "");
        manager.say("one\nREADY=1\u{7}");
        manager.say("one\nREADY=1\u{7}");
        manager.say("two");
        assert_eq!(heard(&systemd), ["STATUS=one READY=1 ", "STATUS=two"]);
        manager.say(&"x".repeat(100_000));
        assert_eq!(heard(&systemd).concat().len(), "STATUS=".len() + LONGEST_STATUS);
    }

    #[test]
    fn a_wait_is_told_with_its_end_and_its_cause() {
        let clock = Clock::with_floor(None);
        let (desk, _orders) = Desk::new(clock.instant());
        desk.tell(|status| {
            status.doing = "there is no assignment yet; waiting for the next try".to_owned();
            status.last_error = Some((Failure::new(Blame::Refused, "no enrollment"), clock.instant()));
            status.next_attempt = Some(clock.instant());
        });
        assert_eq!(in_words(&desk.status(), clock), "there is no assignment yet; waiting for the next try");
        desk.enter(State::Waiting, clock.instant());
        let said = in_words(&desk.status(), clock);
        let (before, after) = said.split_once(" at ").unwrap();
        assert_eq!(before, "there is no assignment yet; waiting for the next try");
        assert_eq!(after[16..], *":00Z; the last one failed: no enrollment");
    }
}
