//! What is the ring's own: how it goes about its buffers, its entries and its ids. [`contract`](crate::contract) has what
//! it has in common with the other drivers.

use super::*;
use crate::contract::{come, opened};
use crate::order::Why;
use std::io::Write;
use std::net::TcpStream;

const WHOLE: Consumption = Consumption::Whole(Why::Older);

/// Both cuts, where this kernel has both.
fn both(test: impl Fn(Consumption)) {
    test(WHOLE);
    if Consumption::of_this_kernel() == Consumption::Incremental {
        test(Consumption::Incremental);
    }
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
            let pools = ring.buffers();
            assert_eq!((pools[empty].kernel, pools[empty].free), (0, 0), "{consumption:?}, once: {once}");
            assert!(pools[other].kernel > 0);
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

#[test]
fn an_id_keeps_its_parts_in_a_tag() {
    for conn in [Conn::of(0, 0), Conn::of(u32::MAX, 7), Conn::of(5, u32::MAX)] {
        assert_eq!(Conn::from_tag(SEND | conn.tag()), conn);
        assert_eq!(conn.tag() & KIND, 0);
    }
    assert_eq!(Conn::of(1, 1 << 24), Conn::of(1, 0), "generations begin anew");
}
