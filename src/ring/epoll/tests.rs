use super::*;
use crate::contract::{come, opened};
use std::io::Write;

#[test]
fn what_finds_no_buffer_is_received_when_there_is_one() {
    for once in [false, true] {
        let mut net = Epoll::new().unwrap();
        let (ours, mut theirs) = opened(&mut net);
        let begin = |net: &mut Epoll| match once {
            true => net.receive_once(ours),
            false => net.receive(ours),
        };
        let (mut kept, mut completions) = (Vec::new(), Vec::new());
        begin(&mut net);
        while net.counts().shortages < 3 {
            while theirs.write(&[1; 1 << 16]).is_ok() {}
            net.turn(&mut completions, true).unwrap();
            for completion in completions.drain(..) {
                let Completion::Received { data: Ok(Some(chunk)), more, .. } = completion else {
                    panic!("{completion:?}")
                };
                kept.push(chunk);
                if !more {
                    begin(&mut net);
                }
            }
        }
        let buffers = net.buffers()[usize::from(once)];
        assert_eq!((buffers.kernel, buffers.free), (0, 0), "{buffers:?}");
        // The other pool has some.
        let (other, mut others) = opened(&mut net);
        others.write_all(b"still here").unwrap();
        match once {
            true => net.receive(other),
            false => net.receive_once(other),
        }
        let came = come(&mut net);
        assert!(matches!(&came[..], [(conn, Ok(Some(slice)))] if *conn == other && slice.as_slice() == b"still here"));
        drop((came, kept));
        assert!(come(&mut net).iter().all(|(conn, data)| *conn == ours && matches!(data, Ok(Some(_)))));
    }
}

#[test]
fn a_stream_is_received_into_the_same_memory_again_once_it_is_free() {
    let mut net = Epoll::new().unwrap();
    let (ours, mut theirs) = opened(&mut net);
    net.receive(ours);
    let mut receive = |bytes: &[u8]| {
        theirs.write_all(bytes).unwrap();
        match come(&mut net).pop() {
            Some((_, Ok(Some(chunk)))) => chunk,
            other => panic!("{other:?}"),
        }
    };
    let start = |chunk: &Chunk| chunk.as_slice().as_ptr() as usize;
    let first = receive(b"first");
    let second = receive(b"second");
    let place = start(&second);
    assert_ne!(start(&first), place, "the first one is held");
    drop((first, second));
    assert_eq!(start(&receive(b"third")), place);
}

#[test]
fn a_socket_that_cannot_be_watched_has_ended() {
    // Files are always ready, and epoll takes none.
    let file = std::fs::File::open("/dev/null").unwrap();
    let mut net = Epoll::new().unwrap();
    let conn = net.open(file.into());
    net.receive_once(conn);
    let came = come(&mut net);
    assert!(matches!(&came[..], [(ended, Ok(None) | Err(_))] if *ended == conn), "{came:?}");
}

#[test]
fn shards_take_turns_at_a_socket_that_they_share() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut nets: Vec<_> = (0..2)
        .map(|_| {
            let mut net = Epoll::new().unwrap();
            let index = net.listen(listener.try_clone().unwrap().into());
            net.accept_once(index);
            (net, index, 0)
        })
        .collect();
    for round in 0..10 {
        let _client = std::net::TcpStream::connect(address).unwrap();
        let mut completions = Vec::new();
        while completions.is_empty() {
            for (net, index, count) in &mut nets {
                net.turn(&mut completions, false).unwrap();
                if let Some(Completion::Accepted { socket: Ok(_), more: false, .. }) = completions.last() {
                    *count += 1;
                    net.accept_once(*index);
                    break;
                }
            }
        }
        assert_eq!(completions.len(), 1, "round {round}");
    }
    let counts: Vec<_> = nets.iter().map(|(.., count)| *count).collect();
    assert_eq!(counts.iter().sum::<u32>(), 10, "{counts:?}");
}

#[test]
fn nobody_is_left_out_while_others_have_ever_more() {
    let mut net = Epoll::new().unwrap();
    let mut pairs: Vec<_> = (0..16).map(|_| opened(&mut net)).collect();
    let mut counts = std::collections::HashMap::new();
    for (ours, _) in &pairs {
        net.receive(*ours);
    }
    let mut completions = Vec::new();
    for _ in 0..200 {
        for (_, theirs) in &mut pairs {
            while theirs.write(&[1; 1 << 16]).is_ok() {}
        }
        net.turn(&mut completions, true).unwrap();
        let mut bytes = 0;
        for completion in completions.drain(..) {
            let Completion::Received { conn, data: Ok(Some(chunk)), .. } = completion else { panic!("{completion:?}") };
            bytes += chunk.len();
            *counts.entry(conn).or_insert(0) += 1;
        }
        assert!(bytes < BYTES_A_TURN + (1 << 20), "{bytes}");
    }
    let (least, most) = (counts.values().min(), counts.values().max());
    assert_eq!(counts.len(), pairs.len());
    assert!(most.unwrap() - least.unwrap() <= 2, "{counts:?}");
}
