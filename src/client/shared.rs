//! What the client's thread and its owner's threads share: the messages that wait to be sent, and the events that wait
//! to be taken. Both are bounded; whoever fills one waits.

use super::event::Event;
use super::options::{EVENTS_BYTES_MAX, EVENTS_MAX};
use super::outgoing::{Entry, Outgoing};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why a message could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Ended,
    NoRoom,
}

/// What the owner sends, and whether it may.
#[derive(Debug)]
struct Sending {
    outgoing: Outgoing,
    /// Nothing more is taken.
    ended: bool,
    /// To be closed, with what waits sent by then.
    close_by: Option<Instant>,
}

#[derive(Debug, Default)]
struct Incoming {
    events: VecDeque<(Event, usize)>,
    bytes: usize,
    /// No event will follow.
    ended: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    sending: Mutex<Sending>,
    room: Condvar,
    incoming: Mutex<Incoming>,
    arrived: Condvar,
    waker: mio::Waker,
}

/// A thread that panicked while it held one of the locks has left a whole value: nothing in between can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(waker: mio::Waker, outgoing: Outgoing) -> Self {
        Self {
            sending: Mutex::new(Sending { outgoing, ended: false, close_by: None }),
            room: Condvar::new(),
            incoming: Mutex::default(),
            arrived: Condvar::new(),
            waker,
        }
    }

    /// The client's thread looks at everything again.
    fn wake(&self) {
        // It fails only where the system has no memory; the next timer of the thread makes up for it.
        let _ = self.waker.wake();
    }

    // What owners call.

    /// Queues an entry, waiting for room until `deadline`. `ends`: it has the whole text of this stream.
    pub(super) fn push(&self, entry: Entry, ends: Option<u64>, deadline: Instant) -> Result<(), Full> {
        let mut sending = self.room_for(1, entry.bytes(), deadline)?;
        if let Some(stream) = ends {
            sending.outgoing.end_stream(stream);
        }
        sending.outgoing.push(entry);
        drop(sending);
        self.wake();
        Ok(())
    }

    /// Adds text to a stream: to the piece that still waits, or as the piece `seq`. Gives whether it was a new one.
    pub(super) fn push_text(
        &self,
        stream: u64,
        seq: u64,
        fields: &Arc<Map<String, Value>>,
        text: &str,
        deadline: Instant,
    ) -> Result<bool, Full> {
        let mut sending = self.room_for(0, text.len(), deadline)?;
        let is_new = sending.outgoing.push_text(Instant::now(), stream, seq, fields, text);
        drop(sending);
        if is_new {
            self.wake();
        }
        Ok(is_new)
    }

    fn room_for(&self, messages: usize, bytes: usize, deadline: Instant) -> Result<MutexGuard<'_, Sending>, Full> {
        let mut sending = lock(&self.sending);
        loop {
            if sending.ended || sending.close_by.is_some() {
                return Err(Full::Ended);
            }
            // What is given up is told: an owner that takes no events has to wait after all.
            if sending.outgoing.never_waits() && self.has_room() {
                for id in sending.outgoing.give_up_for(messages, bytes) {
                    self.emit(Event::NotSent { id }, 0);
                }
            }
            if sending.outgoing.has_room(bytes) {
                return Ok(sending);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Full::NoRoom);
            }
            sending = self.room.wait_timeout(sending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks the thread to end, and to send by then what waits.
    pub(super) fn close(&self, by: Instant) {
        let mut sending = lock(&self.sending);
        sending.close_by = Some(sending.close_by.map_or(by, |before| before.min(by)));
        drop(sending);
        self.room.notify_all();
        self.wake();
    }

    /// The next event; `None` when none came in time, or none will come: the flag tells which.
    pub(super) fn next_event(&self, within: Option<Duration>) -> (Option<Event>, bool) {
        let deadline = within.map(|within| Instant::now() + within);
        let mut incoming = lock(&self.incoming);
        loop {
            if let Some((event, bytes)) = incoming.events.pop_front() {
                let was_full = incoming.is_full();
                incoming.bytes -= bytes;
                let has_room_again = was_full && !incoming.is_full();
                drop(incoming);
                if has_room_again {
                    self.wake();
                }
                return (Some(event), false);
            }
            if incoming.ended {
                return (None, true);
            }
            incoming = match deadline {
                None => self.arrived.wait(incoming).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return (None, false);
                    }
                    self.arrived.wait_timeout(incoming, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    // What the client's thread calls.

    /// Whether another message may be read.
    pub(super) fn has_room(&self) -> bool {
        !lock(&self.incoming).is_full()
    }

    /// Tells the owner. `bytes`: what the event holds. The caller has looked for room.
    pub(super) fn emit(&self, event: Event, bytes: usize) {
        let mut incoming = lock(&self.incoming);
        incoming.ended |= event.is_last();
        incoming.events.push_back((event, bytes));
        incoming.bytes += bytes;
        drop(incoming);
        self.arrived.notify_all();
    }

    /// Looks at what this end sends, and takes from it.
    pub(super) fn outgoing<T>(&self, look: impl FnOnce(&mut Outgoing) -> T) -> T {
        let mut sending = lock(&self.sending);
        let before = sending.outgoing.pressure();
        let result = look(&mut sending.outgoing);
        let eased = sending.outgoing.pressure() < before;
        drop(sending);
        if eased {
            self.room.notify_all();
        }
        result
    }

    /// Whether the peer can be reached, of which it depends whether senders wait for it.
    pub(super) fn set_absent(&self, absent: bool) {
        for id in self.outgoing(|outgoing| outgoing.set_absent(absent)) {
            self.emit(Event::NotSent { id }, 0);
        }
    }

    /// By when the owner wants it closed, if so.
    pub(super) fn close_by(&self) -> Option<Instant> {
        lock(&self.sending).close_by
    }

    /// Nothing is sent any more: senders that wait are told.
    pub(super) fn end(&self) {
        let mut sending = lock(&self.sending);
        sending.ended = true;
        sending.outgoing.clear();
        drop(sending);
        self.room.notify_all();
        lock(&self.incoming).ended = true;
        self.arrived.notify_all();
    }
}

impl Incoming {
    fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_MAX || self.bytes >= EVENTS_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{OUTGOING_MAX, PIECE_BYTES_MAX};
    use crate::resume::Boot;
    use coralmux_proto::token::Role;
    use serde_json::value::RawValue;

    fn shared() -> (mio::Poll, Shared) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (poll, Shared::new(waker, Outgoing::new(Role::Agent, Boot::draw())))
    }

    fn pop(shared: &Shared) -> Option<Entry> {
        shared.outgoing(|outgoing| outgoing.pop_if(|_| true))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn text_joins_the_piece_of_its_stream_that_still_waits() {
        let (_poll, shared) = shared();
        let fields = Arc::default();
        for (stream, seq, text, is_new) in [(1, 1, "a", true), (2, 1, "x", true), (1, 2, "b", false)] {
            assert_eq!(shared.push_text(stream, seq, &fields, text, soon()), Ok(is_new));
        }
        assert_eq!(pop(&shared).unwrap().payload().get(), r#"{"delta":"ab","seq":1}"#);
        assert_eq!(shared.push_text(1, 2, &fields, "c", soon()), Ok(true));
        assert_eq!(pop(&shared).unwrap().payload().get(), r#"{"delta":"x","seq":1}"#);
        assert_eq!(pop(&shared).unwrap().payload().get(), r#"{"delta":"c","seq":2}"#);
    }

    #[test]
    fn a_piece_grows_up_to_its_bound() {
        let (_poll, shared) = shared();
        let fields = Arc::default();
        let text = "x".repeat(PIECE_BYTES_MAX);
        assert_eq!(shared.push_text(1, 1, &fields, &text, soon()), Ok(true));
        assert_eq!(shared.push_text(1, 2, &fields, "y", soon()), Ok(true));
    }

    #[test]
    fn a_full_queue_makes_wait_and_gives_up() {
        let (_poll, shared) = shared();
        let payload = RawValue::from_string("{}".to_owned()).unwrap();
        let entry = || Entry::message(Instant::now(), "x".to_owned(), "chat.send", payload.clone());
        for _ in 0..OUTGOING_MAX {
            assert_eq!(shared.push(entry(), None, Instant::now()), Ok(()));
        }
        assert_eq!(shared.push(entry(), None, Instant::now()), Err(Full::NoRoom));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| shared.push(entry(), None, soon()));
            assert!(pop(&shared).is_some());
            assert_eq!(waiting.join().unwrap(), Ok(()));
            let waiting = scope.spawn(|| shared.push(entry(), None, soon()));
            shared.close(Instant::now());
            assert_eq!(waiting.join().unwrap(), Err(Full::Ended));
        });
    }

    #[test]
    fn what_is_put_back_finds_its_place() {
        let (_poll, shared) = shared();
        let payload = RawValue::from_string("{}".to_owned()).unwrap();
        for id in ["1", "2", "3"] {
            let entry = Entry::message(Instant::now(), id.to_owned(), "chat.send", payload.clone());
            assert_eq!(shared.push(entry, None, soon()), Ok(()));
        }
        let (first, second) = (pop(&shared).unwrap(), pop(&shared).unwrap());
        shared.outgoing(|outgoing| outgoing.put_back(first));
        shared.outgoing(|outgoing| outgoing.put_back(second));
        let ids: Vec<String> = std::iter::from_fn(|| pop(&shared)).map(|entry| entry.id).collect();
        assert_eq!(ids, ["1", "2", "3"]);
    }

    #[test]
    fn the_last_event_ends_them() {
        let (_poll, shared) = shared();
        shared.emit(Event::PeerOnline, 1);
        shared.emit(Event::Closed, 1);
        assert_eq!(shared.next_event(None), (Some(Event::PeerOnline), false));
        assert_eq!(shared.next_event(Some(Duration::ZERO)), (Some(Event::Closed), false));
        assert_eq!(shared.next_event(None), (None, true));
    }
}
