//! What was measured, and how it is shown.

pub(crate) mod compare;
pub(crate) mod latency;
