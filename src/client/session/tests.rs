mod devices;
mod numbered;

use super::error::INVALID_MESSAGE;
use super::*;
use crate::event::Message;
use crate::options::{Encryption, HEAL_INTERVAL, PACED_FOR, RETRIES_MAX};
use crate::outgoing::Outgoing;
use crate::resume::Boot;
use coralmux_e2e::{DECRYPTION_FAILED, PairingSecret};
use coralmux_proto::token::Role;
use std::time::Duration;

fn options(role: Role, encryption: Encryption) -> Options {
    Options { encryption, ..Options::new("ws://relay".parse().unwrap(), "oc_pair_00", role) }
}

/// A session that plays with `now` standing still unless told otherwise.
struct Played {
    session: Session,
    shared: Shared,
    now: Instant,
}

impl Played {
    fn new(role: Role, encryption: Encryption) -> Self {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let shared = Shared::new(waker, Outgoing::new(role, Boot::draw()));
        let session = Session::new(&options(role, encryption));
        Self { session, shared, now: Instant::now() }
    }

    fn authed(role: Role, encryption: Encryption, paired: bool) -> Self {
        let mut played = Self::new(role, encryption);
        let actions = played.hears("auth.ok", json!({"paired": paired, "daily_quota_bytes": 5, "daily_used_bytes": 1}));
        let connected = Event::Connected { paired, daily_quota_bytes: 5, daily_used_bytes: 1 };
        assert!(matches!(&actions[0], Action::Emit(event, _) if *event == connected), "{actions:?}");
        played
    }

    fn hears_text(&mut self, text: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        self.session.handle_text(self.now, text, &self.shared, &mut actions);
        actions
    }

    fn hears(&mut self, kind: &str, payload: Value) -> Vec<Action> {
        self.hears_text(&json!({"type": kind, "id": "theirs", "payload": payload}).to_string())
    }

    fn events(&mut self, kind: &str, payload: Value) -> Vec<Event> {
        let emitted = |action| match action {
            Action::Emit(event, _) => Some(event),
            _ => None,
        };
        self.hears(kind, payload).into_iter().filter_map(emitted).collect()
    }

    fn writes(&mut self, kind: &str, id: &str) -> Option<String> {
        self.queues(kind, id);
        self.sends().ok()
    }

    fn queues(&mut self, kind: &str, id: &str) {
        let entry = Entry::message(self.now, id.to_owned(), kind, raw(&json!({"n": 1})), 0);
        self.shared.outgoing(None, |outgoing| outgoing.push(entry));
    }

    /// The next message that leaves, or until when it waits.
    fn sends(&mut self) -> Result<String, Option<Instant>> {
        if !self.session.can_send() {
            return Err(None);
        }
        match self.session.poll_send(self.now, &self.shared) {
            Outcome::Send(text) => Ok(text),
            Outcome::Wait(until) => Err(until),
            Outcome::NotSent(id) => panic!("{id}"),
        }
    }

    fn comes_due(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.session.handle_time(self.now, &self.shared, &mut actions);
        actions
    }

    fn refused(&mut self, id: &str, code: &str, retry_after_ms: u64) -> Vec<Action> {
        let payload = json!({"code": code, "message": "m", "retry_after_ms": retry_after_ms, "ref": id});
        self.hears("chat.error", payload)
    }
}

#[test]
fn auth_fail_ends_all_and_anything_else_first_is_no_relay() {
    let mut played = Played::new(Role::Phone, Encryption::Off);
    let actions = played.hears("auth.fail", json!({"code": "UNAUTHORIZED", "message": "no"}));
    assert!(
        matches!(&actions[..], [Action::End(Event::Refused { code, message })] if code == "UNAUTHORIZED" && message == "no")
    );
    let actions = Played::new(Role::Phone, Encryption::Off).hears("chat.send", json!({}));
    assert!(matches!(actions[..], [Action::Lost(Reason::Protocol(_))]));
    let actions = Played::new(Role::Phone, Encryption::Off).hears_text("no json");
    assert!(matches!(actions[..], [Action::Lost(Reason::Protocol(_))]));
}

#[test]
fn a_message_leaves_only_while_there_is_a_peer() {
    let mut played = Played::authed(Role::Agent, Encryption::Off, false);
    assert!(!played.session.can_send());
    assert_eq!(played.events("status", json!({"peer": "online"})), [Event::PeerOnline]);
    assert!(played.session.can_send());
    assert_eq!(played.events("status", json!({"peer": "offline"})), [Event::PeerOffline]);
    assert!(!played.session.can_send());
}

#[test]
fn messages_are_told_and_missing_payloads_are_empty_ones() {
    let mut played = Played::authed(Role::Agent, Encryption::Off, true);
    for (text, payload) in [
        (r#"{"type":"x.y","id":"a","payload":{"k":[1]}}"#, json!({"k": [1]})),
        (r#"{"type":"x.y","id":"a","payload":null}"#, json!({})),
        (r#"{"type":"x.y","id":"a"}"#, json!({})),
    ] {
        let actions = played.hears_text(text);
        let expected =
            Message { kind: "x.y".to_owned(), id: "a".to_owned(), payload, missed: 0, sent_at: None, from: None };
        assert!(
            matches!(&actions[..], [Action::Emit(Event::Message(message), _)] if *message == expected),
            "{text}: {actions:?}"
        );
    }
    assert!(played.hears("pong", Value::Null).is_empty());
    assert!(
        matches!(&played.hears("ping", Value::Null)[..], [Action::Send(text)] if text.contains(r#""type":"pong""#))
    );
}

#[test]
fn what_was_refused_for_its_rate_is_sent_again_after_the_wait_but_not_forever() {
    let mut played = Played::authed(Role::Agent, Encryption::Off, true);
    let text = played.writes("chat.done", "mine").unwrap();
    assert!(text.contains(r#""payload":{"n":1}"#), "{text}");
    for round in 1..=RETRIES_MAX {
        let mut actions = played.refused("mine", "RATE_LIMITED", 500);
        assert!(matches!(&actions[1], Action::Emit(Event::Error(error), _) if error.sent_again), "{actions:?}");
        let Action::Again(None, entry) = actions.swap_remove(0) else { panic!("{actions:?}") };
        assert_eq!((entry.id.as_str(), entry.refusals), ("mine", round));
        played.shared.outgoing(None, |outgoing| outgoing.put_back(entry));
        let until = played.now + Duration::from_millis(500);
        assert_eq!(played.sends(), Err(Some(until)));
        played.now = until;
        assert!(played.sends().is_ok());
        played.queues("chat.done", "other");
        let next = played.sends();
        assert_eq!(next, Err(Some(played.now + Duration::from_millis(500))), "no faster than the relay said");
        played.shared.outgoing(None, |outgoing| outgoing.pop_if(|_| true));
    }
    let actions = played.refused("mine", "RATE_LIMITED", 500);
    assert!(matches!(&actions[0], Action::Emit(Event::NotSent { id }, _) if id == "mine"), "{actions:?}");
    assert!(matches!(&actions[1], Action::Emit(Event::Error(error), _) if !error.sent_again), "{actions:?}");
    played.now += PACED_FOR;
    played.comes_due();
    played.writes("chat.done", "mine").unwrap();
    assert_eq!(played.session.plain.message_at, None);
}

#[test]
fn a_quota_is_told_and_not_waited_for() {
    let mut played = Played::authed(Role::Phone, Encryption::Off, true);
    played.writes("chat.send", "mine").unwrap();
    let actions = played.refused("mine", "DAILY_QUOTA_EXCEEDED", 3_600_000);
    let [Action::Emit(Event::Error(error), _)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((error.retry_after, error.sent_again), (Some(Duration::from_secs(3600)), false));
    assert!(played.session.can_send());
}

#[test]
fn close_codes_say_whether_to_come_back() {
    let played = Played::authed(Role::Phone, Encryption::Off, true);
    assert!(matches!(played.session.handle_close(4001, "replaced"), Action::End(Event::Replaced)));
    assert!(matches!(played.session.handle_close(4002, "revoked"), Action::End(Event::Revoked)));
    for code in [1000, 1001, 1005, 1008, 1012, 1013] {
        assert!(
            matches!(played.session.handle_close(code, ""), Action::Lost(Reason::Closed { code: of, .. }) if of == code)
        );
    }
}

/// Takes what one end has to send to the other, until nothing is left; what the owners hear.
fn exchange(phone: &mut Played, agent: &mut Played, first: Vec<Action>) -> Vec<Event> {
    let (mut to_phone, mut events) = (true, Vec::new());
    let mut actions = first;
    while !actions.is_empty() {
        let mut answers = Vec::new();
        for action in actions {
            match action {
                Action::Send(text) => {
                    let end = if to_phone { &mut *phone } else { &mut *agent };
                    answers.extend(end.hears_text(&text));
                }
                Action::Emit(event, _) => events.push(event),
                other => panic!("{other:?}"),
            }
        }
        actions = answers;
        to_phone = !to_phone;
    }
    events
}

fn pair(of_phone: Encryption, of_agent: Encryption) -> (Played, Played, Vec<Event>) {
    let mut phone = Played::authed(Role::Phone, of_phone, true);
    let mut agent = Played::authed(Role::Agent, of_agent, false);
    let first = agent.hears("status", json!({"peer": "online"}));
    let events = exchange(&mut phone, &mut agent, first);
    (phone, agent, events)
}

#[test]
fn both_versions_agree_and_seal() {
    let secret = || Encryption::Version2(PairingSecret::from_bytes([9; 32]));
    for (version, encryption) in [(1, Encryption::Version1), (2, secret())] {
        let (mut phone, mut agent, events) = pair(encryption.clone(), encryption);
        let secured: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Secure { version, fingerprint } => Some((*version, fingerprint.clone())),
                _ => None,
            })
            .collect();
        assert_eq!(secured.len(), 2, "{events:?}");
        assert_eq!(secured[0], secured[1]);
        assert_eq!((secured[0].0, secured[0].1.is_some()), (version, version == 1));
        assert!(phone.session.can_send() && agent.session.can_send());
        let text = phone.writes("chat.send", "mine").unwrap();
        assert!(text.contains(r#""enc":true"#), "{text}");
        let actions = agent.hears_text(&text);
        assert!(
            matches!(&actions[..], [Action::Emit(Event::Message(message), _)] if message.payload == json!({"n": 1})),
            "{actions:?}"
        );
        // A phone that comes anew has no keys: nothing leaves until it has.
        agent.hears("status", json!({"peer": "online"}));
        assert!(!agent.session.can_send());
    }
}

#[test]
fn an_agent_with_a_secret_refuses_what_comes_without() {
    let secret = Encryption::Version2(PairingSecret::from_bytes([9; 32]));
    let (_, mut agent, events) = pair(Encryption::Version1, secret.clone());
    assert!(events.iter().any(|event| matches!(event, Event::Error(error) if error.code == DECRYPTION_FAILED)));
    assert!(!agent.session.can_send());
    let actions = agent.hears("chat.send", json!({"text": "hello"}));
    assert!(
        matches!(&actions[..], [Action::Send(text), Action::Emit(Event::Error(_), _)] if text.contains(DECRYPTION_FAILED)),
        "{actions:?}"
    );
    let other = Encryption::Version2(PairingSecret::from_bytes([8; 32]));
    let (phone, agent, _) = pair(other, secret);
    assert!(!phone.session.can_send() && !agent.session.can_send());
}

#[test]
fn a_key_exchange_that_was_refused_for_its_rate_is_made_again() {
    let mut agent = Played::new(Role::Agent, Encryption::Version1);
    let actions = agent.hears("auth.ok", json!({"paired": true}));
    let [_, Action::Send(text)] = &actions[..] else { panic!("{actions:?}") };
    let id = serde_json::from_str::<Value>(text).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(agent.refused(&id, "RATE_LIMITED", 700).is_empty(), "nothing that the owner could do");
    agent.now += Duration::from_millis(700);
    let actions = agent.comes_due();
    assert!(matches!(&actions[..], [Action::Send(text)] if text.contains("pubkey")), "{actions:?}");
    // And sent to nobody it is normal.
    let [Action::Send(text)] = &actions[..] else { panic!() };
    let id = serde_json::from_str::<Value>(text).unwrap()["id"].as_str().unwrap().to_owned();
    assert!(agent.refused(&id, "PEER_OFFLINE", 0).is_empty());
    assert_eq!(agent.refused("other", "PEER_OFFLINE", 0).len(), 1);
}

/// The texts among `actions` that are to be sent, by what is in them.
fn sent<'a>(actions: &'a [Action], what: &str) -> Vec<&'a str> {
    let texts = actions.iter().filter_map(|action| match action {
        Action::Send(text) => Some(text.as_str()),
        _ => None,
    });
    texts.filter(|text| text.contains(what)).collect()
}

#[test]
fn what_was_sealed_with_keys_whose_agreement_went_down_with_a_connection_is_no_news() {
    let secret = || Encryption::Version2(PairingSecret::from_bytes([9; 32]));
    let (mut phone, _, _) = pair(secret(), secret());
    let other = json!({"enc": true, "ciphertext": "A".repeat(32), "nonce": "AAAAAAAAAAAAAAAA"});
    phone.hears("status", json!({"peer": "online"}));
    assert!(phone.hears("ack", other.clone()).is_empty(), "keys are being agreed");
    assert!(phone.comes_due().is_empty(), "they are agreed anyway");
    // In clear it is said at once: no end of this pair sends that.
    assert!(matches!(&phone.hears("chat.done", json!({}))[..], [Action::Emit(Event::Error(_), _)]));
}

#[test]
fn a_phone_whose_agent_has_other_keys_opens_anew_but_not_for_each_complaint() {
    let secret = || Encryption::Version2(PairingSecret::from_bytes([9; 32]));
    let (mut phone, mut agent, _) = pair(secret(), secret());
    let complaint = json!({"code": DECRYPTION_FAILED, "message": "m"});
    for round in 0..3 {
        assert!(phone.session.can_send());
        if round == 1 {
            // The second sign is a message of the agent's that does not open.
            let forged = json!({"enc": true, "ciphertext": "A".repeat(32), "nonce": "AAAAAAAAAAAAAAAA"});
            assert!(matches!(&phone.hears("chat.stream", forged)[..], [Action::Emit(Event::Error(_), _)]));
        } else {
            assert!(matches!(&phone.hears("chat.error", complaint.clone())[..], [Action::Emit(Event::Error(_), _)]));
        }
        assert!(!phone.session.can_send(), "what is to be sent waits");
        assert!(phone.writes("chat.send", "mine").is_none());
        if round > 0 {
            phone.now += HEAL_INTERVAL - Duration::from_millis(1);
            assert!(phone.comes_due().is_empty(), "too soon");
            assert_eq!(phone.session.poll_timeout(&phone.shared), Some(phone.now + Duration::from_millis(1)));
            phone.now += Duration::from_millis(1);
        }
        let opening = phone.comes_due();
        assert_eq!(sent(&opening, "noise").len(), 1, "{opening:?}");
        phone.hears("chat.error", complaint.clone());
        assert!(phone.comes_due().is_empty(), "it has opened already");
        let mut answers = Vec::new();
        for text in sent(&opening, "noise") {
            answers.extend(agent.hears_text(text));
        }
        let [_] = sent(&answers, "noise")[..] else { panic!("{answers:?}") };
        let events = exchange(&mut phone, &mut agent, answers);
        let is_of_resume = |event: &Event| matches!(event, Event::Secure { version: 2, .. } | Event::Delivered { .. });
        assert!(events.iter().all(is_of_resume), "{events:?}");
        let text = phone.writes("chat.send", "mine").unwrap();
        assert!(matches!(&agent.hears_text(&text)[..], [Action::Emit(Event::Message(_), _)]));
    }
    // Other errors in clear are none.
    phone.hears("chat.error", json!({"code": "RATE_LIMITED", "message": "m", "retry_after_ms": 5}));
    assert!(phone.session.can_send());
}

#[test]
fn a_repeated_opening_changes_nothing() {
    let secret = || Encryption::Version2(PairingSecret::from_bytes([9; 32]));
    let mut phone = Played::authed(Role::Phone, secret(), true);
    let mut agent = Played::authed(Role::Agent, secret(), false);
    let announced = agent.hears("status", json!({"peer": "online"}));
    let opened = phone.hears_text(sent(&announced, "key_exchange")[0]);
    let opening = sent(&opened, "noise")[0];
    let answered = agent.hears_text(opening);
    exchange(&mut phone, &mut agent, answered.into_iter().filter(|action| matches!(action, Action::Send(_))).collect());
    assert!(agent.hears_text(opening).is_empty());
    let text = phone.writes("chat.send", "mine").unwrap();
    assert!(matches!(&agent.hears_text(&text)[..], [Action::Emit(Event::Message(_), _)]));
}

#[test]
fn one_strange_message_is_passed_over_and_the_next_one_is_heard() {
    let mut played = Played::authed(Role::Agent, Encryption::Off, true);
    for text in [
        r#"{"type":"chat.send","type":"chat.send","id":"a","payload":{}}"#,
        r#"{"type":"chat.send","id":"a","id":"b","payload":{}}"#,
        r#"{"type":"chat.send","id":"a","payload":{},"payload":{}}"#,
        r#"{"type":"chat.send\ud83e","id":"a","payload":{}}"#,
        r#"{"type":"chat.send","id":"\ud83e","payload":{}}"#,
        r#"{"type":1,"id":"a","payload":{}}"#,
        r#"{"type":"chat.send","id":7}"#,
        "[]",
        "null",
        "no json",
        "",
    ] {
        let actions = played.hears_text(text);
        assert!(
            matches!(&actions[..], [Action::Emit(Event::Error(error), _)] if error.code == INVALID_MESSAGE),
            "{text}: {actions:?}"
        );
    }
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let strange = format!(r#"{{"type":"chat.send","id":"a","payload":{{"text":"x\ud83e","n":1e999,"deep":{deep}}}}}"#);
    let actions = played.hears_text(&strange);
    let [Action::Emit(Event::Message(message), _)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((&message.payload["text"], &message.payload["n"]), (&json!("x\u{fffd}"), &json!(f64::MAX)));
}

#[test]
fn an_odd_field_of_the_relay_does_not_spoil_the_others() {
    let mut played = Played::new(Role::Agent, Encryption::Off);
    let text =
        r#"{"type":"auth.ok","payload":{"paired":true,"daily_quota_bytes":5e2,"daily_used_bytes":-1,"x":"\ud800"}}"#;
    let actions = played.hears_text(text);
    let connected = Event::Connected { paired: true, daily_quota_bytes: 500, daily_used_bytes: 0 };
    assert!(matches!(&actions[0], Action::Emit(event, _) if *event == connected), "{actions:?}");
    let text = r#"{"type":"chat.error","payload":{"code":"X","code":"Y","message":"m","retry_after_ms":1.5,"ref":4}}"#;
    let actions = played.hears_text(text);
    let [Action::Emit(Event::Error(error), _)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((error.code.as_str(), error.message.as_str(), error.about.as_deref()), ("Y", "m", None));
    assert_eq!(error.retry_after, Some(Duration::from_millis(1)));
    for odd in [json!({}), json!({"peer": 1}), json!([]), Value::Null] {
        assert!(played.hears("status", odd).is_empty());
    }
}
