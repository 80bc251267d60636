//! The process: SIGTERM with many connections, `kill -9`, revocation.

use crate::harness::{Client, Raw, Relay, numbered, text};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// As many descriptors as this process may have: it holds a client for each connection.
fn raise_nofile() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[test]
fn sigterm_tells_500_connections_to_go_and_ends_in_time() {
    raise_nofile();
    let mut relay = Relay::start(&["--drain-deadline", "30s"]);
    let mut clients = Vec::new();
    for _ in 0..250 {
        let token = relay.token();
        clients.push(Raw::authed(&relay, &token, "agent"));
        clients.push(Raw::authed(&relay, &token, "phone"));
    }
    // Some have not authenticated, and some only have a socket.
    clients.extend((0..5).map(|_| Raw::upgraded(&relay)));
    let mut idle = relay.connect();
    let address = idle.peer_addr().unwrap();
    // The last message on each connection is still delivered before the goodbye.
    for pair in clients[..500].chunks_mut(2) {
        let [agent, phone] = pair else { unreachable!() };
        phone.write(&text(&numbered("chat.send", 1)));
        assert_eq!(agent.json()["type"], "status");
        assert_eq!(agent.text(), numbered("chat.send", 1));
    }
    let started = Instant::now();
    relay.signal(Signal::TERM);
    for client in &mut clients {
        let (code, reason) = client.closed().unwrap();
        assert_eq!((code, reason.as_str()), (1012, "the relay restarts, come back soon"));
    }
    assert_eq!(std::io::Read::read(&mut idle, &mut [0; 10]).unwrap(), 0);
    drop(clients);
    let status = relay.wait();
    let took = started.elapsed();
    assert_eq!(status.code(), Some(0), "{}", relay.log());
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(TcpStream::connect(address).is_err(), "the port is free");
}

#[test]
fn sigterm_does_not_wait_longer_than_the_deadline_for_those_who_do_not_go() {
    let mut relay = Relay::start(&["--drain-deadline", "1s"]);
    let token = relay.token();
    let _stays = Raw::authed(&relay, &token, "agent");
    relay.signal(Signal::TERM);
    let status = relay.wait();
    assert_eq!(status.code(), Some(0), "{}", relay.log());
}

#[test]
fn after_kill_9_tokens_admit_and_those_that_were_revoked_do_not() {
    let mut relay = Relay::start(&[]);
    let mut tokens = Vec::new();
    let mut revoked = Vec::new();
    for round in 0..3 {
        for number in 0..10 {
            let token = relay.token();
            if number % 5 == 0 {
                assert_eq!(relay.call("DELETE", &format!("/api/v1/pair/{token}"), None).0, 204);
                revoked.push(token);
            } else {
                tokens.push(token);
            }
        }
        let mut agent = Client::authed(&relay, &tokens[round], "agent");
        relay.signal(Signal::KILL);
        assert!(agent.socket.read().is_err(), "nobody is left to say goodbye");
        relay.wait();
        relay = Relay::start_in(relay.directory(), &[]);
        for token in &tokens {
            let mut agent = Client::authed(&relay, token, "agent");
            let mut phone = Client::authed(&relay, token, "phone");
            agent.expect("status");
            phone.send(numbered("chat.send", round));
            assert_eq!(agent.text(), numbered("chat.send", round));
        }
        for token in &revoked {
            let mut phone = Raw::upgraded(&relay);
            phone.write(&text(&crate::harness::auth(token, "phone")));
            let answer = phone.json();
            assert_eq!(answer["type"], "auth.fail");
        }
    }
}

#[test]
fn a_revoked_tokens_connections_are_closed_with_4002_and_it_admits_no_more() {
    let relay = Relay::start(&[]);
    for _ in 0..10 {
        let token = relay.token();
        let mut agent = Client::authed(&relay, &token, "agent");
        let mut phone = Client::authed(&relay, &token, "phone");
        assert_eq!(relay.online(&token), (true, true));
        for _ in 0..2 {
            assert_eq!(relay.call("DELETE", &format!("/api/v1/pair/{token}"), None).0, 204, "again when repeated");
        }
        assert_eq!(agent.closed(), (4002, "revoked".to_owned()));
        assert_eq!(phone.closed(), (4002, "revoked".to_owned()));
        assert_eq!(relay.online(&token), (false, false));
        let mut late = Raw::upgraded(&relay);
        late.write(&text(&crate::harness::auth(&token, "phone")));
        let answer = late.json();
        assert_eq!((&answer["type"], &answer["payload"]["code"]), (&json!("auth.fail"), &json!("UNAUTHORIZED")));
        assert_eq!(late.closed().map(|(code, _)| code), Some(1008));
    }
}
