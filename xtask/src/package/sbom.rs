//! The software bill of materials: every crate that is linked into the agent, or runs while it is built (CycloneDX 1.5, JSON).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Done, workspace};

/// Writes it for one target and with these features.
///
/// # Errors
/// If Cargo does not tell the dependencies.
pub fn write(file: &Path, triple: &str, features: &[&str]) -> Done<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform", triple]).args(features);
    let output = cargo.stderr(std::process::Stdio::inherit()).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let lock = std::fs::read_to_string(workspace::root().join("Cargo.lock"))?;
    std::fs::write(file, serde_json::to_string_pretty(&bill(&metadata, &checksums(&lock))?)? + "\n")?;
    Ok(file.to_owned())
}

fn bill(metadata: &Value, checksums: &BTreeMap<String, String>) -> Done<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let by_id = |values: Vec<Value>| values.into_iter().map(|value| (word(&value, "id"), value)).collect::<BTreeMap<_, _>>();
    let (packages, nodes) = (by_id(list(&metadata["packages"])), by_id(list(&metadata["resolve"]["nodes"])));
    let root = packages.iter().find(|(_, package)| package["name"] == "dps-agent").ok_or("no dps-agent here")?.0.clone();
    let reached = reach(&root, &nodes);
    let reference = |id: &String| packages.get(id).map(purl).unwrap_or_default();
    let components: Vec<_> = reached
        .keys()
        .filter(|id| **id != root)
        .filter_map(|id| packages.get(id))
        .map(|package| component(package, checksums))
        .collect();
    let dependencies: Vec<_> = reached
        .iter()
        .map(|(id, needs)| json!({ "ref": reference(id), "dependsOn": needs.iter().map(reference).collect::<Vec<_>>() }))
        .collect();
    let mut subject = packages.get(&root).map(|package| component(package, checksums)).unwrap_or_default();
    subject["type"] = json!("application");
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": subject },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// All that is reached from `root` without the way through tests, with what each needs.
fn reach(root: &str, nodes: &BTreeMap<String, Value>) -> BTreeMap<String, BTreeSet<String>> {
    let (mut found, mut wanted) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(id) = wanted.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let needs: BTreeSet<String> = nodes.get(&id).map(needs).unwrap_or_default();
        wanted.extend(needs.iter().cloned());
        let _new = found.insert(id, needs);
    }
    found
}

fn needs(node: &Value) -> BTreeSet<String> {
    let is_built = |dependency: &&Value| {
        dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] != "dev"))
    };
    let dependencies = node["deps"].as_array().map(Vec::as_slice).unwrap_or_default();
    dependencies.iter().filter(is_built).map(|dependency| word(dependency, "pkg")).collect()
}

fn component(package: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let (name, version) = (word(package, "name"), word(package, "version"));
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "purl": purl(package),
    });
    if let Some(licence) = package["license"].as_str() {
        // The older way to say "or", which SPDX does not know.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&format!("{name} {version}")) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", word(package, "name"), word(package, "version"))
}

fn word(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// Of each package in `Cargo.lock`, by name and version.
pub fn checksums(lock: &str) -> BTreeMap<String, String> {
    let value = |block: &str, name: &str| {
        block.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned()))
    };
    let blocks = lock.split("[[package]]");
    blocks
        .filter_map(|block| Some((format!("{} {}", value(block, "name")?, value(block, "version")?), value(block, "checksum")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_use_is_not_listed() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let need = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("dps-agent"), package("linked"), package("builder"), package("tester")],
            "resolve": { "nodes": [
                { "id": "dps-agent", "deps": [need("linked", json!(null)), need("builder", json!("build")), need("tester", json!("dev"))] },
                { "id": "linked", "deps": [] }, { "id": "builder", "deps": [] }, { "id": "tester", "deps": [] },
            ] },
        });
        let checksums = checksums("[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n");
        let bill = bill(&metadata, &checksums).unwrap();
        let licences = json!([{ "expression": "MIT OR Apache-2.0" }]);
        let (builder, linked) = ("pkg:cargo/builder@1.0.0", "pkg:cargo/linked@1.0.0");
        assert_eq!(
            bill["components"],
            json!([
                { "type": "library", "bom-ref": builder, "name": "builder", "version": "1.0.0", "purl": builder, "licenses": licences },
                {
                    "type": "library", "bom-ref": linked, "name": "linked", "version": "1.0.0", "purl": linked,
                    "licenses": licences, "hashes": [{ "alg": "SHA-256", "content": "abc" }],
                },
            ])
        );
        assert_eq!(bill["metadata"]["component"]["bom-ref"], "pkg:cargo/dps-agent@1.0.0");
        assert_eq!(bill["dependencies"][1], json!({ "ref": "pkg:cargo/dps-agent@1.0.0", "dependsOn": [builder, linked] }));
    }
}
