//! What was measured, and how it is shown.

pub(crate) mod compare;
pub(crate) mod html;
pub(crate) mod latency;
pub(crate) mod outcome;
pub(crate) mod plot;
pub(crate) mod progress;
