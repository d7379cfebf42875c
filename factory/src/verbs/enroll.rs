//! `enroll`: from files to a row for each device.

use super::Manner;
use crate::args::Enroll;
use crate::clock;
use crate::enroll::Order;
use crate::failure::{Blame, Failure};
use crate::input;
use crate::keys::KeyFolder;
use crate::output::{self, Column};
use crate::report::{Outcome, Reports};

const COLUMNS: &[Column] =
    &[("registrationId", "/registrationId"), ("attestation", "/attestation"), ("result", "/result"), ("details", "/details")];

/// Runs it.
///
/// # Errors
/// What is wrong with the identities, before anything is sent; what stops the run; or that not all are enrolled as asked.
pub async fn run(enroll: Enroll, manner: Manner) -> Result<(), Failure> {
    let reports = enroll.report.clone().map(Reports::new).transpose()?;
    let mut identities = input::read(&enroll.sources, clock::now())?;
    if let (true, Some(reports)) = (enroll.only_failed, &reports) {
        identities.retain(|identity| reports.has_failed(&identity.registration_id));
    }
    let order = Order {
        asked: enroll.settings.asked()?,
        keys: enroll.keys.map(KeyFolder::new),
        service_keys: enroll.service_keys,
        update: enroll.update,
        check_keys: enroll.check_keys,
        dry_run: enroll.dry_run,
        reports,
    };
    let wishes = order.wishes(identities)?;
    let service = manner.connect(enroll.connection).await?;
    let outcomes = order.run(&service, wishes).await.map_err(again)?;
    show(&outcomes, manner)
}

/// What stopped a run half way; most of it can be gone on with.
fn again(failure: Failure) -> Failure {
    if failure.blame != Blame::Network {
        return failure;
    }
    Failure { message: format!("{failure}\nwhat was done stays; run it again to go on"), ..failure }
}

fn show(outcomes: &[Outcome], manner: Manner) -> Result<(), Failure> {
    let summary = summary(outcomes);
    if manner.format.is_for_programs() {
        let rows: Vec<_> = outcomes.iter().map(Outcome::row).collect();
        output::list(&rows, COLUMNS, manner.format)?;
        eprintln!("dps-factory: {summary}");
    } else {
        // Thousands of lines that say "created" would hide the one that does not.
        let lines = outcomes.iter().filter(|outcome| !outcome.details().is_empty()).map(lines);
        output::write(&format!("{}{summary}\n", lines.collect::<String>()))?;
    }
    let (failed, differ) = (count(outcomes, "failed"), count(outcomes, "differs"));
    if failed + differ == 0 {
        return Ok(());
    }
    let retry = if failed > 0 {
        "run it again, with --report FOLDER --only-failed for these alone"
    } else {
        "--update changes what differs"
    };
    Err(Failure::new(Blame::Incomplete, format!("{failed} failed, {differ} differ; {retry}")))
}

fn lines(outcome: &Outcome) -> String {
    let head = format!("{}: {}\n", outcome.registration_id, outcome.word());
    outcome.details().iter().fold(head, |text, detail| format!("{text}    {}\n", detail.replace('\n', "\n    ")))
}

fn summary(outcomes: &[Outcome]) -> String {
    let words = ["created", "updated", "unchanged", "differs", "failed", "would-create", "would-update"];
    let counts = words.map(|word| (word, count(outcomes, word)));
    let counts = counts.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{count} {word}"));
    let counts = counts.collect::<Vec<_>>().join(", ");
    format!("{} devices: {}", outcomes.len(), if counts.is_empty() { "nothing to do" } else { &counts })
}

fn count(outcomes: &[Outcome], word: &str) -> usize {
    outcomes.iter().filter(|outcome| outcome.word() == word).count()
}
