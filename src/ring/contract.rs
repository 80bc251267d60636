//! What every driver on real sockets keeps to: the ring with both ways of consuming buffers, and epoll.
//!
//! What is sent describes itself: each 8 bytes name the connection that they belong to and where in its stream they are.
//! So a byte that reaches another connection, comes twice, is missing or is overwritten while it is held is found and named.

use super::buffers::GLANCE_BYTES;
use super::chunk::{Batch, Budget, Chunk, Outgoing, OwnedBuf};
use super::order::{Consumption, Why};
use super::{Buffers, Completion, Conn, Epoll, Net, Ring};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 48;
const WORD: usize = 8;

/// A driver that can be built.
trait Driver: Net<Socket = OwnedFd> + Sized {
    type Kind: Copy + Debug + 'static;
    const KINDS: &'static [Self::Kind];

    /// `None`: not on this kernel.
    fn build(kind: Self::Kind) -> Option<Self>;
}

impl Driver for Ring {
    type Kind = Consumption;
    const KINDS: &'static [Consumption] = &[Consumption::Whole(Why::Older), Consumption::Incremental];

    fn build(kind: Consumption) -> Option<Self> {
        let is_there = kind != Consumption::Incremental || Consumption::of_this_kernel() == kind;
        is_there.then(|| Self::build(kind).unwrap())
    }
}

impl Driver for Epoll {
    type Kind = &'static str;
    const KINDS: &'static [&'static str] = &["epoll"];

    fn build(_: &'static str) -> Option<Self> {
        Some(Self::new().unwrap())
    }
}

/// Makes a test for each driver out of a function that is given one.
macro_rules! for_each_driver {
    ($($name:ident)*) => {
        mod ring {
            $(#[test] fn $name() { super::each::<super::Ring>(super::$name); })*
        }
        mod epoll {
            $(#[test] fn $name() { super::each::<super::Epoll>(super::$name); })*
        }
    };
}

fn each<N: Driver>(test: impl Fn(&dyn Fn() -> N)) {
    for &kind in N::KINDS {
        println!("{kind:?}");
        if N::build(kind).is_some() {
            test(&|| N::build(kind).expect("it is there"));
        }
    }
}

for_each_driver! {
    every_byte_reaches_its_connection_in_order_whatever_receives_are_mixed
    single_receives_never_share_a_buffer
    of_a_closed_connection_nothing_is_heard_and_its_socket_closes_when_nothing_is_under_way
    a_place_is_not_given_anew_in_the_turn_in_which_it_became_free
    a_full_socket_says_so_or_is_waited_for
    the_end_is_heard_of_behind_all_bytes_whatever_received_them
    a_cancelled_receive_says_when_it_has_ended_and_loses_nothing
    a_turn_that_waits_is_ended_by_a_wake_up_and_by_a_tick
    listeners_accept_one_or_many_until_they_are_closed
    a_socket_that_was_accepted_on_by_another_driver_is_taken_over
    a_socket_goes_to_another_driver_with_what_it_has_not_received
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

struct Rig<N> {
    ring: N,
    pairs: Vec<Pair>,
    held: VecDeque<Held>,
    choices: Choices,
    completions: Vec<Completion>,
    cancels_of_nothing: u32,
    kinds: [usize; 3],
}

impl<N: Net<Socket = OwnedFd>> Rig<N> {
    fn new(mut ring: N, seed: u64) -> Self {
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

fn every_byte_reaches_its_connection_in_order_whatever_receives_are_mixed<N: Driver>(new: &dyn Fn() -> N) {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut rig = Rig::new(new(), seed);
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
        for Buffers { pool, kernel, free, all } in rig.ring.buffers() {
            assert_eq!(kernel + free, all, "all came back: {pool}");
        }
    }
}

/// A connection of the driver, and its other end.
pub(super) fn opened(ring: &mut impl Net<Socket = OwnedFd>) -> (Conn, TcpStream) {
    let (ours, theirs) = connected();
    (ring.open(ours), theirs)
}

/// Turns until something came, and gives what came.
pub(super) fn come(ring: &mut impl Net<Socket = OwnedFd>) -> Vec<(Conn, io::Result<Option<Chunk>>)> {
    let mut completions = Vec::new();
    while completions.is_empty() {
        ring.turn(&mut completions, true).unwrap();
    }
    let received = completions.into_iter().map(|completion| match completion {
        Completion::Received { conn, data, .. } => (conn, data),
        other => panic!("{other:?}"),
    });
    received.collect()
}

fn single_receives_never_share_a_buffer<N: Driver>(new: &dyn Fn() -> N) {
    let mut ring = new();
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

/// Turns until nothing more comes.
fn settle(ring: &mut impl Net<Socket = OwnedFd>) -> Vec<Completion> {
    let mut completions = Vec::new();
    for _ in 0..4 {
        ring.turn(&mut completions, false).unwrap();
    }
    completions
}

fn of_a_closed_connection_nothing_is_heard_and_its_socket_closes_when_nothing_is_under_way<N: Driver>(
    new: &dyn Fn() -> N,
) {
    let budget = Budget::new(1 << 20);
    let kinds: [fn(&mut N, Conn, OwnedBuf); 4] = [
        |ring, conn, _| ring.receive(conn),
        |ring, conn, _| ring.receive_once(conn),
        |ring, conn, buf| ring.fill(conn, buf, 1000),
        |ring, conn, _| {
            // More than the socket takes, so that the kernel waits.
            let bytes = OwnedBuf::from(vec![0; 64 << 20]);
            ring.send(conn, Outgoing::One(Chunk::Owned(bytes)), true);
        },
    ];
    for (kind, begin) in kinds.into_iter().enumerate() {
        for is_taken in [false, true] {
            let mut ring = new();
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
            assert!(ring.unread_bytes(conn).is_err());
            assert!(settle(&mut ring).is_empty(), "kind {kind}");
            theirs.set_nonblocking(false).unwrap();
            let mut all = Vec::new();
            let _ = theirs.read_to_end(&mut all);
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

fn a_place_is_not_given_anew_in_the_turn_in_which_it_became_free<N: Driver>(new: &dyn Fn() -> N) {
    let mut ring = new();
    let (first, _theirs) = opened(&mut ring);
    ring.close(first);
    let (second, _others) = opened(&mut ring);
    assert_ne!(first.index(), second.index());
    ring.turn(&mut Vec::new(), false).unwrap();
    let (third, _others) = opened(&mut ring);
    assert_eq!(third.index(), first.index());
    assert!(ring.take(second).is_some() && ring.take(second).is_none());
}

fn owned(bytes: &[u8]) -> Chunk {
    Chunk::Owned(OwnedBuf::from(bytes.to_vec()))
}

fn a_full_socket_says_so_or_is_waited_for<N: Driver>(new: &dyn Fn() -> N) {
    let mut ring = new();
    let (ours, mut theirs) = opened(&mut ring);
    theirs.set_nonblocking(false).unwrap();
    let all = stream(1, 0, 16 << 20);
    let (mut at, mut full, mut turns) = (0, 0, 0);
    let mut completions = Vec::new();
    let send = |ring: &mut N, at: usize, wait: bool| {
        let middle = at + (all.len() - at) / 2;
        let parts = vec![owned(&all[at..middle]), owned(&all[middle..])];
        ring.send(ours, Outgoing::Many(Batch::new(parts)), wait);
    };
    // Without waiting, until the socket is full.
    send(&mut ring, at, false);
    while full == 0 {
        ring.turn(&mut completions, true).unwrap();
        for completion in completions.drain(..) {
            let Completion::Sent { count, outgoing, .. } = completion else { panic!("{completion:?}") };
            assert_eq!(outgoing.len(), all.len() - at);
            match count {
                Ok(count) => at += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    full += 1;
                }
            }
            if full == 0 {
                send(&mut ring, at, false);
            }
        }
    }
    // From now on it is waited for. Nobody reads, so nothing completes once the kernel has moved what it could to the
    // receiving end, which may take it a while.
    send(&mut ring, at, true);
    let mut idle = 0;
    while idle < 3 {
        ring.turn(&mut completions, false).unwrap();
        idle += 1;
        for completion in completions.drain(..) {
            let Completion::Sent { count, .. } = completion else { panic!("{completion:?}") };
            at += count.unwrap();
            send(&mut ring, at, true);
            idle = 0;
        }
    }
    assert!(at < all.len());
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        got
    });
    while at < all.len() {
        turns += 1;
        ring.turn(&mut completions, true).unwrap();
        for completion in completions.drain(..) {
            let Completion::Sent { count, .. } = completion else { panic!("{completion:?}") };
            at += count.unwrap();
            if at < all.len() {
                send(&mut ring, at, true);
            }
        }
    }
    assert!(turns > 1);
    ring.shut_writing(ours);
    assert!(reader.join().unwrap() == all);
    assert_eq!(ring.unacknowledged_bytes(ours).unwrap(), 0);
}

fn the_end_is_heard_of_behind_all_bytes_whatever_received_them<N: Driver>(new: &dyn Fn() -> N) {
    let begin: [fn(&mut N, Conn); 3] = [
        |ring, conn| ring.receive(conn),
        |ring, conn| ring.receive_once(conn),
        |ring, conn| ring.fill(conn, OwnedBuf::from(Vec::with_capacity(3000)), 3000),
    ];
    for (kind, begin) in begin.into_iter().enumerate() {
        for is_late in [false, true] {
            let mut ring = new();
            let (ours, mut theirs) = opened(&mut ring);
            theirs.write_all(&stream(1, 0, 10_000)).unwrap();
            if is_late {
                // The driver has heard of everything before anything is asked for.
                theirs.shutdown(Shutdown::Write).unwrap();
                assert!(settle(&mut ring).is_empty());
            }
            let (mut got, mut is_shut, mut has_ended) = (Vec::new(), is_late, false);
            begin(&mut ring, ours);
            while !has_ended {
                let mut completions = Vec::new();
                ring.turn(&mut completions, true).unwrap();
                for completion in completions {
                    let (bytes, goes_on) = match completion {
                        Completion::Received { data, more, .. } => (data.unwrap(), more),
                        Completion::Filled { buf, count, .. } => {
                            ((count.unwrap() > 0).then(|| Chunk::Owned(buf)), false)
                        }
                        other => panic!("{other:?}"),
                    };
                    has_ended = bytes.is_none();
                    got.extend_from_slice(bytes.as_ref().map_or(&[], |chunk| chunk.as_slice()));
                    if !has_ended && !goes_on {
                        begin(&mut ring, ours);
                    }
                }
                if got.len() == 10_000 && !std::mem::replace(&mut is_shut, true) {
                    theirs.shutdown(Shutdown::Write).unwrap();
                }
            }
            assert!(got == stream(1, 0, 10_000), "kind {kind}, late: {is_late}");
        }
    }
}

fn a_cancelled_receive_says_when_it_has_ended_and_loses_nothing<N: Driver>(new: &dyn Fn() -> N) {
    let mut ring = new();
    let (ours, mut theirs) = opened(&mut ring);
    ring.receive(ours);
    assert!(settle(&mut ring).is_empty());
    theirs.write_all(b"close behind").unwrap();
    ring.cancel_receive(ours);
    assert!(ring.take(ours).is_none(), "something is in progress");
    let (mut got, mut has_ended) = (Vec::new(), false);
    while !has_ended {
        let mut completions = Vec::new();
        ring.turn(&mut completions, true).unwrap();
        for completion in completions {
            let Completion::Received { data, more, .. } = completion else { panic!("{completion:?}") };
            got.extend(data.ok().flatten().map(|chunk| chunk.as_slice().to_vec()).unwrap_or_default());
            has_ended = !more;
        }
    }
    if got.is_empty() {
        ring.receive_once(ours);
        for (_, data) in come(&mut ring) {
            got.extend_from_slice(data.unwrap().unwrap().as_slice());
        }
    }
    assert_eq!(got, b"close behind");
    assert!(ring.take(ours).is_some());
}

fn a_turn_that_waits_is_ended_by_a_wake_up_and_by_a_tick<N: Driver>(new: &dyn Fn() -> N) {
    let mut ring = new();
    let waker = ring.waker();
    let mut completions = Vec::new();
    for _ in 0..3 {
        let waker = waker.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        ring.turn(&mut completions, true).unwrap();
        assert!(completions.is_empty());
        thread.join().unwrap();
        // The ring has to listen anew.
        ring.turn(&mut completions, false).unwrap();
    }
    waker.wake();
    ring.turn(&mut completions, true).unwrap();
    for delay in [0, 30, 1] {
        let (begun, delay) = (Instant::now(), Duration::from_millis(delay));
        ring.tick_in(delay);
        while completions.is_empty() {
            ring.turn(&mut completions, true).unwrap();
        }
        assert!(matches!(completions.pop(), Some(Completion::Tick)) && completions.is_empty());
        assert!(begun.elapsed() >= delay);
    }
}

/// What becomes of listeners in a few turns: who was accepted on which, and whose accepting ended.
fn accepted(ring: &mut impl Net<Socket = OwnedFd>) -> (Vec<OwnedFd>, usize) {
    let (mut sockets, mut ended) = (Vec::new(), 0);
    for completion in settle(ring) {
        let Completion::Accepted { socket, more, .. } = completion else { panic!("{completion:?}") };
        ended += usize::from(!more);
        sockets.extend(socket.ok());
    }
    (sockets, ended)
}

fn listeners_accept_one_or_many_until_they_are_closed<N: Driver>(new: &dyn Fn() -> N) {
    let mut ring = new();
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = theirs.local_addr().unwrap();
    let connect = || TcpStream::connect(address);
    let listener = ring.listen(theirs.into());
    let _clients = [connect().unwrap(), connect().unwrap(), connect().unwrap()];
    ring.accept_once(listener);
    ring.accept(listener);
    assert!(ring.is_accepting(listener));
    let (sockets, ended) = accepted(&mut ring);
    assert_eq!((sockets.len(), ended, ring.is_accepting(listener)), (1, 1, false));
    ring.accept(listener);
    let (sockets, ended) = accepted(&mut ring);
    assert_eq!((sockets.len(), ended, ring.is_accepting(listener)), (2, 0, true));
    let _late = connect().unwrap();
    assert_eq!(accepted(&mut ring).0.len(), 1);
    ring.cancel_accept(listener);
    let (sockets, ended) = accepted(&mut ring);
    assert_eq!((sockets.len(), ended, ring.is_accepting(listener)), (0, 1, false));
    let _waiting = connect().unwrap();
    assert!(accepted(&mut ring).0.is_empty());
    ring.accept_once(listener);
    assert_eq!(accepted(&mut ring).0.len(), 1);
    ring.accept(listener);
    ring.close_listener(listener, true);
    assert!(connect().is_err(), "refused at once");
    accepted(&mut ring);
    ring.accept(listener);
    assert!(!ring.is_accepting(listener));
}

/// As a service manager's socket, which each process has in turn.
fn a_socket_that_was_accepted_on_by_another_driver_is_taken_over<N: Driver>(new: &dyn Fn() -> N) {
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = kept.local_addr().unwrap();
    let once = |ring: &mut dyn FnMut(OwnedFd, &dyn Fn() -> TcpStream)| {
        ring(kept.try_clone().unwrap().into(), &|| TcpStream::connect(address).unwrap());
    };
    fn serve(ring: &mut impl Net<Socket = OwnedFd>, socket: OwnedFd, connect: &dyn Fn() -> TcpStream) {
        let listener = ring.listen(socket);
        ring.accept_once(listener);
        assert_eq!(accepted(ring).1, 0, "it waits for somebody");
        let _client = connect();
        assert_eq!(accepted(ring).0.len(), 1);
        ring.close_listener(listener, false);
    }
    once(&mut |socket, connect| serve(&mut new(), socket, connect));
    once(&mut |socket, connect| serve(&mut Epoll::new().unwrap(), socket, connect));
    once(&mut |socket, connect| serve(&mut new(), socket, connect));
}

fn a_socket_goes_to_another_driver_with_what_it_has_not_received<N: Driver>(new: &dyn Fn() -> N) {
    let (mut first, mut second) = (new(), new());
    let (ours, mut theirs) = opened(&mut first);
    theirs.write_all(b"first").unwrap();
    first.receive_once(ours);
    let came_first = come(&mut first);
    assert!(matches!(&came_first[..], [(_, Ok(Some(slice)))] if slice.as_slice() == b"first"));
    theirs.write_all(b"second").unwrap();
    let socket = first.take(ours).unwrap();
    let moved = second.open(socket);
    second.receive(moved);
    let came_second = come(&mut second);
    assert!(matches!(&came_second[..], [(_, Ok(Some(slice)))] if slice.as_slice() == b"second"));
    theirs.write_all(b"third").unwrap();
    let came_third = come(&mut second);
    assert!(matches!(&came_third[..], [(_, Ok(Some(slice)))] if slice.as_slice() == b"third"));
    assert!(settle(&mut first).is_empty(), "the first one hears of nothing");
}
