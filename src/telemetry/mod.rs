//! What the relay tells its operator.

pub mod heartbeats;
pub mod lifecycle;
pub mod log;
pub mod metrics;
pub mod process;
pub mod summed;
