//! The rows of the matrix, as data.

mod answers;
mod credentials;
mod hub;
mod lies;
mod network;
mod routes;
mod throttling;
mod tls;

use crate::scenario::Scenario;

/// All of them.
pub fn all() -> Vec<Scenario> {
    let groups = [
        answers::all(),
        credentials::all(),
        throttling::all(),
        lies::all(),
        network::all(),
        tls::all(),
        hub::all(),
        routes::all(),
    ];
    groups.into_iter().flatten().collect()
}
