//! server.

pub mod cgroup;
pub mod cpus;
pub mod exit;
pub mod memory;
pub mod preflight;
pub mod rlimits;
