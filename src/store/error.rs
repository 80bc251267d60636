//! What can go wrong with the store, and what the operator can do about it.

use rusqlite::{ErrorCode, ffi};
use std::path::PathBuf;

/// Why the store could not be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory that the store is to be in does not exist.
    #[error("{}: the directory {} does not exist; make it, or name another file with --db", path.display(), directory.display())]
    MissingDirectory {
        /// The store.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// Another relay has it.
    #[error("{}: in use by another relay{}; one relay to a store: end that one, or name another file with --db",
        path.display(), process.map(|id| format!(" (process {id})")).unwrap_or_default())]
    InUse {
        /// The store.
        path: PathBuf,
        /// The other relay's process, where its lock file says so.
        process: Option<u32>,
    },
    /// Another program holds a lock in the file.
    #[error("{}: locked by another program (an open `sqlite3` shell, a backup, the old relay?); end it and start again", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// Reading or writing is not allowed.
    #[error("{}: {detail}; the relay must be able to read and write this file and its directory: check owner, mode and mount", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// The file is something else than an SQLite database.
    #[error("{}: not an SQLite database; name the right file with --db, or move this one away", path.display())]
    NotADatabase {
        /// The store.
        path: PathBuf,
    },
    /// An SQLite database of another program.
    #[error("{}: an SQLite database, but of another program; name the right file with --db", path.display())]
    Foreign {
        /// The store.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{}: damaged ({detail}); restore a backup, or save what is left with `sqlite3 {} .recover`", path.display(), path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What SQLite found.
        detail: String,
    },
    /// A newer relay wrote it.
    #[error("{}: written by a newer relay (schema {found}, this one knows up to {known}); run that version, or restore a backup of before the upgrade", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// No room left.
    #[error("{}: no room left on the device; free some and start again", path.display())]
    DiskFull {
        /// The store.
        path: PathBuf,
    },
    /// Anything else that the system or SQLite said.
    #[error("{}: {detail}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was said.
        detail: String,
    },
}

impl OpenError {
    /// The open error for what SQLite said about `path`.
    pub(super) fn of_sqlite(path: &std::path::Path, error: &rusqlite::Error) -> Self {
        match StoreError::from_ref(error) {
            StoreError::Corrupt(_) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                Self::NotADatabase { path: path.to_owned() }
            }
            StoreError::ReadOnly => Self::Permission { path: path.to_owned(), detail: error.to_string() },
            other => Self::of_store(path, other),
        }
    }

    /// The open error for what keeps the store at `path` from being read or written.
    pub(super) fn of_store(path: &std::path::Path, error: StoreError) -> Self {
        let path = path.to_owned();
        match error {
            StoreError::DiskFull => Self::DiskFull { path },
            StoreError::Locked => Self::Locked { path },
            StoreError::Corrupt(detail) => Self::Corrupt { path, detail },
            StoreError::ReadOnly => Self::Permission { path, detail: error.to_string() },
            StoreError::Exists | StoreError::Io(_) => Self::Io { path, detail: error.to_string() },
        }
    }

    /// The open error for what the system said about `path`.
    pub(super) fn of_system(path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
        let path = path.to_owned();
        match error.kind() {
            PermissionDenied | ReadOnlyFilesystem => Self::Permission { path, detail: error.to_string() },
            StorageFull => Self::DiskFull { path },
            _ => Self::Io { path, detail: error.to_string() },
        }
    }
}

/// Why the open store could not be read or written. Nothing of the failed call has been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room left on the device.
    #[error("no room left on the device")]
    DiskFull,
    /// Another program holds a lock in the file.
    #[error("locked by another program")]
    Locked,
    /// The file may not be written.
    #[error("not writable")]
    ReadOnly,
    /// The file is damaged, or not a database any more.
    #[error("damaged: {0}")]
    Corrupt(String),
    /// A token with this hash is there already.
    #[error("the token exists already")]
    Exists,
    /// Anything else that the system or SQLite said.
    #[error("{0}")]
    Io(String),
}

impl StoreError {
    /// The kind of a failure of SQLite.
    fn from_ref(error: &rusqlite::Error) -> Self {
        // With a full disk the shared memory of the write-ahead log cannot be made either, which is told apart from
        // other failures only in the extended code.
        if error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE) {
            return Self::DiskFull;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Self::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            Some(ErrorCode::ConstraintViolation) => Self::Exists,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::from_ref(&error)
    }
}

/// The state of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum StoreState {
    /// The last write succeeded.
    #[default]
    Ok,
    /// No room left on the device.
    DiskFull,
    /// Locked by another program.
    Locked,
    /// Not writable any more.
    ReadOnly,
    /// Damaged.
    Corrupt,
    /// Another failure.
    Io,
}

impl StoreState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Ok, Self::DiskFull, Self::Locked, Self::ReadOnly, Self::Corrupt, Self::Io];

    /// The name in `/health`, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::DiskFull => "disk_full",
            Self::Locked => "locked",
            Self::ReadOnly => "read_only",
            Self::Corrupt => "corrupt",
            Self::Io => "io_error",
        }
    }

    /// The state that a failure means.
    #[must_use]
    pub const fn of(error: &StoreError) -> Self {
        match error {
            StoreError::DiskFull => Self::DiskFull,
            StoreError::Locked => Self::Locked,
            StoreError::ReadOnly => Self::ReadOnly,
            StoreError::Corrupt(_) => Self::Corrupt,
            StoreError::Io(_) | StoreError::Exists => Self::Io,
        }
    }
}
