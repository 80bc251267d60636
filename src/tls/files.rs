//! Certificates in files that the operator keeps up to date: loaded at the start, and again when they change.
//!
//! Files are looked at, not watched by the kernel: that works the same for files that are replaced, for links that are
//! turned to another directory (certbot, Kubernetes), and on file systems of other machines.

use super::certificate::{Certificate, CertificateError};
use super::certificates::{Certificates, Place};
use super::status::Source;
use crate::config::file;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often the files are looked at. A change is taken when they looked the same twice, so that a certificate and a key
/// that are written one after the other are not met half-way: after twice this time at the latest.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The largest file that is read; a long chain has some ten KiB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a pair of files is of no use. The text names flag and file, and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One cannot be read.
    #[error("--{flag} {}: cannot be read: {error}; right is a PEM file that this process may read", path.display())]
    Io {
        /// The flag's name.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// They can be read, and what is in them will not do.
    #[error("{files}: {error}")]
    Pair {
        /// Flag and file, or both.
        files: String,
        /// What is wrong.
        error: CertificateError,
    },
}

/// What tells a file from a changed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let modified = (meta.mtime(), meta.mtime_nsec());
        Some(Self { device: meta.dev(), inode: meta.ino(), bytes: meta.size(), modified })
    }
}

/// A certificate and its key in files, and their place among the relay's certificates.
#[derive(Debug)]
pub struct Pair {
    cert: PathBuf,
    key: PathBuf,
    place: Place,
    certificates: Arc<Certificates>,
    /// What the files looked like when they were read last.
    read: [Option<Stamp>; 2],
    /// What they looked like at the last look.
    seen: [Option<Stamp>; 2],
}

impl Pair {
    /// Loads a pair for the first time. `now` is a Unix second.
    ///
    /// # Errors
    /// [`FilesError`]: there is nothing to present then.
    pub fn open(certificates: &Arc<Certificates>, now: u64, cert: &Path, key: &Path) -> Result<Self, FilesError> {
        let stamps = [Stamp::of(cert), Stamp::of(key)];
        let certificate = load(now, cert, key)?;
        let place = certificates.add(cert.display().to_string(), Source::Files);
        if fs::metadata(key).is_ok_and(|meta| meta.mode() & 0o004 != 0) {
            tracing::warn!(file = %key.display(), "everybody on this machine may read this private key; `chmod o-r` it");
        }
        tell(cert, &certificate, "certificate loaded");
        certificates.put(now, place, certificate);
        let (certificates, cert, key) = (Arc::clone(certificates), cert.to_owned(), key.to_owned());
        Ok(Self { cert, key, place, certificates, read: stamps, seen: stamps })
    }

    /// Loads it again if the files have changed and have come to rest.
    pub fn look(&mut self, now: u64) {
        let stamps = [Stamp::of(&self.cert), Stamp::of(&self.key)];
        let resting = self.seen == stamps;
        self.seen = stamps;
        if resting && self.read != stamps {
            self.reload(now);
        }
    }

    /// Loads it again, changed or not. What is of no use leaves the old one in place.
    pub fn reload(&mut self, now: u64) {
        // Looked at before they are read: what changes meanwhile is read again.
        self.seen = [Stamp::of(&self.cert), Stamp::of(&self.key)];
        self.read = self.seen;
        match load(now, &self.cert, &self.key) {
            Ok(certificate) => {
                tell(&self.cert, &certificate, "certificate loaded again");
                self.certificates.put(now, self.place, certificate);
            }
            Err(error) => {
                tracing::error!(%error, "a certificate cannot be loaded; the old one stays in use");
                self.certificates.fail(self.place, error.to_string());
            }
        }
    }
}

fn tell(file: &Path, certificate: &Certificate, what: &str) {
    tracing::info!(
        file = %file.display(),
        names = certificate.names.join(", "),
        not_after = crate::store::calendar::write_rfc3339(certificate.not_after),
        "{what}"
    );
}

fn load(now: u64, cert: &Path, key: &Path) -> Result<Certificate, FilesError> {
    let (chain_pem, key_pem) = (read("tls-cert", cert)?, read("tls-key", key)?);
    let certificate = Certificate::from_pem(&chain_pem, &key_pem).and_then(|certificate| {
        certificate.check_time(now)?;
        Ok(certificate)
    });
    certificate.map_err(|error| {
        let (cert, key) = (format!("--tls-cert {}", cert.display()), format!("--tls-key {}", key.display()));
        let files = match &error {
            CertificateError::Key(_) => key,
            CertificateError::KeyMismatch { .. } => format!("{cert} and {key}"),
            _ => cert,
        };
        FilesError::Pair { files, error }
    })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, FilesError> {
    file::read(path, FILE_BYTES_MAX).map_err(|error| FilesError::Io { flag, path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::pem_for;
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::time::{SystemTime, UNIX_EPOCH};

    struct Files {
        directory: tempfile::TempDir,
        cert: PathBuf,
        key: PathBuf,
        certificates: Arc<Certificates>,
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    impl Files {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
            let files = Self { directory, cert, key, certificates: Arc::default() };
            files.write(&["a.example"]);
            files
        }

        fn write(&self, names: &[&str]) {
            let (chain, key) = pem_for(names);
            self.replace(&self.cert, &chain);
            self.replace(&self.key, &key);
        }

        /// By a new file, as careful writers do.
        fn replace(&self, path: &Path, text: &str) {
            let new = self.directory.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, path).unwrap();
        }

        fn open(&self) -> Result<Pair, FilesError> {
            Pair::open(&self.certificates, now(), &self.cert, &self.key)
        }

        fn loads_and_failures(&self) -> (u64, u64) {
            let status = &self.certificates.statuses()[0];
            (status.loads, status.failures)
        }
    }

    #[test]
    fn changed_files_are_loaded_when_they_have_come_to_rest() {
        let files = Files::new();
        let mut pair = files.open().unwrap();
        pair.look(now());
        assert_eq!(files.loads_and_failures(), (1, 0), "nothing changed");
        let (chain, key) = pem_for(&["b.example"]);
        files.replace(&files.cert, &chain);
        pair.look(now());
        assert_eq!(files.loads_and_failures(), (1, 0), "the key may come any moment");
        files.replace(&files.key, &key);
        pair.look(now());
        pair.look(now());
        assert_eq!(files.loads_and_failures(), (2, 0));
        pair.look(now());
        assert_eq!(files.loads_and_failures(), (2, 0));
    }

    #[test]
    fn a_broken_file_leaves_the_old_certificate_and_is_told_once() {
        let files = Files::new();
        let mut pair = files.open().unwrap();
        files.replace(&files.cert, "no certificate");
        for _ in 0..4 {
            pair.look(now());
        }
        assert_eq!(files.loads_and_failures(), (1, 1));
        let fault = files.certificates.fault(now()).unwrap();
        assert!(fault.contains("--tls-cert") && fault.contains(files.cert.to_str().unwrap()), "{fault}");
        pair.reload(now());
        assert_eq!(files.loads_and_failures(), (1, 2), "asked for, it is tried again");
        files.write(&["c.example"]);
        pair.look(now());
        pair.look(now());
        assert_eq!((files.loads_and_failures(), files.certificates.fault(now())), ((2, 2), None));
    }

    #[test]
    fn what_cannot_be_loaded_names_flag_file_and_what_is_right() {
        let files = Files::new();
        let (_, other) = pem_for(&["b.example"]);
        let text = |files: &Files| files.open().unwrap_err().to_string();
        files.replace(&files.key, &other);
        let mismatch = text(&files);
        assert!(mismatch.contains("--tls-cert") && mismatch.contains("--tls-key"), "{mismatch}");
        files.replace(&files.key, "");
        assert!(text(&files).starts_with("--tls-key"), "{}", text(&files));
        fs::remove_file(&files.key).unwrap();
        assert!(text(&files).contains("No such file"), "{}", text(&files));
        fs::create_dir(&files.key).unwrap();
        assert!(text(&files).contains("no file"), "{}", text(&files));
        fs::remove_dir(&files.key).unwrap();
        // One that nobody writes into.
        mknodat(CWD, &files.key, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(text(&files).contains("no file"), "{}", text(&files));
        let late = now() + (5000 * 366 * 86_400);
        assert!(files.certificates.statuses().is_empty());
        fs::remove_file(&files.key).unwrap();
        files.write(&["a.example"]);
        let ended = Pair::open(&files.certificates, late, &files.cert, &files.key).unwrap_err().to_string();
        assert!(ended.contains("--tls-cert") && ended.contains("ended"), "{ended}");
    }
}
