//! What a person at a terminal sees meanwhile: one line on standard error, and nothing where that is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// The line.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    prefix: String,
}

impl Progress {
    pub(crate) fn new(prefix: impl Into<String>) -> Self {
        let bar = ProgressBar::new(1);
        // A template that does not parse would be a bar without a style, and no more.
        if let Ok(style) = ProgressStyle::with_template("{prefix:.bold} {bar:30.cyan/blue} {elapsed:>4} {msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar, prefix: prefix.into() }
    }

    /// One that nobody sees.
    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), prefix: String::new() }
    }

    /// Begins something of `total` steps.
    pub(crate) fn begin(&self, what: &str, total: u64) {
        self.bar.reset();
        self.bar.set_length(total.max(1));
        self.bar.set_prefix(format!("{} {what}", self.prefix));
        self.bar.set_message("");
    }

    pub(crate) fn show(&self, done: u64, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(done);
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// The steps of a time span, for [`Progress::begin`].
pub(crate) fn steps(time: Duration) -> u64 {
    time.as_millis() as u64
}
