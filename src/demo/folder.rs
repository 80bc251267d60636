//! Where the demo keeps its files: a folder that the person named, or one that is removed at the end.

use crate::console;
use std::fs::{DirBuilder, remove_dir_all};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Removed when it is dropped, if it is a temporary one.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    /// The folder `kept`, which is made if need be, or a temporary one. Only their owner may look into either.
    pub(super) fn open(kept: Option<&Path>) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        if let Some(path) = kept {
            let refused =
                |error: io::Error| io::Error::new(error.kind(), format!("--data {}: {error}", path.display()));
            builder.recursive(true).create(path).map_err(refused)?;
            return Ok(Self { path: path.to_owned(), temporary: false });
        }
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| io::Error::other(error.to_string()))?;
        let path = std::env::temp_dir().join(format!("coralmux-demo-{}", crate::proto::token::hex(&name)));
        // Fails where something has that name: nobody else's folder is ever used, or removed.
        let refused = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        builder.create(&path).map_err(refused)?;
        Ok(Self { path, temporary: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = remove_dir_all(&self.path)
        {
            console::warn(format_args!("coralmux-relay demo: {} stays: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;

    #[test]
    fn a_temporary_folder_goes_and_a_named_one_stays() {
        let temporary = Folder::open(None).unwrap();
        let path = temporary.path().to_owned();
        write(path.join("x"), "x").unwrap();
        drop(temporary);
        assert!(!path.exists());
        let outer = tempfile::tempdir().unwrap();
        let named = outer.path().join("a").join("b");
        drop(Folder::open(Some(&named)).unwrap());
        assert!(named.exists());
        let file = outer.path().join("file");
        write(&file, "x").unwrap();
        let error = Folder::open(Some(&file.join("c"))).unwrap_err().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
    }
}
