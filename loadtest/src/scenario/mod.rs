//! The scenarios: what the clients do, and what is measured meanwhile.

pub(crate) mod connect;
pub(crate) mod idle;
pub(crate) mod pingpong;
pub(crate) mod traffic;
pub(crate) mod window;

use crate::server::{Memory, Process};
use crate::target::Target;

/// A relay that is ready to be tested.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) target: Target,
    /// Its process, where it is on this machine.
    pub(crate) process: Option<Process>,
    /// Its memory before tokens were made for the test.
    pub(crate) memory_at_start: Option<Memory>,
    /// One for each pair.
    pub(crate) tokens: Vec<String>,
}

/// How connections are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// How many are on their way at the same time.
    pub(crate) concurrency: usize,
}
