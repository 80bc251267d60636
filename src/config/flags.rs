//! The command line as people type it. Values stay texts here: they are checked together with those of the environment
//! and the file, so that each is told wrong in the same words.

use super::settings::{self, Setting, Takes};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::HashSet;
use std::ffi::OsString;

pub(super) const AFTER_HELP: &str = "\
Each flag is also an environment variable (--phone-rate: CORALMUX_PHONE_RATE) and a key of the file
(phone-rate = 30). A flag goes before the environment, the environment before the file. What is
repeatable also takes several values with commas between them. One dash does as well as two.

SIZE: bytes (B), or with KB, MB, GB, TB (1000) or KiB, MiB, GiB, TiB (1024) behind. TIME: 500ms,
10s, 2m, 1h. Digits may have _ between them: 1_000. on and off: also true and false, yes and no.

coralmux-relay healthcheck: asks the relay that runs with these settings; exit code 0 if it is well.";

/// The command line: each setting is a flag.
pub(super) fn command() -> Command {
    let command = Command::new("coralmux-relay")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A NAT-transparent WebSocket relay for AI agents.")
        .override_usage(
            "coralmux-relay [OPTIONS]\n       coralmux-relay demo|doctor|admin|healthcheck|completions|man [OPTIONS]",
        )
        .next_line_help(true)
        .after_help(AFTER_HELP);
    let flags = settings::GROUPS
        .iter()
        .flat_map(|group| group.settings.iter().map(|setting| flag(setting).help_heading(group.heading)));
    command.args(flags)
}

fn flag(setting: &Setting) -> Arg {
    let action = if setting.takes == Takes::Several { ArgAction::Append } else { ArgAction::Set };
    // Whatever follows, `-5` and `-5MiB` too, is the value, so that what is wrong with it is told by the flag's name.
    let is_number = ["COUNT", "SIZE", "TIME"].contains(&setting.unit);
    let arg = Arg::new(setting.name).long(setting.name).action(action).allow_hyphen_values(is_number);
    arg.value_name(setting.unit).help(setting.help_text())
}

/// Reads a command line, program name first. The error is clap's: also `--help` and `--version`.
pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
    command().try_get_matches_from(with_two_dashes(args))
}

/// People type `-addr :8080` as well as `--addr :8080`: a known flag with one dash gets its second one. One that is
/// nearly known gets it too, so that the error names the flag that was meant.
fn with_two_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let known: HashSet<&str> = settings::all().map(|setting| setting.name).chain(["help", "version"]).collect();
    let mut flags_ended = false;
    args.into_iter()
        .map(|arg| {
            flags_ended |= arg == "--";
            let name = arg.to_str().and_then(|text| text.strip_prefix('-')).map(|text| text.split('=').next());
            match name {
                Some(Some(name)) if !flags_ended && (known.contains(name) || is_misspelt(name)) => {
                    let mut long = OsString::from("-");
                    long.push(arg);
                    long
                }
                _ => arg,
            }
        })
        .collect()
}

/// Whether a name of more than one letter is nearly that of a flag.
fn is_misspelt(name: &str) -> bool {
    name.len() > 1 && !name.starts_with('-') && settings::near(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashes(args: &[&str]) -> Vec<String> {
        with_two_dashes(args.iter().map(OsString::from)).into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn a_known_flag_with_one_dash_gets_two() {
        assert_eq!(dashes(&["x", "-addr", ":8080", "-admin-key=-x=y"]), ["x", "--addr", ":8080", "--admin-key=-x=y"]);
        assert_eq!(dashes(&["x", "-help", "-version"]), ["x", "--help", "--version"]);
    }

    #[test]
    fn everything_else_stays_as_it_was() {
        let same = ["x", "--addr", "-h", "-V", "-", "-5", "-xyz", "--db=-addr", "--", "-addr"];
        assert_eq!(dashes(&same), same);
    }

    #[test]
    fn clap_finds_no_fault_with_the_flags() {
        command().debug_assert();
    }

    #[test]
    fn the_help_fits_100_columns_and_names_each_flag_with_its_default() {
        let help = command().render_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
        for Setting { name, .. } in settings::all() {
            let at = help.find(&format!("--{name} <")).unwrap_or_else(|| panic!("--{name}"));
            let entry = help[at..].lines().nth(1).unwrap();
            assert!(entry.contains("[default: "), "--{name}: {entry}");
        }
    }
}
