//! The project's own commands: `cargo xtask demo`, `factory-demo`, `test`, `bench`, `cross`, `deb` and others.
#![expect(
    clippy::disallowed_methods,
    reason = "a program for the developer's machine: it measures time and waits, and no test of it needs another clock"
)]

mod bench;
mod credentials;
mod cross;
mod demo;
mod emulator;
mod factory;
mod hub;
mod judges;
mod loopback;
mod machine;
mod mutations;
mod package;
mod power_cut;
mod say;
mod system_test;
mod test;
mod tpm;
mod workspace;

use std::process::ExitCode;

/// What a step of ours comes to; an error is text for the person at the terminal.
pub type Done<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  demo                     register four gateways with an emulated service, and send a message as each of them
  factory-demo [--devices N] [--rate N]
                           enroll three thousand gateways with Entra ID at the service's rate (four minutes), and register one
  test                     everything: cargo test, then the SDK clients against the emulator
  judges [NAME…]           only what others wrote: Microsoft's SDKs, tpm2-tools, mosquitto, curl; NAME picks the cases whose names contain it
  mutations [NAME…]        break the agent in one place after the other, and show which cell of the matrix notices
  power-cut                cut the power at every moment of every registration with a TPM (the tests take a part of them)
  system-test [--quick|--full|NAME…]    boot machines with the shipped units, and see what becomes of them (as root)
  cross [aarch64|armv7|aarch64-musl] [--build-only|--memory]
                           build the agent for ARM, and register in qemu over each transport and with a TPM, now and past 2038;
                           linked statically with musl it has no TPM support. --memory measures it on a real kernel for ARM instead
  deb [amd64|arm64|armhf] [--without-tpm]
                           make Debian's package of the agent, with man pages, completions and an SBOM, in target/deb;
                           --without-tpm leaves TPM support and libtss2 out
  yocto-crates             write the list of crates of the Yocto recipe anew, after a change of Cargo.lock
  bench [--write] [--pairs N] [--only PART…]
                           measure the agent next to the SDK clients; --write puts the table into docs/performance.md
                           parts: speed round-trips instructions tpm api idle size
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            say::trouble(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Done<ExitCode> {
    let (command, rest) = arguments.split_first().map_or(("", arguments), |(first, rest)| (first.as_str(), rest));
    match command {
        "demo" => demo::run().map(|()| ExitCode::SUCCESS),
        "test" => test::run(),
        "judges" => judges::run(rest),
        judges::INSIDE => judges::run_inside(rest),
        "bench" => bench::run(rest),
        bench::INSIDE => bench::run_inside(rest).map(|()| ExitCode::SUCCESS),
        "factory-demo" => factory::run(rest),
        "mutations" => mutations::run(rest),
        "power-cut" => power_cut::run(),
        "system-test" => system_test::run(rest),
        "deb" => package::run(rest).map(|()| ExitCode::SUCCESS),
        "yocto-crates" => package::crates::run(rest).map(|()| ExitCode::SUCCESS),
        cross::INSIDE => cross::run_inside(rest).map(|()| ExitCode::SUCCESS),
        "cross" => cross::run(rest).map(|()| ExitCode::SUCCESS),
        "" | "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(if command.is_empty() { ExitCode::from(64) } else { ExitCode::SUCCESS })
        }
        unknown => {
            eprint!("cargo xtask: there is no command {unknown:?}\n\n{USAGE}");
            Ok(ExitCode::from(64))
        }
    }
}
