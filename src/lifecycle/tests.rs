//! Lives of devices in worlds of many kinds, on a clock that is only counted.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Accepts,
    RefusesForGood,
    Unauthorized,
    Throttles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hub {
    Accepts,
    Refuses,
    Busy,
    Gone,
    /// The device is at another hub now, which accepts it; the old one refuses it.
    Moved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Up,
    Down,
    /// DPS cannot be reached, hubs can.
    WithoutDps,
}

/// A world that answers the tasks of a life, with a consumer who tries its hub every ten minutes and says when that fails.
struct World {
    service: Service,
    hub: Hub,
    network: Network,
    life: Lifecycle,
    now: Uptime,
    registrations: Vec<Uptime>,
    lookups: u32,
    /// Connections of ours that could have taken a consumer's place.
    tries: u32,
    moves: u32,
}

impl World {
    fn new(service: Service, hub: Hub, network: Network, settled: bool, seed: u64) -> Self {
        let now = HOUR;
        let life = Lifecycle::new(settled, seed, now);
        Self { service, hub, network, life, now, registrations: Vec::new(), lookups: 0, tries: 0, moves: 0 }
    }

    fn live(&mut self, days: u32) {
        const CONSUMER: Duration = Duration::from_secs(600);
        let (end, mut consumer) = (self.now + DAY * days, self.now + CONSUMER);
        while self.now < end {
            match self.life.next(self.now) {
                Some((task, due)) if due.max(self.now) <= consumer => {
                    self.now = due.max(self.now);
                    self.perform(task);
                }
                _ => {
                    self.now = consumer;
                    consumer += CONSUMER;
                    self.consume();
                }
            }
        }
    }

    fn consume(&mut self) {
        match (self.network, self.hub) {
            (Network::Down, _) | (_, Hub::Gone) => self.life.reported_unreachable(self.now),
            (_, Hub::Refuses | Hub::Moved | Hub::Busy) => self.life.reported_refused(self.now),
            (_, Hub::Accepts) => {}
        }
    }

    fn perform(&mut self, task: Task) {
        let now = self.now;
        let hub_is_there = self.network != Network::Down && self.hub != Hub::Gone;
        match task {
            Task::Register(_) => self.register(),
            Task::LookAtHub => self.life.looked(hub_is_there, false, now),
            Task::AskDps => self.life.asked_dps(self.network == Network::Up, now),
            Task::LookUp => {
                self.lookups += 1;
                let answered = (self.network == Network::Up).then_some(self.hub == Hub::Moved);
                self.life.looked_up(answered, now);
            }
            Task::TryHub => {
                self.tries += 1;
                let tried = match self.hub {
                    _ if !hub_is_there => Tried::Unreachable,
                    Hub::Accepts => Tried::Proven,
                    Hub::Refuses | Hub::Moved => Tried::Refused,
                    Hub::Busy => Tried::Busy,
                    Hub::Gone => Tried::Unreachable,
                };
                self.life.tried(tried, now);
            }
        }
    }

    fn register(&mut self) {
        let now = self.now;
        let fail = |life: &mut Lifecycle, blame| {
            life.failed(blame, Duration::ZERO, now);
        };
        if self.network != Network::Up {
            return fail(&mut self.life, Blame::Network);
        }
        self.registrations.push(self.now);
        match (self.service, self.hub) {
            (Service::RefusesForGood, _) => fail(&mut self.life, Blame::Refused),
            (Service::Unauthorized, _) => fail(&mut self.life, Blame::Unauthorized),
            (Service::Throttles, _) => fail(&mut self.life, Blame::Busy),
            (Service::Accepts, Hub::Refuses) => fail(&mut self.life, Blame::Hub),
            (Service::Accepts, Hub::Accepts | Hub::Busy | Hub::Gone) => self.life.registered(false, self.now),
            (Service::Accepts, Hub::Moved) => {
                (self.hub, self.moves) = (Hub::Accepts, self.moves + 1);
                self.life.registered(true, self.now);
            }
        }
    }
}

/// Registrations a day in the last ten of thirty days, over so many devices.
fn steady(service: Service, hub: Hub, network: Network, settled: bool) -> f64 {
    const DEVICES: u64 = 60;
    let count = |seed| {
        let mut world = World::new(service, hub, network, settled, seed);
        world.live(30);
        world.registrations.iter().filter(|at| **at > HOUR + DAY * 20).count()
    };
    (0..DEVICES).map(count).sum::<usize>() as f64 / (DEVICES as f64 * 10.0)
}

/// The table: what an enrolled device asks of DPS a day, once things have been as they are for long.
#[test]
fn a_device_with_an_assignment_asks_dps_only_on_evidence() {
    for (service, hub, network, most) in [
        // While the hub accepts it nothing else matters.
        (Service::Accepts, Hub::Accepts, Network::Up, 0.0),
        (Service::RefusesForGood, Hub::Accepts, Network::Up, 0.0),
        (Service::Unauthorized, Hub::Accepts, Network::Up, 0.0),
        (Service::Throttles, Hub::Accepts, Network::Up, 0.0),
        (Service::Accepts, Hub::Accepts, Network::WithoutDps, 0.0),
        // Nobody can be asked.
        (Service::Accepts, Hub::Refuses, Network::Down, 0.0),
        (Service::Accepts, Hub::Gone, Network::Down, 0.0),
        (Service::Accepts, Hub::Gone, Network::WithoutDps, 0.0),
        // A busy hub is no evidence: the lookup is.
        (Service::Accepts, Hub::Busy, Network::Up, 0.0),
        // Moved is moved once.
        (Service::Accepts, Hub::Moved, Network::Up, 0.0),
        // A hub that stays away although DPS names it again and again.
        (Service::Accepts, Hub::Gone, Network::Up, 1.1),
        // Refused for good: at most two.
        (Service::RefusesForGood, Hub::Refuses, Network::Up, 2.0),
        (Service::RefusesForGood, Hub::Gone, Network::Up, 2.0),
        // Somebody may mend it any time.
        (Service::Accepts, Hub::Refuses, Network::Up, 9.0),
        (Service::Unauthorized, Hub::Refuses, Network::Up, 9.0),
        // Nobody has said no.
        (Service::Throttles, Hub::Refuses, Network::Up, 620.0),
    ] {
        let a_day = steady(service, hub, network, true);
        assert!(a_day <= most, "{service:?} {hub:?} {network:?}: {a_day} a day");
        assert!(most == 0.0 || a_day > most / 3.0, "{service:?} {hub:?} {network:?}: only {a_day} a day");
    }
}

#[test]
fn a_device_without_an_assignment_keeps_asking() {
    for (service, most) in [(Service::RefusesForGood, 2.0), (Service::Unauthorized, 9.0), (Service::Throttles, 620.0)] {
        let a_day = steady(service, Hub::Accepts, Network::Up, false);
        assert!(a_day <= most && a_day > most / 3.0, "{service:?}: {a_day} a day");
    }
}

#[test]
fn a_move_is_found_within_minutes_of_the_first_report_and_made_once() {
    let mut world = World::new(Service::Accepts, Hub::Moved, Network::Up, true, 1);
    world.live(3);
    assert_eq!((world.moves, world.registrations.len(), world.hub), (1, 1, Hub::Accepts));
    // The consumer's first try was ten minutes after the start; ours followed at once.
    assert_eq!(world.registrations, [HOUR + Duration::from_secs(600)]);
}

#[test]
fn a_hub_that_is_gone_for_half_an_hour_is_asked_about_and_then_ever_more_rarely() {
    let mut world = World::new(Service::Accepts, Hub::Gone, Network::Up, true, 1);
    world.live(4);
    let after: Vec<u64> = world.registrations.iter().map(|at| (*at - HOUR).as_secs() / 60).collect();
    // The consumer's report after ten minutes was the first look.
    assert_eq!(after[0], 40);
    let between: Vec<u64> = after.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(between[..6], [60, 120, 240, 480, 960, 1440]);
}

#[test]
fn a_network_that_is_back_ends_all_waiting_for_it() {
    let mut world = World::new(Service::Accepts, Hub::Accepts, Network::Down, true, 1);
    world.live(10);
    assert!(world.registrations.is_empty());
    world.network = Network::Up;
    world.live(10);
    assert_eq!((world.registrations.len(), world.life.registration_due()), (0, None));
}

#[test]
fn consumers_who_complain_without_reason_do_not_make_us_connect_without_end() {
    let mut life = Lifecycle::new(true, 1, HOUR);
    let (mut now, mut tries) = (HOUR, 0);
    while now < HOUR + DAY {
        now += Duration::from_secs(1);
        life.reported_refused(now);
        let is_due = life.next(now).is_some_and(|(task, due)| task == Task::TryHub && due <= now);
        if is_due {
            tries += 1;
            life.tried(Tried::Proven, now);
        }
    }
    // After 1, 2, 4, 8, 16 and 32 minutes, then once an hour.
    assert_eq!(tries, 29);
}

#[test]
fn a_refused_registration_does_not_end_the_service() {
    let mut life = Lifecycle::new(true, 1, HOUR);
    life.reported_refused(HOUR);
    life.tried(Tried::Refused, HOUR);
    assert_eq!(life.next(HOUR), Some((Task::Register(Why::HubRefuses), HOUR)));
    life.failed(Blame::Refused, Duration::ZERO, HOUR);
    // The consumer goes on complaining; when the hub lets us in again the registration is not needed any more.
    life.reported_refused(HOUR + MINUTE);
    life.tried(Tried::Proven, HOUR + MINUTE);
    assert_eq!(life.registration_due(), None);
}

#[test]
fn an_operator_and_a_changed_configuration_wait_for_nothing() {
    let mut life = Lifecycle::new(false, 1, HOUR);
    for _ in 0..9 {
        life.failed(Blame::Refused, Duration::ZERO, HOUR);
    }
    assert!(life.registration_due().unwrap().1 > HOUR + HOUR * 2);
    life.ordered(HOUR);
    assert_eq!(life.registration_due(), Some((Why::Ordered, HOUR)));
    life.failed(Blame::Refused, Duration::ZERO, HOUR);
    assert!(life.registration_due().unwrap().1 <= HOUR * 2, "the campaign begins again");
    life.changed(false, HOUR);
    assert_eq!(life.registration_due(), Some((Why::Changed, HOUR)));
    life.changed(true, HOUR);
    assert_eq!(life.registration_due(), None);
}

#[test]
fn a_clock_that_was_set_ends_the_waits_that_it_caused() {
    for (blame, at_once) in [(Blame::Clock, true), (Blame::Unauthorized, true), (Blame::Refused, false), (Blame::Busy, false)] {
        let mut life = Lifecycle::new(false, 1, HOUR);
        life.failed(blame, HOUR, HOUR);
        life.clock_was_set(HOUR + MINUTE);
        let due = life.registration_due().unwrap().1;
        assert_eq!(due == HOUR + MINUTE, at_once, "{blame}: {due:?}");
    }
}

#[test]
fn an_unproven_hub_is_tried_when_it_is_there_and_nobody_can_be_connected() {
    let mut life = Lifecycle::new(true, 1, HOUR);
    life.looked(true, false, HOUR + LOOK);
    assert_eq!(life.next(HOUR + LOOK).unwrap().0, Task::LookAtHub);
    life.looked(true, true, HOUR + LOOK);
    assert_eq!(life.next(HOUR + LOOK), Some((Task::TryHub, HOUR + LOOK)));
}

#[test]
fn a_busy_hub_is_a_reason_to_look_up_where_the_device_is() {
    let mut life = Lifecycle::new(true, 1, HOUR);
    life.tried(Tried::Busy, HOUR);
    assert_eq!(life.next(HOUR), Some((Task::LookUp, HOUR)));
    life.looked_up(Some(false), HOUR);
    assert_eq!(life.registration_due(), None);
    life.tried(Tried::Busy, HOUR);
    life.looked_up(Some(true), HOUR);
    assert_eq!(life.registration_due(), Some((Why::Moved, HOUR)));
}

/// A wait of twelve hours, of which one has passed.
fn kept() -> (Kept, Uptime) {
    let mut life = Lifecycle::new(false, 1, HOUR);
    let wait = life.failed(Blame::Refused, HOUR * 12, HOUR);
    assert_eq!(wait, HOUR * 12);
    (life.keep("boot-1", "gw", HOUR * 2).unwrap(), HOUR * 2)
}

fn resumed(boot: &str, about: &str, now: Uptime) -> Uptime {
    let mut life = Lifecycle::new(false, 1, now);
    life.resume(&kept().0, boot, about, now);
    life.registration_due().unwrap().1 - now
}

#[test]
fn a_wait_outlives_the_process_and_the_boot_but_not_what_it_was_about() {
    assert_eq!(kept().0.left, 11 * 3600);
    assert_eq!(resumed("boot-1", "gw", HOUR * 5), HOUR * 8, "the same boot: until the same moment");
    assert_eq!(resumed("boot-2", "gw", Duration::from_secs(10)), HOUR * 11, "another boot: what was left of it");
    assert_eq!(resumed("boot-1", "gw-2", HOUR * 5), Duration::ZERO, "another identity");
}

#[test]
fn what_was_kept_wrongly_cannot_put_a_device_to_sleep() {
    let mut life = Lifecycle::new(false, 1, HOUR);
    life.resume(&Kept { left: u64::MAX, ..kept().0 }, "boot-2", "gw", HOUR);
    assert_eq!(life.registration_due().unwrap().1, HOUR + DAY);
    let mut life = Lifecycle::new(false, 1, HOUR);
    life.resume(&Kept { blame: "nobody".into(), ..kept().0 }, "boot-1", "gw", HOUR);
    assert_eq!(life.registration_due().unwrap().1, HOUR);
}

#[test]
fn short_waits_are_not_worth_a_write() {
    let mut life = Lifecycle::new(false, 1, HOUR);
    life.failed(Blame::Busy, MINUTE, HOUR);
    assert_eq!(life.keep("boot", "gw", HOUR), None);
    life.failed(Blame::Busy, MINUTE * 6, HOUR);
    assert!(life.keep("boot", "gw", HOUR).is_some());
}
