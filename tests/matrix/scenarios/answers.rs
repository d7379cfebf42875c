//! What the service answers: assignments, and refusals for good.

use super::AT_ONCE;
use crate::device::Credential;
use crate::scenario::{Blame, On, Scenario, Step};

const UNAUTHORIZED: &str = "the service answered 401, error code 401000: Unauthorized (trackingId *";

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            device: &["answer = \"at-once\""],
            ..Scenario::new("assigned-at-once", On::ALL, vec![Step::adopts(AT_ONCE)])
        },
        Scenario {
            device: &["polls = 1"],
            ..Scenario::new(
                "assigned-after-polling",
                On::ALL,
                vec![Step::adopts(
                    "@open
                     > register
                     < 202 assigning op1
                     > query op1
                     < 202 assigning op1
                     > query op1
                     < 200 {assigned}
                     @close
                     @hub",
                ).at_least(4)],
            )
        },
        Scenario {
            credential: Credential::Wrong,
            ..Scenario::new(
                "wrong-key",
                On::ALL,
                vec![Step::fails(
                    Blame::Unauthorized,
                    "the service answered 401, error code *",
                    "@open
                     > register
                     < 401 401000",
                ).code(401_000)],
            )
        },
    ]
}
