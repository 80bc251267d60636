//! Which CPUs the shards may be pinned to.
//!
//! The quota is read here, although `available_parallelism` knows quotas too: it rounds them down, so that a quota of one
//! and a half CPUs would be left with one shard, and it counts CPUs but does not name them.

use super::cgroup;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;
use std::thread::available_parallelism;

/// The numbers of the CPUs that this process may run on, cut to what its cgroup's quota pays for. Never empty.
#[must_use]
pub fn usable_cpus() -> Vec<usize> {
    within_quota(allowed_cpus(), cgroup::limit("cpu", |read| cpu_quota(read)))
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// The system refuses, or the CPU's number is above 1023.
pub fn stay_on(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(None, &only)?)
}

/// The CPUs of the affinity mask; where it does not fit (more than 1024 CPUs), as many as the system counts.
fn allowed_cpus() -> Vec<usize> {
    let allowed: Vec<usize> = sched_getaffinity(None)
        .map(|set| (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
        .unwrap_or_default();
    if allowed.is_empty() { (0..available_parallelism().map_or(1, usize::from)).collect() } else { allowed }
}

/// The first `quota` of `cpus`, but at least one.
fn within_quota(mut cpus: Vec<usize>, quota: Option<usize>) -> Vec<usize> {
    cpus.truncate(quota.unwrap_or(usize::MAX).max(1));
    cpus
}

/// How many CPUs one group's quota pays for, rounded up: half a CPU left over still is worth a shard. `read` gives the
/// text of a file in the group's directory.
fn cpu_quota(read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    if let Some(text) = read("cpu.max") {
        let (quota, period) = text.trim().split_once(' ')?;
        return ceil_div(quota, period);
    }
    ceil_div(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
}

/// `None` for `max` (version 2), `-1` (version 1) and what makes no sense: no quota.
fn ceil_div(quota: &str, period: &str) -> Option<usize> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    if quota == 0 || period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(text: &str) -> Option<usize> {
        cpu_quota(&|file| (file == "cpu.max").then(|| text.to_owned()))
    }

    fn v1(quota: &str, period: &str) -> Option<usize> {
        cpu_quota(&|file| match file {
            "cpu.cfs_quota_us" => Some(quota.to_owned()),
            "cpu.cfs_period_us" => Some(period.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn a_quota_is_rounded_up() {
        assert_eq!(v2("200000 100000\n"), Some(2));
        assert_eq!(v2("150000 100000\n"), Some(2));
        assert_eq!(v2("1000 100000\n"), Some(1));
        assert_eq!(v1("250000\n", "100000\n"), Some(3));
    }

    #[test]
    fn no_quota_and_nonsense_limit_nothing() {
        for text in ["max 100000\n", "", "100000", "0 100000", "100000 0", "-1 100000", "x y"] {
            assert_eq!(v2(text), None, "{text}");
        }
        assert_eq!(v1("-1\n", "100000\n"), None);
        assert_eq!(cpu_quota(&|_| None), None);
    }

    #[test]
    fn cpus_keep_their_numbers_and_one_is_always_left() {
        assert_eq!(within_quota(vec![2, 5, 7], None), [2, 5, 7]);
        assert_eq!(within_quota(vec![2, 5, 7], Some(2)), [2, 5]);
        assert_eq!(within_quota(vec![2, 5, 7], Some(9)), [2, 5, 7]);
        assert_eq!(within_quota(vec![2, 5, 7], Some(0)), [2]);
    }

    #[test]
    fn this_machine_has_cpus_for_us() {
        let cpus = usable_cpus();
        assert!(!cpus.is_empty() && cpus.len() <= allowed_cpus().len());
        assert!(cpus.is_sorted());
    }
}
