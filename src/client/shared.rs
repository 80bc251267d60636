//! What the client's thread and its owner's threads share: the messages that wait to be sent, and the events that wait
//! to be taken. Both are bounded; whoever fills one waits.

use super::devices::{COMMANDS_MAX, Command, Info, Lane, To};
use super::event::Event;
use super::options::{EVENTS_BYTES_MAX, EVENTS_MAX};
use super::outgoing::{Entry, Outgoing, Piece};
use super::resume::Keep;
use coralmux_e2e::v3::DeviceId;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// Toward the agent, or toward the phone of the plain slot.
    plain: Outgoing,
    /// What is for everybody is for that phone, too.
    plain_listens: bool,
    /// An agent's, toward each of its devices.
    devices: BTreeMap<DeviceId, Outgoing>,
    /// What the owner wants of the devices.
    commands: VecDeque<Command>,
    /// Nothing more is taken.
    ended: bool,
    /// To be closed, with what waits sent by then.
    close_by: Option<Instant>,
}

impl Sending {
    fn lane(&mut self, lane: Lane) -> &mut Outgoing {
        match lane {
            None => &mut self.plain,
            // A device's lane goes with its peer, and both are the client's thread's.
            Some(device) => self.devices.get_mut(&device).expect("a peer has a lane"),
        }
    }

    /// The lanes of those that a message is for.
    fn lanes(&mut self, to: To) -> impl Iterator<Item = (Lane, &mut Outgoing)> {
        let plain_listens = self.plain_listens;
        let plain = [(None, &mut self.plain)].into_iter();
        let all = plain.chain(self.devices.iter_mut().map(|(device, outgoing)| (Some(*device), outgoing)));
        all.filter(move |(lane, _)| match to {
            To::All => lane.is_some() || plain_listens,
            To::Only(only) => *lane == only,
            To::Devices { but } => lane.is_some() && *lane != but,
        })
    }

    /// How much is before senders, and how many of the lanes make them wait.
    fn pressure(&self) -> (usize, usize) {
        let lanes = self.devices.values().chain([&self.plain]).map(Outgoing::pressure);
        lanes.fold((0, 0), |(waiting, bytes), (waits, more)| (waiting + usize::from(waits), bytes + more))
    }
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
    /// An agent's devices, as its owner sees them.
    infos: Mutex<Vec<Info>>,
    waker: mio::Waker,
}

/// A thread that panicked while it held one of the locks has left a whole value: nothing in between can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(waker: mio::Waker, outgoing: Outgoing) -> Self {
        Self {
            sending: Mutex::new(Sending {
                plain: outgoing,
                plain_listens: true,
                devices: BTreeMap::new(),
                commands: VecDeque::new(),
                ended: false,
                close_by: None,
            }),
            room: Condvar::new(),
            incoming: Mutex::default(),
            arrived: Condvar::new(),
            infos: Mutex::default(),
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
    pub(super) fn push(&self, to: To, entry: &Entry, ends: Option<u64>, deadline: Instant) -> Result<(), Full> {
        let mut sending = self.room_for(to, 1, entry.bytes(), deadline)?;
        let asker = match entry.keep() {
            Keep::WakeFor(asker) => sending.devices.get(&asker).filter(|of| !of.is_absent()).map(|_| asker),
            _ => None,
        };
        for (lane, outgoing) in sending.lanes(to) {
            if let Some(stream) = ends {
                outgoing.end_stream(stream);
            }
            let is_elsewhere = asker.is_some() && lane != asker;
            outgoing.push(if is_elsewhere { entry.clone().with_keep(Keep::Quiet) } else { entry.clone() });
        }
        drop(sending);
        self.wake();
        Ok(())
    }

    /// Adds text to a stream: to the piece that still waits, or as the next one of its lane, which
    /// `pieces` counts.
    pub(super) fn push_text(
        &self,
        to: To,
        stream: u64,
        pieces: &mut BTreeMap<Lane, u64>,
        fields: &Arc<Map<String, Value>>,
        text: &str,
        deadline: Instant,
    ) -> Result<(), Full> {
        let mut sending = self.room_for(to, 0, text.len(), deadline)?;
        let mut any_new = false;
        for (lane, outgoing) in sending.lanes(to) {
            let pieces = pieces.entry(lane).or_default();
            let entry = Piece { stream, seq: *pieces + 1, fields, text };
            if outgoing.push_text(Instant::now(), entry) {
                *pieces += 1;
                any_new = true;
            }
        }
        drop(sending);
        if any_new {
            self.wake();
        }
        Ok(())
    }

    fn room_for(
        &self,
        to: To,
        messages: usize,
        bytes: usize,
        deadline: Instant,
    ) -> Result<MutexGuard<'_, Sending>, Full> {
        let mut sending = lock(&self.sending);
        loop {
            if sending.ended || sending.close_by.is_some() {
                return Err(Full::Ended);
            }
            let (mut room, mut given_up) = (true, Vec::new());
            // What is given up is told: an owner that takes no events has to wait after all.
            let may_give_up = self.has_room();
            for (_, outgoing) in sending.lanes(to) {
                if may_give_up && outgoing.never_waits() {
                    given_up.extend(outgoing.give_up_for(messages, bytes));
                }
                room &= outgoing.has_room(bytes);
            }
            for id in given_up {
                self.emit(Event::NotSent { id }, 0);
            }
            if room {
                return Ok(sending);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Full::NoRoom);
            }
            sending = self.room.wait_timeout(sending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has the client's thread do this.
    pub(super) fn command(&self, command: Command) -> Result<(), Full> {
        let mut sending = lock(&self.sending);
        if sending.ended {
            return Err(Full::Ended);
        }
        if sending.commands.len() >= COMMANDS_MAX {
            return Err(Full::NoRoom);
        }
        sending.commands.push_back(command);
        drop(sending);
        self.wake();
        Ok(())
    }

    /// The devices, as they are now.
    pub(super) fn infos(&self) -> Vec<Info> {
        lock(&self.infos).clone()
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

    /// Looks at what this end sends to this peer, and takes from it.
    pub(super) fn outgoing<T>(&self, lane: Lane, look: impl FnOnce(&mut Outgoing) -> T) -> T {
        let mut sending = lock(&self.sending);
        let before = sending.pressure();
        let result = look(sending.lane(lane));
        let eased = sending.pressure() < before;
        drop(sending);
        if eased {
            self.room.notify_all();
        }
        result
    }

    /// Whether this peer can be reached, of which it depends whether senders wait for it.
    pub(super) fn set_absent(&self, lane: Lane, absent: bool) {
        for id in self.outgoing(lane, |outgoing| outgoing.set_absent(absent)) {
            self.emit(Event::NotSent { id }, 0);
        }
    }

    /// A device has come to stay: what is for everybody is for it.
    pub(super) fn add_lane(&self, device: DeviceId, outgoing: Outgoing) {
        lock(&self.sending).devices.insert(device, outgoing);
    }

    /// It is none any more.
    pub(super) fn remove_lane(&self, device: DeviceId) {
        lock(&self.sending).devices.remove(&device);
        self.room.notify_all();
    }

    /// Whether what is for everybody is for the phone of the plain slot, too.
    pub(super) fn set_plain_listens(&self, listens: bool) {
        lock(&self.sending).plain_listens = listens;
    }

    /// What the owner wants next.
    pub(super) fn next_command(&self) -> Option<Command> {
        lock(&self.sending).commands.pop_front()
    }

    /// Shows the owner its devices.
    pub(super) fn set_infos(&self, infos: Vec<Info>) {
        *lock(&self.infos) = infos;
    }

    /// By when the owner wants it closed, if so.
    pub(super) fn close_by(&self) -> Option<Instant> {
        lock(&self.sending).close_by
    }

    /// The ids of what waits, or was not acknowledged, pieces of answers aside.
    pub(super) fn unsent(&self) -> BTreeSet<String> {
        let sending = lock(&self.sending);
        sending.devices.values().chain([&sending.plain]).flat_map(Outgoing::ids).map(str::to_owned).collect()
    }

    /// Nothing is sent any more: senders that wait are told.
    pub(super) fn end(&self) {
        let mut sending = lock(&self.sending);
        sending.ended = true;
        sending.plain.clear();
        sending.devices.values_mut().for_each(Outgoing::clear);
        // Whoever waits for what comes of a command hears that nothing does.
        sending.commands.clear();
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
        shared.outgoing(None, |outgoing| outgoing.pop_if(|_| true))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn text_joins_the_piece_of_its_stream_that_still_waits() {
        let (_poll, shared) = shared();
        let fields = Arc::default();
        let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
        shared.push_text(To::All, 1, &mut first, &fields, "a", soon()).unwrap();
        shared.push_text(To::All, 2, &mut second, &fields, "x", soon()).unwrap();
        shared.push_text(To::All, 1, &mut first, &fields, "b", soon()).unwrap();
        assert_eq!((first[&None], second[&None]), (1, 1));
        assert_eq!(pop(&shared).unwrap().payload().get(), r#"{"delta":"ab","seq":1}"#);
        shared.push_text(To::All, 1, &mut first, &fields, "c", soon()).unwrap();
        assert_eq!(pop(&shared).unwrap().payload().get(), r#"{"delta":"x","seq":1}"#);
        assert_eq!(pop(&shared).unwrap().payload().get(), r#"{"delta":"c","seq":2}"#);
    }

    #[test]
    fn a_piece_grows_up_to_its_bound() {
        let (_poll, shared) = shared();
        let fields = Arc::default();
        let text = "x".repeat(PIECE_BYTES_MAX);
        let mut pieces = BTreeMap::new();
        shared.push_text(To::All, 1, &mut pieces, &fields, &text, soon()).unwrap();
        shared.push_text(To::All, 1, &mut pieces, &fields, "y", soon()).unwrap();
        assert_eq!(pieces[&None], 2);
    }

    #[test]
    fn a_full_queue_makes_wait_and_gives_up() {
        let (_poll, shared) = shared();
        let payload = RawValue::from_string("{}".to_owned()).unwrap();
        let entry = || Entry::message(Instant::now(), "x".to_owned(), "chat.send", payload.clone(), 0);
        for _ in 0..OUTGOING_MAX {
            assert_eq!(shared.push(To::All, &entry(), None, Instant::now()), Ok(()));
        }
        assert_eq!(shared.push(To::All, &entry(), None, Instant::now()), Err(Full::NoRoom));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| shared.push(To::All, &entry(), None, soon()));
            assert!(pop(&shared).is_some());
            assert_eq!(waiting.join().unwrap(), Ok(()));
            let waiting = scope.spawn(|| shared.push(To::All, &entry(), None, soon()));
            shared.close(Instant::now());
            assert_eq!(waiting.join().unwrap(), Err(Full::Ended));
        });
    }

    #[test]
    fn what_is_put_back_finds_its_place() {
        let (_poll, shared) = shared();
        let payload = RawValue::from_string("{}".to_owned()).unwrap();
        for id in ["1", "2", "3"] {
            let entry = Entry::message(Instant::now(), id.to_owned(), "chat.send", payload.clone(), 0);
            assert_eq!(shared.push(To::All, &entry, None, soon()), Ok(()));
        }
        let (first, second) = (pop(&shared).unwrap(), pop(&shared).unwrap());
        shared.outgoing(None, |outgoing| outgoing.put_back(first));
        shared.outgoing(None, |outgoing| outgoing.put_back(second));
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
