//! The relay's command line.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use coralmux::{cli, config, demo, server, telemetry};
use coralmux_console as console;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else opens a file.
    let inherited = match server::Inherited::claim() {
        Ok(inherited) => inherited,
        Err(error) => {
            console::warn(format_args!("coralmux-relay: {error}"));
            return ExitCode::from(server::exit::CONFIG);
        }
    };
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|first| first == "demo") {
        args.splice(..2, ["coralmux-relay demo".into()]);
        return ExitCode::from(demo::run(args, inherited));
    }
    if let Some(exit_code) = cli::run(&args) {
        return ExitCode::from(exit_code);
    }
    let healthcheck = args.get(1).is_some_and(|first| first == "healthcheck");
    if healthcheck {
        args.remove(1);
        if cli::asks_for_help(&args) {
            console::print(server::healthcheck::HELP);
            return ExitCode::SUCCESS;
        }
    }
    let config = match config::resolve(args, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => return ExitCode::from(error.tell("coralmux-relay")),
    };
    if healthcheck {
        return ExitCode::from(server::healthcheck::run(&config));
    }
    if let Err(error) = telemetry::log::init(config.log_format, &config.log_level.to_string()) {
        console::warn(format_args!("coralmux-relay: {error}"));
        return ExitCode::from(server::exit::CONFIG);
    }
    let exit_code = server::run(&config, inherited);
    telemetry::log::flush();
    ExitCode::from(exit_code)
}
