//! What the relay tells its operator.

pub mod beats;
pub mod life;
pub mod log;
pub mod metrics;
pub mod process;
pub mod summed;
