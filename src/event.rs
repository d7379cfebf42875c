//! What the journal tells under a number of its own: `journalctl MESSAGE_ID=…`, and systemd/dps-agent.catalog explains each.
//!
//! A number never changes its meaning. Where the log is plain text they are left out.

/// The device has an assignment that serves: `REGISTRATION_ID`, `ASSIGNED_HUB`, `DEVICE_ID`, `PROOF`, `STATE`.
pub const ASSIGNED: &str = "d47936fe5d9f4746b1e618449954261d";
/// A registration has failed: `REGISTRATION_ID`, `BLAME`, `DPS_TRACKING_ID`, `DPS_ERROR_CODE`.
pub const REGISTRATION_FAILED: &str = "a6fd1934748d4885a0a97a1ee28079a3";
/// The next registration is due later: `REGISTRATION_ID`, `NEXT_ATTEMPT`, `STATE`.
pub const WAITING: &str = "2fac266431924002a86629a37076ba95";
/// Nothing is tried until somebody sets the clock: `STATE`.
pub const CLOCK_BELOW_FLOOR: &str = "a0bb77a5c9b545baa8577f3ab980b396";
/// The configuration was read again.
pub const CONFIGURATION_READ: &str = "8382318e878d4d518bed427fff71c270";
/// The configuration was read again and cannot be used; the one before stays.
pub const CONFIGURATION_REFUSED: &str = "f1874ec377964d19b247ec3dd45b55e0";
/// The client certificate ends soon, or has: `REGISTRATION_ID`, `DAYS_LEFT`.
pub const CERTIFICATE_ENDS: &str = "f6b8d33e63ea444389dc4108eb6491cf";

/// Every number, in the catalog's order.
pub const ALL: [&str; 7] =
    [ASSIGNED, REGISTRATION_FAILED, WAITING, CLOCK_BELOW_FLOOR, CONFIGURATION_READ, CONFIGURATION_REFUSED, CERTIFICATE_ENDS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_explains_each() {
        let catalog = include_str!("../systemd/dps-agent.catalog");
        let explained: Vec<&str> = catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(explained, ALL);
    }
}
