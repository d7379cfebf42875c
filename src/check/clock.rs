//! The clock of this machine and what hangs on it: the floor, the service's own time, and when a certificate is valid.

use std::time::UNIX_EPOCH;

use super::{Check, Id, Outcome};
use crate::agent::LARGEST_SKEW;
use crate::attestation::Validity;
use crate::blame::Blame;
use crate::clock::Clock;
use crate::record::rfc3339;

const DAY: u64 = 24 * 60 * 60;
/// So many days before its end a certificate should have a successor.
const DAYS_TO_RENEW: u64 = 30;

const SET_THE_CLOCK: &str = "set this machine's clock: timedatectl set-ntp true, or date -s";

/// Whether the clock can be right at all.
pub(super) fn plausible(clock: &Clock) -> Check {
    let tried = "compare it with the earliest time it can be";
    match clock.below_floor() {
        None => Check::ok(Id::Clock, tried, format!("it says {}", rfc3339(clock.now()))),
        Some(behind) => {
            let found = format!("it is {} behind that time ({})", length(behind.as_secs()), rfc3339(clock.now()));
            Check::new(Id::Clock, Outcome::Failed(Blame::Clock), tried, found).cure(SET_THE_CLOCK)
        }
    }
}

/// The clock against the `Date` of an answer (RFC 9110 §6.6.1); nothing if there is no date in it.
pub(super) fn against(date: Option<&str>, now: u64, host: &str) -> Option<Check> {
    let theirs = httpdate::parse_http_date(date?.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let tried = format!("compare it with the clock of {host}");
    let skew = now.abs_diff(theirs);
    if skew <= LARGEST_SKEW {
        return Some(Check::ok(Id::Clock, tried, format!("they differ by {}", length(skew))));
    }
    let side = if now < theirs { "behind" } else { "ahead" };
    let found = format!("it is {} {side}: {} here, {} there", length(skew), rfc3339(now), rfc3339(theirs));
    Some(Check::new(Id::Clock, Outcome::Failed(Blame::Clock), tried, found).cure(SET_THE_CLOCK))
}

/// The client certificate's window.
pub(super) fn window(validity: Validity, now: u64) -> Check {
    let tried = format!("compare {} to {} with the clock", rfc3339(validity.from), rfc3339(validity.until));
    let failed = |blame, found: String| Check::new(Id::Certificate, Outcome::Failed(blame), tried.clone(), found);
    if now > validity.until {
        let found = format!("the certificate expired {} ago", length(now - validity.until));
        return failed(Blame::Credential, found).cure("put a new certificate there; if it is newer than this, set the clock");
    }
    if now < validity.from {
        let found = format!("the certificate is not valid before {} from now", length(validity.from - now));
        return failed(Blame::Clock, found).cure(SET_THE_CLOCK);
    }
    let left = (validity.until - now) / DAY;
    let found = format!("valid for {left} more days");
    if left < DAYS_TO_RENEW {
        return Check::new(Id::Certificate, Outcome::Warning, tried, found).cure("renew it before it ends");
    }
    Check::ok(Id::Certificate, tried, found)
}

/// Seconds in the unit that fits.
fn length(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / DAY),
    }
}
