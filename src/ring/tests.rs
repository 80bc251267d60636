//! The ring against real sockets, with both ways of consuming buffers.
//!
//! What is sent describes itself: each 8 bytes name the connection that they belong to and where in its stream they are.
//! So a byte that reaches another connection, comes twice, is missing or is overwritten while it is held is found and named.

use super::*;
use crate::buffers::GLANCE_BYTES;
use crate::order::Why;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

const WHOLE: Consumption = Consumption::Whole(Why::Older);
const CONNECTIONS: u32 = 48;
const WORD: usize = 8;

/// Both cuts, where this kernel has both.
fn both(test: impl Fn(Consumption)) {
    test(WHOLE);
    if Consumption::of_this_kernel() == Consumption::Incremental {
        test(Consumption::Incremental);
    }
}

/// Reproducible choices (SplitMix64).
struct Choices(u64);

impl Choices {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }
}

/// Bytes `from..to` of the stream of `conn`.
fn stream(conn: u32, from: usize, to: usize) -> Vec<u8> {
    let first = from - from % WORD;
    let mut bytes = Vec::with_capacity(to - first + WORD);
    for at in (first / WORD) as u64..to.div_ceil(WORD) as u64 {
        bytes.extend_from_slice(&(u64::from(conn) << 40 | at).to_be_bytes());
    }
    bytes.truncate(to - first);
    bytes.split_off(from - first)
}

#[track_caller]
fn check(conn: u32, at: usize, bytes: &[u8]) {
    let right = stream(conn, at, at + bytes.len());
    if bytes != right {
        let wrong = bytes.iter().zip(right).position(|(is, should)| *is != should).unwrap();
        let shown = &bytes[wrong..bytes.len().min(wrong + 2 * WORD)];
        panic!("byte {} of connection {conn} is wrong: {shown:x?}", at + wrong);
    }
}

fn connected() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_nonblocking(true).unwrap();
    theirs.set_nodelay(true).unwrap();
    (listener.accept().unwrap().0.into(), theirs)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Nothing,
    Multishot,
    Cancelled,
    Once,
    Fill,
    Ended,
}

struct Pair {
    ours: Conn,
    theirs: TcpStream,
    written: usize,
    received: usize,
    under: Under,
}

/// A slice that is kept for a while, and written to, as unmasking does.
struct Held(Chunk);

impl Held {
    const WRITTEN: u8 = 0xee;

    fn new(mut chunk: Chunk) -> Self {
        chunk.as_mut_slice().fill(Self::WRITTEN);
        Self(chunk)
    }

    fn let_go(self) {
        assert!(self.0.as_slice() == vec![Self::WRITTEN; self.0.as_slice().len()], "overwritten while it was held");
    }
}

struct Rig {
    ring: Ring,
    pairs: Vec<Pair>,
    held: VecDeque<Held>,
    choices: Choices,
    completions: Vec<Completion>,
    cancels_of_nothing: u32,
    kinds: [usize; 3],
}

impl Rig {
    fn new(consumption: Consumption, seed: u64) -> Self {
        let mut ring = Ring::build(consumption).unwrap();
        let pair = |index| {
            let (ours, theirs) = connected();
            let ours = ring.open(ours);
            assert_eq!(ours.index(), index);
            Pair { ours, theirs, written: 0, received: 0, under: Under::Nothing }
        };
        let pairs = (0..CONNECTIONS as usize).map(pair).collect();
        Self {
            ring,
            pairs,
            held: VecDeque::new(),
            choices: Choices(seed),
            completions: Vec::new(),
            cancels_of_nothing: 0,
            kinds: [0; 3],
        }
    }

    /// Some of the other ends write a little or a lot.
    fn write(&mut self) {
        for _ in 0..self.choices.next(6) {
            let conn = self.choices.next(self.pairs.len());
            let most = [1, 40, 2000, 20_000, 200_000][self.choices.next(5)];
            let pair = &mut self.pairs[conn];
            let bytes = stream(conn as u32, pair.written, pair.written + 1 + self.choices.next(most));
            match pair.theirs.write(&bytes) {
                Ok(count) => pair.written += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }

    fn arm(&mut self, conn: u32) {
        let kind = self.choices.next(3);
        let pair = &mut self.pairs[conn as usize];
        match kind {
            0 => {
                pair.under = Under::Multishot;
                self.ring.receive(pair.ours);
            }
            1 => {
                pair.under = Under::Once;
                self.ring.receive_once(pair.ours);
            }
            _ => {
                pair.under = Under::Fill;
                let room = 1 + self.choices.next(60_000);
                let buf = OwnedBuf::from(Vec::with_capacity(room));
                self.ring.fill(pair.ours, buf, room);
            }
        }
    }

    /// Sees to it that all are received from, in one way or another, and takes a multishot back now and then.
    fn arm_and_cancel(&mut self) {
        for conn in 0..CONNECTIONS {
            match self.pairs[conn as usize].under {
                Under::Nothing if self.choices.next(3) > 0 => self.arm(conn),
                Under::Multishot if self.choices.next(40) == 0 => {
                    self.pairs[conn as usize].under = Under::Cancelled;
                    self.ring.cancel_receive(self.pairs[conn as usize].ours);
                }
                // As when a connection ended and the cancel comes too late: it must not meet another receive.
                Under::Once if self.choices.next(100) == 0 => {
                    self.cancels_of_nothing += 1;
                    self.ring.cancel_receive(self.pairs[conn as usize].ours);
                }
                _ => {}
            }
        }
    }

    fn turn(&mut self) {
        self.ring.turn(&mut self.completions, false).unwrap();
        for completion in std::mem::take(&mut self.completions) {
            match completion {
                Completion::Received { conn, data, more } => self.take(conn.index() as u32, data, more),
                Completion::Filled { conn, buf, count } => {
                    let conn = conn.index() as u32;
                    let pair = &mut self.pairs[conn as usize];
                    pair.under = Under::Nothing;
                    let count = count.unwrap();
                    assert_eq!(count, buf.as_slice().len());
                    check(conn, pair.received, buf.as_slice());
                    pair.received += count;
                    self.kinds[2] += count;
                    if count == 0 {
                        pair.under = Under::Ended;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let keep = self.choices.next(400);
        while self.held.len() > keep {
            // Not in the order in which they came.
            let at = self.choices.next(self.held.len());
            self.held.swap_remove_back(at).expect("it is inside").let_go();
        }
    }

    fn take(&mut self, conn: u32, data: io::Result<Option<Chunk>>, more: bool) {
        let pair = &mut self.pairs[conn as usize];
        let multishot = matches!(pair.under, Under::Multishot | Under::Cancelled);
        assert!(multishot || !more && pair.under == Under::Once, "{:?}, more: {more}", pair.under);
        if !more {
            pair.under = Under::Nothing;
        }
        match data {
            Ok(Some(slice)) => {
                let (at, length) = (pair.received, slice.as_slice().len());
                assert!(multishot || length <= GLANCE_BYTES as usize);
                pair.received += length;
                self.kinds[usize::from(!multishot)] += length;
                check(conn, at, slice.as_slice());
                self.held.push_back(Held::new(slice));
            }
            Ok(None) => pair.under = Under::Ended,
            Err(error) => {
                let passing = [libc::ECANCELED, libc::ENOBUFS];
                assert!(error.raw_os_error().is_some_and(|code| passing.contains(&code)), "{error}");
            }
        }
    }

    fn end(&mut self) {
        for pair in &self.pairs {
            pair.theirs.shutdown(Shutdown::Write).unwrap();
        }
        while self.pairs.iter().any(|pair| pair.under != Under::Ended) {
            self.arm_and_cancel();
            self.turn();
        }
        self.held.drain(..).for_each(Held::let_go);
    }
}

#[test]
fn every_byte_reaches_its_connection_in_order_whatever_receives_are_mixed() {
    both(|consumption| {
        for seed in 0..3 {
            println!("{consumption:?}, seed {seed}");
            let mut rig = Rig::new(consumption, seed);
            for _ in 0..700 {
                rig.write();
                rig.arm_and_cancel();
                rig.turn();
            }
            rig.end();
            for (conn, pair) in rig.pairs.iter().enumerate() {
                assert_eq!(pair.received, pair.written, "connection {conn}");
            }
            assert!(rig.kinds.iter().all(|&bytes| bytes > 1 << 18), "{:?}", rig.kinds);
            assert!(rig.cancels_of_nothing > 0);
            for pool in rig.ring.pools() {
                assert_eq!(pool.provided() + pool.free(), pool.buffers(), "all came back: {}", pool.name());
            }
        }
    });
}

/// A connection of the ring, and its other end.
fn opened(ring: &mut Ring) -> (Conn, TcpStream) {
    let (ours, theirs) = connected();
    (ring.open(ours), theirs)
}

/// Turns until something came, and gives what came.
fn come(ring: &mut Ring) -> Vec<(Conn, io::Result<Option<Chunk>>)> {
    let mut completions = Vec::new();
    ring.turn(&mut completions, true).unwrap();
    let received = completions.into_iter().map(|completion| match completion {
        Completion::Received { conn, data, .. } => (conn, data),
        other => panic!("{other:?}"),
    });
    received.collect()
}

fn is_shortage(data: &io::Result<Option<Chunk>>) -> bool {
    data.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOBUFS))
}

/// Receives from a socket that has always more, and keeps all slices until there are no buffers left.
fn exhaust(ring: &mut Ring, once: bool) -> (Vec<Chunk>, TcpStream) {
    let (ours, mut theirs) = opened(ring);
    let (mut kept, mut shortages) = (Vec::new(), 0);
    // Each shortage makes twice as many buffers available, until there are no more.
    while shortages < 12 {
        while theirs.write(&[1; 1 << 16]).is_ok() {}
        match once {
            true => ring.receive_once(ours),
            false => ring.receive(ours),
        }
        for (_, data) in come(ring) {
            shortages += usize::from(is_shortage(&data));
            kept.extend(data.ok().flatten());
        }
        // A multishot that found no buffer is over; else there is none to cancel once it goes on.
        if !once && shortages < 12 {
            ring.cancel_receive(ours);
            let mut completions = Vec::new();
            ring.turn(&mut completions, false).unwrap();
            for completion in completions {
                if let Completion::Received { data: Ok(Some(slice)), .. } = completion {
                    kept.push(slice);
                }
            }
        }
    }
    (kept, theirs)
}

#[test]
fn a_pool_without_buffers_does_not_starve_the_other_one() {
    both(|consumption| {
        for once in [false, true] {
            let mut ring = Ring::build(consumption).unwrap();
            let (kept, _theirs) = exhaust(&mut ring, once);
            let [empty, other] = if once { [1, 0] } else { [0, 1] };
            let pools = ring.pools();
            assert_eq!((pools[empty].provided(), pools[empty].free()), (0, 0), "{consumption:?}, once: {once}");
            assert!(pools[other].provided() > 0);
            let (ours, mut theirs) = opened(&mut ring);
            theirs.write_all(b"still here").unwrap();
            match once {
                true => ring.receive(ours),
                false => ring.receive_once(ours),
            }
            let came = come(&mut ring);
            assert!(
                matches!(&came[..], [(conn, Ok(Some(slice)))] if *conn == ours && slice.as_slice() == b"still here"),
                "{consumption:?}, once: {once}: {came:?}"
            );
            // And what was exhausted serves again when it gets buffers back.
            drop(kept);
            let (ours, mut theirs) = opened(&mut ring);
            theirs.write_all(b"back").unwrap();
            match once {
                true => ring.receive_once(ours),
                false => ring.receive(ours),
            }
            let came = come(&mut ring);
            assert!(
                matches!(&came[..], [(conn, Ok(Some(slice)))] if *conn == ours && slice.as_slice() == b"back"),
                "{came:?}"
            );
        }
    });
}

#[test]
fn single_receives_never_share_a_buffer() {
    let mut ring = Ring::build(Consumption::of_this_kernel()).unwrap();
    let (ours, mut theirs) = opened(&mut ring);
    let mut slices = Vec::new();
    for letter in *b"abc" {
        theirs.write_all(&[letter; 10]).unwrap();
        ring.receive_once(ours);
        slices.extend(come(&mut ring).into_iter().filter_map(|(_, data)| data.unwrap()));
    }
    assert_eq!(slices.iter().map(|slice| slice.as_slice()[0]).collect::<Vec<_>>(), b"abc");
    for slice in &slices {
        let start = slice.as_slice().as_ptr() as usize;
        assert_eq!(start % GLANCE_BYTES as usize, 0, "at the beginning of its own page");
    }
}

#[test]
fn a_ring_that_the_kernel_refuses_for_good_says_so_in_the_next_turn() {
    // A ring that was never enabled takes no entry (EBADFD).
    let uring = builder().setup_r_disabled().setup_cqsize(COMPLETIONS).build(SUBMISSIONS).unwrap();
    let mut ring = Ring::from_uring(uring, WHOLE).unwrap();
    // More than there is room for: the last ones have to be submitted.
    for conn in 0..SUBMISSIONS + 10 {
        ring.cancel_receive(Conn::of(conn, 0));
    }
    for _ in 0..2 {
        let error = ring.turn(&mut Vec::new(), true).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
    }
}

#[test]
fn more_than_there_is_room_for_is_submitted_on_the_way() {
    let mut ring = Ring::build(WHOLE).unwrap();
    let before = ring.counts().submissions;
    for conn in 0..3 * SUBMISSIONS {
        ring.cancel_receive(Conn::of(conn, 0));
    }
    ring.turn(&mut Vec::new(), false).unwrap();
    // And the one that listens to the waker.
    assert_eq!(ring.counts().submissions - before, u64::from(3 * SUBMISSIONS) + 1);
}

/// Turns until nothing more comes.
fn settle(ring: &mut Ring) -> Vec<Completion> {
    let mut completions = Vec::new();
    for _ in 0..4 {
        ring.turn(&mut completions, false).unwrap();
    }
    completions
}

#[test]
fn of_a_closed_connection_nothing_is_heard_and_its_socket_closes_when_nothing_is_under_way() {
    let budget = chunk::Budget::new(1 << 20);
    let kinds: [fn(&mut Ring, Conn, OwnedBuf); 4] = [
        |ring, conn, _| ring.receive(conn),
        |ring, conn, _| ring.receive_once(conn),
        |ring, conn, buf| ring.fill(conn, buf, 1000),
        |ring, conn, _| {
            // More than the socket takes, so that the kernel waits.
            let bytes = OwnedBuf::from(vec![0; 64 << 20]);
            ring.send(conn, Outgoing::One(chunk::Chunk::Owned(bytes)), true);
        },
    ];
    for (kind, begin) in kinds.into_iter().enumerate() {
        for is_taken in [false, true] {
            let mut ring = Ring::new().unwrap();
            let (conn, mut theirs) = opened(&mut ring);
            begin(&mut ring, conn, OwnedBuf::with_headroom(0, 1000, budget.charge(1000)));
            if is_taken {
                // The kernel has it; a send may have completed with what the socket took.
                let before = settle(&mut ring).len();
                assert!(before <= 1, "kind {kind}");
            }
            assert!(is_taken && kind == 3 || ring.take(conn).is_none(), "kind {kind}: something is in progress");
            ring.close(conn);
            ring.close(conn);
            assert!(ring.sockets.get(conn).is_none());
            assert!(settle(&mut ring).is_empty(), "kind {kind}");
            theirs.set_nonblocking(false).unwrap();
            let mut all = Vec::new();
            let _ = std::io::Read::read_to_end(&mut theirs, &mut all);
            assert_eq!(budget.used_bytes(), 0, "kind {kind}: the memory came back");
            // Its place is another's, and the old id is nobody's.
            let (next, mut theirs) = opened(&mut ring);
            assert_eq!((next.index(), next == conn), (conn.index(), false));
            ring.receive(conn);
            ring.close(conn);
            theirs.write_all(b"for the next one").unwrap();
            ring.receive_once(next);
            let came = come(&mut ring);
            assert!(
                matches!(&came[..], [(conn, Ok(Some(slice)))] if *conn == next && slice.as_slice() == b"for the next one"),
                "kind {kind}: {came:?}"
            );
        }
    }
}

#[test]
fn a_place_is_not_given_anew_in_the_turn_in_which_it_became_free() {
    let mut ring = Ring::new().unwrap();
    let (first, _theirs) = opened(&mut ring);
    ring.close(first);
    let (second, _others) = opened(&mut ring);
    assert_ne!(first.index(), second.index());
    ring.turn(&mut Vec::new(), false).unwrap();
    let (third, _others) = opened(&mut ring);
    assert_eq!(third.index(), first.index());
    assert!(ring.take(second).is_some() && ring.take(second).is_none());
}

#[test]
fn an_id_keeps_its_parts_in_a_tag() {
    for conn in [Conn::of(0, 0), Conn::of(u32::MAX, 7), Conn::of(5, u32::MAX)] {
        assert_eq!(Conn::from_tag(SEND | conn.tag()), conn);
        assert_eq!(conn.tag() & KIND, 0);
    }
    assert_eq!(Conn::of(1, 1 << 24), Conn::of(1, 0), "generations begin anew");
}
