//! The agent's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(coralmux_agent::run(std::env::args_os()))
}
