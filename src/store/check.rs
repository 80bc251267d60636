//! Looking at a store without opening it as its owner: for a check whether a relay could.

use super::error::OpenError;
use super::natural;
use super::schema::{Kind, check_pages, recognize};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// How long another program's lock is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No file, or one that nothing was written to yet.
    Nothing,
    /// A store, which SQLite finds whole.
    Store {
        /// How many tokens it has.
        tokens: u64,
    },
    /// A store of the Go relay.
    GoRelay,
}

/// Why a relay could not use it.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Another program holds a lock in the file, which may be whole.
    #[error("locked by another program (an open `sqlite3` shell, a backup, the old relay?)")]
    Locked,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is damaged, or no database at all.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A database of something else.
    #[error("it is a database of another program")]
    Foreign,
    /// A newer relay wrote it.
    #[error("written by a newer relay (schema {found}, this one knows up to {known})")]
    Newer {
        /// The file's schema version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
}

/// The same without what the start says of the path and of the way out.
impl From<OpenError> for CheckError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Locked { .. } => Self::Locked,
            OpenError::Foreign { .. } => Self::Foreign,
            OpenError::Newer { found, known, .. } => Self::Newer { found, known },
            OpenError::Corrupt { detail, .. } => Self::Damaged(detail),
            OpenError::NotADatabase { .. } => Self::Damaged("it is not an SQLite database".to_owned()),
            OpenError::Permission { detail, .. } | OpenError::Io { detail, .. } => Self::Unreadable(detail),
            other @ (OpenError::MissingDirectory { .. } | OpenError::InUse { .. } | OpenError::DiskFull { .. }) => {
                Self::Unreadable(other.to_string())
            }
        }
    }
}

/// Looks at the file at `path`, reading all of it; a relay may be using it meanwhile.
///
/// # Errors
/// [`CheckError`].
pub fn check(path: &Path) -> Result<Found, CheckError> {
    if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        return Ok(Found::Nothing);
    }
    let sqlite = |error: rusqlite::Error| OpenError::of_sqlite(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    let kind = recognize(&connection, path)?;
    check_pages(&connection, path)?;
    match kind {
        Kind::Empty | Kind::Ours(0) => Ok(Found::Nothing),
        Kind::Ours(_) => {
            let tokens: i64 =
                connection.query_row("SELECT count(*) FROM token", [], |row| row.get(0)).map_err(sqlite)?;
            Ok(Found::Store { tokens: natural(tokens) })
        }
        Kind::Legacy => Ok(Found::GoRelay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::fs;

    #[test]
    fn each_kind_of_file_is_told_from_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(check(&path("missing.db")).unwrap(), Found::Nothing);
        let store = Store::open(&path("relay.db"), 1_770_000_000_000).unwrap();
        assert_eq!(check(&path("relay.db")).unwrap(), Found::Store { tokens: 0 }, "while a relay uses it");
        drop(store);
        Connection::open(path("go.db")).unwrap().execute_batch("CREATE TABLE tokens (token TEXT, created_at)").unwrap();
        assert_eq!(check(&path("go.db")).unwrap(), Found::GoRelay);
        Connection::open(path("other.db")).unwrap().execute_batch("CREATE TABLE recipes (x)").unwrap();
        assert!(matches!(check(&path("other.db")), Err(CheckError::Foreign)));
        Connection::open(path("namesake.db")).unwrap().execute_batch("CREATE TABLE tokens (word, page)").unwrap();
        assert!(matches!(check(&path("namesake.db")), Err(CheckError::Foreign)), "no Go relay's, though it has tokens");
        drop(Store::open(&path("newer.db"), 1_770_000_000_000).unwrap());
        Connection::open(path("newer.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = check(&path("newer.db")).unwrap_err();
        assert!(matches!(error, CheckError::Newer { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("newer relay (schema 99"), "{error}");
        fs::write(path("text.db"), "no database at all, but long enough ".repeat(200)).unwrap();
        assert!(matches!(check(&path("text.db")), Err(CheckError::Damaged(_))));
        let locker = Connection::open(path("go.db")).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(check(&path("go.db")), Err(CheckError::Locked)));
        // A page in the middle is overwritten.
        let mut bytes = fs::read(path("relay.db")).unwrap();
        assert!(bytes.len() >= 3 * 4096);
        bytes[4096..8192].fill(0xff);
        fs::write(path("torn.db"), bytes).unwrap();
        assert!(check(&path("torn.db")).is_err());
    }
}
