//! What the kernel says of this process: memory, CPU time, descriptors.

use std::fs;
use std::time::Duration;

/// Figures of the process; what cannot be read is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFigures {
    /// User and system time of all threads.
    pub cpu: Option<Duration>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Their limit; `None`: no limit.
    pub max_fds: Option<u64>,
}

impl ProcessFigures {
    /// Asks now.
    #[must_use]
    pub fn read() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self { cpu: cpu(), resident_bytes: resident_bytes(), open_fds: open_fds(), max_fds: limit.current }
    }
}

fn cpu() -> Option<Duration> {
    cpu_of(rustix::time::ClockId::ProcessCPUTime)
}

/// CPU time of the thread that asks.
#[must_use]
pub fn thread_cpu() -> Duration {
    cpu_of(rustix::time::ClockId::ThreadCPUTime).unwrap_or_default()
}

fn cpu_of(clock: rustix::time::ClockId) -> Option<Duration> {
    let time = rustix::time::clock_gettime(clock);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// From Linux 6.2 on the size of the directory says how many there are; before, they are counted, which takes a while
/// with very many.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let figures = ProcessFigures::read();
        assert!(figures.cpu.unwrap() > Duration::ZERO);
        assert!(figures.resident_bytes.unwrap() > 1 << 20);
        assert!(figures.open_fds.unwrap() >= 3);
        assert!(figures.open_fds <= figures.max_fds.or(Some(u64::MAX)));
        assert!(thread_cpu() <= ProcessFigures::read().cpu.unwrap());
    }
}
