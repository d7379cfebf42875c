//! `permissions`: what commands need, and a role that holds exactly that.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::args::Permissions;
use crate::failure::{Blame, Failure};
use crate::files;
use crate::output::{self, Column, Format};
use crate::permission::{COMMANDS, Needs, Permission, role_definition};

const COLUMNS: &[Column] = &[
    ("command", "/command"),
    ("permission", "/permission"),
    ("when", "/when"),
    ("builtInRole", "/builtInRole"),
    ("policyRight", "/policyRight"),
    ("likeAKey", "/likeAKey"),
];

/// Runs it.
///
/// # Errors
/// If a command is not known, or the file cannot be written.
pub fn run(arguments: &Permissions, format: Format) -> Result<(), Failure> {
    let commands = chosen(&arguments.commands)?;
    let Some(file) = &arguments.role_definition else {
        let rows: Vec<_> = commands.iter().flat_map(|needs| rows(needs)).collect();
        return output::list(&rows, COLUMNS, format);
    };
    let always = commands.iter().flat_map(|needs| needs.always.iter().copied());
    let with = commands.iter().flat_map(|needs| needs.with.iter().map(|(_, permission)| *permission));
    let permissions: BTreeSet<Permission> = if arguments.with_options { always.chain(with).collect() } else { always.collect() };
    if permissions.is_empty() {
        return Err(Failure::new(
            Blame::Usage,
            "these commands need no permission; --with-options counts what their options need",
        ));
    }
    let permissions: Vec<_> = permissions.into_iter().collect();
    let role = role_definition(&arguments.role_name, &permissions, &arguments.assignable_scope);
    let text = format!("{}\n", serde_json::to_string_pretty(&role).unwrap_or_default());
    if file == Path::new("-") { output::write(&text) } else { files::replace(file, text.as_bytes(), 0o644) }
}

/// The commands that were named. `enrollment` alone means all its verbs; words may come as one argument or as several.
fn chosen(named: &[String]) -> Result<Vec<&'static Needs>, Failure> {
    if named.is_empty() {
        return Ok(COMMANDS.iter().collect());
    }
    let words: Vec<&str> = named.iter().flat_map(|name| name.split_whitespace()).collect();
    let (mut chosen, mut rest) = (Vec::new(), words.as_slice());
    while let Some((first, after)) = rest.split_first() {
        let two = after.first().map(|second| format!("{first} {second}"));
        let exactly = |name: &str| COMMANDS.iter().filter(|needs| needs.command == name).collect::<Vec<_>>();
        let pair = two.as_deref().map(exactly).unwrap_or_default();
        let (found, left) = if pair.is_empty() {
            let whole = format!("{first} ");
            (COMMANDS.iter().filter(|needs| needs.command == *first || needs.command.starts_with(&whole)).collect(), after)
        } else {
            (pair, after.get(1..).unwrap_or_default())
        };
        if found.is_empty() {
            let known: Vec<_> = COMMANDS.iter().map(|needs| needs.command).collect();
            return Err(Failure::new(Blame::Usage, format!("there is no command {first:?}; there are {}", known.join(", "))));
        }
        chosen.extend(found);
        rest = left;
    }
    Ok(chosen)
}

fn rows(needs: &Needs) -> Vec<Value> {
    let row = |permission: Option<Permission>, when: &str| {
        json!({ "command": needs.command, "permission": permission.map_or("none".to_owned(), |permission| permission.data_action()),
            "when": when, "builtInRole": permission.map(|permission| permission.built_in_role().name()),
            "policyRight": permission.map(Permission::policy_right), "likeAKey": permission.map(Permission::is_key_material) })
    };
    let always = needs.always.iter().map(|permission| row(Some(*permission), "always"));
    let with = needs.with.iter().map(|(option, permission)| row(Some(*permission), &format!("with {option}")));
    let rows: Vec<_> = always.chain(with).collect();
    if rows.is_empty() { vec![row(None, "")] } else { rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<&'static str> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        chosen(&words).unwrap().iter().map(|needs| needs.command).collect()
    }

    #[test]
    fn commands_are_named_as_they_are_typed() {
        assert_eq!(names(&["enroll"]), ["enroll"]);
        assert_eq!(names(&["enrollment", "list", "enroll"]), ["enrollment list", "enroll"]);
        assert_eq!(names(&["registration delete"]), ["registration delete"]);
        assert_eq!(names(&["registration"]), ["registration show", "registration list", "registration delete"]);
        assert!(
            chosen(&["frobnicate".to_owned()])
                .unwrap_err()
                .message
                .starts_with("there is no command \"frobnicate\"; there are enroll, ")
        );
    }

    #[test]
    fn every_command_that_asks_the_service_is_in_the_table() {
        use clap::CommandFactory;
        let mut typed = Vec::new();
        for command in crate::args::Arguments::command().get_subcommands() {
            let name = command.get_name().to_owned();
            let verbs: Vec<_> = command.get_subcommands().map(|verb| format!("{name} {}", verb.get_name())).collect();
            typed.extend(if verbs.is_empty() { vec![name] } else { verbs });
        }
        typed.retain(|command| command != "permissions");
        typed.sort();
        let mut known: Vec<_> = COMMANDS.iter().map(|needs| needs.command.to_owned()).collect();
        known.sort();
        assert_eq!(typed, known);
    }
}
