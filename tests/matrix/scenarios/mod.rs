//! The rows of the matrix, as data.

mod answers;

use crate::scenario::Scenario;

/// All of them.
pub fn all() -> Vec<Scenario> {
    answers::all()
}

/// A registration that is answered at once, and its proof.
pub const AT_ONCE: &str = "
    @open
    > register
    < 200 {assigned}
    @close
    @hub";
