//! The agent for 64-bit ARM as one file that needs nothing: linked statically with musl, and so without TPM support. The standard
//! library is built with it, since Debian has none for musl.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::toolchain::{self, Apt};
use super::{Arm, write_program};
use crate::machine::{self, Need};
use crate::workspace::{self, Profile, Programs, Scratch};
use crate::{Done, demo, say};

const TRIPLE: &str = "aarch64-unknown-linux-musl";
const LIMIT: u64 = 3_145_728;

/// What GCC's own unwinder asks of a glibc; "not known" makes it look by other means.
const STUB: &str = "int _dl_find_object(void *address, void *result) { (void)address, (void)result; return -1; }\n";

/// # Errors
/// If it does not build, is too large or not static, or does not register.
pub(super) fn run(is_run: bool) -> Done {
    machine::prepare(&[Need::Compiler, Need::Aarch64Compiler, Need::Qemu, Need::Openssl])?;
    let agent = build(&libraries()?)?;
    let bytes = std::fs::metadata(&agent)?.len();
    say::heading(&format!("{bytes} bytes, limit {LIMIT}: {}", agent.display()));
    if bytes > LIMIT {
        return Err("the agent is too large".into());
    }
    let headers = Command::new("readelf").args(["--dynamic", "--program-headers", "--wide"]).arg(&agent).output()?.stdout;
    let headers = String::from_utf8_lossy(&headers).into_owned();
    if headers.contains("INTERP") || !headers.contains("There is no dynamic section in this file.") {
        return Err(format!("{} is not static:\n{headers}", agent.display()).into());
    }
    if is_run { register(&agent) } else { Ok(()) }
}

/// The demo without its TPM.
fn register(agent: &Path) -> Done {
    let scratch = Scratch::new("musl")?;
    let program = scratch.path().join("dps-agent");
    write_program(&program, &format!("#!/bin/sh\nexec qemu-aarch64-static '{}' \"$@\"\n", agent.display()))?;
    let emulator = workspace::binary("dps-emulator", Profile::Dev)?;
    demo::show(&Programs { agent: program.clone(), without_tpm: program, emulator }, scratch.path(), false)?;
    say::heading("Registered over MQTT, MQTT on WebSocket and HTTPS, with a key and with certificates");
    Ok(())
}

/// A directory with musl, a compiler that links with it, and what stands for the unwinder.
fn libraries() -> Done<PathBuf> {
    let compiler = toolchain::compiler()?;
    let directory = workspace::root().join("target/cross/arm64-musl");
    let mark = directory.join("complete");
    if !mark.exists() {
        say::heading("Unpacking the sources of Rust's standard library, and musl");
        let machine = Apt::of_this_machine();
        let source = format!("rust-web-src={}", machine.version("rust-web-src")?);
        machine.unpack(&[source], compiler.parent().unwrap_or(&directory))?;
        let apt = Apt::foreign(Arm::Aarch64, &directory.join("apt"))?;
        apt.unpack(&["musl-dev", "musl-tools"].map(str::to_owned), &directory)?;
        wrap_compiler(&directory)?;
        make_unwinder(&directory)?;
        std::fs::write(mark, "")?;
    }
    Ok(directory)
}

/// musl's own description of the compiler, with the paths of what was unpacked.
fn wrap_compiler(directory: &Path) -> Done {
    let specs = std::fs::read_to_string(directory.join("usr/lib/aarch64-linux-musl/musl-gcc.specs"))?;
    let at = |path: &str| format!("{}{path}", directory.display());
    let ours = ["/usr/lib/aarch64-linux-musl", "/usr/include/aarch64-linux-musl"];
    let specs = ours.iter().fold(specs, |specs, path| specs.replace(path, &at(path)));
    std::fs::write(directory.join("specs"), specs)?;
    let text = format!("#!/bin/sh\nexec aarch64-linux-gnu-gcc -specs '{}' \"$@\"\n", at("/specs"));
    write_program(&directory.join("musl-gcc"), &text)
}

fn make_unwinder(directory: &Path) -> Done {
    let (stub, archive) = (directory.join("stub.c"), directory.join("lib/libunwind.a"));
    std::fs::create_dir_all(directory.join("lib"))?;
    std::fs::write(&stub, STUB)?;
    let told = Command::new("aarch64-linux-gnu-gcc").arg("-print-file-name=libgcc_eh.a").output()?.stdout;
    std::fs::copy(String::from_utf8_lossy(&told).trim(), &archive)?;
    let object = stub.with_extension("o");
    let mut compiler = Command::new(directory.join("musl-gcc"));
    let compiled = compiler.args(["-O2", "-c", "-o"]).arg(&object).arg(&stub).status()?.success();
    if compiled && Command::new("aarch64-linux-gnu-ar").arg("r").arg(archive).arg(object).status()?.success() {
        return Ok(());
    }
    Err("what stands for the unwinder does not compile".into())
}

fn build(directory: &Path) -> Done<PathBuf> {
    say::heading(&format!("Building the agent for {TRIPLE} (takes minutes the first time)"));
    let (target, compiler) = (workspace::root().join("target/cross/build-musl"), directory.join("musl-gcc"));
    let flags = "-C link-self-contained=no -C target-feature=+crt-static -C relocation-model=static -C link-arg=-lgcc";
    let mut cargo = workspace::cargo();
    cargo.args(["build", "-Zbuild-std=std,panic_abort", "--release", "--locked", "--package", "dps-agent"]);
    cargo.args(["--no-default-features", "--target", TRIPLE]);
    // The one switch of Cargo's that is not stable is about the standard library alone.
    cargo.env("RUSTC", toolchain::compiler()?).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", &target);
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", &compiler).env("CC_aarch64_unknown_linux_musl", &compiler);
    let flags = format!("{flags} -L native={}", directory.join("lib").display());
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", flags);
    if !cargo.status()?.success() {
        return Err(format!("dps-agent does not build for {TRIPLE}").into());
    }
    Ok(target.join(TRIPLE).join("release/dps-agent"))
}
