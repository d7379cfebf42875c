//! Writes man pages and shell completions into the directory that is its argument, from the definition of the agent's command line.
//! A program of its own: the agent does not carry what is needed once, when its package is made.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("dps-pages: name the directory to write into");
        return ExitCode::from(64);
    };
    match write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dps-pages: {}: {error}", Path::new(&directory).display());
            ExitCode::from(74)
        }
    }
}

/// `dps-agent.1` and one page for each verb; a completion for each shell that the package has a place for.
fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(dps_agent::cli::command(), directory)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut dps_agent::cli::command(), "dps-agent", directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_a_page_and_each_shell_a_completion() {
        let directory = std::env::temp_dir().join(format!("dps-pages-{}", std::process::id()));
        write(&directory).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        assert!(read("dps-agent.1").contains("\ndps\\-agent\\-provision(1)\n"), "{}", read("dps-agent.1"));
        assert!(read("dps-agent-provision.1").contains("\\-\\-transcript"));
        for shell in ["dps-agent.bash", "dps-agent.fish", "_dps-agent"] {
            assert!(read(shell).contains("transcript"), "{shell}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
