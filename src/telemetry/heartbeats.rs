//! Signs of life: each shard and the control thread beat, and anyone can see who has stopped. No clock: `now` is passed in.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A thread that ended in order: it is not stuck.
const ENDED: u64 = u64::MAX;

/// One thread's last sign of life, in milliseconds since [`Heartbeats::origin`]; on a cache line of its own, for its thread
/// writes it at each tick.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Beat(AtomicU64);

/// The threads' signs of life.
#[derive(Debug)]
pub struct Heartbeats {
    origin: Instant,
    shards: Box<[Beat]>,
    control: Beat,
}

impl Heartbeats {
    /// Of that many shards and the control thread, who all have just beaten.
    #[must_use]
    pub fn new(now: Instant, shards: u16) -> Self {
        let shards = (0..shards).map(|_| Beat::default()).collect();
        Self { origin: now, shards, control: Beat::default() }
    }

    /// A shard lives; called at each of its ticks (100 ms).
    pub fn beat_shard(&self, now: Instant, shard: u16) {
        if let Some(beat) = self.shards.get(usize::from(shard)) {
            beat.0.store(self.ms(now), Relaxed);
        }
    }

    /// A shard has ended in order.
    pub fn end_shard(&self, shard: u16) {
        if let Some(beat) = self.shards.get(usize::from(shard)) {
            beat.0.store(ENDED, Relaxed);
        }
    }

    /// The control thread lives; called at least once a second, unless the store holds it up.
    pub fn beat_control(&self, now: Instant) {
        self.control.0.store(self.ms(now), Relaxed);
    }

    /// How long ago each shard beat, by shard; zero for one that has ended.
    pub fn shard_ages(&self, now: Instant) -> impl Iterator<Item = Duration> + '_ {
        let now = self.ms(now);
        self.shards.iter().map(move |beat| age(beat, now))
    }

    /// How long ago the control thread beat.
    #[must_use]
    pub fn control_age(&self, now: Instant) -> Duration {
        age(&self.control, self.ms(now))
    }

    /// The first shard that has not beaten for longer than `after`.
    #[must_use]
    pub fn stuck(&self, now: Instant, after: Duration) -> Option<u16> {
        // There are at most 1024 shards.
        self.shard_ages(now).position(|age| age > after).map(|shard| shard as u16)
    }

    fn ms(&self, now: Instant) -> u64 {
        // A u64 of milliseconds lasts longer than any machine.
        now.saturating_duration_since(self.origin).as_millis() as u64
    }
}

fn age(beat: &Beat, now_ms: u64) -> Duration {
    Duration::from_millis(now_ms.saturating_sub(beat.0.load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    #[test]
    fn who_stops_beating_is_named_and_who_has_ended_is_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let beats = Heartbeats::new(start, 3);
        assert_eq!(beats.stuck(at(5000), AFTER), None, "a start may take a moment");
        assert_eq!(beats.stuck(at(5001), AFTER), Some(0));
        beats.beat_shard(at(6000), 0);
        beats.beat_shard(at(6000), 2);
        assert_eq!(beats.stuck(at(6001), AFTER), Some(1));
        beats.end_shard(1);
        assert_eq!(beats.stuck(at(6001), AFTER), None);
        let ages: Vec<u128> = beats.shard_ages(at(6100)).map(|age| age.as_millis()).collect();
        assert_eq!(ages, [100, 0, 100]);
        assert_eq!(beats.stuck(at(11_001), AFTER), Some(0));
        beats.beat_shard(at(1), 9);
    }

    #[test]
    fn control_has_a_beat_of_its_own() {
        let start = Instant::now();
        let beats = Heartbeats::new(start, 1);
        beats.beat_control(start + Duration::from_secs(3));
        assert_eq!(beats.control_age(start + Duration::from_secs(4)), Duration::from_secs(1));
    }
}
