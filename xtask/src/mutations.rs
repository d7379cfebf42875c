//! `cargo xtask mutations`: breaks the agent in one place after the other, and shows which cell of the matrix notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use crate::machine::{self, Need};
use crate::workspace::{self, Scratch};
use crate::{Done, say};

/// One wrong place.
#[derive(Debug, Clone, Copy)]
struct Mutation {
    name: &'static str,
    file: &'static str,
    /// Occurs once in the file.
    right: &'static str,
    wrong: &'static str,
    /// At least one of them must fail.
    cells: &'static [&'static str],
}

/// Runs those whose names contain one of the words, or all.
///
/// # Errors
/// If a mutation cannot be made, or something else than a cell fails.
pub fn run(words: &[String]) -> Done<ExitCode> {
    let wanted = |mutation: &&Mutation| words.is_empty() || words.iter().any(|word| mutation.name.contains(word.as_str()));
    machine::prepare(&[Need::Compiler])?;
    let chosen: Vec<&Mutation> = MUTATIONS.iter().filter(wanted).collect();
    let matrix = matrix()?;
    let copy = Copy::new(&matrix)?;
    say::heading("The cells without any mutation");
    let mut cells: Vec<&str> = chosen.iter().flat_map(|mutation| mutation.cells.iter().copied()).collect();
    cells.sort_unstable();
    cells.dedup();
    let failed = failed(&matrix, &copy.build()?.ok_or("the agent does not build")?, &cells)?;
    if !failed.is_empty() {
        return Err(format!("these cells fail without any mutation: {}", failed.join(", ")).into());
    }
    let mut rows = Vec::new();
    for mutation in chosen {
        say::heading(mutation.name);
        rows.push(vec![mutation.name.to_owned(), copy.tried(mutation, &matrix)?]);
        say::step(&rows.last().into_iter().flatten().skip(1).cloned().collect::<String>());
    }
    say::heading("Mutations of the agent");
    say::table(&["mutation", "caught by"], &rows);
    let missed = rows.iter().filter(|row| row.contains(&MISSED.to_owned())).count();
    println!("\n{} mutations, {missed} missed", rows.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const MISSED: &str = "NOTHING";

/// The sources, where they can be broken.
struct Copy {
    sources: Scratch,
    target: PathBuf,
}

impl Copy {
    /// `matrix` tells where this checkout is built.
    fn new(matrix: &Path) -> Done<Self> {
        let sources = Scratch::new("mutations")?;
        for file in files()? {
            let (from, to) = (workspace::root().join(&file), sources.path().join(&file));
            fs::create_dir_all(to.parent().unwrap_or(&to))?;
            // A file that is deleted and not yet committed is listed all the same.
            if from.is_file() {
                fs::copy(&from, &to)?;
            }
        }
        // target/debug/deps/matrix-…: what is built there stays warm from one time to the next.
        let target = matrix.ancestors().nth(3).unwrap_or(sources.path()).join("mutations");
        Ok(Self { sources, target })
    }

    /// The names of the cells that fail with this mutation.
    fn tried(&self, mutation: &Mutation, matrix: &Path) -> Done<String> {
        let path = self.sources.path().join(mutation.file);
        let right = fs::read_to_string(&path)?;
        fs::write(&path, mutation.applied(&right)?)?;
        let built = self.build();
        fs::write(&path, right)?;
        let agent = built?.ok_or_else(|| format!("{}: the agent does not build with it", mutation.name))?;
        let failed = failed(matrix, &agent, mutation.cells)?;
        Ok(if failed.is_empty() { MISSED.to_owned() } else { failed.join(", ") })
    }

    /// The agent, if it builds.
    fn build(&self) -> Done<Option<PathBuf>> {
        let mut build = workspace::cargo();
        build.current_dir(self.sources.path()).args(["build", "--quiet", "--package", "dps-agent", "--bin", "dps-agent"]);
        // An unused leftover of a mutation is no error.
        build.env("RUSTFLAGS", "--cap-lints=allow").arg("--target-dir").arg(&self.target);
        let agent = self.target.join("debug/dps-agent");
        Ok(build.status()?.success().then_some(agent))
    }
}

impl Mutation {
    fn applied(&self, text: &str) -> Done<String> {
        match text.matches(self.right).count() {
            1 => Ok(text.replacen(self.right, self.wrong, 1)),
            times => Err(format!("mutation {:?}: {} has {times} times what it replaces", self.name, self.file).into()),
        }
    }
}

/// Those of the cells that fail with this agent.
fn failed(matrix: &Path, agent: &Path, cells: &[&str]) -> Done<Vec<String>> {
    let mut command = Command::new(matrix);
    command.current_dir(workspace::root()).arg("--agent").arg(agent).args(cells);
    let Output { status, stdout, .. } = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&stdout);
    let failed = cells.iter().filter(|cell| text.contains(&format!("\n---- {cell} ----\n")));
    let failed: Vec<String> = failed.map(|cell| (*cell).to_owned()).collect();
    let ran = text.contains(&format!("matrix: {} cells", cells.len()));
    if !ran || failed.is_empty() != status.success() {
        return Err(format!("the matrix did not run the cells {cells:?}:\n{text}").into());
    }
    Ok(failed)
}

/// The matrix's own program.
fn matrix() -> Done<PathBuf> {
    say::heading("Building the matrix");
    let mut build = workspace::cargo();
    build.args(["test", "--package", "dps-agent", "--test", "matrix", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = build.stderr(Stdio::inherit()).output()?;
    let messages =
        output.stdout.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let built = messages.filter(|message| message["target"]["name"] == "matrix");
    let executable = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    executable.ok_or_else(|| "the matrix does not build".into())
}

/// What is in the checkout, by git's account.
fn files() -> Done<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = git.output().map_err(|error| format!("git ls-files: {error}"))?;
    Ok(String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect())
}

const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "tokens that have expired",
        file: "src/transport/mod.rs",
        right: "key, clock.now() + TOKEN_LIFE",
        wrong: "key, clock.now() - TOKEN_LIFE",
        cells: &["symmetric-key/mqtt/assigned-at-once", "group-key/https/assigned-at-once"],
    },
    Mutation {
        name: "a token for another audience",
        file: "src/protocol/sas.rs",
        right: "{scope}/registrations/{id}",
        wrong: "{scope}/registration/{id}",
        cells: &["symmetric-key/mqtt/assigned-at-once", "symmetric-key/https/assigned-at-once"],
    },
    Mutation {
        name: "a hub token for another audience",
        file: "src/protocol/sas.rs",
        right: "{hub}/devices/{device}",
        wrong: "{hub}/device/{device}",
        cells: &["symmetric-key/mqtt/assigned-at-once"],
    },
    Mutation {
        name: "a token that names another policy",
        file: "src/protocol/sas.rs",
        right: "policy: Some(\"registration\")",
        wrong: "policy: Some(\"owner\")",
        cells: &["symmetric-key/mqtt-ws/assigned-at-once"],
    },
    Mutation {
        name: "the answer to any $rid is taken",
        file: "src/transport/mqtt.rs",
        right: "if answered == rid {",
        wrong: "if answered.len() > 1 {",
        cells: &["symmetric-key/mqtt/stale-answer-first", "x509-ec/mqtt-ws/duplicated"],
    },
    Mutation {
        name: "a request before SUBACK",
        file: "src/transport/mod.rs",
        right: "session.subscribe(limits.to_reply(&self.clock)).await?;",
        wrong: "",
        cells: &["symmetric-key/mqtt/assigned-at-once"],
    },
    Mutation {
        name: "an answer for another registration ID is taken",
        file: "src/protocol/wire.rs",
        right: ".filter(|other| !id.same_as(other))",
        wrong: ".filter(|other| other.is_empty())",
        cells: &["symmetric-key/mqtt/somebody-else", "symmetric-key/https/somebody-else-for-ever"],
    },
    Mutation {
        name: "an assignment without a hub is taken",
        file: "src/protocol/wire.rs",
        right: "hub: field(\"assignedHub\")?",
        wrong: "hub: state[\"assignedHub\"].as_str().unwrap_or(\"localhost\")",
        cells: &["group-key/https/no-hub", "symmetric-key/mqtt/no-hub-for-ever"],
    },
    Mutation {
        name: "any text is a hub name",
        file: "src/id.rs",
        right: "if text.len() > 253 || !text.split('.').all(label) {",
        wrong: "if text.len() > 253 {",
        cells: &[
            "symmetric-key/mqtt/hub-with-path-for-ever",
            "symmetric-key/mqtt/hub-with-port-for-ever",
            "symmetric-key/https/hub-with-line-break-for-ever",
        ],
    },
    Mutation {
        name: "large answers are taken",
        file: "src/protocol/wire.rs",
        right: "pub const LARGEST_BODY: usize = 128 * 1024;",
        wrong: "pub const LARGEST_BODY: usize = 1024 * 1024;",
        cells: &["symmetric-key/mqtt/too-large", "symmetric-key/https/too-large"],
    },
    Mutation {
        name: "four senseless answers are borne",
        file: "src/protocol/registration.rs",
        right: "const STRIKES: u32 = 3;",
        wrong: "const STRIKES: u32 = 4;",
        cells: &["symmetric-key/https/no-json-for-ever"],
    },
    Mutation {
        name: "failed is taken for still assigning",
        file: "src/protocol/wire.rs",
        right: "\"assigning\" | \"unassigned\" =>",
        wrong: "\"assigning\" | \"unassigned\" | \"failed\" =>",
        cells: &["x509-ec/mqtt/failed"],
    },
    Mutation {
        name: "an unknown status is taken for still assigning",
        file: "src/protocol/wire.rs",
        right: "\"assigning\" | \"unassigned\" =>",
        wrong: "\"assigning\" | \"unassigned\" | \"blocked-by-moon\" =>",
        cells: &["x509-ec/https/unknown-status"],
    },
    Mutation {
        name: "a lost operation is the end",
        file: "src/protocol/retry.rs",
        right: "code == 404_203",
        wrong: "code == 404_204",
        cells: &["symmetric-key/mqtt/lost-operation"],
    },
    Mutation {
        name: "a 401 is tried again for ever",
        file: "src/protocol/retry.rs",
        right: "401 | 403 if self.final_status.is_none() => Blame::Unauthorized",
        wrong: "401 | 403 if self.final_status.is_none() => Blame::Busy",
        cells: &["symmetric-key/mqtt/wrong-key"],
    },
    Mutation {
        name: "the second key is not tried",
        file: "src/protocol/registration.rs",
        right: "(self.policy.second_key || self.policy.challenged) && self.keys_refused == 0",
        wrong: "false",
        cells: &["symmetric-key/mqtt/second-key-is-right"],
    },
    Mutation {
        name: "the hub gets the first key always",
        file: "src/agent/mod.rs",
        right: "Key::Enrolled(self.registered.slot)",
        wrong: "Key::Enrolled(crate::protocol::KeySlot::Primary)",
        cells: &["symmetric-key/https/second-key-is-right"],
    },
    Mutation {
        name: "Retry-After is not read",
        file: "src/protocol/wire.rs",
        right: "answer.retry_after.as_deref().and_then(",
        wrong: "None::<&str>.and_then(",
        cells: &["symmetric-key/mqtt/throttled", "symmetric-key/https/throttled-beyond-the-patience"],
    },
    Mutation {
        name: "Retry-After is shortened to its half",
        file: "src/protocol/wire.rs",
        right: "Some(wait.min(LONGEST_RETRY_AFTER))",
        wrong: "Some(wait.min(LONGEST_RETRY_AFTER) / 2)",
        cells: &["x509-ec/https/throttled", "symmetric-key/https/throttled-until-a-date"],
    },
    Mutation {
        name: "polls come every second",
        file: "src/protocol/registration.rs",
        right: "const POLL: Duration = Duration::from_secs(2);",
        wrong: "const POLL: Duration = Duration::from_secs(1);",
        cells: &["symmetric-key/mqtt/assigned-after-polling"],
    },
    Mutation {
        name: "any server certificate is trusted",
        file: "src/tls.rs",
        right: "verdict.map_err(|error| if error == unknown { stranger() } else { error })",
        wrong: "verdict.map_err(|_| stranger()).or_else(|_: rustls::Error| Ok(ServerCertVerified::assertion()))",
        cells: &[
            "x509-ec/mqtt/unknown-server-ca",
            "symmetric-key/https/expired-server-certificate",
            "symmetric-key/mqtt-ws/wrong-server-name",
            "symmetric-key/mqtt/hub-not-to-be-trusted",
        ],
    },
    Mutation {
        name: "an untrusted certificate is tried again",
        file: "src/protocol/retry.rs",
        right: "Self::Untrusted { .. } | Self::Credential(_) | Self::Tpm(_) => Verdict::Stop",
        wrong: "Self::Untrusted { .. } | Self::Credential(_) | Self::Tpm(_) => Verdict::Again",
        cells: &["symmetric-key/mqtt/unknown-server-ca"],
    },
    Mutation {
        name: "the chain is not sent",
        file: "src/attestation/x509.rs",
        right: "CertifiedKey::new(chain,",
        wrong: "CertifiedKey::new(chain.into_iter().take(1).collect(),",
        cells: &["x509-intermediate/mqtt/assigned-at-once", "x509-intermediate/https/assigned-at-once"],
    },
    Mutation {
        name: "the hub is not tried",
        file: "src/agent/prove.rs",
        right: "(Verify::OnChange, _) => self.prove_until_accepted(obtained, previous, end).await",
        wrong: "(Verify::OnChange, _) => Ok((obtained, Standing::Proven))",
        cells: &["symmetric-key/mqtt/assigned-at-once", "x509-rsa/https/hub-unreachable"],
    },
    Mutation {
        name: "a refusal of the hub is taken for its absence",
        file: "src/agent/prove.rs",
        right: "Attempt::Refused(answer) => Verdict::Refused(wire::refusal(&answer, None))",
        wrong: "Attempt::Refused(_) => Verdict::Adopt(Standing::Unproven)",
        cells: &["symmetric-key/mqtt/hub-refuses-at-first", "symmetric-key/https/hub-refuses-for-ever"],
    },
    Mutation {
        name: "an untrusted hub is taken for an absent one",
        file: "src/proof.rs",
        right: "Lost::NotYetValid { .. } => Attempt::Untrusted(lost)",
        wrong: "Lost::NotYetValid { .. } => Attempt::Unreachable(lost)",
        cells: &["symmetric-key/mqtt/hub-not-to-be-trusted", "x509-ec/https/hub-certificate-not-yet-valid"],
    },
    Mutation {
        name: "another transport after authentication",
        file: "src/protocol/retry.rs",
        right: "Self::Unreachable { stage: Stage::Reply, .. } | Self::NotYetValid { .. } => Verdict::Again",
        wrong: "Self::NotYetValid { .. } => Verdict::Again",
        cells: &["symmetric-key/auto/stays-after-authentication"],
    },
    Mutation {
        name: "the transport that worked is forgotten",
        file: "src/agent/register.rs",
        right: "routes.sort_by_key(|via| *via != worked);",
        wrong: "routes.sort_by_key(|via| *via == worked);",
        cells: &["symmetric-key/auto/only-https-gets-out"],
    },
    Mutation {
        name: "the record is not written",
        file: "src/agent/adopt.rs",
        right: "proof, previous);\n        self.store.write(&record)?;",
        wrong: "proof, previous);",
        cells: &["symmetric-key/mqtt/second-run-asks-nobody"],
    },
    Mutation {
        name: "the record is open to others",
        file: "src/record.rs",
        right: "&render(record), 0o600)",
        wrong: "&render(record), 0o644)",
        cells: &["symmetric-key/mqtt/assigned-at-once"],
    },
    Mutation {
        name: "a temporary file stays",
        file: "src/files.rs",
        right: "fs::rename(&fresh, path).map_err(",
        wrong: "fs::copy(&fresh, path).map_err(",
        cells: &["symmetric-key/mqtt/assigned-at-once"],
    },
    Mutation {
        name: "another hub is the same generation",
        file: "src/record.rs",
        right: "self.assigned_hub == other.assigned_hub\n            && ",
        wrong: "",
        cells: &["symmetric-key/mqtt/hub-moves"],
    },
    Mutation {
        name: "the payload is lost",
        file: "src/protocol/wire.rs",
        right: "payload: state.get(\"payload\")",
        wrong: "payload: state.get(\"payLoad\")",
        cells: &["symmetric-key/mqtt/payload-returned"],
    },
    Mutation {
        name: "a token is logged",
        file: "src/transport/mod.rs",
        right: "    Ok(attestation.token(audience, key, clock.now() + TOKEN_LIFE).await?)\n}",
        wrong: "    let token = attestation.token(audience, key, clock.now() + TOKEN_LIFE).await?;\n    tracing::trace!(\"{}\", token.as_ref().map_or(\"\", |token| token.expose()));\n    Ok(token)\n}",
        cells: &["symmetric-key/mqtt/assigned-at-once"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mutation_still_finds_what_it_replaces() {
        let stale = MUTATIONS.iter().filter_map(|mutation| {
            let text = fs::read_to_string(workspace::root().join(mutation.file)).unwrap();
            mutation.applied(&text).err().map(|error| error.to_string())
        });
        assert_eq!(stale.collect::<Vec<_>>(), Vec::<String>::new());
        assert!(MUTATIONS.iter().all(|mutation| mutation.right != mutation.wrong && !mutation.cells.is_empty()));
    }

    #[test]
    fn what_is_not_there_once_is_not_replaced() {
        let mutation = Mutation { name: "x", file: "f", right: "a", wrong: "b", cells: &[] };
        assert_eq!(mutation.applied("cac").unwrap(), "cbc");
        assert!(mutation.applied("caca").is_err());
        assert!(mutation.applied("ccc").is_err());
    }
}
