//! How much memory the process may take.

use super::cgroup;
use std::fs;

/// The machine's memory, or less where a cgroup limits the process, in bytes. `None` where the system does not say.
#[must_use]
pub(super) fn memory_limit_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let group = cgroup::limit("memory", |read| {
        // Version 2, then version 1; "no limit" is `max` in one, and a number beyond any machine in the other.
        read("memory.max").or_else(|| read("memory.limit_in_bytes"))?.trim().parse().ok()
    });
    machine.into_iter().chain(group).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn mem_total(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mem_total_is_found_among_the_others() {
        assert_eq!(mem_total("MemTotal:        8148576 kB\nMemFree: 1 kB\n"), Some(8_148_576 * 1024));
        assert_eq!(mem_total("SwapTotal: 5 kB\nMemTotal: 7 kB\n"), Some(7 * 1024));
        for text in ["", "MemTotal:", "MemTotal: x kB", "MemTotal: 5", "MemTotal: 18446744073709551615 kB"] {
            assert_eq!(mem_total(text), None, "{text}");
        }
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_limit_bytes().is_some_and(|bytes| bytes > 16 << 20));
    }
}
