//! Each definition against what is made of it.

use super::*;
use crate::config::flags::AFTER_HELP;
use crate::config::resolve_on;
use crate::sys::machine::Machine;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;

/// Where the table of the settings is.
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
const BEGIN: &str =
    "<!-- Generated from src/config/settings: CORALMUX_WRITE_DOCS=1 cargo test --lib settings_table -->\n";
const END: &str = "<!-- End of the generated table -->\n";

#[test]
fn the_settings_table_of_the_docs_is_the_one_of_the_definitions() {
    let docs = fs::read_to_string(DOCS).unwrap();
    let (before, rest) = docs.split_once(BEGIN).expect("the first mark");
    let (table, after) = rest.split_once(END).expect("the second mark");
    if std::env::var_os("CORALMUX_WRITE_DOCS").is_some() {
        fs::write(DOCS, [before, BEGIN, &settings_table(), END, after].concat()).unwrap();
        return;
    }
    let made = settings_table();
    let stale = made.lines().zip(table.lines()).find(|(made, found)| made != found);
    assert!(stale.is_none() && made == table, "the mark in {DOCS} says how to write it again; stale: {stale:?}");
}

/// README's short table, written by hand.
const README: &str = include_str!("../../../README.md");

#[test]
fn the_limits_in_the_readme_have_the_defaults_of_the_definitions() {
    let rows = README.lines().skip_while(|line| !line.starts_with("| limit of |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| line.split('|').map(str::trim).collect());
    let rows: Vec<Vec<&str>> = rows.collect();
    for row in &rows {
        let setting = all().find(|setting| row[2] == format!("`--{}`", setting.name)).expect(row[2]);
        let default = row[3].split(' ').next();
        assert_eq!(default, Some(setting.default.text()), "{}", row[2]);
    }
    let of_tokens: Vec<_> = limits::OF_TOKENS.settings.iter().map(|setting| format!("`--{}`", setting.name)).collect();
    let first: Vec<_> = rows.iter().map(|row| row[2]).take(of_tokens.len()).collect();
    assert_eq!(first, of_tokens, "which can be set for a single token");
}

#[test]
fn names_are_unique_and_the_help_says_what_is_repeatable() {
    let mut names = HashSet::new();
    for setting in all() {
        assert!(names.insert(setting.name), "--{}", setting.name);
        assert_eq!(setting.help.contains("repeatable"), setting.takes == Takes::Several, "--{}", setting.name);
    }
}

/// Values of which each setting takes at least one that is not its default.
const VALUES: [&str; 18] = [
    "1",
    "3",
    "on",
    "nats://[::1]",
    "6MiB",
    "1s",
    "99s",
    ":1",
    "off",
    "10.0.0.1",
    "https://other.example",
    "other.example",
    "other@example.com",
    "b3RoZXI",
    "other",
    "json",
    "epoll",
    "debug",
];

/// What needs others beside it is changed where these are there.
const BESIDE: [(&str, &str); 10] = [
    ("domain", "a.example"),
    ("tls-cert", "a.pem"),
    ("tls-key", "a.key"),
    ("acme-eab-kid", "a"),
    ("acme-eab-key", "YQ"),
    ("acme-dir", "a"),
    ("push-hook-secret", "0123456789abcdef"),
    ("admin-key", "0123456789abcdef"),
    ("nats-cert", "a.pem"),
    ("nats-key", "a.key"),
];

/// The configuration with this value, if the setting takes it.
fn resolved(name: &str, value: &str) -> Option<Config> {
    // So little memory that the default budget is the same for any number of shards.
    let machine = Machine { cores: 4, memory_bytes: 200 << 20 };
    let beside = BESIDE.into_iter().filter(|(other, _)| *other != name);
    let args = beside.chain([(name, value)]).map(|(name, value)| OsString::from(format!("--{name}={value}")));
    resolve_on(machine, std::iter::once("x".into()).chain(args), |_| None).ok()
}

#[test]
fn a_reload_puts_every_new_value_in_force_or_names_it() {
    let (name, value) = BESIDE[0];
    let before = resolved(name, value).unwrap();
    for setting in all() {
        let name = setting.name;
        // The key of the binding is not in the text of the configuration.
        let differs = |after: &Config| format!("{after:?}") != format!("{before:?}") || after.tls != before.tls;
        let others: Vec<_> = VALUES.iter().filter_map(|value| resolved(name, value)).filter(differs).collect();
        // No other file is named while the process runs, and secrets are put in force and not compared.
        let aside = ["config", "admin-key", "push-hook-secret"].contains(&name);
        assert!(aside || !others.is_empty(), "--{name}: none of the values will do");
        for after in others.into_iter().filter(|_| !aside) {
            let mut kept = after.clone();
            let (fixed, changed) = (kept.keep_fixed(&before), after.changed(&before));
            match setting.reload {
                Reload::Now(_) => assert_eq!((fixed, changed), (vec![], vec![name]), "--{name}"),
                Reload::Restart(_) => assert_eq!((fixed, changed), (vec![name], vec![]), "--{name}"),
                Reload::RestartTls => {
                    let [named] = fixed[..] else { panic!("--{name}: {fixed:?}") };
                    let is_named = named.contains(name) || named.contains("acme-...") && name.starts_with("acme-");
                    assert!(is_named && changed.is_empty(), "--{name}: {named} {changed:?}");
                }
            }
            assert!(kept.keep_fixed(&before).is_empty(), "--{name}");
        }
    }
}

/// Words that mean something to a setting which takes no text of one's own.
const WORDS: [&str; 31] = [
    "0", "0s", "1ms", "1s", "1m", "1h", "1d", "1B", "1KB", "1MB", "1GB", "1TB", "1KiB", "1MiB", "1GiB", "1TiB",
    "1_000", "off", "on", "true", "false", "yes", "no", "none", "any", "default", "auto", "human", "json", "journal",
    "null",
];
const MORE_WORDS: [&str; 9] = ["*", "all", "error", "warn", "warning", "info", "debug", "trace", "never"];

/// Whether a text has a word, or its unit, by itself.
fn names(text: &str, word: &str) -> bool {
    let word = if word.ends_with("_000") { word } else { word.trim_start_matches('1') };
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text[..at].trim_end_matches(|c: char| c.is_ascii_digit()), &text[at + word.len()..]);
        let before = if word.starts_with(|c: char| c.is_ascii_digit()) { &text[..at] } else { before };
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

#[test]
fn every_word_that_a_setting_takes_is_in_its_help_and_in_the_docs() {
    let docs = fs::read_to_string(DOCS).unwrap();
    let (about_all, _) = docs.split_once(BEGIN).unwrap();
    for group in GROUPS {
        let numbers = |setting: &Setting| ["SIZE", "TIME", "COUNT", "on|off"].contains(&setting.unit);
        for setting in group.settings {
            let takes = |word: &str| resolved(setting.name, word).is_some();
            // Texts of one's own: a path, a name, a key.
            if takes("xyzzy") || matches!(setting.takes, Takes::Secret(_)) {
                continue;
            }
            let help = format!("{}\n{}\n{}", setting.unit, setting.help_text(), group.heading);
            let row = format!("{}\n{}", setting.row(), group.heading);
            for word in WORDS.into_iter().chain(MORE_WORDS).filter(|word| takes(word)) {
                // How numbers and switches are written is said once for all; not what 0 means here.
                let is_general = numbers(setting) && !word.starts_with('0');
                let (help_more, docs_more) = if is_general { (AFTER_HELP, about_all) } else { ("", "") };
                assert!(names(&help, word) || names(help_more, word), "--help of --{}: {word}", setting.name);
                assert!(names(&row, word) || names(docs_more, word), "docs of --{}: {word}", setting.name);
            }
        }
    }
}

#[test]
fn a_number_below_zero_is_refused_by_the_flags_name_with_what_it_takes() {
    let numbers = all().filter(|setting| ["COUNT", "SIZE", "TIME"].contains(&setting.unit));
    let mut seen = 0;
    for setting in numbers {
        for value in ["-5", "-5s", "-5MiB", "-1.5"] {
            let flag = format!("--{}", setting.name);
            for typed in [
                vec![flag.clone(), value.to_owned()],
                vec![format!("{flag}={value}")],
                vec![flag[1..].to_owned(), value.to_owned()],
            ] {
                let args = std::iter::once("x".to_owned()).chain(typed).map(OsString::from);
                let error = resolve_on(Machine { cores: 4, memory_bytes: 8 << 30 }, args, |_| None).unwrap_err();
                let says = format!("{flag}: {value:?} is invalid; expected a");
                assert!(error.to_string().starts_with(&says) && error.exit_code() == 2, "{error}");
            }
        }
        seen += 1;
    }
    assert!(seen >= 17, "{seen}");
}
