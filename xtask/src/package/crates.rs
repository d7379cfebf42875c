//! `cargo xtask yocto-crates`: the crates of Cargo.lock as a Yocto recipe names what it fetches.

use super::sbom::checksums;
use crate::{Done, say, workspace};

/// Beside the recipe, which requires it.
const FILE: &str = "packaging/yocto/recipes-iot/dps-agent/dps-agent-crates.inc";

/// Writes the file anew.
///
/// # Errors
/// If a file cannot be read or written.
pub fn run(arguments: &[String]) -> Done {
    if !arguments.is_empty() {
        return Err("yocto-crates takes no arguments".into());
    }
    std::fs::write(workspace::root().join(FILE), list()?)?;
    say::heading(&format!("Written: {FILE}"));
    Ok(())
}

/// Cargo wants all crates of the lock file to be there, those of tests and of other systems too, whatever it builds.
fn list() -> Done<String> {
    let crates = checksums(&std::fs::read_to_string(workspace::root().join("Cargo.lock"))?);
    let mut text =
        "# Made of Cargo.lock by `cargo xtask yocto-crates`; a test holds the two together.\nSRC_URI += \"\\\n".to_owned();
    for name in crates.keys() {
        text.push_str(&format!("    crate://crates.io/{} \\\n", name.replace(' ', "/")));
    }
    text.push_str("\"\n\n");
    for (name, checksum) in &crates {
        text.push_str(&format!("SRC_URI[{}.sha256sum] = \"{checksum}\"\n", name.replace(' ', "-")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_has_the_crates_of_the_lock_file() {
        let found = std::fs::read_to_string(workspace::root().join(FILE)).unwrap();
        assert!(found == list().unwrap(), "{FILE} is out of date: cargo xtask yocto-crates");
        assert!(found.contains("    crate://crates.io/tokio/") && found.contains("\nSRC_URI[tokio-"), "{found}");
    }
}
