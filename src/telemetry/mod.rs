//! What the relay tells its operator.

pub mod log;
pub mod summed;
