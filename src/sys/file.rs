//! Small files: reading those that an operator names, and keeping those that are for the owner alone. Reading must never
//! wait: a pipe without a writer would block its reader for ever, without a word. What is written must never
//! be there in part, nor for others to read.

use rustix::fs::OFlags;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Opens a regular file for reading.
///
/// # Errors
/// What the system says; and that it is not a regular file, for a directory, a pipe or a device.
pub fn open(path: &Path) -> io::Result<File> {
    // Of a regular file this changes nothing; a pipe it opens at once.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// All of an open file, if that is at most `bytes_max` bytes.
///
/// # Errors
/// What the system says; and that it is too long ([`io::ErrorKind::FileTooLarge`]).
pub fn read_open(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => {
            let text = format!("it is longer than {bytes_max} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, text))
        }
        false => Ok(bytes),
    }
}

/// [`open`] and [`read_open`].
///
/// # Errors
/// Those of both.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_open(open(path)?, bytes_max)
}

/// The same, of a text.
///
/// # Errors
/// Those of [`read`]; and that it is no UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?).map_err(|_| io::Error::other("not valid UTF-8"))
}

/// Takes the rights of everybody but the owner off a file or directory that is for its owner alone, and says so in the log.
/// What everybody may write stays as it is: what is in it may be anybody's.
///
/// # Errors
/// [`Loose`]: others still may read or write it.
pub fn make_private(path: &Path, meta: &Metadata) -> Result<(), Loose> {
    let mode = meta.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let private = fs::Permissions::from_mode(mode & 0o700);
    // Some file systems take a mode and keep their own.
    let is_private = || fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 == 0);
    if mode & 0o002 != 0 || fs::set_permissions(path, private).is_err() || !is_private() {
        return Err(Loose { mode });
    }
    let (before, now) = (format!("{mode:03o}"), format!("{:03o}", mode & 0o700));
    let text =
        "others could read or write this; it is for its owner alone now. If somebody may have, make what it holds anew";
    tracing::warn!(file = %path.display(), before, now, "{text}");
    Ok(())
}

/// The same for a file that the relay needs in any case; what cannot be changed is only logged.
/// Where there is no such file, nothing happens.
pub fn tighten(path: &Path) {
    let Ok(meta) = fs::metadata(path) else { return };
    let mode = meta.mode() & 0o777;
    if mode & 0o002 == 0 {
        if let Err(loose) = make_private(path, &meta) {
            tracing::warn!(file = %path.display(), "{loose}, and that cannot be changed; `chmod 600` it");
        }
        return;
    }
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700));
    let now = fs::metadata(path).map_or(mode, |meta| meta.mode() & 0o777);
    let (before, now) = (format!("{mode:03o}"), format!("{now:03o}"));
    let text = if now.ends_with("00") {
        "everybody could write this; it is for its owner alone now. If somebody may have, look whether what it holds is yours"
    } else {
        "everybody may write this, and that cannot be changed; `chmod 600` it"
    };
    tracing::warn!(file = %path.display(), before, now, "{text}");
}

/// Others may read or write what is for its owner alone, and that could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("others may {} it (mode {mode:03o})", if mode & 0o022 == 0 { "read" } else { "read or write" })]
pub struct Loose {
    /// Its permission bits.
    pub mode: u32,
}

/// The file whose name is that of `path` and `suffix`.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The directory of `path`.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the file at `path` anew, empty and for its owner alone.
///
/// # Errors
/// What the system says.
pub fn make_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => OpenOptions::new().write(true).create_new(true).mode(0o600).open(path),
    }
}

/// Gives the file `new` the name `path`, in the same directory, once all of it is on the disk: after a crash the file is
/// there with all of it, or as it was before.
///
/// # Errors
/// What the system says.
pub fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::rename(new, path)?;
    // The name itself lasts only when the directory is on the disk.
    File::open(folder_of(path))?.sync_all()
}

/// Writes a file for its owner alone, whatever was there before: [`make_anew`], and [`put_in_place`].
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    make_anew(&new)?.write_all(bytes)?;
    put_in_place(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn what_is_kept_is_for_its_owner_alone_though_others_could_read_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "old and longer").unwrap();
        fs::write(beside(&path, ".new"), "what a crash left").unwrap();
        for path in [path.clone(), beside(&path, ".new")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!beside(&path, ".new").exists());
        assert_eq!(folder_of(&path), directory.path());
        assert_eq!((folder_of(Path::new("key")), folder_of(Path::new("/key"))), (Path::new("."), Path::new("/")));
    }

    #[test]
    fn what_others_may_read_is_made_private_and_what_everybody_may_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "key").unwrap();
        let made = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let made = make_private(&path, &fs::metadata(&path).unwrap());
            (made, fs::metadata(&path).unwrap().mode() & 0o777)
        };
        for (before, after) in [(0o600, 0o600), (0o400, 0o400), (0o640, 0o600), (0o664, 0o600), (0o444, 0o400)] {
            assert_eq!(made(before), (Ok(()), after), "{before:o}");
        }
        assert_eq!(made(0o666), (Err(Loose { mode: 0o666 }), 0o666));
        assert!(Loose { mode: 0o666 }.to_string().contains("read or write it (mode 666)"));
        let gone = make_private(&directory.path().join("none"), &fs::metadata("/etc/passwd").unwrap());
        assert_eq!(gone, Err(Loose { mode: 0o644 }), "what cannot be changed is refused");
    }

    #[test]
    fn a_pipe_a_directory_and_a_device_are_no_files_and_hold_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
            let error = read(path, 10).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{}: {error}", path.display());
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_bound_and_not_cut_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"0123456789");
        assert!(read(&path, 9).unwrap_err().to_string().contains("longer than 9"));
        assert_eq!(read(&directory.path().join("none"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, 9).unwrap_err().to_string().contains("UTF-8"));
    }
}
