//! What is wrong with a configuration, in words that say where and what would be right.

use crate::console;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name, without dashes.
    Flag(&'static str),
    /// This environment variable.
    Environment(String),
    /// This key of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File { path, key } => write!(f, "{}: {key}", path.display()),
        }
    }
}

/// Why there is no [`Config`](super::Config). The text is for the terminal, without the program's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `--help`: the text for standard output.
    #[error("{0}")]
    Help(String),
    /// `--version`: the text for standard output.
    #[error("{0}")]
    Version(String),
    /// The command line cannot be read: clap's text.
    #[error("{0}")]
    Usage(String),
    /// A value is wrong.
    #[error("{origin}: {value:?} is invalid; expected {expected}")]
    Invalid {
        /// Where it is.
        origin: Origin,
        /// The value.
        value: String,
        /// What would be right.
        expected: String,
        /// Whether the same value may do later: a name that is not known yet.
        may_pass: bool,
    },
    /// A secret is wrong; it is not repeated here.
    #[error("{origin}: {problem}")]
    Secret {
        /// Where it is.
        origin: Origin,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The file cannot be read.
    #[error("{}: {detail}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system or the TOML reader said.
        detail: String,
    },
    /// A key of the file is not the name of a flag.
    #[error("{}: there is no key {key:?}{}", path.display(),
        near.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// A name that is nearly that.
        near: Option<String>,
    },
    /// Values that are right alone and wrong together.
    #[error("{0}")]
    Conflict(String),
}

impl ConfigError {
    /// What the program ends with: 0 after `--help` and `--version`, 2 for a wrong configuration, 1 for one that may be
    /// right later, so that a service manager tries again.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Help(_) | Self::Version(_) => 0,
            Self::Invalid { may_pass: true, .. } => 1,
            _ => 2,
        }
    }

    /// Prints it, a program's own text to standard output and what is wrong to standard error with the program's name in
    /// front; gives [`Self::exit_code`].
    #[must_use]
    pub fn tell(&self, program: &str) -> u8 {
        match self {
            Self::Help(text) | Self::Version(text) => console::print(text),
            error => console::warn(format_args!("{program}: {error}")),
        }
        self.exit_code()
    }
}

impl From<clap::Error> for ConfigError {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        match error.kind() {
            clap::error::ErrorKind::DisplayHelp => Self::Help(text),
            clap::error::ErrorKind::DisplayVersion => Self::Version(text),
            // The caller puts a word in front of each error.
            _ => Self::Usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned()),
        }
    }
}
