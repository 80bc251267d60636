use super::*;
use crate::chunk::{Batch, Budget};
use std::collections::HashMap;

const LINK: Link = Link { up_bytes: 1 << 20, down_bytes: 1 << 20, acknowledged_ahead: 0 };
const ALL: Faults = Faults {
    delayed: 300,
    cut: 500,
    interrupted: 100,
    ended: 100,
    raced: 500,
    short: 500,
    late: 300,
    accept: 100,
    unknown: 100,
    is_shuffled: true,
};

fn network(seed: u64, faults: Faults) -> Simulated {
    Simulated::new(Clock::new(Duration::from_secs(1_700_000_000)), seed, faults)
}

fn address(host: u8) -> Option<SocketAddr> {
    Some(SocketAddr::from(([192, 0, 2, host], 40_000)))
}

fn turn(net: &mut Simulated) -> Vec<Completion<Socket>> {
    let mut completions = Vec::new();
    net.turn(&mut completions, false).unwrap();
    completions
}

fn opened(net: &mut Simulated) -> (Client, Conn) {
    let (client, socket) = pair(address(1), LINK);
    (client, net.open(socket))
}

fn owned(bytes: &[u8]) -> Chunk {
    Chunk::Owned(OwnedBuf::from(bytes.to_vec()))
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn without_faults_all_is_received_and_sent_in_one_turn() {
    let mut net = network(1, Faults::default());
    let (client, conn) = opened(&mut net);
    assert_eq!(client.send(b"up"), 2);
    net.receive(conn);
    net.send(conn, Outgoing::Many(Batch::new(vec![owned(b"do"), owned(b"wn")])), false);
    match &turn(&mut net)[..] {
        [Completion::Received { data: Ok(Some(chunk)), more: true, .. }, Completion::Sent { count: Ok(4), .. }] => {
            assert_eq!(chunk.as_slice(), b"up")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.receive(100), Heard::Bytes(b"down".to_vec()));
    assert!(turn(&mut net).is_empty());
}

#[test]
fn bytes_keep_their_order_whatever_the_network_does() {
    for seed in 0..200 {
        let mut net = network(seed, ALL);
        let mut random = Random::new(seed);
        let (sent, mut at) = (pattern(20_000), 0);
        let mut ends: HashMap<Conn, (Client, Vec<u8>)> = HashMap::new();
        for _ in 0..3 {
            let (client, conn) = opened(&mut net);
            net.receive(conn);
            ends.insert(conn, (client, Vec::new()));
        }
        let budget = Budget::new(1 << 20);
        let is_done = |ends: &HashMap<Conn, (Client, Vec<u8>)>| ends.values().all(|(_, got)| got.len() == sent.len());
        for turns in 0.. {
            assert!(turns < 100_000, "seed {seed}");
            let next = (at + random.below(3000)).min(sent.len());
            for (client, _) in ends.values() {
                assert_eq!(client.send(&sent[at..next]), next - at);
            }
            at = next;
            for completion in turn(&mut net) {
                let (conn, bytes, more) = match completion {
                    Completion::Received { conn, data, more } => {
                        (conn, data.ok().flatten().map(|chunk| chunk.as_slice().to_vec()), more)
                    }
                    Completion::Filled { conn, buf, .. } => (conn, Some(buf.as_slice().to_vec()), false),
                    other => panic!("{other:?}"),
                };
                ends.get_mut(&conn).unwrap().1.extend(bytes.unwrap_or_default());
                match (more, random.below(4)) {
                    (true, 0) => net.cancel_receive(conn),
                    (true, _) => {}
                    (false, 0) => net.receive(conn),
                    (false, 1) => net.receive_once(conn),
                    (false, _) => {
                        let room = 1 + random.below(5000);
                        net.fill(conn, OwnedBuf::with_headroom(0, room, budget.charge(room)), room);
                    }
                }
            }
            if is_done(&ends) {
                break;
            }
        }
        assert!(ends.values().all(|(_, got)| *got == sent), "seed {seed}");
    }
}

#[test]
fn what_is_sent_arrives_once_and_a_full_socket_says_so() {
    for seed in 0..200 {
        let mut net = network(seed, ALL);
        let mut random = Random::new(seed);
        let (client, socket) = pair(address(1), Link { down_bytes: 300, ..LINK });
        let conn = net.open(socket);
        let (all, mut at, mut got, mut full) = (pattern(20_000), 0, Vec::new(), 0);
        net.send(conn, Outgoing::One(owned(&all)), true);
        while got.len() < all.len() {
            for completion in turn(&mut net) {
                let Completion::Sent { outgoing, count, .. } = completion else { panic!("{completion:?}") };
                assert_eq!(outgoing.len(), all.len() - at);
                match count {
                    Ok(count) => at += count,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        full += 1;
                    }
                }
                if at < all.len() {
                    let rest =
                        vec![owned(&all[at..at + (all.len() - at) / 2]), owned(&all[at + (all.len() - at) / 2..])];
                    net.send(conn, Outgoing::Many(Batch::new(rest)), random.chance(500));
                }
            }
            if random.chance(300)
                && let Heard::Bytes(bytes) = client.receive(random.below(500))
            {
                got.extend(bytes);
            }
        }
        assert!(got == all && full > 0, "seed {seed}: {full} times full");
    }
}

#[test]
fn nobody_hears_of_a_closed_connection_and_its_place_is_free_from_the_next_turn_on() {
    let mut net = network(1, Faults::default());
    let (client, conn) = opened(&mut net);
    net.receive(conn);
    net.send(conn, Outgoing::One(owned(b"lost")), false);
    assert_eq!(client.send(b"not heard"), 9);
    net.close(conn);
    assert_eq!(client.receive(100), Heard::Reset);
    let (_other, second) = opened(&mut net);
    assert_ne!(second.index(), conn.index());
    assert!(turn(&mut net).is_empty());
    let (_other, third) = opened(&mut net);
    assert_ne!(third.index(), conn.index(), "it was let go in that turn");
    assert!(turn(&mut net).is_empty());
    let (_other, fourth) = opened(&mut net);
    assert_eq!((fourth.index(), fourth.generation()), (conn.index(), conn.generation() + 1));
    assert!(net.unread_bytes(conn).is_err());
}

#[test]
fn a_cancelled_receive_says_when_it_has_ended() {
    let mut late = 0;
    for seed in 0..50 {
        let mut net = network(seed, Faults { raced: 500, ..Faults::default() });
        let (client, conn) = opened(&mut net);
        net.receive(conn);
        client.send(b"close behind");
        net.cancel_receive(conn);
        assert!(net.take(conn).is_none(), "something is in progress");
        let mut has_ended = false;
        while !has_ended {
            for completion in turn(&mut net) {
                let Completion::Received { data, more, .. } = completion else { panic!("{completion:?}") };
                late += usize::from(data.is_ok());
                has_ended = !more;
            }
        }
        let socket = net.take(conn).unwrap();
        assert_eq!(Simulated::peer_address(&socket).unwrap(), address(1).unwrap());
        assert_eq!(net.connections(), 0);
    }
    assert!((1..50).contains(&late), "{late}");
}

#[test]
fn clients_end_in_each_of_their_ways() {
    let mut net = network(1, Faults::default());
    let heard = |net: &mut Simulated| match turn(net).pop() {
        Some(Completion::Received { data, more: false, .. }) => data.map(|chunk| chunk.map(|it| it.len())),
        other => panic!("{other:?}"),
    };
    let (half, conn) = opened(&mut net);
    half.shut_writing();
    net.receive_once(conn);
    assert_eq!(heard(&mut net).unwrap(), None);
    net.send(conn, Outgoing::One(owned(b"still")), false);
    turn(&mut net);
    assert_eq!(half.receive(10), Heard::Bytes(b"still".to_vec()));
    net.shut_writing(conn);
    assert_eq!(half.receive(10), Heard::End);

    let (reset, conn) = opened(&mut net);
    reset.send(b"lost");
    reset.reset();
    net.receive_once(conn);
    assert_eq!(heard(&mut net).unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let (gone, conn) = opened(&mut net);
    drop(gone);
    net.send(conn, Outgoing::One(owned(b"to nobody")), false);
    assert!(matches!(turn(&mut net)[..], [Completion::Sent { count: Ok(9), .. }]));
    net.send(conn, Outgoing::One(owned(b"again")), false);
    assert!(matches!(turn(&mut net)[..], [Completion::Sent { count: Err(_), .. }]));
}

#[test]
fn listeners_accept_until_they_are_closed() {
    let (mut net, port) = (network(1, Faults::default()), Port::default());
    let listener = net.listen(port.listener());
    net.accept_once(listener);
    let _clients: Vec<_> = (1..=3).map(|host| port.connect(address(host), LINK).unwrap()).collect();
    assert!(matches!(turn(&mut net)[..], [Completion::Accepted { socket: Ok(_), more: false, .. }]));
    assert!(!net.is_accepting(listener));
    net.accept(listener);
    assert_eq!(turn(&mut net).len(), 2);
    net.close_listener(listener, true);
    assert!(port.connect(address(4), LINK).is_none());
    match &turn(&mut net)[..] {
        [Completion::Accepted { socket: Err(error), more: false, .. }] => {
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(net.listening(), 0);
}

#[test]
fn ticks_come_when_they_are_due() {
    let clock = Clock::new(Duration::ZERO);
    let mut net = Simulated::new(clock.clone(), 1, Faults::default());
    net.tick_in(Duration::from_millis(100));
    assert!(turn(&mut net).is_empty());
    clock.advance(Duration::from_millis(100));
    assert!(matches!(turn(&mut net)[..], [Completion::Tick]));
    assert!(turn(&mut net).is_empty());
}

#[test]
#[should_panic(expected = "two receives")]
fn a_second_receive_is_a_bug_of_the_shard() {
    let mut net = network(1, Faults::default());
    let (_client, conn) = opened(&mut net);
    net.receive(conn);
    net.receive_once(conn);
}

#[test]
#[should_panic(expected = "which is closed")]
fn an_operation_on_a_closed_connection_is_a_bug_of_the_shard() {
    let mut net = network(1, Faults::default());
    let (_client, conn) = opened(&mut net);
    net.close(conn);
    net.receive(conn);
}
