//! Which shared libraries a foreign program pulls in, and how large they are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Done;

/// What the agent loads when it is asked to use a TPM at a kernel's device (`src/tpm/libtss2.c`).
pub const LOADED_FOR_A_TPM: [&str; 4] =
    ["libtss2-mu.so.0", "libtss2-esys.so.0", "libtss2-tctildr.so.0", "libtss2-tcti-device.so.0"];

/// The libraries that a program or library names.
///
/// # Errors
/// If it is no such file.
pub fn needed(file: &Path) -> Done<Vec<String>> {
    let output = Command::new("readelf").arg("--dynamic").arg(file).output()?;
    if !output.status.success() {
        return Err(format!("readelf cannot read {}", file.display()).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| line.contains("(NEEDED)"));
    Ok(lines.filter_map(|line| line.split(['[', ']']).nth(1)).map(str::to_owned).collect())
}

/// The oldest glibc that has all functions which a program asks for, such as `2.34`.
///
/// # Errors
/// If it asks for none.
pub fn glibc(program: &Path) -> Done<String> {
    let output = Command::new("readelf").args(["--version-info", "--wide"]).arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.split_whitespace().filter_map(|word| word.strip_prefix("GLIBC_"));
    let versions = words.filter_map(|version| {
        Some((version.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?, version))
    });
    let newest = versions.max().map(|(_, version)| version.to_owned());
    newest.ok_or_else(|| format!("{} asks for no version of glibc", program.display()).into())
}

/// These libraries below `root` with all that they need in turn, and their sizes in bytes.
///
/// # Errors
/// If one is not there.
pub fn of(names: &[String], root: &Path) -> Done<BTreeMap<String, u64>> {
    let (mut found, mut wanted) = (BTreeMap::new(), names.to_vec());
    while let Some(name) = wanted.pop() {
        let Entry::Vacant(place) = found.entry(name) else { continue };
        let file = find(place.key(), root).ok_or_else(|| format!("{} is nowhere below {}", place.key(), root.display()))?;
        wanted.extend(needed(&file)?);
        place.insert(std::fs::metadata(file)?.len());
    }
    Ok(found)
}

/// Where a library is below `root`.
pub fn find(name: &str, root: &Path) -> Option<PathBuf> {
    let directories = ["lib", "usr/lib"].into_iter().filter_map(|directory| std::fs::read_dir(root.join(directory)).ok());
    let multiarch = directories.flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let own = ["lib", "usr/lib"].map(|directory| root.join(directory));
    own.into_iter().chain(multiarch).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// For a table: `libc.so.6 1651472, libgcc_s.so.1 84296`, and their sum.
pub fn words(libraries: &BTreeMap<String, u64>) -> String {
    let each: Vec<_> = libraries.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
    format!("{}; in all {}", each.join(", "), libraries.values().sum::<u64>())
}
