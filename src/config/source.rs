//! Where values come from: the flag goes before the environment, the environment before the file.

use super::error::{ConfigError, Origin};
use super::flags::Flags;
use super::value::Wrong;
use crate::sys::file;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use toml::Value;

/// The largest file that is read; one with every setting has a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The environment and the file.
pub(super) struct Sources<'e> {
    environment: &'e dyn Fn(&str) -> Option<String>,
    file: Option<(PathBuf, toml::Table)>,
}

/// A value and where it stands; several for what is repeatable.
pub(super) struct Given {
    pub(super) origin: Origin,
    pub(super) texts: Vec<String>,
}

impl Given {
    /// Reads each text; `read` returns what would be right.
    pub(super) fn read<T, E: Into<Wrong>>(&self, read: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, ConfigError> {
        let invalid = |value: &String, Wrong { expected, may_pass }: Wrong| ConfigError::Invalid {
            origin: self.origin.clone(),
            value: value.clone(),
            expected,
            may_pass,
        };
        self.texts.iter().map(|text| read(text).map_err(|wrong| invalid(text, wrong.into()))).collect()
    }
}

impl<'e> Sources<'e> {
    /// Reads the file that `--config` or `CORALMUX_CONFIG` names.
    pub(super) fn open(
        config: &Option<String>,
        environment: &'e dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let without = Self { environment, file: None };
        let Some(given) = without.given("config", config.as_slice()) else { return Ok(without) };
        let path = PathBuf::from(given.texts.concat());
        let failed = |detail: String| ConfigError::File { path: path.clone(), detail };
        let text = file::read_text(&path, FILE_BYTES_MAX).map_err(|e| failed(format!("cannot be read: {e}")))?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            // Not the reader's own text: it repeats the line, which may hold the admin key.
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            failed(format!("line {}: not TOML: {}", before.matches('\n').count() + 1, e.message()))
        })?;
        check_keys(&path, &table)?;
        Ok(Self { environment, file: Some((path, table)) })
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// What to do about a file that has one of `secrets` in it and that everybody on the machine may read.
    pub(super) fn open_secrets(&self, secrets: &[&str]) -> Option<String> {
        let (path, table) = self.file.as_ref()?;
        let secret = secrets.iter().find(|secret| table.contains_key(**secret))?;
        let mode = fs::metadata(path).ok()?.mode();
        let path = path.display();
        (mode & 0o004 != 0).then(|| {
            format!("{path} has the {secret}, and everybody on this machine may read it: chmod o-r {path}, and give a new one")
        })
    }

    /// The first that says something about `name`.
    pub(super) fn given(&self, name: &'static str, flag: &[String]) -> Option<Given> {
        if !flag.is_empty() {
            return Some(Given { origin: Origin::Flag(name), texts: flag.to_vec() });
        }
        let mut variables = vec![format!("CORALMUX_{}", name.replace('-', "_").to_uppercase())];
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

    /// One value, or `default`.
    pub(super) fn one<T, E: Into<Wrong>>(
        &self,
        name: &'static str,
        flag: &Option<String>,
        default: T,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        let Some(given) = self.given(name, flag.as_slice()) else { return Ok(default) };
        let [_] = given.texts.as_slice() else {
            let (origin, value) = (given.origin, format!("[{}]", given.texts.join(", ")));
            return Err(ConfigError::Invalid { origin, value, expected: "one value".to_owned(), may_pass: false });
        };
        Ok(given.read(read)?.pop().unwrap_or(default))
    }

    /// All values of what is repeatable, also with commas between them; none where nobody says anything.
    pub(super) fn many<T, E: Into<Wrong>>(
        &self,
        name: &'static str,
        flag: &[String],
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(mut given) = self.given(name, flag) else { return Ok(Vec::new()) };
        given.texts = given.texts.iter().flat_map(|text| text.split(',')).map(|text| text.trim().to_owned()).collect();
        given.read(read)
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
    let names: Vec<String> = Flags::names().into_iter().filter(|name| name != "config").collect();
    let Some(key) = table.keys().find(|key| !names.contains(key)) else { return Ok(()) };
    let near = Flags::near(key).filter(|near| names.contains(near));
    Err(ConfigError::UnknownKey { path: path.to_owned(), key: key.clone(), near })
}
