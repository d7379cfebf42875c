//! The drop-in for systemd 254 and later, on a Debian 13.

use crate::machine::{KEY, Machine, emulator};

#[test]
fn the_drop_in_imports_credentials_and_makes_restarts_rarer() {
    let emulator = emulator("");
    let machine = Machine::later();
    machine.configure(&emulator, "key_credential = \"dps-agent.imported\"");
    let drop_ins = "/etc/systemd/system/dps-agent.service.d";
    machine.inside(&format!("mkdir {drop_ins}; cp /usr/share/doc/dps-agent/examples/systemd-254/50-dps-agent.conf {drop_ins}/"));
    let booted = machine.boot_with(&[&format!("--set-credential=dps-agent.imported:{KEY}")]);
    let version = booted.say("systemctl --version").split(' ').nth(1).unwrap().to_owned();
    assert!(version.parse::<u32>().unwrap() >= 254, "{version}");
    booted.until("it is assigned", || booted.agent("StatusText") == "assigned to localhost as gw-0001 (proven)");
    booted.until_state("dps-provisioned.target", "active");
    assert_eq!(["RestartSteps", "RestartMaxDelayUSec", "RestartUSec"].map(|name| booted.agent(name)), ["5", "10min", "30s"]);
    let journal = booted.say("journalctl --boot --no-pager");
    assert!(!journal.contains(KEY) && !journal.contains("dps-agent.service.d/50-dps-agent.conf:"), "{journal}");
    let next = || booted.agent("RestartUSecNext");
    assert_eq!(next(), "30s");
    booted.say(&format!("kill -KILL {}", booted.agent("MainPID")));
    booted.until("it is started again", || booted.agent("NRestarts") == "1" && booted.agent("ActiveState") == "active");
    // Five steps from 30 s to 600 s: each is 20^(1/5) times the last.
    assert!(next().starts_with("54.6"), "{}", next());
    booted.power_off();
}
