//! Every setting of the relay, defined once: its name, unit, default and texts, how a value is read, and whether a reload
//! puts a new one in force. The flags with their help, completions and manual pages, the environment variables, the keys
//! of the file, the reload and the table in the docs are all made from these definitions.
//!
//! A new setting is an entry in one of the groups and a field of [`Config`].

mod cluster;
mod limits;
mod listening;
mod mailbox;
mod program;
mod push;
#[cfg(test)]
mod tests;

use super::Config;
use super::draft::Draft;
use super::value::Wrong;
use std::fmt::Write;

/// One setting.
pub(super) struct Setting {
    /// The flag without dashes, which is also the key of the file.
    pub(super) name: &'static str,
    /// What a value is, such as `COUNT` or `TIME`.
    pub(super) unit: &'static str,
    /// How many values it takes.
    pub(super) takes: Takes,
    /// The line in `--help`, without the default. It and the default fit 100 columns together.
    pub(super) help: &'static str,
    /// Markdown for the docs, where there is more to say than in the help.
    pub(super) doc: Option<&'static str>,
    /// What holds where nobody sets it.
    pub(super) default: DefaultValue,
    /// What a reload does with a new value.
    pub(super) reload: Reload,
    /// Reads one value and keeps it; the error says what would be right.
    pub(super) set: fn(&mut Draft, &str) -> Result<(), Wrong>,
}

/// How many values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// One.
    One,
    /// Several: the flag is repeatable, the file takes a list, and each text may be a list with commas.
    Several,
    /// One that no error repeats; this is the error where there are several.
    Secret(&'static str),
}

/// What holds where nobody sets a value.
pub(super) enum DefaultValue {
    /// This text, read like any other.
    Is(&'static str),
    /// What these words describe: nothing, or something that follows from the machine or from other settings.
    Described(&'static str),
}

impl DefaultValue {
    fn text(&self) -> &'static str {
        let (Self::Is(text) | Self::Described(text)) = self;
        text
    }
}

/// What a reload does with a new value.
pub(super) enum Reload {
    /// Puts it in force. The function says whether two configurations differ in it.
    Now(fn(&Config, &Config) -> bool),
    /// Names it and keeps the old value, which the function takes over from the first configuration into the second; it
    /// says whether they differed.
    Restart(fn(&Config, &mut Config) -> bool),
    /// As `Restart`, for all of [`Tls`](super::Tls) together.
    RestartTls,
}

/// Settings under one heading of the help.
pub(super) struct Group {
    pub(super) heading: &'static str,
    pub(super) settings: &'static [Setting],
}

/// All settings, in the order of the help.
pub(super) static GROUPS: [&Group; 11] = [
    &listening::LISTENING,
    &listening::TLS,
    &limits::TOKENS,
    &limits::OF_TOKENS,
    &mailbox::MAILBOX,
    &limits::OF_THE_RELAY,
    &limits::OF_THE_MACHINE,
    &push::PUSH,
    &cluster::CLUSTER,
    &program::TIMES,
    &program::PROGRAM,
];

/// All settings, in the order of the help.
pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings)
}

/// The name of a setting that is nearly `name`, if there is one.
pub(super) fn near(name: &str) -> Option<&'static str> {
    let name = name.replace('_', "-").to_lowercase();
    let likeness = |known: &str| strsim::jaro_winkler(known, &name);
    let nearest = all().map(|setting| setting.name).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.filter(|known| likeness(known) > 0.8)
}

/// The environment variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("CORALMUX_{}", name.replace('-', "_").to_uppercase())
}

impl Setting {
    /// What `--help` says.
    pub(super) fn help_text(&self) -> String {
        format!("{} [default: {}]", self.help, self.default.text())
    }

    /// A row of the table in the docs.
    fn row(&self) -> String {
        let unit = self.unit.replace('|', "\\|");
        let default = match self.default {
            DefaultValue::Is(text) => format!("`{text}`"),
            DefaultValue::Described(text) => text.to_owned(),
        };
        let changes_with = match self.reload {
            Reload::Now(_) => "reload",
            Reload::Restart(_) | Reload::RestartTls => "restart",
        };
        let doc = self.doc.map_or_else(|| lower_first(self.help), str::to_owned);
        format!("| `--{} {unit}` | {default} | {changes_with} | {doc} |", self.name)
    }
}

/// The help's first word as it is inside a sentence; an acronym stays.
fn lower_first(text: &str) -> String {
    match text.split_at_checked(1) {
        Some((first, rest)) if rest.starts_with(char::is_lowercase) => first.to_lowercase() + rest,
        _ => text.to_owned(),
    }
}

/// The table of all settings in the docs, in Markdown.
#[must_use]
pub fn settings_table() -> String {
    let mut table = "| flag | default | changes with | |\n| --- | --- | --- | --- |\n".to_owned();
    for group in GROUPS {
        // Writing to a `String` cannot fail.
        let _ = writeln!(table, "| **{}** | | | |", group.heading);
        for setting in group.settings {
            let _ = writeln!(table, "{}", setting.row());
        }
    }
    table
}

impl Config {
    /// The names of the settings that differ from those of `old` and that a reload puts in force.
    #[must_use]
    pub fn changed(&self, old: &Self) -> Vec<&'static str> {
        all()
            .filter(|setting| matches!(setting.reload, Reload::Now(differs) if differs(old, self)))
            .map(|setting| setting.name)
            .collect()
    }

    /// Takes over from `old` what holds until the process ends; the names of the settings that differed.
    pub fn keep_fixed(&mut self, old: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        for setting in all() {
            match setting.reload {
                Reload::Restart(keep) if keep(old, self) => kept.push(setting.name),
                Reload::RestartTls if keep(&old.tls, &mut self.tls) => {
                    kept.push("domain, tls-cert, tls-key, http-addr or acme-...");
                }
                _ => {}
            }
        }
        kept
    }
}

/// Takes over an old value; whether the new one differed.
fn keep<T: Clone + PartialEq>(old: &T, new: &mut T) -> bool {
    let differs = old != new;
    new.clone_from(old);
    differs
}

/// Keeps a value that was read.
fn put<T, E: Into<Wrong>>(place: &mut T, read: Result<T, E>) -> Result<(), Wrong> {
    *place = read.map_err(Into::into)?;
    Ok(())
}

/// Keeps a further value that was read.
fn add<T, E: Into<Wrong>>(list: &mut Vec<T>, read: Result<T, E>) -> Result<(), Wrong> {
    list.push(read.map_err(Into::into)?);
    Ok(())
}
