//! Where values come from: the flag goes before the environment, the environment before the file.

use super::draft::Draft;
use super::error::{ConfigError, Origin};
use super::settings::{self, DefaultValue, Setting, Takes};
use super::value::Wrong;
use crate::sys::file;
use clap::ArgMatches;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use toml::Value;

/// The largest file that is read; one with every setting has a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The flags, the environment and the file.
pub(super) struct Sources<'e> {
    flags: ArgMatches,
    pub(super) environment: &'e dyn Fn(&str) -> Option<String>,
    file: Option<(PathBuf, toml::Table)>,
}

/// The texts that a setting is given, and where they are.
pub(super) struct Given {
    pub(super) origin: Origin,
    pub(super) texts: Vec<String>,
}

impl<'e> Sources<'e> {
    /// Reads the file that `--config` or `CORALMUX_CONFIG` names.
    pub(super) fn open(
        flags: ArgMatches,
        environment: &'e dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let without = Self { flags, environment, file: None };
        let Some(given) = without.given("config") else { return Ok(without) };
        let path = PathBuf::from(given.texts.concat());
        let failed = |detail: String| ConfigError::File { path: path.clone(), detail };
        let text = file::read_text(&path, FILE_BYTES_MAX).map_err(|e| failed(format!("cannot be read: {e}")))?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            // Not the reader's own text: it repeats the line, which may hold the admin key.
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            failed(format!("line {}: not TOML: {}", before.matches('\n').count() + 1, e.message()))
        })?;
        check_keys(&path, &table)?;
        Ok(Self { file: Some((path, table)), ..without })
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// What to do about a file that has a secret in it and that everybody on the machine may read.
    pub(super) fn open_secret(&self) -> Option<String> {
        let (path, table) = self.file.as_ref()?;
        let secrets = settings::all().filter(|setting| matches!(setting.takes, Takes::Secret(_)));
        // Of several the last, which is the admin key.
        let secret = secrets.map(|setting| setting.name).filter(|name| table.contains_key(*name)).last()?;
        let mode = fs::metadata(path).ok()?.mode();
        let path = path.display();
        (mode & 0o004 != 0).then(|| {
            format!("{path} has the {secret}, and everybody on this machine may read it: chmod o-r {path}, and give a new one")
        })
    }

    /// The first that says something about `name`.
    pub(super) fn given(&self, name: &'static str) -> Option<Given> {
        if let Some(texts) = self.flags.get_many(name) {
            return Some(Given { origin: Origin::Flag(name), texts: texts.cloned().collect() });
        }
        let mut variables = vec![settings::variable(name)];
        if name == "admin-key" {
            // The name that people know from the old relay.
            variables.push("RELAY_ADMIN_KEY".to_owned());
        }
        for variable in variables {
            // An empty one says nothing, as compose files make them; but an empty admin key is a mistake that must not pass.
            let says = |text: &String| name == "admin-key" || !text.trim().is_empty();
            if let Some(text) = (self.environment)(&variable).filter(says) {
                return Some(Given { origin: Origin::Environment(variable), texts: vec![text] });
            }
        }
        let (path, table) = self.file.as_ref()?;
        let texts = match table.get(name)? {
            Value::Array(values) => values.iter().map(text_of).collect(),
            value => vec![text_of(value)],
        };
        Some(Given { origin: Origin::File { path: path.clone(), key: name }, texts })
    }

    /// Reads a setting, or else its default, into `draft`.
    pub(super) fn read(&self, setting: &'static Setting, draft: &mut Draft) -> Result<(), ConfigError> {
        let Given { origin, mut texts } = match (self.given(setting.name), &setting.default) {
            (Some(given), _) => given,
            // As if it were typed.
            (None, DefaultValue::Is(text)) => {
                Given { origin: Origin::Flag(setting.name), texts: vec![(*text).to_owned()] }
            }
            (None, DefaultValue::Described(_)) => return Ok(()),
        };
        match setting.takes {
            Takes::Several => {
                texts = texts.iter().flat_map(|text| text.split(',')).map(|text| text.trim().to_owned()).collect();
            }
            Takes::One if texts.len() != 1 => {
                let (value, expected) = (format!("[{}]", texts.join(", ")), "one value".to_owned());
                return Err(ConfigError::Invalid { origin, value, expected, may_pass: false });
            }
            Takes::Secret(problem) if texts.len() != 1 => {
                return Err(ConfigError::Secret { origin, problem: problem.to_owned() });
            }
            Takes::One | Takes::Secret(_) => {}
        }
        for value in texts {
            if let Err(Wrong { expected, may_pass }) = (setting.set)(draft, &value) {
                return Err(match setting.takes {
                    Takes::Secret(_) => ConfigError::Secret { origin, problem: expected },
                    Takes::One | Takes::Several => ConfigError::Invalid { origin, value, expected, may_pass },
                });
            }
        }
        Ok(())
    }
}

/// A value of the file as it would be typed.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Boolean(on) => (if *on { "on" } else { "off" }).to_owned(),
        other => other.to_string(),
    }
}

fn check_keys(path: &Path, table: &toml::Table) -> Result<(), ConfigError> {
    // A file that names a file would have to say which goes first.
    let is_key = |name: &str| name != "config" && settings::all().any(|setting| setting.name == name);
    let Some(key) = table.keys().find(|key| !is_key(key)) else { return Ok(()) };
    let near = settings::near(key).filter(|near| is_key(near)).map(str::to_owned);
    Err(ConfigError::UnknownKey { path: path.to_owned(), key: key.clone(), near })
}
