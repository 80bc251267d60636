//! What the relay's process costs, read from `/proc`.

mod find;

pub(crate) use find::find_listener;

use crate::generator::SECOND;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fs;

/// The process of a relay on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The one that it is in front of, whose cost counts too.
    pub(crate) behind: Option<u32>,
}

/// Bytes of user-space memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    /// What no other process shares, on files or not.
    pub(crate) private: u64,
    /// What belongs to no file: heap, stacks, buffers.
    pub(crate) anonymous: u64,
}

impl From<u32> for Process {
    fn from(pid: u32) -> Self {
        Self { pid, behind: None }
    }
}

impl Process {
    /// CPU time of all threads, in nanoseconds, kernel included.
    pub(crate) fn cpu_ns(self) -> Result<u64> {
        let mut sum = self.behind.map_or(Ok(0), |pid| Self::from(pid).cpu_ns())?;
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.pid)).with_context(|| format!("process {}", self.pid))?;
        for task in tasks {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).context("schedstat")?;
        }
        Ok(sum)
    }

    /// Resident memory in bytes, as the kernel keeps count of it: cheap, and exact to some pages.
    pub(crate) fn rss(self) -> Result<u64> {
        let path = format!("/proc/{}/statm", self.pid);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let pages: u64 = text.split(' ').nth(1).and_then(|field| field.parse().ok()).context(path)?;
        Ok(pages * rustix::param::page_size() as u64)
    }

    /// The hard limit of open files.
    pub(crate) fn files_max(self) -> Result<u64> {
        let path = format!("/proc/{}/limits", self.pid);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).context(path)?;
        let hard = line.split_whitespace().nth(1).unwrap_or_default();
        Ok(hard.parse().unwrap_or(u64::MAX))
    }

    /// Bytes of memory that is locked or pinned.
    pub(crate) fn locked(self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| kilobytes(text.lines().find_map(|line| line.strip_prefix(name)));
        Ok(field("VmLck:").unwrap_or(0) + field("VmPin:").unwrap_or(0))
    }

    /// Memory as it is now. This walks the page tables: not more than a few times a second.
    pub(crate) fn memory(self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            kilobytes(line).with_context(|| format!("{path}: {name}"))
        };
        Ok(Memory {
            rss: field("Rss:")?,
            private: field("Private_Clean:")? + field("Private_Dirty:")?,
            anonymous: field("Anonymous:")?,
        })
    }
}

/// Bytes of the kernel's slab caches, of the whole machine.
pub(crate) fn kernel_slab() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    kilobytes(text.lines().find_map(|line| line.strip_prefix("Slab:"))).context("/proc/meminfo: Slab")
}

/// Memory that programs could still take, of the whole machine, in bytes.
pub(crate) fn memory_available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    kilobytes(text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))).context("/proc/meminfo: MemAvailable")
}

/// CPU time that this machine's cores were not idle, stolen time included, in nanoseconds.
pub(crate) fn machine_busy_ns() -> Result<u64> {
    const IDLE_AND_IO_WAIT: std::ops::Range<usize> = 3..5;
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let ticks = fields.enumerate().filter(|(i, _)| !IDLE_AND_IO_WAIT.contains(i));
    let ticks: u64 = ticks.map(|(_, field)| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(ticks * (SECOND / rustix::param::clock_ticks_per_second()))
}

fn kilobytes(field: Option<&str>) -> Option<u64> {
    Some(field?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_cost() {
        let me = Process::from(std::process::id());
        let memory = me.memory().unwrap();
        assert!(memory.rss > memory.anonymous && memory.anonymous > 0 && kernel_slab().unwrap() > 0);
        let before = me.cpu_ns().unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {
            std::hint::spin_loop();
        }
        let used = me.cpu_ns().unwrap() - before;
        assert!(used > 5_000_000, "{used} ns");
    }
}
