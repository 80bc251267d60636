//! Draining: nobody new is taken, and who is there is sent away with 1012, each at a moment of its own within a window,
//! so that they do not all come back in the same second. What is queued for a client is sent before it has to go.

use super::Shard;
use super::bounds::{DRAIN_WRITE_TIMEOUT, LATE_COMER_GRACE, LINGER};
use super::close::CloseReason;
use super::command::DrainPlan;
use super::net::connection::Phase;
use super::net::send::Writing;
use crate::ring::{Conn, Net};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A drain that is under way.
pub(super) struct Drain {
    ends_at: Duration,
    /// Who is to go and when; the next one stands last.
    leaving: Vec<Leaving>,
}

/// One that is to go.
#[derive(Clone, Copy)]
struct Leaving {
    at: Duration,
    conn: Conn,
}

impl<N: Net> Shard<N> {
    /// Accepts no more, and draws for each connection when it is to go.
    pub(super) fn drain(&mut self, plan: DrainPlan) {
        if self.is_draining() {
            return;
        }
        let now = self.pulse.now();
        self.stop_listening();
        self.report_usage();
        let all = self.net.iter().map(|(conn, connection)| {
            // Both ends of a session go together: neither sends what the other one would not get.
            let drawn = connection.seat().map_or(conn.index() as u32, |seat| !seat.session);
            let moment = now + moment(plan.seed, drawn, plan.window);
            let at = if connection.newcomer().is_some() { moment.max(now + LATE_COMER_GRACE) } else { moment };
            Leaving { at, conn }
        });
        let mut leaving: Vec<Leaving> = all.collect();
        leaving.sort_unstable_by_key(|leaving| std::cmp::Reverse(leaving.at));
        self.drain = Some(Drain { ends_at: now + plan.deadline, leaving });
        let due = self.pulse.tick_after(self.write_timeout());
        self.net.hasten(due);
        self.drain_on();
    }

    /// Sends those away whose moment has come.
    pub(super) fn drain_on(&mut self) {
        let now = self.pulse.now();
        while let Some(drain) = &mut self.drain
            && let Some(next) = drain.leaving.pop_if(|next| next.at <= now)
        {
            self.send_away(next.conn);
        }
    }

    fn send_away(&mut self, conn: Conn) {
        let Some(connection) = self.net.get_mut(conn) else { return };
        match connection.phase() {
            Phase::Http => self.end_unheard(conn),
            // Its answer comes, and is the last one.
            Phase::AwaitingControl | Phase::Held | Phase::Answering => {
                if let Some(newcomer) = connection.newcomer_mut() {
                    newcomer.end_requests();
                }
            }
            _ => self.close(conn, CloseReason::Restart),
        }
    }

    /// A connection that the kernel had accepted, or another shard had sent here, when the drain began.
    pub(super) fn note_late_comer(&mut self, conn: Conn) {
        let at = self.pulse.now() + LATE_COMER_GRACE;
        let Some(drain) = &mut self.drain else { return };
        let place = drain.leaving.partition_point(|leaving| leaving.at > at);
        drain.leaving.insert(place, Leaving { at, conn });
    }

    /// Whether a connection whose close frame still waits behind what is queued stays: while it takes some of that, until
    /// the drain's deadline.
    pub(super) fn keeps_until_sent(&mut self, conn: Conn) -> bool {
        let waits = self.is_draining() && self.net.has_queued(conn);
        let keeps = waits && self.check_writing(conn) != Writing::Stuck;
        if keeps {
            let due = self.pulse.tick_after(LINGER);
            self.pulse.arm(conn, due);
        }
        keeps
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// How long a connection may take next to nothing of what waits for it.
    pub(super) fn write_timeout(&self) -> Duration {
        let timeout = self.settings.write_timeout;
        if self.is_draining() { timeout.min(DRAIN_WRITE_TIMEOUT) } else { timeout }
    }

    /// Looks how a socket gets on that did not take everything at once: said anew after each write timeout.
    pub(super) fn check_writing(&mut self, conn: Conn) -> Writing {
        let timeout = self.write_timeout();
        self.net.check_writing(conn, &self.pulse, timeout)
    }

    /// All have gone, on the other shards too, for they may still send connections here; or the time is up.
    pub(super) fn has_ended(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| {
            let all_gone = self.net.len() == 0 && self.shared.sockets.load(Relaxed) == 0;
            all_gone || self.pulse.now() >= drain.ends_at
        })
    }
}

/// When `drawn` is to go: anywhere in the window, and each seed scatters them anew (the mixing step of SplitMix64).
fn moment(seed: u64, drawn: u32, window: Duration) -> Duration {
    let mut mixed = seed.wrapping_add(u64::from(drawn).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    window.mul_f64((mixed >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spread_evenly_over_the_window_and_not_in_order() {
        let window = Duration::from_secs(10);
        for seed in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let mut seconds = [0u32; 10];
            let mut steps_back = 0;
            let mut before = Duration::ZERO;
            for conn in 0..100_000 {
                let at = moment(seed, conn, window);
                assert!(at < window);
                seconds[at.as_secs() as usize] += 1;
                steps_back += u32::from(at < before);
                before = at;
            }
            assert!(seconds.iter().all(|count| (9_500..10_500).contains(count)), "seed {seed}: {seconds:?}");
            assert!((45_000..55_000).contains(&steps_back), "seed {seed}: {steps_back}");
        }
        assert_eq!(moment(7, 7, Duration::ZERO), Duration::ZERO);
    }
}
