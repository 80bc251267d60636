//! What somebody with an end's state can do with a recording: nothing with what was sealed before.

use super::super::chain::{Chain, Label};
use super::super::keys::{Secret, hmac256};
use super::super::sessions::Sessions;
use super::super::wire::sealed;
use super::*;
use crate::gcm::Gcm;
use zeroize::Zeroizing;

/// So far a thief winds each secret on.
const WOUND: u64 = 80;

/// A message as somebody on the way recorded it.
struct Recorded {
    kind: &'static str,
    payload: Box<RawValue>,
}

/// All that is secret in an end's memory and on its disk.
fn secrets(sessions: &Sessions, psk: &Secret, own: &StaticKey) -> Vec<Secret> {
    let mut all = vec![psk.clone(), Zeroizing::new(*own.expose())];
    all.extend(sessions.receiving.iter().map(|session| Zeroizing::new(*session.chain.key())));
    all.push(Zeroizing::new(*sessions.sending.stored().key()));
    all.push(Zeroizing::new(*sessions.sending.in_use().key()));
    all
}

/// Whether any of these secrets, as any key that a message has and at any place of a chain, opens it.
fn opens(secrets: &[Secret], device: DeviceId, recorded: &Recorded) -> bool {
    let sealed = sealed("", Some(&recorded.payload)).unwrap();
    let label = Label { device, sid: sealed.sid, kind: recorded.kind, id: "" };
    secrets.iter().any(|secret| {
        let mut key = secret.clone();
        (0..WOUND).any(|_| {
            let chain = Chain::new(key.clone(), sealed.number);
            let found = chain.open(label, &sealed.nonce, sealed.ciphertext.clone()).is_some()
                || label.opens_with(&Gcm::new(&key), sealed.number, &sealed.nonce, sealed.ciphertext.clone());
            key = hmac256(&key, &[&[2]]);
            found
        })
    })
}

#[test]
fn a_state_taken_after_a_message_does_not_open_it_or_one_before() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let (mut recorded, mut before) = (Vec::new(), Vec::new());
    for round in 0..12 {
        if round == 6 {
            agree(at(10.), &mut random, &mut device, &mut agent);
        }
        before.push(secrets(&device.sessions, &device.psk, &device.key));
        let sent = device.seal(&mut random, "chat.send", None, None).unwrap();
        agent.open(at(10.), "chat.send", None, Some(&sent.payload)).unwrap();
        recorded.push(Recorded { kind: "chat.send", payload: sent.payload });
        before.push(secrets(&device.sessions, &device.psk, &device.key));
        let sent = agent.seal(&mut random, "chat.done", None, None).unwrap();
        device.open(at(10.), "chat.done", None, Some(&sent.payload)).unwrap();
        recorded.push(Recorded { kind: "chat.done", payload: sent.payload });
        let of_device = secrets(&device.sessions, &device.psk, &device.key);
        let of_agent = secrets(&agent.sessions, &agent.psk, &agent_key());
        for recorded in &recorded {
            assert!(!opens(&of_device, device.device(), recorded) && !opens(&of_agent, device.device(), recorded));
        }
    }
    // The search finds what there is to find: each state from just before a message opens it.
    for (secrets, recorded) in before.iter().zip(&recorded) {
        assert!(opens(secrets, device.device(), recorded));
    }
}

#[test]
fn a_copy_from_before_a_new_session_does_not_read_it() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let copies =
        [secrets(&device.sessions, &device.psk, &device.key), secrets(&agent.sessions, &agent.psk, &agent_key())];
    agree(at(10.), &mut random, &mut device, &mut agent);
    for _ in 0..3 {
        let sent = device.seal(&mut random, "ack", None, None).unwrap();
        agent.open(at(10.), "ack", None, Some(&sent.payload)).unwrap();
        let back = agent.seal(&mut random, "ack", None, None).unwrap();
        for payload in [sent.payload, back.payload] {
            let recorded = Recorded { kind: "ack", payload };
            assert!(copies.iter().all(|copy| !opens(copy, device.device(), &recorded)));
        }
    }
}

#[test]
fn what_was_held_back_does_not_open_once_its_text_came_in_a_newer_session() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    device.handle_connected();
    let held = agent.seal(&mut random, "chat.done", None, None).unwrap();
    device.handle_agent(true);
    device.handle_drained();
    agree(at(10.), &mut random, &mut device, &mut agent);
    say(at(10.), &mut random, &mut device, &mut agent).unwrap();
    let recorded = Recorded { kind: "chat.done", payload: held.payload };
    assert!(opens(&secrets(&device.sessions, &device.psk, &device.key), device.device(), &recorded));
    answer(at(10.), &mut random, &mut device, &mut agent).unwrap();
    assert!(!opens(&secrets(&device.sessions, &device.psk, &device.key), device.device(), &recorded));
    let late = device.open(at(10.), "chat.done", None, Some(&recorded.payload));
    assert_eq!(late.unwrap_err(), OpenError::UnknownSession);
}

#[test]
fn what_prints_shows_no_secret() {
    let (device, joined, _) = enrol(&mut counting(1));
    let (enrolling, agent) = enrolling(7);
    let text = format!("{device:?} {joined:?} {enrolling:?} {agent:?} {:?} {:?}", agent_key(), device.sessions);
    assert!(text.contains(id_of(1).as_str()) && text.contains("***"));
    for secret in secrets(&device.sessions, &device.psk, &device.key) {
        let listed = (*secret).map(|byte| byte.to_string()).join(", ");
        assert!(!text.contains(&listed));
    }
    assert!(text.len() < 2_000, "{text}");
}
