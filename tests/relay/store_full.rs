//! A disk that is really full. Needs a small file system of its own, and so the right to mount one.

use coralmux::store::{OpenError, Store, StoreError, TokenRow, Usage};
use coralmux_proto::limits::LimitsOverride;
use coralmux_proto::token::TokenHash;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NOW_MS: u64 = 1_707_422_400_000;

/// A tmpfs of that size, unmounted when it goes out of scope.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: no right to mount a tmpfs, which takes root");
        }
        mounted.then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills what is left; returns the file to remove again.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut size = 1 << 20;
        let mut ballast = fs::File::create(&path).unwrap();
        while size > 0 {
            if std::io::Write::write_all(&mut ballast, &vec![0; size]).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

fn row(n: u32) -> TokenRow {
    let (label, limits) = (Some("x".repeat(200)), LimitsOverride::default());
    let hash = TokenHash::of(&n.to_string());
    TokenRow { serial: 0, hash, label, created_at: 1, expires_at: None, limits, unused_from: None }
}

#[test]
fn a_full_disk_fails_the_write_and_loses_nothing_and_room_mends_it() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let path = disk.path().join("relay.db");
    let mut store = Store::open(&path, NOW_MS).unwrap();
    store.create(&row(0)).unwrap();
    let ballast = disk.fill();
    // The write-ahead log still has some room in its last page.
    let (made, error) = (1..1000).find_map(|n| store.create(&row(n)).err().map(|error| (n, error))).unwrap();
    assert_eq!(error, StoreError::DiskFull);
    let usage = [Usage { key: row(0).hash.key(), day: 1, bytes: 1 }];
    assert_eq!(store.record_usage(&usage), Err(StoreError::DiskFull));
    assert_eq!(store.probe(), Err(StoreError::DiskFull));
    assert_eq!(store.list(0, 1000).unwrap().len(), made as usize);

    fs::remove_file(ballast).unwrap();
    assert_eq!((store.probe(), store.record_usage(&usage)), (Ok(()), Ok(())));
    store.create(&row(made)).unwrap();
    drop(store);
    assert_eq!(Store::open(&path, NOW_MS).unwrap().list(0, 1000).unwrap().len(), made as usize + 1);
}

#[test]
fn a_start_on_a_full_disk_says_so() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let path = disk.path().join("relay.db");
    let ballast = disk.fill();
    let error = Store::open(&path, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("no room left"), "{error}");
    fs::remove_file(ballast).unwrap();
    let mut store = Store::open(&path, NOW_MS).unwrap();
    store.create(&row(0)).unwrap();
    drop(store);

    disk.fill();
    // An existing store needs room for its log.
    let error = Store::open(&path, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::DiskFull { .. }), "{error}");
}
