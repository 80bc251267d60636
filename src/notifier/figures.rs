//! What has become of notifications, for the metrics and `/health`: written by the thread that sends them, read by anyone.

use crate::push::Kind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A refusal that nobody has repeated for so long is not shown any more.
const REFUSAL_SHOWN: Duration = Duration::from_secs(24 * 3600);

/// What becomes of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The push service has it.
    Delivered,
    /// The subscription is none any more.
    Gone,
    /// The push service does not take it.
    Refused,
    /// It did not get through; it may be sent once more.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Gone, Self::Refused, Self::Failed];

    /// The label of the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A push service that does not take this relay's notifications.
#[derive(Debug)]
struct Refusal {
    host: Box<str>,
    status: u16,
    at: Instant,
}

/// What has become of notifications.
#[derive(Debug, Default)]
pub struct Figures {
    sent: [[AtomicU64; Outcome::ALL.len()]; Kind::ALL.len()],
    dropped: AtomicU64,
    waiting: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
}

impl Figures {
    pub(super) fn count(&self, kind: Kind, outcome: Outcome) {
        self.sent[kind as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn drop_event(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn set_waiting(&self, waiting: usize) {
        self.waiting.store(waiting as u64, Relaxed);
    }

    /// A push service does not take notifications.
    pub(super) fn note_refusal(&self, host: &str, status: u16, now: Instant) {
        *self.refusal() = Some(Refusal { host: host.into(), status, at: now });
    }

    /// A push service takes them.
    pub(super) fn note_delivery(&self, host: &str) {
        let mut refusal = self.refusal();
        if refusal.as_ref().is_some_and(|refusal| *refusal.host == *host) {
            *refusal = None;
        }
    }

    /// Notifications by kind and outcome.
    pub fn sent(&self) -> impl Iterator<Item = (Kind, Outcome, u64)> {
        let of = |kind: Kind| {
            Outcome::ALL.map(|outcome| (kind, outcome, self.sent[kind as usize][outcome as usize].load(Relaxed)))
        };
        Kind::ALL.into_iter().flat_map(of)
    }

    /// What threads had to say and could not, because too much waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Devices that are to be woken, and notifications that are being sent.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// The status by which a push service refuses this relay's notifications, if one does. Which one it is stays in the log:
    /// a device chooses it, and anyone may read `/health`.
    #[must_use]
    pub fn refused(&self, now: Instant) -> Option<u16> {
        let refusal = self.refusal();
        let shown = refusal.as_ref().filter(|refusal| now.saturating_duration_since(refusal.at) < REFUSAL_SHOWN);
        shown.map(|refusal| refusal.status)
    }

    fn refusal(&self) -> std::sync::MutexGuard<'_, Option<Refusal>> {
        // Each change is whole before anything in it can panic.
        self.refusal.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_until_the_same_service_takes_one_or_for_a_day() {
        let (figures, now) = (Figures::default(), Instant::now());
        figures.note_refusal("a.example", 403, now);
        figures.note_delivery("b.example");
        assert_eq!(figures.refused(now), Some(403));
        assert_eq!(figures.refused(now + REFUSAL_SHOWN), None);
        figures.note_delivery("a.example");
        assert_eq!(figures.refused(now), None);
    }
}
