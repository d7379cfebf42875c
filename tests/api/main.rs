//! The agent's sockets from outside: as programs of several kinds, users and manners meet them, in each state of the daemon.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "it measures how long answers take, and waits for processes")]

mod access;
mod agent;
mod answers;
mod client;
mod crowd;
mod documentation;
mod poll;
mod verbs;
