//! The client's thread: connects, serves, waits, connects again.

use super::backoff::Backoff;
use super::connect::{Failed, Way, connect};
use super::connection::{Connection, Ending, expire};
use super::envelope::random;
use super::event::Event;
use super::options::Options;
use super::session::{Action, Session};
use super::shared::Shared;
use mio::Poll;
use std::time::Instant;

/// Runs until the last event.
pub(super) fn run(options: &Options, way: &Way, mut poll: Poll, shared: &Shared, mut session: Session) {
    let mut backoff = Backoff::new(options.backoff_min, options.backoff_max);
    loop {
        let started = Instant::now();
        let (failed, held) = match serve(options, way, &mut poll, shared, session, started) {
            (_, Ok((Ending::Last(event), _))) => return finish(shared, event),
            (kept, Ok((Ending::Lost(reason), authed))) => {
                session = kept;
                (reason.into(), authed.then(|| started.elapsed()))
            }
            (kept, Err(failed)) => {
                session = kept;
                (failed, None)
            }
        };
        if shared.close_by().is_some() {
            return finish(shared, Event::Closed);
        }
        let mut jitter = [0; 4];
        random(&mut jitter);
        let next_try = backoff.handle_loss(held, &failed.reason, failed.asked, u32::from_ne_bytes(jitter));
        shared.emit(Event::Disconnected { reason: failed.reason, next_try }, 0);
        if wait(options, &mut poll, shared, &mut session, Instant::now() + next_try) {
            return finish(shared, Event::Closed);
        }
    }
}

fn finish(shared: &Shared, event: Event) {
    if event == Event::Closed {
        // Its owner hears of what nobody will send any more.
        shared.unsent().into_iter().for_each(|id| shared.emit(Event::NotSent { id }, 0));
    }
    shared.emit(event, 0);
    shared.end();
}

/// One connection: what lasts of it, and its ending, with whether it was authenticated.
fn serve(
    options: &Options,
    way: &Way,
    poll: &mut Poll,
    shared: &Shared,
    session: Session,
    started: Instant,
) -> (Session, Result<(Ending, bool), Failed>) {
    let by = started + options.connect_timeout;
    let socket = match connect(options, way, poll, shared, by) {
        Ok(socket) => socket,
        Err(failed) => return (session, Err(failed)),
    };
    let mut connection = Connection::new(options, shared, socket, session, by);
    let ending = connection.run(poll);
    let authed = connection.is_authed();
    let (mut stream, session) = connection.into_parts();
    session.share_presence(shared);
    // Closing the descriptor would do it as well; this is for systems where it does not.
    let _ = poll.registry().deregister(stream.socket());
    (session, Ok((ending, authed)))
}

/// Waits until `until`, and for the owner to take events. Whether to close instead.
fn wait(options: &Options, poll: &mut Poll, shared: &Shared, session: &mut Session, until: Instant) -> bool {
    let mut events = mio::Events::with_capacity(8);
    loop {
        if shared.close_by().is_some() {
            return true;
        }
        let now = Instant::now();
        // What the owner wants of its devices does not wait for the relay.
        let mut actions = Vec::new();
        session.handle_time(now, shared, &mut actions);
        for action in actions {
            if let Action::Emit(event, bytes) = action {
                shared.emit(event, bytes);
            }
        }
        expire(shared, now, options.hold);
        let expires = shared.outgoing(None, |outgoing| outgoing.oldest()).map(|oldest| oldest + options.hold);
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
