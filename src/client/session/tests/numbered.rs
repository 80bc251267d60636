//! What a session does where the peer resumes.

use super::*;

fn secret() -> Encryption {
    Encryption::Version2(PairingSecret::from_bytes([9; 32]))
}

/// What an owner hears.
fn told(actions: &[Action]) -> Vec<&Event> {
    let events = actions.iter().filter_map(|action| match action {
        Action::Emit(event, _) => Some(event),
        _ => None,
    });
    events.collect()
}

#[test]
fn only_an_end_that_can_resume_asks_for_the_relays_extension() {
    let asks = |encryption| {
        {
            let options = options(Role::Phone, encryption);
            Session::new(&options).auth(&options)
        }
        .contains(r#""ext":1"#)
    };
    assert!(asks(secret()) && !asks(Encryption::Version1) && !asks(Encryption::Off));
}

#[test]
fn what_was_on_its_way_when_the_connection_broke_is_sent_again_and_told_as_delivered() {
    let (mut phone, mut agent, _) = pair(secret(), secret());
    let lost = phone.writes("chat.send", "lost").unwrap();
    agent.hears("status", json!({"peer": "offline"}));
    let first = agent.hears("status", json!({"peer": "online"}));
    phone.hears("status", json!({"peer": "online"}));
    assert!(!phone.session.can_send(), "nothing numbered leaves");
    exchange(&mut phone, &mut agent, first);
    let again = phone.sends().unwrap();
    assert_ne!(lost, again);
    let actions = agent.hears_text(&again);
    assert!(matches!(told(&actions)[..], [Event::Message(message)] if message.id == "lost"), "{actions:?}");
    agent.now += Duration::from_secs(1);
    let acks = agent.comes_due();
    let [ack] = sent(&acks, r#""type":"ack""#)[..] else { panic!("{acks:?}") };
    let actions = phone.hears_text(ack);
    assert_eq!(told(&actions), [&Event::Delivered { id: "lost".to_owned() }]);
}

#[test]
fn what_the_relay_refuses_is_held_or_given_back() {
    let (mut phone, _, _) = pair(secret(), secret());
    for id in ["1", "2", "3"] {
        assert!(phone.writes("chat.send", id).is_some());
    }
    let actions = phone.refused("3", "MESSAGE_TOO_LARGE", 0);
    assert_eq!(told(&actions)[0], &Event::NotSent { id: "3".to_owned() });
    let actions = phone.refused("1", "DAILY_QUOTA_EXCEEDED", 3_600_000);
    assert!(matches!(told(&actions)[..], [Event::Error(error)] if error.sent_again), "{actions:?}");
    let until = phone.now + Duration::from_secs(3600);
    assert_eq!(phone.sends(), Err(Some(until)));
    assert_eq!(phone.session.poll_timeout(&phone.shared), Some(until));
    phone.now = until;
    phone.comes_due();
    assert!(phone.sends().unwrap().contains(r#""id":"1""#));
    assert_eq!(phone.sends(), Err(None), "the next follows when that is acknowledged");
    phone.refused("1", "PEER_OFFLINE", 0);
    assert!(!phone.session.can_send(), "it waits for the next agreement");
}

#[test]
fn a_peer_that_does_not_resume_any_more_is_told_and_what_was_held_given_back() {
    let (mut phone, _, _) = pair(secret(), secret());
    phone.writes("chat.send", "held").unwrap();
    // An older agent takes the place of the one that resumes.
    let Encryption::Version2(key) = secret() else { unreachable!() };
    let mut old = coralmux_e2e::End::agent("oc_pair_00", Some(key), |bytes: &mut [u8]| crate::envelope::random(bytes));
    phone.hears("status", json!({"peer": "online"}));
    let value = |payload: &RawValue| serde_json::from_str::<Value>(payload.get()).unwrap();
    let opened = phone.hears("key_exchange", value(&old.handle_online().unwrap().payload));
    let opening: Value = serde_json::from_str(sent(&opened, "noise")[0]).unwrap();
    let step = old.handle_key_exchange(opening["id"].as_str(), Some(&raw(&opening["payload"])), "").unwrap();
    let actions = phone.hears("key_exchange", value(&step.reply.unwrap().payload));
    let expected = [&Event::ResumeLost, &Event::NotSent { id: "held".to_owned() }];
    assert_eq!(told(&actions)[1..], expected);
    assert!(phone.session.can_send());
    assert!(!phone.shared.outgoing(None, |outgoing| outgoing.resumes()));
    assert!(phone.writes("chat.send", "as before").is_some());
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_changes_nothing() {
    let (mut phone, mut agent, _) = pair(secret(), secret());
    let position = agent.session.plain.receiver.position();
    for (kind, plaintext) in [("chat.send", json!({"text": "bare"})), ("ack", json!({"r": true}))] {
        let payload =
            phone.session.plain.secure.seal(kind, "odd", &raw(&plaintext), &Receiver::default()).unwrap().into_owned();
        let actions = agent.hears_text(&envelope::write(None, kind, "odd", &payload));
        assert!(
            matches!(told(&actions)[..], [Event::Error(error)] if error.code == INVALID_MESSAGE),
            "{kind}: {actions:?}"
        );
    }
    assert_eq!(agent.session.plain.receiver.position(), position);
}

#[test]
fn keys_that_are_agreed_after_a_false_word_of_the_peers_absence_show_that_it_is_there() {
    let (mut phone, mut agent, _) = pair(secret(), secret());
    let first = agent.hears("status", json!({"peer": "online"}));
    agent.hears("status", json!({"peer": "offline"}));
    exchange(&mut phone, &mut agent, first);
    agent.comes_due();
    let due = agent.session.poll_timeout(&agent.shared);
    assert!(due.is_none_or(|at| at > agent.now), "nothing is due again and again");
    assert!(agent.session.can_send());
    let text = agent.writes("chat.done", "answer").unwrap();
    assert!(matches!(told(&phone.hears_text(&text))[..], [Event::Message(message)] if message.id == "answer"));
}
