//! Certificates in files that the operator keeps up to date: loaded at the start, and again when they change. Files that
//! cannot be used must never keep the relay from running: they are logged, and loaded once they are repaired.
//!
//! A certificate that has ended or is not valid yet is presented where there is no better one: clients then say what is
//! wrong in words that people find, and where the fault is this machine's clock, they do not even notice.
//!
//! Files are looked at, not watched by the kernel: that works the same for files that are replaced, for links that are
//! turned to another directory (certbot, Kubernetes), and on file systems of other machines.

use super::certificate::{Certificate, CertificateError};
use super::certificates::{CertificateSlot, Certificates};
use super::status::Source;
use crate::sys::file;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often the files are looked at. A change is taken when they looked the same twice, so that a certificate and a key
/// that are written one after the other are not met half-way: after twice this time at the latest.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// After so many looks files that could not be loaded are tried again though they look the same: once a minute.
const RETRY_LOOKS: u32 = 30;

/// The largest file that is read; a long chain has some ten KiB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a pair of files cannot be used. The text names flag and file, and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One cannot be read.
    #[error("--{flag} {}: cannot be read: {error}; expected a PEM file that this process may read", path.display())]
    Io {
        /// The flag's name.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// They can be read, but their content is invalid.
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
    /// Also of owner and mode, for a file that could not be read.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        Some(Self { device: meta.dev(), inode: meta.ino(), bytes: meta.size(), modified, changed })
    }
}

/// A certificate and its key in files, and their place among the relay's certificates.
#[derive(Debug)]
pub struct Pair {
    cert: PathBuf,
    key: PathBuf,
    place: CertificateSlot,
    certificates: Arc<Certificates>,
    /// What the files looked like when they were read last.
    read: [Option<Stamp>; 2],
    /// What they looked like at the last look.
    seen: [Option<Stamp>; 2],
    /// Why they could not be loaded last, and how many looks ago; `None`: they could.
    failed: Option<(String, u32)>,
}

impl Pair {
    /// A pair of files, loaded for the first time. `now` is a Unix second. What cannot be used is logged, and loaded once it
    /// is mended.
    #[must_use]
    pub fn open(certificates: &Arc<Certificates>, now: u64, cert: &Path, key: &Path) -> Self {
        let place = certificates.add(cert.display().to_string(), Source::Files);
        if fs::metadata(key).is_ok_and(|meta| meta.mode() & 0o004 != 0) {
            tracing::warn!(file = %key.display(), "everybody on this machine may read this private key; `chmod o-r` it");
        }
        let (certificates, cert, key) = (Arc::clone(certificates), cert.to_owned(), key.to_owned());
        let mut pair =
            Self { cert, key, place, certificates, read: Default::default(), seen: Default::default(), failed: None };
        pair.reload(now);
        pair
    }

    /// Loads it again if the files have changed and have come to rest, or could not be loaded for a while.
    pub fn look(&mut self, now: u64) {
        let stamps = [Stamp::of(&self.cert), Stamp::of(&self.key)];
        let resting = self.seen == stamps;
        self.seen = stamps;
        let due = self.failed.as_mut().is_some_and(|(_, looks)| {
            *looks += 1;
            *looks >= RETRY_LOOKS
        });
        if resting && (self.read != stamps || due) {
            self.load_again(now);
        }
    }

    /// Loads it again, changed or not, and says what is wrong even if that was said. What cannot be used leaves the old one
    /// in place.
    pub fn reload(&mut self, now: u64) {
        self.failed = None;
        self.load_again(now);
    }

    fn load_again(&mut self, now: u64) {
        // Looked at before they are read: what changes meanwhile is read again.
        self.seen = [Stamp::of(&self.cert), Stamp::of(&self.key)];
        self.read = self.seen;
        match self.load(now) {
            Ok(certificate) => {
                tell(&self.cert, &certificate);
                self.certificates.put(now, self.place, certificate);
                self.failed = None;
            }
            Err(error) => self.fail(now, error.to_string()),
        }
    }

    /// What the files hold. One that is not valid now is better than none, or than another such one.
    fn load(&self, now: u64) -> Result<Certificate, FilesError> {
        let certificate = read_pair(&self.cert, &self.key)?;
        match certificate.check_time(now) {
            Err(error) if self.certificates.is_valid(now, self.place) => Err(told(error, &self.cert, &self.key)),
            Err(error) => {
                let error = told(error, &self.cert, &self.key);
                tracing::error!(%error, "a certificate is not valid now; it is presented until there is another");
                Ok(certificate)
            }
            Ok(()) => Ok(certificate),
        }
    }

    fn fail(&mut self, now: u64, error: String) {
        let is_new = self.failed.as_ref().is_none_or(|(last, _)| *last != error);
        if is_new && self.certificates.is_valid(now, self.place) {
            tracing::error!(error, "a certificate cannot be loaded; the old one stays in use");
        } else if is_new {
            tracing::error!(error, "a certificate cannot be loaded; the relay tries again when its files change");
        }
        self.certificates.fail(self.place, error.clone());
        self.failed = Some((error, 0));
    }
}

fn tell(file: &Path, certificate: &Certificate) {
    tracing::info!(
        file = %file.display(),
        names = certificate.names.join(", "),
        not_after = crate::sys::time::write_rfc3339(certificate.not_after),
        "certificate loaded"
    );
}

fn read_pair(cert: &Path, key: &Path) -> Result<Certificate, FilesError> {
    let (chain_pem, key_pem) = (read("tls-cert", cert)?, read("tls-key", key)?);
    Certificate::from_pem(&chain_pem, &key_pem).map_err(|error| told(error, cert, key))
}

/// With the flags and files that it is about.
fn told(error: CertificateError, cert: &Path, key: &Path) -> FilesError {
    let (cert, key) = (format!("--tls-cert {}", cert.display()), format!("--tls-key {}", key.display()));
    let files = match &error {
        CertificateError::Key(_) => key,
        CertificateError::KeyMismatch { .. } => format!("{cert} and {key}"),
        _ => cert,
    };
    FilesError::Pair { files, error }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, FilesError> {
    file::read(path, FILE_BYTES_MAX).map_err(|error| FilesError::Io { flag, path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::pem_for;
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::PermissionsExt;
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

        fn open(&self) -> Pair {
            Pair::open(&self.certificates, now(), &self.cert, &self.key)
        }

        /// What is wrong at this Unix second; empty: nothing.
        fn fault(&self, now: u64) -> String {
            self.certificates.fault(now).unwrap_or_default()
        }

        fn loads_and_failures(&self) -> (u64, u64) {
            let status = &self.certificates.statuses()[0];
            (status.loads, status.failures)
        }
    }

    #[test]
    fn changed_files_are_loaded_when_they_have_come_to_rest() {
        let files = Files::new();
        let mut pair = files.open();
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
        let mut pair = files.open();
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
    fn what_cannot_be_loaded_names_flag_file_and_what_is_right_and_is_taken_once_it_is_mended() {
        let files = Files::new();
        let (_, other) = pem_for(&["b.example"]);
        files.replace(&files.key, &other);
        let mut pair = files.open();
        let look = |pair: &mut Pair| {
            pair.look(now());
            pair.look(now());
            files.fault(now())
        };
        let mismatch = files.fault(now());
        assert!(mismatch.contains("--tls-cert") && mismatch.contains("--tls-key"), "{mismatch}");
        files.replace(&files.key, "");
        assert!(look(&mut pair).contains("--tls-key"), "{}", files.fault(now()));
        fs::remove_file(&files.key).unwrap();
        assert!(look(&mut pair).contains("No such file"), "{}", files.fault(now()));
        fs::create_dir(&files.key).unwrap();
        assert!(look(&mut pair).contains("not a regular file"), "{}", files.fault(now()));
        fs::remove_dir(&files.key).unwrap();
        // One that nobody writes into.
        mknodat(CWD, &files.key, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(look(&mut pair).contains("not a regular file"), "{}", files.fault(now()));
        assert!(!files.certificates.is_valid(now(), pair.place));
        fs::remove_file(&files.key).unwrap();
        files.write(&["a.example"]);
        assert_eq!(look(&mut pair), "");
        assert!(files.certificates.is_valid(now(), pair.place));
    }

    #[test]
    fn a_file_whose_mode_has_changed_is_not_the_same() {
        let files = Files::new();
        let before = Stamp::of(&files.key);
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o440)).unwrap();
        assert_ne!(Stamp::of(&files.key), before, "a key that could not be read is mended so");
    }

    #[test]
    fn files_that_look_the_same_are_tried_again_after_a_while() {
        let files = Files::new();
        files.replace(&files.key, "");
        let mut pair = files.open();
        pair.look(now());
        assert_eq!(files.loads_and_failures(), (0, 1));
        (0..RETRY_LOOKS).for_each(|_| pair.look(now()));
        assert_eq!(files.loads_and_failures(), (0, 2));
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_is_better_than_none_and_worse_than_a_valid_one() {
        let files = Files::new();
        let late = now() + (5000 * 366 * 86_400);
        let mut pair = Pair::open(&files.certificates, late, &files.cert, &files.key);
        assert!(files.fault(late).contains("ended"), "{}", files.fault(late));
        assert!(!files.certificates.is_valid(late, pair.place) && files.certificates.is_valid(now(), pair.place));
        assert_eq!(files.fault(now()), "", "as soon as the clock is right");
        let early = 1;
        files.write(&["b.example"]);
        pair.reload(early);
        assert!(files.fault(early).contains("not valid before"), "{}", files.fault(early));
        pair.reload(now());
        let valid = files.loads_and_failures();
        files.write(&["c.example"]);
        pair.reload(late);
        assert_eq!(files.loads_and_failures(), (valid.0 + 1, 0), "one that has ended makes way for another");
        pair.reload(now());
        pair.reload(early);
        assert_eq!(files.loads_and_failures(), (valid.0 + 3, 0));
    }

    #[test]
    fn an_ended_certificate_does_not_replace_a_valid_one() {
        let files = Files::new();
        let mut pair = files.open();
        let (chain, key) = ended_pem();
        files.replace(&files.cert, &chain);
        files.replace(&files.key, &key);
        pair.reload(now());
        assert_eq!(files.loads_and_failures(), (1, 1));
        assert!(files.fault(now()).contains("not renewed") && files.fault(now()).contains("expired on 2024"));
    }

    fn ended_pem() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2024, 2, 9);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}
