//! The outbox in front of a socket that takes what it likes: what comes out is read by tungstenite.

use super::*;
use crate::ring::{Completion, Conn, Net, Ring};
use crate::session::message::frame_of;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::{self, Cursor, Read, Write};
use std::os::fd::OwnedFd;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// Makes slices, which only the kernel can: bytes go through a socket into a ring's buffers.
struct Source {
    ring: Ring,
    ours: Conn,
    theirs: OwnedFd,
}

impl Source {
    fn new() -> Self {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut ring = Ring::new().unwrap();
        let ours = ring.open(ours);
        Self { ring, ours, theirs }
    }

    /// `bytes` as they are received; the kernel may give them in several slices.
    fn slices(&mut self, mut bytes: &[u8]) -> Vec<Chunk> {
        let (mut chunks, mut completions) = (Vec::new(), Vec::new());
        while !bytes.is_empty() {
            let written = rustix::io::write(&self.theirs, bytes).unwrap();
            bytes = &bytes[written..];
            let mut left = written;
            while left > 0 {
                self.ring.receive_once(self.ours);
                while completions.is_empty() {
                    self.ring.turn(&mut completions, true).unwrap();
                }
                for completion in completions.drain(..) {
                    let Completion::Received { data: Ok(Some(chunk)), .. } = completion else {
                        panic!("{completion:?}")
                    };
                    left -= chunk.len();
                    chunks.push(chunk);
                }
            }
        }
        chunks
    }
}

/// Runs a test where a ring can be: inside an executor.
fn with_source(test: impl FnOnce(Source) + 'static) {
    let executor = glommio::LocalExecutorBuilder::default().io_memory(64 << 10).make().unwrap();
    executor.run(async move { test(Source::new()) });
}

fn message_buf(budget: &Budget, payload: &[u8]) -> OwnedBuf {
    let headroom = frame::header_bytes(u64::MAX);
    let mut buf = OwnedBuf::with_headroom(headroom, payload.len(), budget.charge(payload.len()));
    buf.extend(payload);
    buf
}

/// What a client reads out of `bytes`.
fn read_messages(bytes: Vec<u8>) -> Vec<Message> {
    struct Wire(Cursor<Vec<u8>>);
    impl Read for Wire {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        }
    }
    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let length = bytes.len() as u64;
    let mut socket =
        WebSocket::from_raw_socket(Wire(Cursor::new(bytes)), Role::Client, Some(WebSocketConfig::default()));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(tungstenite::Error::Io(_)) => break,
            Err(error) => panic!("behind {} messages: {error}", messages.len()),
        }
    }
    assert_eq!(socket.get_ref().0.position(), length);
    messages
}

/// Where on the wire pings begin.
fn ping_places(wire: &[u8]) -> Vec<usize> {
    let (mut places, mut at) = (Vec::new(), 0);
    while at < wire.len() {
        if wire[at] == 0x89 {
            places.push(at);
        }
        let length = match wire[at + 1] {
            126 => u64::from(u16::from_be_bytes(*wire[at + 2..].first_chunk().unwrap())),
            127 => u64::from_be_bytes(*wire[at + 2..].first_chunk().unwrap()),
            short => u64::from(short),
        };
        at += frame::header_bytes(length) + length as usize;
    }
    places
}

#[derive(Clone, Debug)]
enum Operation {
    /// Small messages, received in one run: their sizes.
    Run(Vec<usize>),
    /// A small message of the relay's own.
    Own(usize),
    /// A message in an allocation of its own.
    Large(usize),
    Control,
    /// The socket takes that much of what it is given, in 1/256, and a few bytes more or less.
    Send(u8, i8),
    /// Control frames and messages may be queued while a send is under way.
    Begin,
}

fn operation() -> impl Strategy<Value = Operation> {
    let around_fragments = (0usize..4, -20i64..20).prop_map(|(count, more)| {
        let size = (count * FRAGMENT_BYTES) as i64 + more;
        Operation::Large(size.max(0) as usize)
    });
    prop_oneof![
        3 => prop::collection::vec(0usize..400, 1..6).prop_map(Operation::Run),
        1 => (60_000usize..70_000).prop_map(|size| Operation::Run(vec![size, 1, size])),
        2 => (0usize..300).prop_map(Operation::Own),
        2 => around_fragments,
        3 => Just(Operation::Control),
        8 => (any::<u8>(), -3i8..3).prop_map(|(part, more)| Operation::Send(part, more)),
        2 => Just(Operation::Begin),
    ]
}

/// An outbox, its socket, and what has to come out.
struct Rig<'a> {
    source: &'a mut Source,
    outbox: Outbox,
    budget: Budget,
    under_way: Option<Outgoing>,
    wire: Vec<u8>,
    messages: Vec<Vec<u8>>,
    /// Payloads of the pings, each with the place on the wire that it must not begin behind.
    pings: Vec<(Vec<u8>, Option<usize>)>,
    pressed: bool,
    /// Bytes of the relay's own pushed since the outbox was low.
    own_bytes: usize,
}

/// What can be in front of a control frame: a fragment or a run that has begun, and other control frames.
const BEFORE_CONTROL_BYTES_MAX: usize = 2 * FRAGMENT_BYTES;

impl<'a> Rig<'a> {
    fn new(source: &'a mut Source) -> Self {
        Self {
            source,
            outbox: Outbox::default(),
            budget: Budget::new(usize::MAX / 2),
            under_way: None,
            wire: Vec::new(),
            messages: Vec::new(),
            pings: Vec::new(),
            pressed: false,
            own_bytes: 0,
        }
    }

    /// The next message's payload; each differs from the others.
    fn payload(&mut self, size: usize) -> Vec<u8> {
        let payload = vec![(self.messages.len() % 251) as u8; size];
        self.messages.push(payload.clone());
        payload
    }

    /// What the peer pushes presses when all that is queued is too much, the relay's own when that alone is.
    fn check_pressure(&mut self, pushed: Pushed, own_bytes: Option<usize>) {
        self.own_bytes += own_bytes.unwrap_or(0);
        let counted = if own_bytes.is_some() { self.own_bytes } else { self.outbox.bytes };
        let above = counted > HIGH_WATER_BYTES;
        assert_eq!(pushed, if above { Pushed::UnderPressure } else { Pushed::Queued });
        self.pressed |= above;
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Run(sizes) => {
                let run: Vec<u8> =
                    sizes.iter().flat_map(|&size| frame_of(Opcode::Binary, &self.payload(size))).collect();
                // Slices hold whole frames; a run that the kernel cut would not come here.
                let mut slices = self.source.slices(&run);
                let chunk = match slices.len() {
                    1 => slices.remove(0),
                    _ => Chunk::Owned(OwnedBuf::from(run)),
                };
                let pushed = self.outbox.push(chunk);
                self.check_pressure(pushed, None);
            }
            Operation::Own(size) => {
                let frame = frame_of(Opcode::Binary, &self.payload(*size));
                let bytes = frame.len();
                let pushed = self.outbox.push_own(frame);
                self.check_pressure(pushed, Some(bytes));
            }
            Operation::Large(size) => {
                let payload = self.payload(*size);
                let buf = message_buf(&self.budget, &payload);
                let pushed = self.outbox.push_message(buf, Opcode::Binary);
                self.check_pressure(pushed, None);
            }
            Operation::Control => {
                let payload = (self.pings.len() as u32).to_be_bytes().to_vec();
                let frame = frame_of(Opcode::Ping, &payload);
                let pushed = self.outbox.push_control(&frame);
                self.check_pressure(pushed, Some(frame.len()));
                // While a send is under way it is not known how much of that will have gone before.
                let behind = self.under_way.is_none().then(|| self.wire.len() + BEFORE_CONTROL_BYTES_MAX);
                self.pings.push((payload, behind));
            }
            Operation::Begin => self.begin(),
            Operation::Send(part, more) => {
                self.begin();
                let Some(outgoing) = &self.under_way else { return };
                let length = outgoing.len();
                let count = (length * usize::from(*part) / 255).saturating_add_signed(isize::from(*more)).min(length);
                self.complete(count);
            }
        }
    }

    fn begin(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        if self.outbox.blocked {
            self.outbox.copy_slices(&self.budget);
            assert!(!self.outbox.queue.iter().any(|chunk| matches!(chunk, Chunk::Slice(_))));
        }
        self.under_way = self.outbox.poll_send();
        self.outbox.sending = self.under_way.is_some();
    }

    /// The socket took `count` bytes of what is under way.
    fn complete(&mut self, count: usize) {
        let Some(outgoing) = self.under_way.take() else { return };
        let bytes = match &outgoing {
            Outgoing::One(chunk) => chunk.as_slice().to_vec(),
            Outgoing::Many(batch) => batch.chunks.iter().map(Chunk::as_slice).collect::<Vec<_>>().concat(),
        };
        assert_eq!(bytes.len(), outgoing.len());
        self.wire.extend_from_slice(&bytes[..count]);
        self.outbox.blocked = count < bytes.len();
        self.outbox.handle_sent(outgoing, count);
        let here = self.wire.len();
        for (_, behind) in &mut self.pings {
            behind.get_or_insert(here + BEFORE_CONTROL_BYTES_MAX);
        }
        if self.outbox.bytes <= LOW_WATER_BYTES {
            self.own_bytes = 0;
        }
        let relieved = self.pressed && self.outbox.bytes <= LOW_WATER_BYTES;
        assert_eq!(self.outbox.poll_relief(), relieved);
        assert!(!self.outbox.poll_relief(), "relief is told once");
        self.pressed &= !relieved;
    }

    /// The socket takes all that is left.
    fn drain(&mut self) {
        loop {
            self.begin();
            match &self.under_way {
                Some(outgoing) => {
                    let length = outgoing.len();
                    self.complete(length);
                }
                None => return,
            }
        }
    }

    fn check(self) {
        assert!(self.outbox.is_empty() && !self.pressed);
        assert_eq!((self.outbox.bytes, self.budget.used_bytes()), (0, 0));
        let places = ping_places(&self.wire);
        assert_eq!(places.len(), self.pings.len());
        for (at, (payload, behind)) in places.into_iter().zip(&self.pings) {
            assert!(behind.is_some_and(|behind| at <= behind), "ping {payload:?} at {at}, not behind {behind:?}");
        }
        let (mut messages, mut pings) = (self.messages.into_iter(), self.pings.into_iter());
        for read in read_messages(self.wire) {
            match read {
                Message::Ping(payload) => assert_eq!(Some(payload.to_vec()), pings.next().map(|(payload, _)| payload)),
                Message::Binary(payload) => assert!(messages.next().is_some_and(|sent| sent == *payload)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((messages.len(), pings.len()), (0, 0), "not all came out");
    }
}

#[test]
fn whatever_the_socket_takes_messages_come_out_whole_and_in_order_with_control_frames_between_frames() {
    with_source(|mut source| {
        let operations = prop::collection::vec(operation(), 1..60);
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() });
        let source = std::cell::RefCell::new(&mut source);
        let outcome = runner.run(&operations, |operations| {
            let mut source = source.borrow_mut();
            let mut rig = Rig::new(&mut source);
            for operation in &operations {
                rig.apply(operation);
            }
            rig.drain();
            rig.check();
            Ok(())
        });
        outcome.unwrap_or_else(|e| panic!("{e}"));
    });
}

#[test]
fn a_control_frame_goes_behind_the_fragment_that_has_begun_and_before_the_next_one() {
    with_source(|mut source| {
        let mut rig = Rig::new(&mut source);
        rig.apply(&Operation::Large(5 << 20));
        rig.begin();
        rig.complete(100);
        rig.apply(&Operation::Control);
        // One byte at a time at the seams: first the rest of the fragment, then the ping, then the message goes on.
        let first = 10 + FRAGMENT_BYTES;
        rig.begin();
        rig.complete(first - 100 - 1);
        rig.begin();
        rig.complete(1);
        assert_eq!(rig.wire.len(), first);
        rig.begin();
        rig.complete(2);
        assert_eq!(rig.wire[first..], [0x89, 4], "the ping's header");
        rig.drain();
        assert_eq!(rig.wire[first + 6..][..2], [0x00, 127], "a continuation");
        rig.check();
    });
}

#[test]
fn copied_slices_keep_their_bytes_and_their_place_and_count_against_the_budget() {
    with_source(|mut source| {
        let (budget, mut outbox) = (Budget::new(1 << 20), Outbox::default());
        let pieces: [&[u8]; 6] = [b"one ", b"two ", b"THREE ", b"four ", b"FIVE ", b"six"];
        for piece in pieces {
            let chunk = match piece[0].is_ascii_uppercase() {
                true => Chunk::Owned(OwnedBuf::from(piece.to_vec())),
                false => source.slices(piece).remove(0),
            };
            assert_eq!(outbox.push(chunk), Pushed::Queued);
        }
        let bytes = outbox.bytes;
        outbox.copy_slices(&budget);
        assert_eq!((outbox.bytes, budget.used_bytes()), (bytes, "one two four six".len()));
        let copied: Vec<&[u8]> = outbox
            .queue
            .iter()
            .map(|chunk| match chunk {
                Chunk::Owned(buf) => buf.as_slice(),
                Chunk::Slice(slice) => panic!("{slice:?} is still there"),
            })
            .collect();
        let expected: [&[u8]; 5] = [b"one two ", b"THREE ", b"four ", b"FIVE ", b"six"];
        assert_eq!(copied, expected);
        outbox.copy_slices(&budget);
        assert_eq!(budget.used_bytes(), 16, "what is copied is not copied again");
        let outgoing = outbox.poll_send().unwrap();
        outbox.handle_sent(outgoing, bytes);
        assert_eq!((outbox.bytes, budget.used_bytes()), (0, 0));
    });
}

#[test]
fn pressure_begins_above_the_high_water_mark_and_ends_at_the_low_one() {
    let mut outbox = Outbox::default();
    let bytes = |count: usize| Chunk::Owned(OwnedBuf::from(vec![0; count]));
    assert_eq!(outbox.push(bytes(HIGH_WATER_BYTES)), Pushed::Queued);
    assert!(!outbox.poll_relief(), "nobody was stopped");
    assert_eq!(outbox.push_control(&[0]), Pushed::Queued, "a ping is answered whatever the peer has queued");
    assert_eq!(outbox.push(bytes(1)), Pushed::UnderPressure);
    let mut left = HIGH_WATER_BYTES + 2;
    let mut take = |outbox: &mut Outbox, down_to: usize| {
        while left > down_to {
            let outgoing = outbox.poll_send().unwrap();
            let count = outgoing.len().min(left - down_to);
            outbox.handle_sent(outgoing, count);
            left -= count;
        }
    };
    take(&mut outbox, LOW_WATER_BYTES + 1);
    assert!(!outbox.poll_relief());
    take(&mut outbox, LOW_WATER_BYTES);
    assert!(outbox.poll_relief() && !outbox.poll_relief());
    assert_eq!(outbox.push(bytes(HIGH_WATER_BYTES - LOW_WATER_BYTES)), Pushed::Queued, "at the mark, not above it");
}

#[test]
fn records_of_tls_leave_before_the_queue_and_what_is_not_taken_stays_in_front() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.push_own(vec![1; 10]), Pushed::Queued);
    outbox.push_sealed(OwnedBuf::from(vec![7; 100]));
    outbox.push_sealed(OwnedBuf::from(vec![8; 50]));
    assert_eq!(outbox.bytes(), 160);
    assert!(outbox.poll_joined().is_none(), "there are two");
    let sent = outbox.poll_sealed().unwrap();
    outbox.sending = true;
    outbox.handle_sent(sent, 30);
    assert_eq!(outbox.bytes(), 130);
    for (length, value) in [(70, 7), (50, 8)] {
        let sent = outbox.poll_sealed().unwrap();
        assert!(matches!(&sent, Outgoing::One(chunk) if chunk.as_slice() == vec![value; length]));
        outbox.sending = true;
        outbox.handle_sent(sent, length);
    }
    assert!(outbox.poll_sealed().is_none());
    // The sealer takes what it takes, as a socket would.
    let plain = outbox.poll_send().unwrap();
    outbox.take_sent(plain, 10);
    assert!(outbox.is_empty());
}

#[test]
fn a_few_records_wait_to_be_joined_by_the_next_ones() {
    let mut outbox = Outbox::default();
    outbox.push_sealed(OwnedBuf::from(vec![7; 100]));
    assert!(outbox.poll_joined().is_none(), "nothing follows");
    assert_eq!(outbox.push_control(&[1, 2]), Pushed::Queued);
    assert_eq!(outbox.poll_joined().map(|joined| joined.len()), Some(100));
    assert_eq!(outbox.bytes(), 2);
    outbox.push_sealed(OwnedBuf::from(vec![7; JOINED_BYTES_MAX + 1]));
    assert!(outbox.poll_joined().is_none(), "that is much to copy");
}
