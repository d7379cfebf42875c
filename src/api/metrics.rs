//! What the agent counts and knows, as OpenMetrics text; gauges and counters only, so that older Prometheus parsers read it too.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::clock::Clock;
use crate::desk::{ClockVerdict, Desk, Enrollment, HubVerdict, State, days_left};

/// The media type of [`text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Its name in the runtime directory.
pub const FILE: &str = "metrics.prom";

const ENROLLMENTS: [&str; 5] = [
    Enrollment::NotAsked.word(),
    Enrollment::Accepted.word(),
    Enrollment::Disabled.word(),
    Enrollment::Missing.word(),
    Enrollment::Refused.word(),
];
const CLOCKS: [&str; 3] = [ClockVerdict::Good.word(), ClockVerdict::BelowFloor.word(), "skewed"];
const HUBS: [&str; 4] = [HubVerdict::NotAsked.word(), HubVerdict::Reachable.word(), "unreachable", HubVerdict::Refused.word()];

/// All of it. `requests` are path, status and how many; `sockets` are name, and connections now and closed to make room.
pub fn text(desk: &Desk, clock: Clock, requests: Vec<(&str, u16, u64)>, sockets: Vec<(&str, (usize, u64))>) -> String {
    let mut page = Page::default();
    page.gauge("build", "Always 1.", &[(format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1)]);
    state(&mut page, desk, clock);
    registrations(&mut page, desk, clock);
    handed_out(&mut page, desk);
    page.counter("api_requests", "Requests answered.", &labelled(requests));
    let name = |socket| format!("socket=\"{socket}\"");
    let open: Vec<_> = sockets.iter().map(|(socket, (open, _))| (name(socket), *open)).collect();
    page.gauge("api_connections", "Connections that are open.", &open);
    let evicted: Vec<_> = sockets.iter().map(|(socket, (_, evicted))| (name(socket), *evicted)).collect();
    page.counter("api_evictions", "Idle connections that were closed to make room.", &evicted);
    page.text + "# EOF\n"
}

fn state(page: &mut Page, desk: &Desk, clock: Clock) {
    let (status, served) = (desk.status(), desk.served());
    page.one_of("state", "What the agent is at.", &State::ALL.map(State::word), status.state.word());
    page.gauge("state_since_timestamp_seconds", "Since when.", &[plain(wall_of(clock, status.since))]);
    page.gauge("provisioned", "1 while there is an assignment.", &[plain(u8::from(served.is_some()))]);
    page.one_of("clock", "What is known of the machine's clock.", &CLOCKS, status.clock.word());
    page.gauge("clock_offset_seconds", "How far the service's time is ahead.", &[plain(status.clock.offset())]);
    if let Some(validity) = status.certificate {
        let left = days_left(validity, clock.now());
        page.gauge("certificate_not_after_timestamp_seconds", "When the client certificate ends.", &[plain(validity.until)]);
        page.gauge("certificate_days_left", "Whole days until then.", &[plain(left)]);
    }
}

fn registrations(page: &mut Page, desk: &Desk, clock: Clock) {
    let status = desk.status();
    page.counter("registrations", "Registrations begun.", &[plain(desk.counts.registrations.load(Relaxed))]);
    page.counter("registration_failures", "Registrations that failed.", &[plain(desk.counts.failures.load(Relaxed))]);
    page.gauge("attempts", "Registrations since the last one that succeeded.", &[plain(status.attempts)]);
    page.one_of("enrollment", "What DPS last said of the enrollment.", &ENROLLMENTS, status.enrollment.word());
    if let Some((failure, at)) = &status.last_error {
        let when = wall_of(clock, *at);
        let labels = format!("blame=\"{}\"", failure.blame);
        page.gauge("last_error_timestamp_seconds", "When a registration failed last.", &[(labels, when)]);
    }
    if let Some(at) = status.next_attempt {
        page.gauge("next_attempt_timestamp_seconds", "When DPS is asked next.", &[plain(wall_of(clock, at))]);
    }
}

fn handed_out(page: &mut Page, desk: &Desk) {
    page.one_of("hub", "What the agent's last look at the hub showed.", &HUBS, desk.status().hub.word());
    if let Some(served) = desk.served() {
        let labels = format!("proof=\"{}\"", served.record.proof);
        page.gauge("assignment_generation", "Counts the changes of the assignment.", &[(labels, served.record.generation)]);
    }
    page.counter("connections", "Connections handed out.", &[plain(desk.counts.connections.load(Relaxed))]);
    page.counter("reports", "Reports of consumers.", &[plain(desk.counts.reports.load(Relaxed))]);
    if let Some(given) = desk.last_given() {
        page.gauge("last_connection_timestamp_seconds", "When a connection was handed out last.", &[plain(given.at)]);
    }
}

fn labelled(requests: Vec<(&str, u16, u64)>) -> Vec<(String, u64)> {
    requests.into_iter().map(|(path, status, count)| (format!("path=\"{path}\",status=\"{status}\""), count)).collect()
}

fn plain<T>(value: T) -> (String, T) {
    (String::new(), value)
}

/// A moment as the machine's clock has it now.
fn wall_of(clock: Clock, moment: Instant) -> u64 {
    let (now, wall) = (clock.instant(), clock.now());
    let ago = now.saturating_duration_since(moment).as_secs();
    wall.saturating_sub(ago).saturating_add(moment.saturating_duration_since(now).as_secs())
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn gauge<T: Display>(&mut self, name: &str, help: &str, samples: &[(String, T)]) {
        self.family(name, "gauge", help);
        samples.iter().for_each(|(labels, value)| self.sample(name, labels, value));
    }

    fn counter(&mut self, name: &str, help: &str, samples: &[(String, u64)]) {
        self.family(name, "counter", help);
        samples.iter().for_each(|(labels, value)| self.sample(&format!("{name}_total"), labels, value));
    }

    /// A gauge for each word: 1 for the one that is the case.
    fn one_of(&mut self, name: &str, help: &str, words: &[&str], now: &str) {
        let samples: Vec<_> = words.iter().map(|word| (format!("{name}=\"{word}\""), u8::from(*word == now))).collect();
        self.gauge(name, help, &samples);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# TYPE dps_agent_{name} {kind}\n# HELP dps_agent_{name} {help}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(self.text, "dps_agent_{name}{labels} {value}");
    }
}
