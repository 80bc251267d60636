//! The client's thread: connects, serves, waits, connects again.

use super::backoff::Backoff;
use super::connect::{Failed, Way, connect};
use super::connection::{Connection, Ending, expire};
use super::envelope::random;
use super::event::Event;
use super::options::Options;
use super::session::Lasting;
use super::shared::Shared;
use mio::Poll;
use std::time::Instant;

/// Runs until the last event.
pub(super) fn run(options: &Options, way: &Way, mut poll: Poll, shared: &Shared) {
    let mut backoff = Backoff::new(options.backoff_min, options.backoff_max);
    let mut lasting = None;
    loop {
        let started = Instant::now();
        let (failed, held) = match serve(options, way, &mut poll, shared, &mut lasting, started) {
            Ok((Ending::Last(event), _)) => return finish(shared, event),
            Ok((Ending::Lost(reason), authed)) => (reason.into(), authed.then(|| started.elapsed())),
            Err(failed) => (failed, None),
        };
        if shared.close_by().is_some() {
            return finish(shared, Event::Closed);
        }
        let mut jitter = [0; 4];
        random(&mut jitter);
        let next_try = backoff.handle_loss(held, &failed.reason, failed.asked, u32::from_ne_bytes(jitter));
        shared.emit(Event::Disconnected { reason: failed.reason, next_try }, 0);
        if wait(options, &mut poll, shared, Instant::now() + next_try) {
            return finish(shared, Event::Closed);
        }
    }
}

fn finish(shared: &Shared, event: Event) {
    shared.emit(event, 0);
    shared.end();
}

/// One connection. Whether it was authenticated stands beside its ending.
fn serve(
    options: &Options,
    way: &Way,
    poll: &mut Poll,
    shared: &Shared,
    lasting: &mut Option<Lasting>,
    started: Instant,
) -> Result<(Ending, bool), Failed> {
    let by = started + options.connect_timeout;
    let socket = connect(options, way, poll, shared, by)?;
    let kept = lasting.take().unwrap_or_else(|| Lasting::new(options));
    let mut connection = Connection::new(options, shared, socket, kept, by);
    let ending = connection.run(poll);
    let authed = connection.is_authed();
    let (mut stream, kept) = connection.into_parts();
    *lasting = Some(kept);
    shared.set_absent(true);
    // Closing the descriptor would do it as well; this is for systems where it does not.
    let _ = poll.registry().deregister(stream.socket());
    Ok((ending, authed))
}

/// Waits until `until`, and for the owner to take events. Whether to close instead.
fn wait(options: &Options, poll: &mut Poll, shared: &Shared, until: Instant) -> bool {
    let mut events = mio::Events::with_capacity(8);
    loop {
        if shared.close_by().is_some() {
            return true;
        }
        let now = Instant::now();
        expire(shared, now, options.hold);
        let expires = shared.outgoing(|outgoing| outgoing.oldest()).map(|oldest| oldest + options.hold);
        let has_room = shared.has_room();
        if now >= until && has_room {
            return false;
        }
        // Without room the next thing to happen is that the owner takes an event, and wakes this thread.
        let next = if has_room { Some(expires.map_or(until, |at| at.min(until))) } else { None };
        // An interrupted wait only looks again.
        let _ = poll.poll(&mut events, next.map(|at| at.saturating_duration_since(now)));
    }
}
