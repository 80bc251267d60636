//! What bounds the number of idle pairs on a machine.

use super::Measured;
use crate::scenario::Relay;
use crate::server::memory_available;
use anyhow::{Context as _, Result};
use serde::Serialize;

/// Descriptors that a relay needs for itself.
const FILES_RESERVED: u64 = 128;
/// The share of memory that may be planned with: buffers of messages in progress need some as well.
const MEMORY_SHARE: f64 = 0.75;
/// The share of the relay's cores that keepalive may take.
const REST_SHARE: f64 = 0.5;

/// What the machine has.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Of the relay's process.
    pub(crate) files_max: u64,
    /// The most that this could be raised to without changing the kernel's settings.
    pub(crate) files_possible: Option<u64>,
    pub(crate) memory_available_bytes: u64,
    /// Locked and pinned by the relay.
    pub(crate) locked_bytes: u64,
    /// Connections that the kernel's connection tracking keeps, where there is any.
    pub(crate) conntrack_max: Option<u64>,
}

/// One bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Limit {
    pub(crate) pairs: u64,
    pub(crate) because: &'static str,
}

impl Machine {
    pub(super) fn read(relay: &Relay) -> Result<Self> {
        let process = relay.process.context("the relay has no process on this machine")?;
        let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        Ok(Self {
            files_max: process.files_max()?,
            files_possible: number("/proc/sys/fs/nr_open"),
            memory_available_bytes: memory_available()?,
            locked_bytes: process.locked()?,
            conntrack_max: number("/proc/sys/net/netfilter/nf_conntrack_max"),
        })
    }

    /// The bounds, fewest pairs first.
    pub(super) fn limits(&self, measured: &Measured) -> Vec<Limit> {
        let bytes = measured.user_bytes_per_connection + measured.kernel_bytes_per_connection;
        let memory = self.memory_available_bytes as f64 * MEMORY_SHARE / bytes.max(1.0);
        let rest = measured.server_cores as f64 * REST_SHARE / measured.rest_cores_per_connection.max(1e-9);
        let mut limits = vec![
            Limit { pairs: self.files_max.saturating_sub(FILES_RESERVED) / 2, because: "open files (nofile)" },
            Limit { pairs: memory as u64 / 2, because: "memory, user space and kernel" },
            Limit { pairs: rest as u64 / 2, because: "CPU for keepalive" },
        ];
        limits.extend(
            self.conntrack_max.map(|max| Limit { pairs: max / 2, because: "connection tracking (nf_conntrack_max)" }),
        );
        limits.sort_by_key(|limit| limit.pairs);
        limits
    }

    /// The `nofile` that so many pairs take.
    pub(super) fn files_for(pairs: u64) -> u64 {
        pairs * 2 + FILES_RESERVED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_limit_is_the_one_that_allows_the_fewest_pairs() {
        let measured = Measured {
            pairs: 1000,
            server_cores: 1,
            shared_core: false,
            user_bytes_per_connection: 500.0,
            kernel_bytes_per_connection: 3500.0,
            rest_cores_per_connection: 1e-6,
            saturated_per_second: 1e5,
            message_bytes: 256,
            p99_wanted_us: 1e4,
            rate_per_second: 5e4,
            rate_p99_us: 9e3,
            others_cores: 0.0,
        };
        let mut machine = Machine {
            files_max: 1_000_128,
            files_possible: None,
            memory_available_bytes: 8_000_000_000,
            locked_bytes: 0,
            conntrack_max: None,
        };
        let pairs =
            |machine: &Machine| machine.limits(&measured).iter().map(|l| (l.pairs, l.because)).collect::<Vec<_>>();
        let expected = [
            (250_000, "CPU for keepalive"),
            (500_000, "open files (nofile)"),
            (750_000, "memory, user space and kernel"),
        ];
        assert_eq!(pairs(&machine), expected);
        machine.conntrack_max = Some(65_536);
        assert_eq!(pairs(&machine)[0], (32_768, "connection tracking (nf_conntrack_max)"));
        assert_eq!(Machine::files_for(32_768), 65_664);
    }
}
