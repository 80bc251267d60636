//! What is kept between two starts: the account and the certificates, in a directory that only its owner may enter.
//!
//! Each CA has a folder of its own, named after its directory's URL: a certificate of a CA for tests is never taken for
//! one of the real CA. A certificate and its key are one file, and a file is there whole or not at all.

use crate::sys::file::{self, Loose};
use crate::tls::files::FILE_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why what has to be kept cannot be.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Others may enter the directory or read a file, and that could not be changed.
    #[error("--acme-dir: {}: {loose}, and private keys are kept there; `chmod go-rwx` it", path.display())]
    Loose {
        /// The directory or file.
        path: PathBuf,
        /// Who may.
        loose: Loose,
    },
    /// There is something else in its place.
    #[error("--acme-dir: {}: not a directory; name another place, or move it away", path.display())]
    NoDirectory {
        /// What is there.
        path: PathBuf,
    },
    /// The system refused.
    #[error("--acme-dir: {}: cannot be {verb}: {error}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// What it said.
        error: io::Error,
    },
}

/// The folder of one CA.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Makes the directory and in it the folder of the CA with this directory URL, if they are not there.
    ///
    /// # Errors
    /// [`DiskError`], also where others may enter a directory that was there.
    pub(super) fn open(dir: &Path, directory_url: &str) -> Result<Self, DiskError> {
        let folder = dir.join(folder_name(directory_url));
        for path in [dir, &folder] {
            let failed = |error| DiskError::Io { path: path.to_owned(), verb: "written", error };
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            let meta = fs::metadata(path).map_err(failed)?;
            if !meta.is_dir() {
                return Err(DiskError::NoDirectory { path: path.to_owned() });
            }
            keep_private(path, &meta)?;
        }
        Ok(Self { folder })
    }

    /// The account's credentials as JSON; `None`: there is no account yet.
    pub(super) fn account(&self) -> Result<Option<Vec<u8>>, DiskError> {
        read(&self.folder.join("account.json"))
    }

    pub(super) fn keep_account(&self, json: &[u8]) -> Result<(), DiskError> {
        write(&self.folder.join("account.json"), json)
    }

    /// A domain's key and certificate chain as PEM; `None`: there is none yet.
    pub(super) fn certificate(&self, domain: &str) -> Result<Option<Vec<u8>>, DiskError> {
        read(&self.certificate_path(domain))
    }

    pub(super) fn keep_certificate(&self, domain: &str, pem: &[u8]) -> Result<(), DiskError> {
        write(&self.certificate_path(domain), pem)
    }

    /// The file of a domain's key and certificate chain.
    pub(super) fn certificate_path(&self, domain: &str) -> PathBuf {
        // A domain was checked to be letters, digits, hyphens and dots, beginning with none of the last two.
        self.folder.join(format!("{domain}.pem"))
    }
}

/// The URL's host, for people, and some of its hash, for there may be several directories on a host.
fn folder_name(url: &str) -> String {
    let host = url.strip_prefix("https://").unwrap_or(url).split('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    let hash = crate::proto::token::hex(&Sha256::digest(url.as_bytes())[..4]);
    format!("{}-{hash}", host.chars().map(plain).take(100).collect::<String>())
}

fn keep_private(path: &Path, meta: &fs::Metadata) -> Result<(), DiskError> {
    file::make_private(path, meta).map_err(|loose| DiskError::Loose { path: path.to_owned(), loose })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    let failed = |error| DiskError::Io { path: path.to_owned(), verb: "read", error };
    let file = match file::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    keep_private(path, &file.metadata().map_err(failed)?)?;
    file::read_open(file, FILE_BYTES_MAX).map(Some).map_err(failed)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    file::replace(path, bytes).map_err(|error| DiskError::Io { path: path.to_owned(), verb: "written", error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    const URL: &str = "https://ca.example:14000/dir";

    #[test]
    fn what_is_kept_is_for_its_owner_alone_and_found_again() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("acme");
        let disk = Disk::open(&dir, URL).unwrap();
        assert_eq!((disk.account().unwrap(), disk.certificate("a.example").unwrap()), (None, None));
        disk.keep_account(b"{}").unwrap();
        disk.keep_certificate("a.example", b"old").unwrap();
        disk.keep_certificate("a.example", b"new").unwrap();
        let disk = Disk::open(&dir, URL).unwrap();
        assert_eq!(disk.account().unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(disk.certificate("a.example").unwrap().as_deref(), Some(&b"new"[..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&disk.folder)), (0o700, 0o700));
        assert_eq!(mode(&disk.certificate_path("a.example")), 0o600);
    }

    #[test]
    fn each_directory_has_a_folder_of_its_own() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("acme");
        Disk::open(&dir, URL).unwrap().keep_account(b"{}").unwrap();
        let other = Disk::open(&dir, "https://ca.example:14000/staging").unwrap();
        assert_eq!(other.account().unwrap(), None);
        assert!(folder_name(URL).starts_with("ca.example_14000-"), "{}", folder_name(URL));
        assert!(!folder_name("https://../../x").contains('/'));
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_told_as_that() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = Disk::open(file.path(), URL).unwrap_err().to_string();
        assert!(text.contains("--acme-dir") && text.contains("not a directory"), "{text}");
    }

    #[test]
    fn what_others_may_read_is_made_private_and_what_everybody_may_write_refused() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("acme");
        let disk = Disk::open(&dir, URL).unwrap();
        disk.keep_account(b"{}").unwrap();
        let account = disk.folder.join("account.json");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        for (path, mode) in [(&account, 0o660), (&dir, 0o775), (&disk.folder, 0o2770)] {
            set(path, mode);
        }
        let disk = Disk::open(&dir, URL).unwrap();
        assert_eq!(disk.account().unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!((mode(&account), mode(&dir), mode(&disk.folder)), (0o600, 0o700, 0o700));
        set(&account, 0o666);
        let error = disk.account().unwrap_err().to_string();
        assert!(error.contains("666") && error.contains("chmod"), "{error}");
        set(&dir, 0o777);
        assert!(matches!(Disk::open(&dir, URL), Err(DiskError::Loose { loose: Loose { mode: 0o777 }, .. })));
    }
}
