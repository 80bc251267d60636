//! One relay to a store: a lock file beside it, held while the process lives and released by the system when it ends,
//! however it ends. The file itself stays, for removing it would let two relays lock two files of the same name.

use super::error::OpenError;
use crate::sys::file::beside;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lock; dropping it lets the store go.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
    _store: Option<File>,
}

impl StoreLock {
    /// Locks the store at `path`, whose directory exists.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another relay has it, or what the system says about the lock file.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        // A store that is reached under two names through a symbolic link is still one store.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let lock = beside(&real, ".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(|e| OpenError::of_system(&lock, &e))?;
        if !lock_alone(&file).map_err(|e| OpenError::of_system(&lock, &e))? {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(OpenError::InUse { path: path.to_owned(), process: holder.trim().parse().ok() });
        }
        // A hard link is another name without a path to follow, so the store itself is locked as well. SQLite's own locks
        // are of another kind; they would go when this file is closed, which is after SQLite has closed its own.
        let store = match File::open(&real) {
            Ok(store) if !lock_alone(&store).map_err(|e| OpenError::of_system(path, &e))? => {
                return Err(OpenError::InUse { path: path.to_owned(), process: None });
            }
            Ok(store) => Some(store),
            // It is not there yet, and then nobody else has it; or SQLite will say better why it cannot be read.
            Err(_) => None,
        };
        // The number is a courtesy to whoever meets the lock; a full disk must not keep the relay from starting.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file, _store: store })
    }
}

/// Whether the lock could be had.
fn lock_alone(file: &File) -> std::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
