//! The cases that are the same for each attestation: one gateway, and a story that is told of it.

use std::path::Path;

use super::gateway::{Attestation, Gateway, Programs};
use crate::Done;

/// What is done on a gateway.
#[derive(Debug)]
pub struct Story {
    /// Whose program it is about.
    pub client: &'static str,
    pub name: &'static str,
    /// Tables for the agent's configuration.
    pub handoff: &'static str,
    /// Says in words what happened.
    pub tell: fn(&Gateway, Attestation) -> Done<String>,
}

/// One gateway.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    story: &'static Story,
    attestation: Attestation,
}

/// Each story with all attestations.
pub fn all() -> Vec<Case> {
    let cases = |story| Attestation::ALL.map(|attestation| Case { story, attestation });
    [&super::bridge::STORY, &super::shell::STORY].into_iter().flat_map(cases).collect()
}

impl Case {
    /// Client, transport, attestation and what is special.
    pub fn columns(&self) -> [String; 4] {
        [self.story.client, "mqtt", self.attestation.name(), self.story.name].map(str::to_owned)
    }

    /// The inner result says in words what happened.
    ///
    /// # Errors
    /// If a program cannot be run.
    pub fn judge(&self, programs: &Programs, directory: &Path) -> Done<Result<String, String>> {
        let gateway = Gateway::start(programs, self.attestation, self.story.handoff, directory)?;
        let told = (self.story.tell)(&gateway, self.attestation);
        Ok(told.map_err(|error| format!("{error}\n{}", gateway.emulator.whole_transcript().unwrap_or_default())))
    }
}
