//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, a line of status, and that the relay
//! lives. Without systemd (no `NOTIFY_SOCKET`) all of it does nothing.

use sd_notify::NotifyState;
use std::time::Duration;

/// How often the line of status is renewed where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The way to the service manager.
pub(super) struct Notify {
    watchdog: Option<Duration>,
    is_there: bool,
}

impl Notify {
    /// As the environment says.
    pub(super) fn from_environment() -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|within| !within.is_zero());
        Self { watchdog, is_there: std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty()) }
    }

    /// How often [`Self::alive`] or [`Self::status`] is to be called, if ever: three times as often as the watchdog
    /// wants to hear.
    pub(super) fn period(&self) -> Option<Duration> {
        let watchdog = self.watchdog.map_or(STATUS_EVERY, |within| (within / 3).min(STATUS_EVERY));
        self.is_there.then_some(watchdog)
    }

    pub(super) fn ready(&self, status: &str) {
        self.say(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read again; [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.say(&[NotifyState::Reloading, now]),
            Err(_) => self.say(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn stopping(&self, status: &str) {
        self.say(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// The relay lives: all its shards beat.
    pub(super) fn alive(&self, status: &str) {
        match self.watchdog {
            Some(_) => self.say(&[NotifyState::Watchdog, NotifyState::Status(status)]),
            None => self.status(status),
        }
    }

    /// A line of status, and no sign of life.
    pub(super) fn status(&self, status: &str) {
        self.say(&[NotifyState::Status(status)]);
    }

    fn say(&self, what: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(what)
        {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }
}
