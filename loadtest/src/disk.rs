//! A disk for a relay alone: a file system in a file, which can be made slow or full. It takes root.

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Of each second a slow disk takes no write for this long, and takes them for the rest.
const FROZEN: Duration = Duration::from_millis(800);
const THAWED: Duration = Duration::from_millis(200);

/// A mounted file system, for as long as this lives.
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// One of so many bytes, mounted inside `folder`, which goes with it.
    pub(crate) fn mount(folder: PathBuf, bytes: u64) -> Result<Self> {
        let disk = Self { folder };
        let image = disk.folder.join("image");
        fs::create_dir(disk.path())?;
        File::create(&image)?.set_len(bytes)?;
        // No block is for root alone: full is full.
        run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])?;
        run("mount", &["-o", "loop"], &[&image, &disk.path()])
            .context("a disk that can be slow or full takes root: a file system is mounted")?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// No byte is free until the result is dropped.
    pub(crate) fn fill(&self) -> Result<Full> {
        let path = self.path().join("full");
        let file = File::create(&path)?;
        let full = Full { path };
        let (mut taken, mut bytes) = (0, 1 << 30);
        while bytes >= 1024 {
            match fallocate(&file, FallocateFlags::empty(), taken, bytes) {
                Ok(()) => taken += bytes,
                Err(Errno::NOSPC) => bytes /= 2,
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
        Ok(full)
    }

    /// Writes, and what waits for them to be on the disk, take up to [`FROZEN`] until the result is dropped.
    pub(crate) fn slow_down(&self) -> Slow {
        let over = Arc::new(AtomicBool::new(false));
        let (path, is_over) = (self.path(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Relaxed) {
                freeze(&path, true)?;
                std::thread::sleep(FROZEN);
                freeze(&path, false)?;
                std::thread::sleep(THAWED);
            }
            Ok(())
        });
        Slow { over, thread: Some(thread) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not have been mounted.
        let _ = Command::new("umount").arg(self.path()).stderr(std::process::Stdio::null()).status();
        let _ = fs::remove_file(self.folder.join("image"));
        // What is still mounted keeps its folder.
        let _ = fs::remove_dir(self.path());
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A disk is full while this lives.
pub(crate) struct Full {
    path: PathBuf,
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A disk is slow while this lives.
pub(crate) struct Slow {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Slow {
    /// As fast as before from now on. Fails where it was not slow.
    pub(crate) fn end(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.over.store(true, Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| bail!("the thread that freezes the disk panicked"))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// In a process that runs only while its core has nothing else to do.
fn freeze(path: &Path, is_frozen: bool) -> Result<()> {
    let flag = if is_frozen { "--freeze" } else { "--unfreeze" };
    run("chrt", &["--idle", "0", "fsfreeze", flag], &[path])
}

fn run(program: &str, flags: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(flags).args(paths).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
