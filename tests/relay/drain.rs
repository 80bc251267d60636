//! Draining on a signal: who goes when, what is still said, and how it ends.

use crate::harness::{CLOSE, Client, DEADLINE, Raw, Relay, TEXT, auth, sized, text, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const RESTART: (u16, &str) = (1012, "the relay restarts, come back soon");

/// Waits until the relay says that it drains.
fn drain(relay: &Relay) {
    relay.signal(Signal::TERM);
    wait_until("the drain", || relay.log().contains("\"draining: "));
}

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: relay\r\n\r\n";

/// A connection that the relay has accepted, for it has answered a request over it.
fn accepted(relay: &Relay) -> TcpStream {
    let mut stream = relay.connect();
    stream.write_all(HEALTH).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert_ne!(count, 0, "{:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
    }
    stream
}

fn assert_restart(closed: Option<(u16, String)>) {
    assert_eq!(closed, Some((RESTART.0, RESTART.1.to_owned())));
}

/// What a client is told of its peer until it is sent away.
fn last_words(client: &mut Raw) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        match client.frame().expect("a close frame") {
            (true, CLOSE, payload) => {
                assert_eq!((&payload[..2], &payload[2..]), (&RESTART.0.to_be_bytes()[..], RESTART.1.as_bytes()));
                return said;
            }
            (true, TEXT, payload) => {
                let message: Value = serde_json::from_slice(&payload).unwrap();
                assert_eq!(message["type"], "status");
                said.push(message["payload"]["peer"].as_str().unwrap().to_owned());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn clients_are_sent_away_all_over_the_window_and_pairs_together() {
    let mut relay = Relay::start(&["--drain-window", "3s"]);
    let mut pairs = Vec::new();
    for _ in 0..60 {
        let token = relay.token();
        let agent = Raw::authed(&relay, &token, "agent");
        let phone = Raw::authed(&relay, &token, "phone");
        pairs.push((agent, phone));
    }
    let started = Instant::now();
    drain(&relay);
    let threads: Vec<_> = pairs
        .into_iter()
        .map(|(mut agent, mut phone)| {
            std::thread::spawn(move || {
                assert_eq!(agent.json()["payload"]["peer"], "online");
                let mut said = last_words(&mut agent);
                let left = started.elapsed();
                // Both are told to go in the same breath, and only the second hears that the first one has gone.
                said.extend(last_words(&mut phone));
                assert_eq!(said, ["offline"]);
                left
            })
        })
        .collect();
    let mut sixths = [0; 6];
    for left in threads.into_iter().map(|thread| thread.join().unwrap()) {
        sixths[(left.as_millis() as usize / 500).min(5)] += 1;
    }
    // That a sixth of the window stays empty by chance: one in 10,000; two of them: one in 100 million.
    assert!(sixths.iter().filter(|&&count| count == 0).count() < 2, "{sixths:?}");
    let status = relay.wait();
    assert_eq!(status.code(), Some(0), "{}", relay.log());
}

#[test]
fn who_authenticates_while_it_drains_is_told_to_come_back() {
    let mut relay = Relay::start(&["--drain-window", "4s"]);
    let token = relay.token();
    let mut waiting: Vec<Raw> = (0..6).map(|_| Raw::upgraded(&relay)).collect();
    let mut silent = Raw::new(accepted(&relay));
    let address = silent.stream.peer_addr().unwrap();
    let mut pair = Client::authed(&relay, &token, "agent");
    drain(&relay);
    for client in &mut waiting[..3] {
        client.write(&text(&auth(&token, "phone")));
        assert_restart(client.closed());
    }
    silent.write(crate::harness::UPGRADE.as_bytes());
    silent.read_upgrade();
    silent.write(&text(&auth(&token, "phone")));
    assert_restart(silent.closed());
    // The others say nothing and are not waited for any longer than the rest.
    for client in &mut waiting[3..] {
        assert_restart(client.closed());
    }
    assert!(TcpStream::connect(address).is_err(), "the port is given back at once");
    assert_eq!(pair.closed(), (RESTART.0, RESTART.1.to_owned()));
    drop((pair, waiting, silent));
    assert_eq!(relay.wait().code(), Some(0), "{}", relay.log());
}

#[test]
fn what_is_queued_is_sent_before_the_close_frame() {
    let mut relay = Relay::start(&["--drain-window", "0s", "--drain-deadline", "40s"]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let mut phone = Raw::authed(&relay, &token, "phone");
    assert_eq!(agent.json()["type"], "status");
    // More than the sockets take: the agent reads none of it before the drain. A message is forwarded when it is whole,
    // so when its first byte has come the relay has all of it.
    let big = sized("chat.send", 5 << 20);
    phone.write(&text(&big));
    assert_eq!(agent.stream.peek(&mut [0]).unwrap(), 1);
    drain(&relay);
    // Longer than a closed connection is kept otherwise.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(agent.text(), big);
    assert_restart(agent.closed());
    assert_restart(phone.closed());
    drop((agent, phone));
    assert_eq!(relay.wait().code(), Some(0), "{}", relay.log());
}

#[test]
fn clients_that_take_nothing_of_what_is_queued_for_them_do_not_keep_the_relay_until_the_deadline() {
    let mut relay = Relay::start(&["--drain-window", "0s", "--drain-deadline", "10m"]);
    let mut stuck: Vec<_> = (0..6)
        .map(|_| {
            let token = relay.token();
            let mut agent = Raw::authed_narrow(&relay, &token, "agent");
            let mut phone = Raw::authed(&relay, &token, "phone");
            assert_eq!(agent.json()["type"], "status");
            phone.write(&text(&sized("chat.send", 5 << 20)));
            assert_eq!(agent.stream.peek(&mut [0]).unwrap(), 1);
            (agent, phone)
        })
        .collect();
    // These take some of it, but nothing after the drain has begun.
    for (agent, _) in &mut stuck[..3] {
        agent.stream.read_exact(&mut [0; 512 << 10]).unwrap();
    }
    // Nothing is queued for this one; it does not answer its close frame.
    let silent = Raw::authed(&relay, &relay.token(), "agent");
    let started = Instant::now();
    drain(&relay);
    // Far below the relay's own deadline: what they have taken before buys them no more time.
    assert_eq!(relay.wait().code(), Some(0), "{}", relay.log());
    assert!(started.elapsed() < Duration::from_secs(18), "{:?}", started.elapsed());
    drop((stuck, silent));
}

#[test]
fn a_call_that_is_under_way_is_answered_and_then_its_connection_ends() {
    let mut relay = Relay::start(&[]);
    let mut idle = accepted(&relay);
    drain(&relay);
    idle.write_all(HEALTH).unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 ") && answer.contains("\r\n\r\n{"), "{answer}");
    assert_eq!(relay.wait().code(), Some(0), "{}", relay.log());
}

#[test]
fn a_relay_with_few_clients_does_not_take_long_to_send_them_away() {
    let mut relay = Relay::start(&[]);
    let mut clients: Vec<Raw> = (0..20).map(|_| Raw::authed(&relay, &relay.token(), "agent")).collect();
    let started = Instant::now();
    drain(&relay);
    clients.iter_mut().for_each(|client| assert_restart(client.closed()));
    // The bound is for the meaning, a window of 20 ms and not of 10 s; it is no measurement.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(clients);
    assert_eq!(relay.wait().code(), Some(0), "{}", relay.log());
    assert!(started.elapsed() < DEADLINE);
}
