//! The log: one line an event on standard error, for people where that is a terminal, JSON otherwise; under systemd an
//! entry of the journal with fields.
//!
//! Who logs never waits: lines go through a bounded queue (`lines.rs`), and what finds no room is counted ([`dropped`]).
//! What a peer can repeat at will goes through [`super::summed`] first. No line may hold a token: [`TokenId`] stands for
//! it.
//!
//! [`TokenId`]: crate::proto::token::TokenId

mod journal;
mod lines;

use self::journal::{Fields, Journal};
use self::lines::{Lines, Sink};
use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, OnceLock};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people where standard error is a terminal, fields for the journal where it goes there, else JSON.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
    /// Entries with fields for systemd's journal.
    Journal,
}

/// Why the log cannot be set up, or its level changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Neither a level nor directives.
    #[error("`{0}` is not a log level; expected off, error, warn, info, debug or trace, or `target=level,…`")]
    Level(String),
    /// The process has a log already.
    #[error("the log is set up already")]
    AlreadySet,
    /// The process has no log.
    #[error("there is no log")]
    NotSet,
    /// The thread that writes could not be started, or journald cannot be reached.
    #[error("the log cannot be set up: {0}")]
    Io(String),
}

/// The process's log.
struct Log {
    lines: Lines,
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<String>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Sets up the log of the process. `level` is a level, or directives such as `info,coralmux::shard=debug`.
///
/// # Errors
///
/// [`LogError::Level`] for a `level` that is neither; [`LogError::AlreadySet`] the second time; [`LogError::Io`].
pub fn init(format: LogFormat, level: &str) -> Result<(), LogError> {
    let terminal = io::stderr().is_terminal();
    let format = match format {
        LogFormat::Auto if terminal => LogFormat::Human,
        LogFormat::Auto if Journal::is_standard_error() => LogFormat::Journal,
        LogFormat::Auto => LogFormat::Json,
        format => format,
    };
    let failed = |error: io::Error| LogError::Io(error.to_string());
    let sink = match format {
        LogFormat::Journal => Sink::Journal(Journal::open().map_err(failed)?),
        _ => Sink::Stream(Box::new(io::stderr())),
    };
    let lines = Lines::start(sink).map_err(failed)?;
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let writer = lines.clone();
    let write = move || writer.clone();
    let layer: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Journal => Box::new(Fields::new(lines.clone())),
        // Without a terminal, escape sequences would only litter the file.
        LogFormat::Human => Box::new(human_lines(write, terminal)),
        LogFormat::Auto | LogFormat::Json => Box::new(json_lines(write)),
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| LogError::AlreadySet)?;
    let log = Log { lines, filter: handle, level: Mutex::new(level.to_owned()) };
    LOG.set(log).map_err(|_| LogError::AlreadySet)
}

/// Changes what is logged, from now on; `level` as for [`init`].
///
/// # Errors
/// [`LogError::Level`], and nothing changes; [`LogError::NotSet`] before [`init`].
pub fn set_level(level: &str) -> Result<(), LogError> {
    let filter = filter(level)?;
    let log = LOG.get().ok_or(LogError::NotSet)?;
    let mut current = locked(&log.level);
    log.filter.reload(filter).map_err(|_| LogError::NotSet)?;
    if *current != level {
        tracing::info!(before = *current, now = level, "log level changed");
    }
    level.clone_into(&mut current);
    Ok(())
}

/// What is logged now, as it was given to [`init`] or [`set_level`]; empty before [`init`].
#[must_use]
pub fn level() -> String {
    LOG.get().map(|log| locked(&log.level).clone()).unwrap_or_default()
}

/// Lines that were dropped because they came faster than they were taken.
#[must_use]
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.lines.dropped())
}

/// Waits until all lines have been written, at most two seconds: to be called before the process ends.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.lines.flush();
    }
}

fn locked(level: &Mutex<String>) -> MutexGuard<'_, String> {
    level.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A filter of directives. The library takes a misspelt level for the name of a target, and would then say nothing.
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    if !level.split(',').map(str::trim).all(|directive| directive.contains('=') || is_level(directive)) {
        return Err(LogError::Level(level.to_owned()));
    }
    // rustls warns of what any client may send as often as it likes; how handshakes end is counted instead.
    // What the client of NATS says of a connection is said by the cluster, and its debug lines would hold documents.
    EnvFilter::try_new(format!("rustls=error,async_nats=error,{level}")).map_err(|_| LogError::Level(level.to_owned()))
}

fn human_lines<S, W>(write: W, terminal: bool) -> impl Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer().with_writer(write).with_ansi(terminal).with_timer(SystemTime).with_target(false).compact()
}

fn json_lines<S, W>(write: W) -> impl Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(write).with_timer(SystemTime).json();
    lines.flatten_event(true).with_current_span(false).with_span_list(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

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

    fn written<L>(make: impl FnOnce(Box<dyn Fn() -> Page + Send + Sync>) -> L) -> String
    where
        L: Layer<tracing_subscriber::layer::Layered<EnvFilter, Registry>> + Send + Sync,
    {
        let page = Page::default();
        let writer = page.clone();
        let layer = make(Box::new(move || writer.clone()));
        let subscriber = tracing_subscriber::registry().with(filter("info").unwrap()).with(layer);
        tracing::subscriber::with_default(subscriber, || {
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
        let text = written(|write| human_lines(write, false));
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
