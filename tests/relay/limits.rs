//! Rates, quotas, the memory budget, and what of them survives a restart.

use crate::harness::{Client, DEADLINE, PING, PONG, Raw, Relay, frame, number_of, numbered, sized, text, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn a_stream_is_slowed_to_its_rate_and_loses_nothing_and_pings_are_answered_meanwhile() {
    const PIECES: usize = 150;
    let relay = Relay::start(&["--stream-rate", "50", "--agent-rate", "3"]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let mut phone = Raw::authed(&relay, &token, "phone");
    assert_eq!(agent.json()["type"], "status");
    let pieces: Vec<u8> = (0..PIECES)
        .flat_map(|n| [text(&numbered("chat.stream", n)), frame(true, PING, &n.to_be_bytes())].concat())
        .collect();
    let started = Instant::now();
    agent.write(&[pieces, text(&numbered("chat.done", PIECES))].concat());
    // All of it went out at once: the burst of 100 passes, and then one each 20 ms.
    for number in 0..100 {
        assert_eq!(phone.text(), numbered("chat.stream", number));
    }
    phone.write(&[frame(true, PING, b"p"), text(&numbered("chat.send", 7))].concat());
    for number in 100..PIECES {
        assert_eq!(phone.text(), numbered("chat.stream", number));
    }
    let took = started.elapsed();
    assert!(took > Duration::from_millis(900), "50 pieces behind the burst of 100 took {took:?}");
    assert_eq!(phone.pongs, [b"p"], "answered before the last piece");
    assert_eq!(phone.text(), numbered("chat.done", PIECES), "behind the stream, and of a rate of its own");
    // The agent heard from the phone and got all its pongs, in order, and no error.
    let mut pongs = Vec::new();
    let mut heard = 0;
    while pongs.len() < PIECES {
        match agent.frame() {
            Some((_, PONG, payload)) => pongs.push(payload),
            Some((_, 1, payload)) => {
                assert_eq!(payload, numbered("chat.send", 7).as_bytes());
                heard += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, 1, "the phone's message came before the agent's last pong");
    let numbers: Vec<Vec<u8>> = (0..PIECES).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(pongs, numbers);
}

#[test]
fn a_slowed_stream_may_come_in_large_pieces_and_fragments() {
    let relay = Relay::start(&["--stream-rate", "5"]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let mut phone = Raw::authed(&relay, &token, "phone");
    assert_eq!(agent.json()["type"], "status");
    let large = sized("chat.stream", 300_000);
    let (first, rest) = large.as_bytes().split_at(100_000);
    let fragmented = [frame(false, 1, first), frame(false, 0, b""), frame(true, 0, rest)].concat();
    let small = text(&numbered("chat.stream", 1));
    let mut bytes = small.repeat(10);
    for _ in 0..2 {
        bytes.extend([text(&large), small.clone(), fragmented.clone(), small.clone()].concat());
    }
    std::thread::scope(|scope| {
        scope.spawn(|| agent.write(&bytes));
        for _ in 0..10 {
            assert_eq!(phone.text(), numbered("chat.stream", 1));
        }
        for _ in 0..4 {
            assert!(phone.text() == large);
            assert_eq!(phone.text(), numbered("chat.stream", 1));
        }
    });
}

#[test]
fn a_rate_is_told_with_its_time_and_a_reconnect_does_not_refill_it() {
    let relay = Relay::start(&["--phone-rate", "3"]);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    let mut sent = 0;
    for connection in 0..3 {
        let mut phone = Client::authed(&relay, &token, "phone");
        assert_eq!(agent.expect("status")["peer"], "online");
        for _ in 0..2 {
            sent += 1;
            phone.send(numbered("chat.send", sent));
            if sent <= 3 {
                assert_eq!(agent.text(), numbered("chat.send", sent), "connection {connection}");
                continue;
            }
            let error = phone.json();
            assert_eq!((&error["payload"]["code"], number_of(&error)), (&json!("RATE_LIMITED"), sent));
            let retry_after_ms = error["payload"]["retry_after_ms"].as_u64().unwrap();
            assert!((1..=20_000).contains(&retry_after_ms), "{error}");
        }
        drop(phone);
        assert_eq!(agent.expect("status")["peer"], "offline");
    }
}

fn daily_used(relay: &Relay, token: &str) -> u64 {
    Client::authed(relay, token, "agent").auth_ok["daily_used_bytes"].as_u64().unwrap()
}

/// Moves one message of `bytes`; the connections are gone afterwards.
fn use_bytes(relay: &Relay, token: &str, bytes: usize) {
    let mut agent = Client::authed(relay, token, "agent");
    let mut phone = Client::authed(relay, token, "phone");
    agent.expect("status");
    phone.send(sized("chat.send", bytes));
    assert_eq!(agent.text().len(), bytes);
}

#[test]
fn usage_survives_a_stop_at_once_and_a_kill_when_it_was_reported() {
    let relay = Relay::start(&["--daily-quota", "10000"]);
    let (token, other) = (relay.token(), relay.token());
    use_bytes(&relay, &token, 4000);
    // Stopped right behind the message: it is reported on the way out.
    let directory = relay.directory();
    relay.stop();
    let relay = Relay::start_in(directory.clone(), &["--daily-quota", "10000"]);
    assert_eq!((daily_used(&relay, &token), daily_used(&relay, &other)), (4000, 0));
    use_bytes(&relay, &token, 5000);
    let path = directory.path().join("relay.db");
    let stored = || -> i64 {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = rusqlite::Connection::open_with_flags(&path, flags).unwrap();
        store.busy_timeout(DEADLINE).unwrap();
        store.query_row("SELECT coalesce(sum(bytes), 0) FROM usage", [], |row| row.get(0)).unwrap()
    };
    wait_until("usage in the store", || stored() == 9000);
    relay.signal(Signal::KILL);
    drop(relay);
    let relay = Relay::start_in(directory, &["--daily-quota", "10000"]);
    assert_eq!(daily_used(&relay, &token), 9000);
    // What is used up stays used up.
    let mut agent = Client::authed(&relay, &token, "agent");
    let mut phone = Client::authed(&relay, &token, "phone");
    agent.expect("status");
    phone.send(sized("chat.send", 1001));
    let error = phone.expect("chat.error");
    assert_eq!((&error["code"], &error["ref"]), (&json!("DAILY_QUOTA_EXCEEDED"), &json!("big")));
    assert!((1..=86_400_000).contains(&error["retry_after_ms"].as_u64().unwrap()), "{error}");
    phone.send(sized("chat.send", 1000));
    assert_eq!(agent.text().len(), 1000);
}

/// `count` phones of one shard upload a message of `bytes` each, and none ends its message before all have begun.
fn upload_at_once(relay: &Relay, count: usize, bytes: usize, begun_bytes: usize) {
    let mut pairs = Vec::new();
    for _ in 0..count {
        // The first of the two belongs to the shard that most of the test's messages meet; which one does not matter.
        let token = relay.token();
        let mut agent = Client::authed(relay, &token, "agent");
        let phone = Raw::authed(relay, &token, "phone");
        agent.expect("status");
        pairs.push((agent, phone));
    }
    let message = sized("file.part", bytes);
    let upload = text(&message);
    for (_, phone) in &mut pairs {
        phone.write(&upload[..begun_bytes]);
    }
    std::thread::scope(|scope| {
        for (agent, phone) in &mut pairs {
            let (upload, message) = (&upload, &message);
            scope.spawn(move || {
                phone.write(&upload[begun_bytes..]);
                // A message that has waited for too long is refused with the time to try again, and its sender does.
                while let answer = phone.json()
                    && answer["type"] == "chat.error"
                {
                    let error = &answer["payload"];
                    assert_eq!((&error["code"], &error["ref"]), (&json!("RATE_LIMITED"), &json!("big")));
                    std::thread::sleep(Duration::from_millis(error["retry_after_ms"].as_u64().unwrap()));
                    phone.write(upload);
                }
            });
            scope.spawn(move || {
                assert!(agent.text() == *message);
                agent.send(numbered("chat.done", 1));
            });
        }
    });
}

#[test]
fn uploads_wait_for_a_memory_budget_that_is_used_up_and_do_not_fail() {
    let relay = Relay::start(&["--memory-budget", "8MiB"]);
    upload_at_once(&relay, 12, 4 << 20, 1000);
}

#[test]
fn many_uploads_that_have_begun_do_not_keep_each_other_from_ever_ending() {
    let relay = Relay::start(&["--memory-budget", "5MiB"]);
    upload_at_once(&relay, 150, 1 << 20, 120_000);
}

#[test]
fn messages_in_fragments_wait_for_the_budget_too() {
    let relay = Relay::start(&["--memory-budget", "5MiB"]);
    let mut pairs = Vec::new();
    for _ in 0..6 {
        let token = relay.token();
        let mut agent = Client::authed(&relay, &token, "agent");
        let phone = Raw::authed(&relay, &token, "phone");
        agent.expect("status");
        pairs.push((agent, phone));
    }
    let message = sized("file.part", 400_000);
    let pieces: Vec<Vec<u8>> = message
        .as_bytes()
        .chunks(50_000)
        .enumerate()
        .map(|(at, piece)| frame(at == 7, if at == 0 { 1 } else { 0 }, piece))
        .collect();
    std::thread::scope(|scope| {
        for (agent, phone) in &mut pairs {
            let (pieces, message) = (&pieces, &message);
            scope.spawn(move || {
                for piece in pieces {
                    phone.write(piece);
                }
            });
            scope.spawn(move || assert!(agent.text() == *message));
        }
    });
}

#[test]
fn a_tokens_own_limits_stand_in_for_the_operators() {
    let relay = Relay::start(&["--phone-rate", "1000"]);
    let token = relay.token_with(Some(json!({"limits": {"phone_per_minute": 1, "message_bytes_max": 200}})));
    let mut agent = Client::authed(&relay, &token, "agent");
    let mut phone = Client::authed(&relay, &token, "phone");
    agent.expect("status");
    phone.send(sized("chat.send", 201));
    assert_eq!(phone.expect("chat.error")["code"], "MESSAGE_TOO_LARGE");
    phone.send(sized("chat.send", 200));
    assert_eq!(agent.text().len(), 200);
    phone.send(numbered("chat.send", 1));
    let error: Value = phone.expect("chat.error");
    assert_eq!(error["code"], "RATE_LIMITED");
}
