//! The client of `coralmux_client` against the real relay, through a wire that can be cut.

use crate::harness::{DEADLINE, Relay};
use coralmux_client::{
    Client, Encryption, Event, Events, Message, Options, PairingSecret, Reason, Role, SendError, Trust, register,
};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A TCP forwarder: all its connections can be cut at once, and its target moved.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Self { address, target: Arc::new(Mutex::new(target)), open: Arc::default() };
        let (target, open) = (Arc::clone(&wire.target), Arc::clone(&wire.open));
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(relay) = TcpStream::connect(*target.lock().unwrap()) else { continue };
                for stream in [&client, &relay] {
                    stream.set_nodelay(true).unwrap();
                    open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                for (mut from, mut to) in [(client.try_clone().unwrap(), relay.try_clone().unwrap()), (relay, client)] {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        wire
    }

    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn move_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

pub(crate) fn options(address: SocketAddr, token: &str, role: Role, encryption: &Encryption) -> Options {
    let mut options = Options::new(format!("ws://{address}").parse().unwrap(), token, role);
    options.encryption = encryption.clone();
    options.backoff_min = Duration::from_millis(2);
    options.backoff_max = Duration::from_millis(20);
    options
}

pub(crate) fn secret() -> Encryption {
    Encryption::Version2(PairingSecret::from_bytes([0x5a; 32]))
}

/// Takes events until one is as wanted; what came before is gone.
pub(crate) fn wait_for<T>(events: &Events, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.next_within(left) {
            Ok(Some(event)) => {
                if let Some(found) = wanted(&event) {
                    return found;
                }
                seen.push(event);
            }
            other => panic!("waited in vain for {what} ({other:?}) after {seen:?}"),
        }
    }
}

pub(crate) fn wait_for_message(events: &Events, kind: &str) -> Message {
    wait_for(events, kind, |event| match event {
        Event::Message(message) if message.kind == kind => Some(message.clone()),
        _ => None,
    })
}

fn wait_for_event(events: &Events, wanted: &Event) {
    wait_for(events, &format!("{wanted:?}"), |event| (event == wanted).then_some(()));
}

/// The last event, and nothing behind it.
fn last(events: Events) -> Event {
    let event = wait_for(&events, "the last event", |event| event.is_last().then(|| event.clone()));
    assert!(events.next_within(DEADLINE).is_err(), "something followed");
    event
}

fn start(address: SocketAddr, token: &str, role: Role, encryption: &Encryption) -> (Client, Events) {
    Client::start(options(address, token, role, encryption)).unwrap()
}

#[test]
fn a_question_is_asked_and_its_answer_streamed_under_each_encryption() {
    let relay = Relay::start(&[]);
    for (version, encryption) in [(0, Encryption::Off), (1, Encryption::Version1), (2, secret())] {
        let token = relay.token();
        // The phone first: an agent announces its keys as soon as it is connected. If the phone came at that moment, the
        // announcement could arrive, and another follow it, which version 1 cannot tell apart.
        let (phone, of_phone) = start(relay.address(), &token, Role::Phone, &encryption);
        wait_for(&of_phone, "auth.ok", |event| matches!(event, Event::Connected { paired: false, .. }).then_some(()));
        // Sent at once: it waits for the agent, and for the keys.
        let (agent, of_agent) = start(relay.address(), &token, Role::Agent, &encryption);
        let id = phone.send("chat.send", &json!({"text": "h\u{e4}llo"})).unwrap();
        let mut fingerprints = Vec::new();
        if version != 0 {
            for events in [&of_agent, &of_phone] {
                fingerprints.push(wait_for(events, "keys", |event| match event {
                    Event::Secure { version: of, fingerprint } if *of == version => Some(fingerprint.clone()),
                    _ => None,
                }));
            }
            assert_eq!((&fingerprints[0], fingerprints[0].is_some()), (&fingerprints[1], version == 1));
        }
        let question = wait_for_message(&of_agent, "chat.send");
        assert_eq!((question.id, &question.payload["text"]), (id, &json!("h\u{e4}llo")));
        let mut answer = agent.stream(json!({"chat_id": "c"}).as_object().unwrap().clone());
        let words: Vec<String> = (0..300).map(|number| format!("w{number} ")).collect();
        for word in &words {
            answer.push(word).unwrap();
        }
        let (mut answer, mut streamed, mut seq) = (Some(answer), String::new(), 0);
        let done = wait_for(&of_phone, "chat.done", |event| {
            let Event::Message(message) = event else { return None };
            assert_eq!(message.payload["chat_id"], "c");
            if message.kind == "chat.done" {
                return Some(message.payload.clone());
            }
            seq += 1;
            assert_eq!((message.kind.as_str(), &message.payload["seq"]), ("chat.stream", &json!(seq)));
            streamed += message.payload["delta"].as_str().unwrap();
            if let Some(answer) = answer.take() {
                answer.finish(Default::default()).unwrap();
            }
            None
        });
        assert_eq!(done["full_text"], words.concat());
        // Ends that resume do not send pieces any more that the end of the answer contains.
        assert!(if version == 2 { words.concat().starts_with(&streamed) } else { streamed == words.concat() });
        assert!(seq < 100, "{seq} pieces: what is written faster than it may leave travels together");
        agent.close(DEADLINE);
        assert_eq!(last(of_agent), Event::Closed);
        wait_for_event(&of_phone, &Event::PeerOffline);
    }
}

#[test]
fn two_hundred_reconnects_during_a_stream_leave_a_whole_answer() {
    let relay = Relay::start(&[]);
    let (to_agent, to_phone) = (Wire::to(relay.address()), Wire::to(relay.address()));
    let token = relay.token();
    let (agent, of_agent) = start(to_agent.address, &token, Role::Agent, &secret());
    let (phone, of_phone) = start(to_phone.address, &token, Role::Phone, &secret());
    phone.send("chat.send", &json!({"text": "go"})).unwrap();
    wait_for_message(&of_agent, "chat.send");
    let mut answer = agent.stream(Default::default());
    let mut numbers = 0..;
    let mut seen = Seen::default();
    for round in 0..200 {
        for number in numbers.by_ref().take(5) {
            answer.push(&format!("{number} ")).unwrap();
        }
        let (wire, events) = if round % 2 == 0 { (&to_agent, &of_agent) } else { (&to_phone, &of_phone) };
        wire.cut();
        let mut lost = false;
        wait_for(events, "a reconnect", |event| {
            seen.take(event);
            lost |= matches!(event, Event::Disconnected { .. });
            (lost && matches!(event, Event::Connected { .. })).then_some(())
        });
        // Every tenth time the keys are waited for, so that pieces get through, too; else it is cut in the middle.
        if round % 10 == 9 {
            for number in numbers.by_ref() {
                answer.push(&format!("{number} ")).unwrap();
                let event = of_phone.next_within(Duration::from_millis(200)).unwrap();
                if event.is_some_and(|event| seen.take(&event)) {
                    break;
                }
            }
        }
    }
    let full_text = answer.text().to_owned();
    answer.finish(Default::default()).unwrap();
    let done = wait_for(&of_phone, "chat.done", |event| match event {
        Event::Message(message) if message.kind == "chat.done" => Some(message.payload["full_text"].clone()),
        event => {
            seen.take(event);
            None
        }
    });
    assert_eq!(done, full_text);
    assert_eq!(full_text.split_whitespace().count(), numbers.start);
    assert!(seen.pieces >= 20, "{} pieces", seen.pieces);
}

/// The numbers of a streamed answer: none may be lost, come twice or out of order.
#[derive(Default)]
struct Seen {
    pieces: usize,
    last: Option<u32>,
    seq: u64,
}

impl Seen {
    /// Whether it was a piece.
    fn take(&mut self, event: &Event) -> bool {
        let Event::Message(message) = event else { return false };
        assert_eq!(message.kind, "chat.stream");
        let seq = message.payload["seq"].as_u64().unwrap();
        assert!(seq > self.seq, "{seq} after {}", self.seq);
        self.seq = seq;
        for number in message.payload["delta"].as_str().unwrap().split_whitespace() {
            let number = number.parse().unwrap();
            assert_eq!(number, self.last.map_or(0, |last: u32| last + 1));
            self.last = Some(number);
        }
        self.pieces += 1;
        true
    }
}

#[test]
fn both_ends_come_back_after_the_relay_was_restarted() {
    let relay = Relay::start(&[]);
    let wire = Wire::to(relay.address());
    let token = relay.token();
    let (agent, of_agent) = start(wire.address, &token, Role::Agent, &secret());
    let (phone, of_phone) = start(wire.address, &token, Role::Phone, &secret());
    let keys = |event: &Event| matches!(event, Event::Secure { version: 2, .. }).then_some(());
    for events in [&of_agent, &of_phone] {
        wait_for(events, "keys", keys);
    }
    let directory = relay.directory();
    relay.stop();
    for events in [&of_agent, &of_phone] {
        wait_for(events, "the loss", |event| matches!(event, Event::Disconnected { .. }).then_some(()));
    }
    // Said while there is no relay.
    phone.send("chat.send", &json!({"text": "still there?"})).unwrap();
    let relay = Relay::start_in(directory, &[]);
    wire.move_to(relay.address());
    assert_eq!(wait_for_message(&of_agent, "chat.send").payload["text"], "still there?");
    agent.send("chat.done", &json!({"full_text": "yes"})).unwrap();
    assert_eq!(wait_for_message(&of_phone, "chat.done").payload["full_text"], "yes");
}

#[test]
fn a_replaced_a_revoked_and_a_refused_client_end_for_good() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let start = |token: &str| start(relay.address(), token, Role::Agent, &Encryption::Off);
    let connected = |event: &Event| matches!(event, Event::Connected { .. }).then_some(());
    let (replaced, of_replaced) = start(&token);
    wait_for(&of_replaced, "auth.ok", connected);
    let (_second, of_second) = start(&token);
    wait_for(&of_second, "auth.ok", connected);
    assert_eq!(last(of_replaced), Event::Replaced);
    assert!(matches!(replaced.send("chat.done", &json!({})), Err(SendError::Ended)));
    assert_eq!(relay.call("DELETE", &format!("/api/v1/pair/{token}"), None).0, 204);
    assert_eq!(last(of_second), Event::Revoked);
    let (_third, of_third) = start(&token);
    let ending = last(of_third);
    assert!(matches!(&ending, Event::Refused { code, .. } if code == "UNAUTHORIZED"), "{ending:?}");
}

#[test]
fn what_exceeds_the_rate_is_sent_again_when_the_relay_says_so() {
    let relay = Relay::start(&["--agent-rate", "60"]);
    let token = relay.token();
    let (agent, of_agent) = start(relay.address(), &token, Role::Agent, &secret());
    let (_phone, of_phone) = start(relay.address(), &token, Role::Phone, &secret());
    wait_for(&of_phone, "keys", |event| matches!(event, Event::Secure { .. }).then_some(()));
    for number in 0..63 {
        agent.send("test.note", &json!({"n": number})).unwrap();
    }
    let number = |message: Message| message.payload["n"].as_u64().unwrap();
    let numbers: Vec<_> = (0..63).map(|_| number(wait_for_message(&of_phone, "test.note"))).collect();
    assert_eq!(numbers, (0..63).collect::<Vec<_>>(), "none is lost, none comes twice, and none overtakes another");
    let refused = wait_for(&of_agent, "a refusal", |event| match event {
        Event::Error(error) => Some(error.clone()),
        _ => None,
    });
    assert_eq!((refused.code.as_str(), refused.sent_again), ("RATE_LIMITED", true));
    assert!(refused.retry_after.is_some_and(|after| !after.is_zero()));
}

#[test]
fn a_message_without_a_peer_is_given_up_and_one_that_is_too_large_is_not_taken() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut given = options(relay.address(), &token, Role::Phone, &secret());
    given.hold = Duration::from_millis(300);
    let (phone, events) = Client::start(given).unwrap();
    let id = phone.send("chat.send", &json!({"text": "nobody there"})).unwrap();
    wait_for_event(&events, &Event::NotSent { id });
    let large = json!({"text": "x".repeat(4 << 20)});
    assert!(matches!(phone.send("chat.send", &large), Err(SendError::TooLarge { .. })));
}

#[test]
fn the_largest_encrypted_message_arrives() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let (_agent, of_agent) = start(relay.address(), &token, Role::Agent, &secret());
    let (phone, _of_phone) = start(relay.address(), &token, Role::Phone, &secret());
    let payload = |bytes: usize| json!({"data": "x".repeat(bytes)});
    // The largest that is taken, found by asking.
    let (mut taken, mut refused) = (3 << 20, 5 << 20);
    while taken + 1 < refused {
        let middle = usize::midpoint(taken, refused);
        match phone.send("probe", &json!({"data": Value::String("x".repeat(middle))})) {
            Err(SendError::TooLarge { .. }) => refused = middle,
            Ok(_) => {
                taken = middle;
                wait_for_message(&of_agent, "probe");
            }
            Err(error) => panic!("{error}"),
        }
    }
    phone.send("probe", &payload(taken)).unwrap();
    assert_eq!(wait_for_message(&of_agent, "probe").payload, payload(taken));
}

#[test]
fn over_tls_only_a_trusted_relay_gets_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert_flag, key_flag) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let relay = Relay::start(&["--addr", "tls://127.0.0.1:0", "--tls-cert", cert_flag, "--tls-key", key_flag]);
    let address = relay.tls_address();
    let relay_url = format!("wss://{address}").parse().unwrap();
    let pinned = Trust::PublicRootsAnd(certificate);
    let token = register(&relay_url, &pinned).unwrap();
    assert!(register(&relay_url, &Trust::PublicRoots).is_err());
    let over_tls = |role, trust: &Trust| {
        let mut given = options(address, &token, role, &secret());
        given.relay = relay_url.clone();
        given.trust = trust.clone();
        Client::start(given).unwrap()
    };
    let (agent, of_agent) = over_tls(Role::Agent, &pinned);
    let (phone, of_phone) = over_tls(Role::Phone, &Trust::InsecureAnyCertificate);
    // More than a record, a read buffer, and what a socket takes at once.
    let text = "x".repeat(3 << 20);
    phone.send("chat.send", &json!({"text": text})).unwrap();
    assert_eq!(wait_for_message(&of_agent, "chat.send").payload["text"], text);
    agent.send("chat.done", &json!({"full_text": text})).unwrap();
    assert_eq!(wait_for_message(&of_phone, "chat.done").payload["full_text"], text);
    let (_stranger, events) = over_tls(Role::Phone, &Trust::PublicRoots);
    wait_for(&events, "a refused certificate", |event| match event {
        Event::Disconnected { reason: Reason::Tls(_), .. } => Some(()),
        Event::Connected { .. } => panic!("it believed anyone"),
        _ => None,
    });
}

#[test]
fn a_relay_that_is_not_there_is_tried_again_until_the_client_is_closed() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, events) = start(unused, "oc_pair_00", Role::Phone, &Encryption::Off);
    for _ in 0..5 {
        wait_for(&events, "a failed try", |event| {
            matches!(event, Event::Disconnected { next_try, .. } if *next_try <= Duration::from_millis(20))
                .then_some(())
        });
    }
    client.close(Duration::ZERO);
    assert_eq!(last(events), Event::Closed);
}
