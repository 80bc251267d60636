//! Peers that die without a word, and roles that come and go while the other side sends.

use crate::harness::{CLOSE, Client, Raw, Relay, frame, number_of, numbered, text, wait_until};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[test]
fn a_reset_is_an_end_and_the_peer_is_told() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    for round in 0..50 {
        let mut phone = Raw::authed(&relay, &token, "phone");
        assert_eq!(agent.expect("status"), json!({"peer": "online"}));
        phone.write(&text(&numbered("chat.send", round)));
        // Now and then in the middle of a message, or with data that it has not read.
        match round % 3 {
            0 => phone.write(&text(&numbered("chat.send", 0))[..10]),
            1 => agent.send(numbered("chat.done", round)),
            _ => {}
        }
        assert_eq!(agent.text(), numbered("chat.send", round));
        phone.reset();
        assert_eq!(agent.expect("status"), json!({"peer": "offline"}), "round {round}");
    }
    agent.expect_nothing();
}

#[test]
fn one_that_is_silent_is_given_up_and_one_that_answers_pings_is_not() {
    let relay = Relay::start(&["--ping-interval", "200ms", "--idle-timeout", "1s"]);
    let token = relay.token();
    // tungstenite answers pings while it reads, and so this one lives.
    let mut agent = Client::authed(&relay, &token, "agent");
    for _ in 0..3 {
        let mut phone = Raw::authed(&relay, &token, "phone");
        assert_eq!(agent.expect("status"), json!({"peer": "online"}));
        assert_eq!(agent.expect("status"), json!({"peer": "offline"}));
        assert_eq!(phone.closed(), None, "there is nobody to say goodbye to");
    }
    agent.expect_nothing();
}

#[test]
fn one_that_never_authenticates_is_closed_and_one_that_never_upgrades_too() {
    let relay = Relay::start(&["--auth-timeout", "1s"]);
    let mut upgraded = Raw::upgraded(&relay);
    let mut dribbles = Raw::upgraded(&relay);
    dribbles.write(&frame(true, 1, b"{\"type\":\"auth\"")[..7]);
    let mut half = Raw::new(relay.connect());
    half.write(b"GET /ws HTTP/1.1\r\nHost:");
    let mut silent = Raw::new(relay.connect());
    assert_eq!(upgraded.closed().map(|(code, _)| code), Some(1008));
    assert_eq!(dribbles.closed().map(|(code, _)| code), Some(1008));
    assert_eq!((half.frame(), silent.frame()), (None, None));
}

/// 200 connections of the phone, one after the other, by close and by replacement, while the agent sends without pause.
/// Each phone reads all that comes before it goes, so whatever was forwarded has to arrive.
#[test]
fn over_200_reconnects_each_message_arrives_once_or_is_refused_and_order_is_kept() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let stop = AtomicBool::new(false);
    let mut arrived: Vec<usize> = Vec::new();
    let (sent, refused) = std::thread::scope(|scope| {
        let mut writer = agent.stream.try_clone().unwrap();
        let stop = &stop;
        let sending = scope.spawn(move || {
            let mut number = 0;
            while !stop.load(Relaxed) {
                let batch: Vec<u8> = (number..number + 5).flat_map(|n| text(&numbered("chat.done", n))).collect();
                writer.write_all(&batch).unwrap();
                number += 5;
                // So that the test's own reading keeps up; what is checked does not depend on it.
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
            writer.write_all(&text(r#"{"type":"ping"}"#)).unwrap();
            number
        });
        let reading = scope.spawn(move || {
            let mut refused = BTreeSet::new();
            let (mut online, mut offline, mut last) = (0, 0, None);
            loop {
                let message = agent.json();
                match message["type"].as_str() {
                    Some("status") if message["payload"]["peer"] == "online" => online += 1,
                    Some("status") => offline += 1,
                    Some("pong") => return (refused, online, offline),
                    _ => {
                        assert_eq!(message["payload"]["code"], "PEER_OFFLINE");
                        let number = number_of(&message);
                        assert!(last.replace(number).is_none_or(|last| last < number), "refusals out of order");
                        assert!(refused.insert(number));
                    }
                }
            }
        });
        let mut read_to_the_end = |mut phone: Raw, code: u16| {
            loop {
                match phone.frame() {
                    Some((_, CLOSE, payload)) => {
                        assert_eq!(payload[..2], code.to_be_bytes());
                        break;
                    }
                    Some((true, 1, payload)) => {
                        arrived.push(number_of(&serde_json::from_slice(&payload).unwrap()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let mut old: Option<Raw> = None;
        for round in 0..200 {
            let phone = Raw::authed(&relay, &token, "phone");
            if let Some(old) = old.take() {
                read_to_the_end(old, 4001);
            }
            let mut phone = phone;
            if round % 3 == 0 || round == 199 {
                phone.write(&frame(true, CLOSE, &1000u16.to_be_bytes()));
                read_to_the_end(phone, 1000);
            } else {
                old = Some(phone);
            }
        }
        stop.store(true, Relaxed);
        let sent = sending.join().unwrap();
        let (refused, online, offline) = reading.join().unwrap();
        assert_eq!((online, offline), (200, 68), "each arrival is told, and a replacement is no end");
        (sent, refused)
    });
    println!("{sent} sent, {} arrived, {} refused", arrived.len(), refused.len());
    assert!(arrived.is_sorted_by(|a, b| a < b), "out of order, or one twice");
    assert!(!arrived.is_empty() && !refused.is_empty(), "the test met both");
    let arrived: BTreeSet<usize> = arrived.into_iter().collect();
    assert!(arrived.is_disjoint(&refused), "arrived and refused");
    assert_eq!(arrived.len() + refused.len(), sent, "neither arrived nor refused");
}

#[test]
fn resets_and_reconnects_leave_nobody_online() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut clients = Vec::new();
    for round in 0..100 {
        clients.push(Raw::authed(&relay, &token, if round % 2 == 0 { "phone" } else { "agent" }));
    }
    assert_eq!(relay.online(&token), (true, true));
    clients.into_iter().for_each(Raw::reset);
    wait_until("both offline", || relay.online(&token) == (false, false));
    let (_, health) = relay.call("GET", "/health", None);
    assert_eq!((&health["connections"], &health["sessions"]), (&json!(0), &json!(0)), "{health}");
}
