//! The subcommands beside the relay itself: what an operator asks on a terminal. Each is a program of its own that prints
//! and returns an exit code; without one of their names in the first place the command line is the relay's.

pub mod admin;
mod doctor;

use crate::config;
use crate::console;
use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

/// Runs the subcommand that `args` (program name first) names; `None` where they are the relay's own.
#[must_use]
pub fn run(args: &[OsString]) -> Option<u8> {
    let name = args.get(1)?.to_str()?;
    let rest = || std::iter::once(OsString::from(format!("coralmux-relay {name}"))).chain(args[2..].iter().cloned());
    Some(match name {
        "admin" => admin::run(rest()),
        "doctor" => doctor::run(rest()),
        "completions" => parsed::<Completions>(rest(), |it| complete(it.shell)),
        "man" => parsed::<Man>(rest(), |it| write_pages(it.directory.as_deref())),
        _ => return None,
    })
}

/// Whether a command line that is otherwise the relay's own asks for help.
#[must_use]
pub fn asks_for_help(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--help" || arg == "-h" || arg == "-help")
}

/// Prints a shell's completions: for bash into /usr/share/bash-completion/completions/coralmux-relay.
#[derive(Parser)]
#[command(name = "completions")]
struct Completions {
    /// The shell.
    shell: Shell,
}

/// Prints the manual page, or writes it and those of the subcommands into a directory.
#[derive(Parser)]
#[command(name = "man")]
struct Man {
    /// Where to, such as /usr/local/share/man/man1.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// The whole command line, for completions and the manual.
fn command() -> Command {
    // There is `--help` of each, and no `help`.
    let whole = config::command().disable_help_subcommand(true).subcommand(admin::Admin::command().name("admin"));
    let doctor = config::command().name("doctor").about("Looks at all that the relay needs, and says what to do");
    let whole = whole.subcommand(doctor.arg(clap::arg!(--json "The findings as JSON")));
    let health = "Asks the relay that runs with these settings; exit code 0 if it is well";
    let whole = whole.subcommand(config::command().name("healthcheck").about(health));
    let whole = whole.subcommand(crate::demo::command().name("demo"));
    whole.subcommand(Completions::command()).subcommand(Man::command())
}

fn complete(shell: Shell) -> io::Result<()> {
    io::stdout().write_all(completions(shell).as_bytes())
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "coralmux-relay", &mut text);
    let text = String::from_utf8_lossy(&text);
    // clap_complete 4.6 spells the dash of a program's name in two ways in its script for bash, so that its branches for
    // the subcommands are never taken (https://github.com/clap-rs/clap/issues/6421).
    text.replace("coralmux__subcmd__relay", "coralmux__relay")
}

fn write_pages(directory: Option<&std::path::Path>) -> io::Result<()> {
    match directory {
        Some(directory) => clap_mangen::generate_to(command(), directory),
        None => clap_mangen::Man::new(command()).render(&mut io::stdout()),
    }
}

/// A subcommand's own arguments. What is wrong with them goes to standard error, help to standard output; then this is
/// the exit code.
fn parse<P: Parser>(args: impl Iterator<Item = OsString>) -> Result<P, u8> {
    P::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        u8::try_from(error.exit_code()).unwrap_or(2)
    })
}

/// Parses a subcommand's own arguments and runs it; what is wrong goes to standard error.
fn parsed<P: Parser>(args: impl Iterator<Item = OsString>, run: impl FnOnce(P) -> io::Result<()>) -> u8 {
    match parse(args).map(run) {
        Ok(Ok(())) => 0,
        // The reader has seen enough.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Ok(Err(error)) => {
            console::warn(format_args!("coralmux-relay: {error}"));
            1
        }
        Err(exit_code) => exit_code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_with_the_whole() {
        command().debug_assert();
        assert!(run(&["coralmux-relay".into(), "-addr".into()]).is_none());
        assert!(run(&["coralmux-relay".into()]).is_none());
    }

    #[test]
    fn completions_and_pages_name_subcommands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions(shell);
            for word in ["phone-rate", "admin", "tokens", "backup", "healthcheck", "demo"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
        let directory = tempfile::tempdir().unwrap();
        write_pages(Some(directory.path())).unwrap();
        for page in ["", "-admin", "-admin-tokens-create", "-healthcheck", "-demo"] {
            let page = format!("coralmux-relay{page}.1");
            let text = std::fs::read_to_string(directory.path().join(&page)).unwrap();
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}
