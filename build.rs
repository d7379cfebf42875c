//! Puts the build's date into the binary: no clock of a gateway can honestly be earlier (see `src/clock.rs`). With TPM support it
//! compiles what loads libtss2, too.

#![expect(clippy::disallowed_methods, reason = "a build script has no clock and no configuration of its own")]

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let built = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now);
    println!("cargo::rustc-env=DPS_AGENT_BUILT={built}");
    #[cfg(feature = "tpm")]
    libtss2();
}

/// The archive is linked as a whole: its users come after it, where not every linker would look into it again.
#[cfg(feature = "tpm")]
fn libtss2() {
    println!("cargo::rerun-if-changed=src/tpm/libtss2.c");
    cc::Build::new()
        .file("src/tpm/libtss2.c")
        .std("c11")
        .extra_warnings(true)
        .link_lib_modifier("+whole-archive")
        .compile("tss2-loader");
}
