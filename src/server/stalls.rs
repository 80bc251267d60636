//! Threads that have stopped beating, in the log: a line when one is found, one a minute while it lasts, and one when it
//! runs again. No clock: `now` is passed in.

use crate::telemetry::heartbeats::Heartbeats;
use crate::telemetry::lifecycle::{SHARD_STUCK_AFTER, STORE_STUCK_AFTER};
use crate::telemetry::summed::Summed;
use std::time::{Duration, Instant};

/// How often a thread that stays stuck is said.
const PERIOD: Duration = Duration::from_secs(60);

/// What is to be said of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It is stuck, and was at so many looks since the last line.
    Stuck(u64),
    /// It runs again.
    Again,
}

/// One thread that is stuck.
struct Stall {
    since: Instant,
    lines: Summed,
}

/// What was found at the last look.
pub(super) struct Stalls {
    /// By shard, and behind them the control thread, which the store holds up.
    threads: Vec<Option<Stall>>,
}

impl Stalls {
    /// All threads beat.
    pub(super) fn new(shards: u16) -> Self {
        Self { threads: (0..=shards).map(|_| None).collect() }
    }

    /// Looks at each thread, and logs what is to be said.
    pub(super) fn log(&mut self, now: Instant, beats: &Heartbeats) {
        self.look(now, beats, |shard, lasted, line| {
            let seconds = lasted.as_secs();
            match (shard, line) {
                (Some(shard), Line::Stuck(count)) => {
                    tracing::error!(shard, seconds, count, "the shard is stuck, so the watchdog is not fed");
                }
                (Some(shard), Line::Again) => tracing::warn!(shard, seconds, "the shard runs again"),
                (None, Line::Stuck(count)) => {
                    tracing::error!(
                        seconds,
                        count,
                        "the store is stuck: messages are forwarded, tokens and usage wait"
                    );
                }
                (None, Line::Again) => tracing::warn!(seconds, "the store runs again"),
            }
        });
    }

    /// Calls `say` with the shard (`None`: the store), how long it has been stuck, and what is to be said.
    fn look(&mut self, now: Instant, beats: &Heartbeats, mut say: impl FnMut(Option<u16>, Duration, Line)) {
        let shards = (0..).map(Some).zip(beats.shard_ages(now)).map(|(shard, age)| (shard, age, SHARD_STUCK_AFTER));
        let store = (None, beats.control_age(now), STORE_STUCK_AFTER);
        // The store's place is the last one.
        for (stall, (name, age, after)) in self.threads.iter_mut().zip(shards.chain([store])) {
            if age > after {
                let since = now.checked_sub(age).unwrap_or(now);
                let stall = stall.get_or_insert_with(|| Stall { since, lines: Summed::new(PERIOD) });
                if let Some(count) = stall.lines.handle_event(now) {
                    say(name, age, Line::Stuck(count));
                }
            } else if let Some(ended) = stall.take() {
                say(name, now.saturating_duration_since(ended.since), Line::Again);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_thread_is_said_once_then_once_a_minute_and_when_it_runs_again() {
        let start = Instant::now();
        let beats = Heartbeats::new(start, 2);
        let mut stalls = Stalls::new(2);
        let mut said = Vec::new();
        for second in 0..=130 {
            let now = start + Duration::from_secs(second);
            beats.beat_shard(now, 0);
            if second >= 128 {
                beats.beat_shard(now, 1);
            }
            if !(20..=40).contains(&second) {
                beats.beat_control(now);
            }
            stalls.look(now, &beats, |shard, lasted, line| said.push((second, shard, lasted.as_secs(), line)));
        }
        let expected = [
            (6, Some(1), 6, Line::Stuck(1)),
            (30, None, 11, Line::Stuck(1)),
            (41, None, 22, Line::Again),
            (66, Some(1), 66, Line::Stuck(60)),
            (126, Some(1), 126, Line::Stuck(60)),
            (128, Some(1), 128, Line::Again),
        ];
        assert_eq!(said, expected);
    }
}
