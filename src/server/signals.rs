//! Signals: the first asks for an orderly end, the second for an end at once.

use super::exit;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The signals that end the relay.
pub(super) struct Signals {
    signals: signal_hook::iterator::Signals,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let second = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset and sets it, and the second one finds it set.
            flag::register_conditional_shutdown(signal, i32::from(exit::FAILURE), Arc::clone(&second))?;
            flag::register(signal, Arc::clone(&second))?;
        }
        Ok(Self { signals: signal_hook::iterator::Signals::new([SIGTERM, SIGINT])? })
    }

    /// Waits for the first one and gives its name.
    pub(super) fn wait(&mut self) -> &'static str {
        match self.signals.forever().next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        }
    }
}
