//! The scenarios: what the clients do, and what is measured meanwhile.

pub(crate) mod chat;
pub(crate) mod connect;
pub(crate) mod hold;
pub(crate) mod idle;
pub(crate) mod mail;
pub(crate) mod measure;
pub(crate) mod pace;
pub(crate) mod pingpong;
pub(crate) mod slow;
pub(crate) mod storm;
pub(crate) mod traffic;
pub(crate) mod upload;

use crate::generator::SECOND;
use crate::report::progress::Progress;
use crate::server::{Memory, Process};
use crate::target::Target;
use std::time::Duration;

/// A relay that is ready to be tested.
#[derive(Clone, Debug)]
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
    /// The time over which they are spread; zero for as fast as it goes.
    pub(crate) ramp_up: Duration,
}

/// One run of a scenario: against what, how opened, where shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) relay: &'a Relay,
    pub(crate) opening: Opening,
    pub(crate) progress: &'a Progress,
}

/// Nanoseconds of so many seconds.
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * SECOND as f64) as u64
}
