//! What the daemon tells a service manager, heard by a socket such as systemd's.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::daemon::{Daemon, PATIENCE};
use crate::gateway::{Gateway, emulator};

/// What systemd hears.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listening(gateway: &Gateway) -> Self {
        let socket = UnixDatagram::bind(gateway.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn start<'g>(&self, gateway: &'g Gateway, watchdog: Duration) -> Daemon<'g> {
        let mut command = gateway.command(&["run"]);
        command.env("NOTIFY_SOCKET", gateway.path("notify")).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        Daemon::spawn(gateway, command)
    }

    fn next(&self) -> String {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// The next message that is not the watchdog's.
    fn news(&self) -> String {
        std::iter::repeat_with(|| self.next()).find(|message| message != "WATCHDOG=1").unwrap()
    }

    /// All news up to this one.
    fn until(&self, last: &str) -> Vec<String> {
        let mut all = vec![self.news()];
        while !all.last().is_some_and(|message| message.starts_with(last)) {
            all.push(self.news());
        }
        all
    }
}

const NEVER: Duration = Duration::ZERO;

#[test]
fn a_whole_life_is_told() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt");
    let systemd = Systemd::listening(&gateway);
    let daemon = systemd.start(&gateway, NEVER);
    assert_eq!(systemd.news(), "READY=1");
    let assigned = "STATUS=assigned to localhost as gw-0001 (unverified)";
    let told = systemd.until(assigned);
    assert_eq!(told.first().map(String::as_str), Some("STATUS=starting"));
    assert!(told.windows(2).all(|two| two[0] != two[1]), "{told:?}");
    daemon.reload();
    let reloaded = [systemd.news(), systemd.news()];
    assert!(reloaded[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloaded:?}");
    assert_eq!(reloaded[1], "READY=1");
    daemon.stop();
    assert_eq!(systemd.news(), "STOPPING=1");
}

#[test]
fn a_wait_is_told_with_its_cause() {
    let emulator = emulator("", "faults = [\"register: status 404 code=404201 x*\"]");
    let gateway = Gateway::new(&emulator, "mqtt");
    let systemd = Systemd::listening(&gateway);
    let daemon = systemd.start(&gateway, NEVER);
    let waits = systemd.until("STATUS=there is no assignment yet; waiting for the next try at ").pop().unwrap();
    assert!(waits.contains(":00Z; the last one failed: "), "{waits}");
    daemon.stop();
}

#[test]
fn the_watchdog_hears_of_each_turn_while_a_registration_takes_its_time() {
    let emulator = emulator("", "faults = [\"register: assigning-forever\"]");
    let gateway = Gateway::new(&emulator, "mqtt");
    let systemd = Systemd::listening(&gateway);
    let daemon = systemd.start(&gateway, Duration::from_millis(600));
    assert!(emulator.wait_for_line("gw-0001", "< 202", PATIENCE));
    let mut beats = 0;
    while beats < 5 {
        beats += usize::from(systemd.next() == "WATCHDOG=1");
    }
    daemon.stop();
}

#[test]
fn what_keeps_it_from_starting_is_told_and_readiness_is_not() {
    let emulator = emulator("", "");
    let gateway = Gateway::new(&emulator, "mqtt").set("attestation.colour = \"red\"");
    let systemd = Systemd::listening(&gateway);
    let mut command = gateway.command(&["run"]);
    let ran = crate::gateway::Ran::of(command.env("NOTIFY_SOCKET", gateway.path("notify")));
    assert_eq!(ran.code, Some(78));
    let said = gateway.placed(&systemd.news());
    assert!(said.starts_with("STATUS=DIR/config.toml:13: [attestation] colour: unknown key"), "{said}");
}
