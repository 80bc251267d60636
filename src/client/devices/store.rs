//! Where ends keep what has to outlast them: small texts with secrets in them.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The longest text that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// Keeps texts by name. What [`write`](Self::write) has returned from outlasts the process.
pub trait Store: fmt::Debug + Send + Sync {
    /// Keeps a text, whole or not at all, in place of the one that this name had.
    ///
    /// # Errors
    /// The system refuses.
    fn write(&self, name: &str, text: &str) -> io::Result<()>;

    /// The text of this name, if there is one.
    ///
    /// # Errors
    /// The system refuses.
    fn read(&self, name: &str) -> io::Result<Option<String>>;

    /// Forgets a text; none is fine, too.
    ///
    /// # Errors
    /// The system refuses.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names that there are.
    ///
    /// # Errors
    /// The system refuses.
    fn names(&self) -> io::Result<Vec<String>>;
}

/// Files in a folder, `NAME.json`, all of it for its owner's eyes alone.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Texts are kept here; the folder is made when the first is written.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }
}

impl Store for Folder {
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        replace(&self.file(name), text.as_bytes())
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let path = self.file(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > TEXT_BYTES_MAX => Err(io::Error::other("the file is too long")),
            Ok(_) => fs::read_to_string(&path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.filter_map(|entry| {
            let name = entry.map(|entry| entry.file_name());
            name.map(|name| name.to_str()?.strip_suffix(".json").map(str::to_owned)).transpose()
        });
        names.collect()
    }
}

/// Writes a file, whole or not at all, for its owner's eyes alone; its folder is made where there is none.
///
/// # Errors
/// The system refuses.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let written = write_new(&new, bytes).and_then(|()| fs::rename(&new, path)).and_then(|()| sync_folder(path));
    if written.is_err() {
        // Not left behind: it may have secrets in it.
        let _ = fs::remove_file(&new);
    }
    written
}

/// A file's new name outlasts a power cut, too.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// There is no such call.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes a folder, and those above it, for its owner's eyes alone.
///
/// # Errors
/// The system refuses.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    // What a process with the same number has left, long ago.
    let _ = fs::remove_file(path);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back_are_listed_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::new(folder.path().join("a"));
        assert_eq!((store.names().unwrap().len(), store.read("x").unwrap()), (0, None));
        for text in ["1", "2"] {
            store.write("x", text).unwrap();
            assert_eq!(store.read("x").unwrap().as_deref(), Some(text));
        }
        assert_eq!(store.names().unwrap(), ["x"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&store.path), mode(&store.file("x"))), (0o700, 0o600));
        }
        store.remove("x").unwrap();
        store.remove("x").unwrap();
        assert!(store.names().unwrap().is_empty());
    }
}
