//! The admin key of an operator who gave none: made at the first start, and kept beside the store.

use super::secret::Secret;
use crate::proto::token::hex;
use crate::sys::file::{self, Loose};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where the admin key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The operator gave it.
    Configured,
    /// An earlier start made it: it is in this file.
    Kept(PathBuf),
    /// Made now and kept in this file: to be shown once.
    Made(PathBuf),
}

/// Why there is no admin key. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// Others than the owner may read or write the file, and that could not be changed.
    #[error("{}: {loose}, and it holds the admin key; if no one has read it, run `chmod 600`; otherwise remove it, and a new key is generated", path.display())]
    Loose {
        /// The key's file.
        path: PathBuf,
        /// Who may.
        loose: Loose,
    },
    /// The file holds no key.
    #[error("{}: holds no admin key ({problem}); remove it and a new one is made", path.display())]
    Unusable {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file cannot be read or written.
    #[error("{}: the admin key cannot be {verb}: {error}; fix that, or give one with --admin-key or RELAY_ADMIN_KEY", path.display())]
    Io {
        /// The key's file.
        path: PathBuf,
        /// `read` or `kept`.
        verb: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// A key file is one line; what is longer is another file.
const FILE_BYTES_MAX: u64 = 4096;

/// Where the key of a relay with this store is kept.
#[must_use]
pub fn admin_key_file(db: &Path) -> PathBuf {
    file::beside(db, ".admin-key")
}

/// The configured key; or else the one that [`admin_key_file`] holds; or else one made of `random` and kept there,
/// readable for its owner alone. To be called after the store was opened, whose lock keeps a second relay from making one
/// too.
///
/// # Errors
/// [`AdminKeyError`]; there is never an empty key.
pub fn admin_key(
    configured: Option<Secret>,
    db: &Path,
    random: [u8; 32],
) -> Result<(Secret, KeyOrigin), AdminKeyError> {
    if let Some(secret) = configured {
        return Ok((secret, KeyOrigin::Configured));
    }
    let path = admin_key_file(db);
    match file::open(&path) {
        Ok(file) => Ok((read(&path, file)?, KeyOrigin::Kept(path))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = hex(&random);
            let unusable = |problem: &str| AdminKeyError::Unusable { path: path.clone(), problem: problem.to_owned() };
            let secret = Secret::new(&text).map_err(unusable)?;
            let kept = file::replace(&path, format!("{text}\n").as_bytes());
            kept.map_err(|error| AdminKeyError::Io { path: path.clone(), verb: "kept", error })?;
            Ok((secret, KeyOrigin::Made(path)))
        }
        Err(error) => Err(AdminKeyError::Io { path, verb: "read", error }),
    }
}

/// The key that such a file holds, for a reader that changes nothing.
///
/// # Errors
/// [`AdminKeyError`].
pub fn admin_key_kept(path: &Path) -> Result<Secret, AdminKeyError> {
    let file = file::open(path);
    secret(path, file.map_err(|error| AdminKeyError::Io { path: path.to_owned(), verb: "read", error })?)
}

fn read(path: &Path, file: File) -> Result<Secret, AdminKeyError> {
    let failed = |error| AdminKeyError::Io { path: path.to_owned(), verb: "read", error };
    let meta = file.metadata().map_err(failed)?;
    file::make_private(path, &meta).map_err(|loose| AdminKeyError::Loose { path: path.to_owned(), loose })?;
    secret(path, file)
}

fn secret(path: &Path, file: File) -> Result<Secret, AdminKeyError> {
    let failed = |error| AdminKeyError::Io { path: path.to_owned(), verb: "read", error };
    let unusable = |problem: &str| AdminKeyError::Unusable { path: path.to_owned(), problem: problem.to_owned() };
    let bytes = file::read_open(file, FILE_BYTES_MAX).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => unusable(&error.to_string()),
        _ => failed(error),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("not a text"))?;
    match text.trim() {
        "" => Err(unusable("empty")),
        key => Secret::new(key).map_err(unusable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::beside;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn directory() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (db, key) = (directory.path().join("relay.db"), directory.path().join("relay.db.admin-key"));
        (directory, db, key)
    }

    fn write(path: &Path, text: &[u8], mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_found_again() {
        let (_directory, db, file) = directory();
        let (made, origin) = admin_key(None, &db, [0xab; 32]).unwrap();
        assert_eq!((made.expose(), origin), ("ab".repeat(32).as_str(), KeyOrigin::Made(file.clone())));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let (kept, origin) = admin_key(None, &db, [0xcd; 32]).unwrap();
        assert_eq!((kept.expose(), origin), (made.expose(), KeyOrigin::Kept(file)));
    }

    #[test]
    fn a_configured_key_goes_first_and_touches_no_file() {
        let (_directory, db, file) = directory();
        let (key, origin) = admin_key(Some(Secret::new("my-secret").unwrap()), &db, [0; 32]).unwrap();
        assert_eq!((key.expose(), origin), ("my-secret", KeyOrigin::Configured));
        assert!(!file.exists());
    }

    #[test]
    fn a_key_that_others_may_read_is_made_private_and_one_that_anybody_may_write_refused() {
        let (_directory, db, file) = directory();
        for mode in [0o640, 0o660, 0o644] {
            write(&file, b"secret\n", mode);
            assert_eq!(admin_key(None, &db, [0; 32]).unwrap().0.expose(), "secret");
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{mode:o}");
        }
        write(&file, b"secret\n", 0o666);
        let error = admin_key(None, &db, [0; 32]).unwrap_err().to_string();
        assert!(error.contains("666") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn an_empty_or_odd_file_never_means_open() {
        for bad in [&b""[..], b" \n", b"\xff\xfe", &[b'x'; 5000], b"two\nlines"] {
            let (_directory, db, file) = directory();
            write(&file, bad, 0o600);
            let error = admin_key(None, &db, [0; 32]).unwrap_err().to_string();
            assert!(error.contains("holds no admin key"), "{error}");
        }
    }

    #[test]
    fn what_a_crash_left_is_in_nobodys_way() {
        let (_directory, db, file) = directory();
        write(&beside(&file, ".new"), b"half", 0o600);
        let (key, _) = admin_key(None, &db, [1; 32]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), key.expose());
        assert!(!beside(&file, ".new").exists());
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = admin_key(None, Path::new("/nowhere/relay.db"), [0; 32]).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/relay.db.admin-key: the admin key cannot be kept"), "{error}");
    }
}
