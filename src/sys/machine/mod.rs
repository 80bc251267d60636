//! What the machine, or the container around the process, offers.

mod cgroup;
pub mod cpus;
mod memory;

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
        let cores = u16::try_from(cpus::usable_cpus().len()).unwrap_or(u16::MAX);
        Self { cores: cores.clamp(1, 1024), memory_bytes: memory::memory_limit_bytes().unwrap_or(1 << 30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let machine = Machine::ask();
        assert!(machine.cores >= 1 && machine.memory_bytes > 16 << 20, "{machine:?}");
    }
}
