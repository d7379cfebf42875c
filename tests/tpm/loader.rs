//! libtss2 is loaded by who uses a TPM, and by nobody else: what the binary needs, and what it says where libtss2 is not as it should be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::swtpm::{Swtpm, scratch};

/// A gateway whose TPM is behind `tcti`, and a directory in which libraries are looked for before the system's.
struct Machine {
    directory: PathBuf,
}

impl Machine {
    fn new(tcti: &str) -> Self {
        let directory = scratch("loader");
        let text = format!("[dps]\nid_scope = \"0ne00000000\"\n[attestation]\nmethod = \"tpm\"\ntcti = \"{tcti}\"\n");
        fs::write(directory.join("config.toml"), text).unwrap();
        Self { directory }
    }

    /// Without a TPM: what is said of the library is said before anybody connects.
    fn without_tpm() -> Self {
        Self::new("swtpm:host=127.0.0.1,port=1")
    }

    /// A library of this name that has no functions, and needs another one where `needed` names it.
    fn fake(&self, soname: &str, needed: Option<&Path>) -> PathBuf {
        let library = self.directory.join(soname);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-nostdlib", "-Wl,--no-as-needed"]).arg(format!("-Wl,-soname,{soname}"));
        compiler.args(["-x", "c", "/dev/null", "-x", "none"]).args(needed).arg("-o").arg(&library);
        assert!(compiler.status().unwrap().success());
        library
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_dps-agent"));
        agent.args(arguments).env_clear().env("LD_LIBRARY_PATH", &self.directory).envs(variables.iter().copied());
        agent.stdin(Stdio::null()).output().unwrap()
    }

    /// Exit code and stderr of `identity`, which asks the TPM.
    fn identity(&self, variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let output = self.run(&["identity", "--config", self.directory.join("config.toml").to_str().unwrap()], variables);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn the_binary_needs_no_library_but_libc_and_what_belongs_to_it() {
    let output = Command::new("readelf").arg("--dynamic").arg(env!("CARGO_BIN_EXE_dps-agent")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<_> =
        text.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| line.split(['[', ']']).nth(1)).collect();
    assert!(needed.contains(&"libc.so.6"), "{text}");
    let others = needed
        .iter()
        .filter(|name| !["libc.so", "libgcc_s.so", "libm.so", "ld-linux"].iter().any(|known| name.starts_with(known)));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn a_verb_without_a_tpm_does_not_care_for_libtss2() {
    let machine = Machine::without_tpm();
    for soname in ["libtss2-mu.so.0", "libtss2-esys.so.0", "libtss2-tctildr.so.0", "libcrypto.so.3"] {
        fs::write(machine.directory.join(soname), "no library").unwrap();
    }
    let output = machine.run(&["--version"], &[]);
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
    assert_eq!(machine.identity(&[]).0, Some(78));
}

const CURE: &str = "install tpm2-tss 2.4.6 or newer (Debian: libtss2-esys-3.0.2-0 and libtss2-tctildr0), or use another method\n";

#[test]
fn a_library_that_is_not_there_is_named_with_its_cure() {
    let machine = Machine::without_tpm();
    let missing = machine.fake("libof-libtss2.so.1", None);
    machine.fake("libtss2-esys.so.0", Some(&missing));
    fs::remove_file(missing).unwrap();
    let words = "libof-libtss2.so.1: cannot open shared object file: No such file or directory";
    assert_eq!(machine.identity(&[]), (Some(78), format!("dps-agent: the TPM library cannot be loaded ({words}); {CURE}")));
}

#[test]
fn a_function_that_is_not_there_is_named_before_any_other_is_called() {
    for (soname, function) in [("libtss2-esys.so.0", "Esys_Initialize"), ("libtss2-tctildr.so.0", "Tss2_TctiLdr_Initialize")] {
        let machine = Machine::without_tpm();
        let library = machine.fake(soname, None);
        let words = format!("{}: undefined symbol: {function}", library.display());
        assert_eq!(machine.identity(&[]), (Some(78), format!("dps-agent: the TPM library cannot be loaded ({words}); {CURE}")));
    }
}

/// An empty TPM: looking for what is at a handle is an error to libtss2.
#[test]
fn libtss2_is_quiet_unless_it_was_asked_to_speak() {
    let tpm = Swtpm::start();
    let machine = Machine::new(&tpm.tcti());
    let (code, loud) = machine.identity(&[("TSS2_LOG", "all+ERROR")]);
    assert!(code == Some(0) && loud.contains("ERROR:esys:"), "{code:?} {loud}");
    let tpm = Swtpm::start();
    let machine = Machine::new(&tpm.tcti());
    assert_eq!(machine.identity(&[]), (Some(0), String::new()));
}
