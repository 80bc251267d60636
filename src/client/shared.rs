//! What the client's thread and its owner's threads share: the messages that wait to be sent, and the events that wait
//! to be taken. Both are bounded; whoever fills one waits.

use super::envelope;
use super::event::Event;
use super::options::{EVENTS_BYTES_MAX, EVENTS_MAX, OUTGOING_BYTES_MAX, OUTGOING_MAX, PIECE_BYTES_MAX};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What an entry of the outgoing queue says.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A message, its payload written.
    Message { kind: String, payload: Box<RawValue> },
    /// A piece of an answer, that may still grow.
    Piece { stream: u64, seq: u64, fields: Arc<Map<String, Value>>, text: String },
}

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) content: Content,
    pub(super) queued: Instant,
    /// How often it was refused for its rate.
    pub(super) refusals: u32,
    /// Its place among all that were queued, given by the queue.
    order: u64,
}

impl Entry {
    pub(super) fn message(now: Instant, id: String, kind: &str, payload: Box<RawValue>) -> Self {
        Self { id, content: Content::Message { kind: kind.to_owned(), payload }, queued: now, refusals: 0, order: 0 }
    }

    /// Memory it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        128 + match &self.content {
            Content::Message { payload, .. } => payload.get().len(),
            Content::Piece { text, .. } => text.len(),
        }
    }

    pub(super) fn is_piece(&self) -> bool {
        matches!(self.content, Content::Piece { .. })
    }

    pub(super) fn kind(&self) -> &str {
        match &self.content {
            Content::Message { kind, .. } => kind,
            Content::Piece { .. } => "chat.stream",
        }
    }

    /// The payload's JSON.
    pub(super) fn payload(&self) -> Cow<'_, RawValue> {
        match &self.content {
            Content::Message { payload, .. } => Cow::Borrowed(payload),
            Content::Piece { seq, fields, text, .. } => {
                let mut payload = (**fields).clone();
                payload.insert("delta".to_owned(), json!(text));
                payload.insert("seq".to_owned(), json!(seq));
                // A map of values has nothing that cannot be written.
                Cow::Owned(serde_json::value::to_raw_value(&payload).expect("JSON values can be written as JSON"))
            }
        }
    }
}

/// Why a message could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Ended,
    NoRoom,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// By their `order`.
    entries: VecDeque<Entry>,
    /// How many were queued so far.
    queued: u64,
    /// Sum of the entries' bytes.
    bytes: usize,
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
    outgoing: Mutex<Outgoing>,
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
    pub(super) fn new(waker: mio::Waker) -> Self {
        Self {
            outgoing: Mutex::default(),
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

    /// Queues an entry, waiting for room until `deadline`.
    pub(super) fn push(&self, entry: Entry, deadline: Instant) -> Result<(), Full> {
        self.room_for(entry.bytes(), deadline)?.push(entry);
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
        let mut outgoing = self.room_for(text.len(), deadline)?;
        let of_stream = |entry: &&mut Entry| matches!(entry.content, Content::Piece { stream: of, .. } if of == stream);
        if let Some(Entry { content: Content::Piece { text: waiting, .. }, .. }) =
            outgoing.entries.iter_mut().rev().find(of_stream)
            && waiting.len() + text.len() <= PIECE_BYTES_MAX
        {
            waiting.push_str(text);
            outgoing.bytes += text.len();
            return Ok(false);
        }
        let content = Content::Piece { stream, seq, fields: Arc::clone(fields), text: text.to_owned() };
        let entry = Entry { id: envelope::new_id(), content, queued: Instant::now(), refusals: 0, order: 0 };
        outgoing.push(entry);
        drop(outgoing);
        self.wake();
        Ok(true)
    }

    fn room_for(&self, bytes: usize, deadline: Instant) -> Result<MutexGuard<'_, Outgoing>, Full> {
        let mut outgoing = lock(&self.outgoing);
        loop {
            if outgoing.ended || outgoing.close_by.is_some() {
                return Err(Full::Ended);
            }
            if outgoing.entries.len() < OUTGOING_MAX && outgoing.bytes + bytes <= OUTGOING_BYTES_MAX {
                return Ok(outgoing);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Full::NoRoom);
            }
            outgoing = self.room.wait_timeout(outgoing, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks the thread to end, and to send by then what waits.
    pub(super) fn close(&self, by: Instant) {
        let mut outgoing = lock(&self.outgoing);
        outgoing.close_by = Some(outgoing.close_by.map_or(by, |before| before.min(by)));
        drop(outgoing);
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

    /// Takes the first entry that `wanted` agrees to; only the first is shown to it.
    pub(super) fn pop_if(&self, wanted: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let mut outgoing = lock(&self.outgoing);
        if !outgoing.entries.front().is_some_and(wanted) {
            return None;
        }
        let entry = outgoing.entries.pop_front()?;
        outgoing.bytes -= entry.bytes();
        drop(outgoing);
        self.room.notify_all();
        Some(entry)
    }

    /// Puts an entry that was refused back where it was in the order. Bounded by what was popped before.
    pub(super) fn put_back(&self, entry: Entry) {
        let mut outgoing = lock(&self.outgoing);
        outgoing.bytes += entry.bytes();
        let at = outgoing.entries.partition_point(|other| other.order < entry.order);
        outgoing.entries.insert(at, entry);
    }

    /// When the oldest entry was queued.
    pub(super) fn oldest(&self) -> Option<Instant> {
        lock(&self.outgoing).entries.front().map(|entry| entry.queued)
    }

    /// Nothing waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.outgoing).entries.is_empty()
    }

    /// By when the owner wants it closed, if so.
    pub(super) fn close_by(&self) -> Option<Instant> {
        lock(&self.outgoing).close_by
    }

    /// Nothing is sent any more: senders that wait are told.
    pub(super) fn end(&self) {
        let mut outgoing = lock(&self.outgoing);
        outgoing.ended = true;
        outgoing.entries.clear();
        outgoing.bytes = 0;
        drop(outgoing);
        self.room.notify_all();
        lock(&self.incoming).ended = true;
        self.arrived.notify_all();
    }
}

impl Outgoing {
    fn push(&mut self, mut entry: Entry) {
        entry.order = self.queued;
        self.queued += 1;
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
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

    fn shared() -> (mio::Poll, Shared) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        (poll, Shared::new(waker))
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
        assert_eq!(shared.pop_if(|_| true).unwrap().payload().get(), r#"{"delta":"ab","seq":1}"#);
        assert_eq!(shared.push_text(1, 2, &fields, "c", soon()), Ok(true));
        assert_eq!(shared.pop_if(|_| true).unwrap().payload().get(), r#"{"delta":"x","seq":1}"#);
        assert_eq!(shared.pop_if(|_| true).unwrap().payload().get(), r#"{"delta":"c","seq":2}"#);
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
            assert_eq!(shared.push(entry(), Instant::now()), Ok(()));
        }
        assert_eq!(shared.push(entry(), Instant::now()), Err(Full::NoRoom));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| shared.push(entry(), soon()));
            assert!(shared.pop_if(|_| true).is_some());
            assert_eq!(waiting.join().unwrap(), Ok(()));
            let waiting = scope.spawn(|| shared.push(entry(), soon()));
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
            assert_eq!(shared.push(entry, soon()), Ok(()));
        }
        let (first, second) = (shared.pop_if(|_| true).unwrap(), shared.pop_if(|_| true).unwrap());
        shared.put_back(first);
        shared.put_back(second);
        let ids: Vec<String> = std::iter::from_fn(|| shared.pop_if(|_| true)).map(|entry| entry.id).collect();
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
