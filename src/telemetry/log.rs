//! The log: one line an event on standard error; for people where that is a terminal, JSON otherwise.
//!
//! Lines are written by the thread that logs, and a full pipe holds it up: what a peer can repeat at will goes through
//! [`super::summed::Summed`] first.

use crate::config::LogFormat;
use std::io::{self, IsTerminal};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder, time::SystemTime};
use tracing_subscriber::util::SubscriberInitExt;

/// Why the log cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Neither a level nor directives.
    #[error("`{0}` is no log level: it has to be off, error, warn, info, debug or trace, or `target=level,…`")]
    Level(String),
    /// The process has a log already.
    #[error("the log is set up already")]
    AlreadySet,
}

/// Sets up the log of the process. `level` is a level, or directives such as `info,coralmux::shard=debug`.
///
/// # Errors
///
/// [`LogError::Level`] for a `level` that is neither; [`LogError::AlreadySet`] the second time.
pub fn init(format: LogFormat, level: &str) -> Result<(), LogError> {
    let terminal = io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(io::stderr);
    if human {
        // Without a terminal, escape sequences would only litter the file.
        let lines = if terminal { lines } else { lines.with_ansi(false) };
        human_lines(lines).try_init().map_err(|_| LogError::AlreadySet)
    } else {
        json_lines(lines).try_init().map_err(|_| LogError::AlreadySet)
    }
}

/// A filter of directives. The library takes a misspelt level for the name of a target, and would then say nothing.
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    if !level.split(',').map(str::trim).all(|directive| directive.contains('=') || is_level(directive)) {
        return Err(LogError::Level(level.to_owned()));
    }
    // rustls warns of what any client may send as often as it likes; how handshakes end is counted instead.
    EnvFilter::try_new(format!("rustls=error,{level}")).map_err(|_| LogError::Level(level.to_owned()))
}

/// Lines that were let go.
#[must_use]
pub fn dropped() -> u64 {
    0
}

type Lines<W> = SubscriberBuilder<
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    EnvFilter,
    W,
>;

fn human_lines<W>(lines: Lines<W>) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    lines.with_timer(SystemTime).with_target(false).compact().finish()
}

fn json_lines<W>(lines: Lines<W>) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    lines.with_timer(SystemTime).json().flatten_event(true).with_current_span(false).with_span_list(false).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written<S>(make: impl FnOnce(Lines<Box<dyn Fn() -> Page + Send + Sync>>) -> S) -> String
    where
        S: Subscriber + Send + Sync + 'static,
    {
        let page = Page::default();
        let writer = page.clone();
        let writer: Box<dyn Fn() -> Page + Send + Sync> = Box::new(move || writer.clone());
        let lines = tracing_subscriber::fmt().with_env_filter(filter("info").unwrap()).with_writer(writer);
        tracing::subscriber::with_default(make(lines.with_ansi(false)), || {
            tracing::debug!("not this one");
            tracing::info!(shard = 3, "ready \"now\"");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_has_an_events_fields_at_the_top_and_a_utc_time() {
        let text = written(json_lines);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["shard"], &line["level"]), (&3.into(), &"INFO".into()));
        assert_eq!(line["message"], "ready \"now\"");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
    }

    #[test]
    fn people_get_one_short_line_with_a_utc_time() {
        let text = written(human_lines);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_end().ends_with("Z  INFO ready \"now\" shard=3"), "{text}");
    }

    #[test]
    fn a_misspelt_level_is_an_error_and_not_silence() {
        for good in
            ["off", "error", "WARN", "info", "debug", "trace", "info,coralmux::shard=debug", "glommio=warn, info"]
        {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", " ", "verbose", "inof", "info,", "info,shard", "coralmux=loud"] {
            assert_eq!(filter(bad).unwrap_err(), LogError::Level(bad.to_owned()));
        }
    }
}
