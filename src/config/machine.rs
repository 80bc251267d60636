//! What the machine, or the container around the process, offers.

use std::path::Path;

/// Cores and memory that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores, after affinity and cgroup quota; at least 1.
    pub cores: u16,
    /// Bytes of memory, after cgroup limits.
    pub memory_bytes: u64,
}

impl Machine {
    /// Asks the kernel. What it does not say is taken to be small: one core, 1 GiB.
    #[must_use]
    pub fn ask() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let all = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_total(&text));
        let memory_bytes = all.into_iter().chain(cgroup_limit()).min().unwrap_or(1 << 30);
        Self { cores: u16::try_from(cores).unwrap_or(u16::MAX).clamp(1, 1024), memory_bytes }
    }
}

/// The `MemTotal` of `/proc/meminfo`, in bytes.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least memory limit of the cgroups around this process, version 2 or 1.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let path = root.join(own);
    let version_2 = path.ancestors().take_while(|at| at.starts_with(root)).map(|at| at.join("memory.max"));
    let version_1 = [root.join("memory/memory.limit_in_bytes")];
    // Where there is no limit the text is "max", in version 1 a number that no machine reaches.
    let read = |file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    version_2.chain(version_1).filter_map(read).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_total("MemFree: 1 kB\nMemTotal:       24681564 kB\n"), Some(25_273_921_536));
        assert_eq!(memory_total("MemFree: 1 kB"), None);
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let machine = Machine::ask();
        assert!(machine.cores >= 1 && machine.memory_bytes > 16 << 20, "{machine:?}");
    }
}
