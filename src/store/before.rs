//! The store as it was before a newer relay first changed its schema: a copy beside it, so that one can go back to the
//! older relay. There is never more than one.

use super::backup::{BackupError, Progress, copy};
use super::error::OpenError;
use crate::sys::file::{beside, folder_of};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// What the name of a copy has between that of the store and the version of the relay that changed the store.
const BEFORE: &str = ".before-";

/// Keeps a copy of the store at `path` in place of any older one. Nothing is migrated without.
pub(super) fn keep(path: &Path) -> Result<(), OpenError> {
    // Beside the file itself, wherever a symbolic link to it is.
    let store = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let kept = beside(&store, &format!("{BEFORE}{}", env!("CARGO_PKG_VERSION")));
    let bytes = copy(&store, &kept, &Progress::default()).map_err(|error| match error {
        BackupError::Io(error) => OpenError::of_system(&kept, &error),
        BackupError::Store(error) => OpenError::of_store(&kept, error),
    })?;
    for older in others(&store, &kept) {
        if let Err(error) = fs::remove_file(&older) {
            tracing::warn!(file = %older.display(), %error, "an older copy of the store cannot be removed");
        }
    }
    tracing::info!(file = %kept.display(), bytes, "the store is brought to a newer schema; this is a copy of what it was");
    Ok(())
}

/// The copies of a store but for one.
fn others(store: &Path, kept: &Path) -> Vec<PathBuf> {
    let start = beside(Path::new(store.file_name().unwrap_or_default()), BEFORE).into_os_string();
    let is_copy = |name: &OsStr| name.as_encoded_bytes().starts_with(start.as_encoded_bytes());
    let entries = fs::read_dir(folder_of(store)).into_iter().flatten().flatten();
    entries.filter(|entry| is_copy(&entry.file_name())).map(|entry| entry.path()).filter(|path| path != kept).collect()
}
