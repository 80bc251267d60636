//! When keys change, when they go, and what neither end does.

use super::super::chain::{AHEAD, NUMBER_MAX};
use super::*;

/// An opening of the device's, made now.
fn opening(now: Now, random: &mut impl Random, device: &mut DeviceEnd) -> KeyExchange {
    device.handle_complaint();
    exchange(&device.poll_opening(now, random, "o").expect("it is time"))
}

#[test]
fn the_stored_state_is_ahead_of_what_has_left() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let mut written = device.store();
    assert_eq!(device.sessions.sending.stored().next(), 0);
    for number in 0..3 * AHEAD {
        let sent = device.seal(&mut random, "chat.send", None, None).unwrap();
        assert_eq!(sent.store, number % AHEAD == 0, "{number}");
        if sent.store {
            written = device.store();
        }
        agent.open(at(1.), "chat.send", None, Some(&sent.payload)).unwrap();
        let mut crashed = DeviceEnd::load(&written).unwrap();
        assert!(crashed.sessions.sending.next() > number);
        if number % 50 == 0 {
            let mut agent = AgentEnd::load(TOKEN, agent_key(), &agent.store()).unwrap();
            let gap = say(at(1.), &mut random, &mut crashed, &mut agent).unwrap().skipped;
            assert_eq!(gap, AHEAD - 1 - number % AHEAD);
        }
    }
}

#[test]
fn an_agent_goes_over_to_new_keys_when_a_message_has_opened_with_them() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let old = agent.sends_with();
    agree(at(10.), &mut random, &mut device, &mut agent);
    assert_eq!(agent.sends_with(), old);
    assert!(!answer(at(10.), &mut random, &mut device, &mut agent).unwrap().confirmed);
    assert!(say(at(10.), &mut random, &mut device, &mut agent).unwrap().confirmed);
    assert_ne!(agent.sends_with(), old);
    assert!(!say(at(10.), &mut random, &mut device, &mut agent).unwrap().confirmed);
    assert!(!answer(at(10.), &mut random, &mut device, &mut agent).unwrap().confirmed);
    assert_eq!((device.sessions.receiving.len(), agent.sessions.receiving.len()), (1, 1));
}

#[test]
fn repeated_openings_change_no_keys_and_few_are_answered() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let mut openings = Vec::new();
    for round in 0..3 {
        openings.push(opening(at(10. * f64::from(round)), &mut random, &mut device));
    }
    let keys = agent.sends_with();
    let mut answered = 0;
    for round in 0..1000 {
        let now = at(100. + f64::from(round) * 0.059);
        let answer = agent.handle_opening(now, &mut random, None, &openings[round as usize % 3]).unwrap();
        answered += usize::from(answer.is_some());
        assert!(say(now, &mut random, &mut device, &mut agent).is_ok());
    }
    assert_eq!((answered, agent.sends_with(), agent.sessions.receiving.len()), (OPENINGS_MAX, keys, 1));
    // A true one gets through within a minute.
    agree(at(160.), &mut random, &mut device, &mut agent);
    assert!(say(at(160.), &mut random, &mut device, &mut agent).unwrap().confirmed);
}

#[test]
fn unconfirmed_sessions_are_the_newest_two_for_a_minute() {
    for (others, wait, opens) in [(0, 59.9, true), (0, 60., false), (1, 1., true), (2, 1., false)] {
        let mut random = counting(1);
        let (mut device, mut agent) = pair(&mut random);
        let old = opening(at(1.), &mut random, &mut device);
        agree(at(10.), &mut random, &mut device, &mut agent);
        for _ in 0..others {
            agent.handle_opening(at(10.), &mut random, None, &old).unwrap().unwrap();
        }
        let opened = say(at(10. + wait), &mut random, &mut device, &mut agent);
        assert_eq!(opened.is_ok(), opens, "{others} {wait}");
        assert!(opened.is_ok() || opened.unwrap_err() == OpenError::UnknownSession);
    }
}

#[test]
fn with_a_session_those_that_were_answered_before_it_are_gone() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    agree(at(10.), &mut random, &mut device, &mut agent);
    let late = device.seal(&mut random, "chat.send", None, None).unwrap().payload;
    agree(at(15.), &mut random, &mut device, &mut agent);
    assert!(say(at(15.), &mut random, &mut device, &mut agent).unwrap().confirmed);
    let keys = agent.sends_with();
    assert_eq!(agent.open(at(15.), "chat.send", None, Some(&late)).unwrap_err(), OpenError::UnknownSession);
    assert_eq!(agent.sends_with(), keys);
}

#[test]
fn a_device_opens_when_there_is_reason_and_both_are_there() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let poll = |device: &mut DeviceEnd, now: f64, random: &mut _| device.poll_opening(at(now), random, "o").is_some();
    assert!(!poll(&mut device, 3600., &mut random));
    assert!(poll(&mut device, 3601., &mut random));
    // Not again so soon, and with an answer not at all.
    assert!(!poll(&mut device, 3605.9, &mut random) && poll(&mut device, 3606., &mut random));
    agree(at(3611.), &mut random, &mut device, &mut agent);
    assert!(!poll(&mut device, 3700., &mut random));
    // A sign, but the agent is away, or mail waits: remembered.
    device.handle_connected();
    device.handle_complaint();
    assert!(!poll(&mut device, 3700., &mut random));
    device.handle_agent(true);
    assert!(!poll(&mut device, 3700., &mut random));
    device.handle_drained();
    device.handle_agent(false);
    assert!(!poll(&mut device, 3700., &mut random));
    device.handle_agent(true);
    assert!(poll(&mut device, 3700., &mut random));
    // The clock was set back behind the session's beginning: its age is not known.
    agree(at(3800.), &mut random, &mut device, &mut agent);
    let back = Now { monotonic: Duration::from_secs(3900), unix: Duration::from_secs(1) };
    assert!(device.poll_opening(back, &mut random, "o").is_some());
}

#[test]
fn a_device_opens_anew_after_so_many_messages_of_either_direction() {
    for from_device in [true, false] {
        let mut random = counting(1);
        let (mut device, mut agent) = pair(&mut random);
        let sender = if from_device { &mut device.sessions } else { &mut agent.sessions };
        for _ in 0..SESSION_MESSAGES - 2 {
            let _ = sender.seal(&mut random, "x", None, None).unwrap();
        }
        for due in [false, true] {
            let both = |random: &mut _, device: &mut _, agent: &mut _| {
                if from_device { say(at(9.), random, device, agent) } else { answer(at(9.), random, device, agent) }
            };
            both(&mut random, &mut device, &mut agent).unwrap();
            // The agent's first one was its welcome.
            let due = due || !from_device;
            assert_eq!(device.poll_opening(at(9.), &mut random, "o").is_some(), due, "{from_device}");
            if due {
                break;
            }
        }
    }
}

#[test]
fn each_sign_makes_a_device_open_anew_and_nothing_else_does() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let (_, mut stranger) = pair(&mut counting(9));
    let good = agent.seal(&mut random, "chat.done", None, None).unwrap().payload;
    let signs = [
        stranger.seal(&mut random, "chat.done", None, None).unwrap().payload,
        raw(&good.get().replace("\"i\":1", "\"i\":2")),
        raw(&good.get().replace("\"i\":1", "\"i\":5000")),
        raw(&good.get().replace("\"i\":1", "\"i\":0")),
    ];
    let none = [raw("{}"), raw(r#"{"enc":true}"#), raw(&good.get().replace("\"v\":3", "\"v\":2"))];
    for (number, (payload, sign)) in
        signs.iter().map(|sign| (sign, true)).chain(none.iter().map(|none| (none, false))).enumerate()
    {
        let now = at(10. * number as f64 + 10.);
        device.open(now, "chat.done", None, Some(payload)).unwrap_err();
        assert_eq!(device.poll_opening(now, &mut random, "o").is_some(), sign, "{payload}");
        agree(at(10. * number as f64 + 15.), &mut random, &mut device, &mut agent);
    }
}

#[test]
fn what_the_mailbox_repeats_is_no_sign_and_live_it_is_one() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    device.handle_connected();
    agent.handle_connected();
    let down = agent.seal(&mut random, "chat.done", None, None).unwrap().payload;
    let up = device.seal(&mut random, "chat.send", None, None).unwrap().payload;
    device.open(at(1.), "chat.done", None, Some(&down)).unwrap();
    agent.open(at(1.), "chat.send", None, Some(&up)).unwrap();
    for live in [false, true] {
        let repeated = device.open(at(1.), "chat.done", None, Some(&down)).unwrap_err();
        assert_eq!(repeated, OpenError::Repeated { number: 1, expected: 2 });
        let repeated = agent.open(at(1.), "chat.send", None, Some(&up)).unwrap_err();
        assert_eq!(agent.complains(at(1.), repeated), live);
        device.handle_agent(true);
        device.handle_drained();
        agent.handle_drained();
        assert_eq!(device.poll_opening(at(1.), &mut random, "o").is_some(), live);
    }
}

#[test]
fn an_agent_complains_now_and_then_and_about_whatever_it_refuses() {
    let mut random = counting(1);
    let (_, mut agent) = pair(&mut random);
    let refused = agent.open(at(1.), "chat.send", None, Some(&raw(r#"{"text":"hi"}"#))).unwrap_err();
    assert_eq!(refused, OpenError::InClear);
    let said: Vec<_> = [1., 5.9, 6., 10.9, 11.].map(|now| agent.complains(at(now), refused)).into();
    assert_eq!(said, [true, false, true, false, true]);
}

#[test]
fn the_last_four_sessions_open_until_newer_mail_is_drained() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    device.handle_connected();
    let mut mail = Vec::new();
    for round in 0..6 {
        mail.push(agent.seal(&mut random, "chat.done", None, None).unwrap().payload);
        device.handle_agent(true);
        device.sessions.handle_drained();
        agree(at(10. * f64::from(round) + 10.), &mut random, &mut device, &mut agent);
        say(at(10. * f64::from(round) + 10.), &mut random, &mut device, &mut agent).unwrap();
        device.handle_connected();
    }
    assert_eq!(device.sessions.receiving.len(), RECEIVING_MAX);
    let open =
        |device: &mut DeviceEnd, index: usize| device.open(at(99.), "chat.done", None, Some(&mail[index])).is_ok();
    // The newest session has had no mail: of six, three older ones are left.
    assert!(!open(&mut device, 1) && !open(&mut device, 2) && open(&mut device, 3) && open(&mut device, 4));
    device.handle_drained();
    assert!(!open(&mut device, 3), "a newer one has opened");
    assert!(open(&mut device, 5));
    assert_eq!(device.sessions.receiving.len(), 2, "live, the older one goes at once");
}

#[test]
fn a_session_is_gone_eight_days_after_a_newer_one_whatever_happened() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    device.handle_connected();
    let mail = agent.seal(&mut random, "chat.done", None, None).unwrap().payload;
    device.handle_agent(true);
    device.sessions.handle_drained();
    agree(at(10.), &mut random, &mut device, &mut agent);
    device.handle_connected();
    let day = 86_400.;
    let text = device.store();
    for (after, opens) in [(8. * day - 1., true), (8. * day, false), (800. * day, false)] {
        let mut device = DeviceEnd::load(&text).unwrap();
        assert_eq!(device.open(at(10. + after), "chat.done", None, Some(&mail)).is_ok(), opens, "{after}");
        assert_eq!(device.sessions.receiving.len(), if opens { 2 } else { 1 });
    }
}

#[test]
fn an_agent_of_a_backup_takes_nothing_that_was_recorded_and_is_well_within_seconds() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let backup = agent.store();
    let mut recorded = Vec::new();
    for round in 0..3 {
        let sent = device.seal(&mut random, "chat.send", None, None).unwrap().payload;
        agent.open(at(1.), "chat.send", None, Some(&sent)).unwrap();
        recorded.push(sent);
        agree(at(10. * f64::from(round) + 10.), &mut random, &mut device, &mut agent);
        say(at(30.), &mut random, &mut device, &mut agent).unwrap();
        answer(at(30.), &mut random, &mut device, &mut agent).unwrap();
    }
    let mut agent = AgentEnd::load(TOKEN, agent_key(), &backup).unwrap();
    agent.handle_restored();
    let mut agent = AgentEnd::load(TOKEN, agent_key(), &agent.store()).unwrap();
    agent.handle_drained();
    for sent in &recorded {
        let refused = agent.open(at(40.), "chat.send", None, Some(sent)).unwrap_err();
        assert_eq!(refused, OpenError::UnknownSession);
    }
    // What it sends is of a session that the device has left: a sign.
    answer(at(40.), &mut random, &mut device, &mut agent).unwrap_err();
    let opening = exchange(&device.poll_opening(at(40.), &mut random, "o").unwrap());
    let back = agent.handle_opening(at(40.), &mut random, Some("o"), &opening).unwrap().unwrap();
    assert!(device.handle_answer(at(40.), &exchange(&back)).unwrap());
    assert!(say(at(40.), &mut random, &mut device, &mut agent).unwrap().confirmed);
    assert!(answer(at(40.), &mut random, &mut device, &mut agent).is_ok());
}

#[test]
fn what_cannot_be_sealed_uses_no_key() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    let long = raw(&format!("\"{}\"", "x".repeat(crate::PAYLOAD_BYTES_MAX - 1)));
    let error = device.seal(&mut random, "chat.send", None, Some(&long)).unwrap_err();
    assert_eq!(error, SealError::TooLong { bytes: crate::PAYLOAD_BYTES_MAX + 1 });
    assert_eq!(device.seal(&mut random, "a\0b", None, None).unwrap_err(), SealError::Kind);
    let longest = raw(&format!("\"{}\"", "x".repeat(crate::PAYLOAD_BYTES_MAX - 2)));
    let sent = device.seal(&mut random, "chat.send", None, Some(&longest)).unwrap();
    assert!(sent.payload.get().len() + 512 <= coralmux_proto::limits::MESSAGE_BYTES_MAX);
    assert_eq!(agent.open(at(1.), "chat.send", None, Some(&sent.payload)).unwrap().skipped, 0);
    let text = serde_json::from_str::<serde_json::Value>(&device.store()).unwrap();
    let ended = format!("\"next\":{}", NUMBER_MAX + 1);
    let stored = device.store().replacen(&format!("\"next\":{}", text["sessions"]["sending"]["next"]), &ended, 1);
    let mut device = DeviceEnd::load(&stored).unwrap();
    assert_eq!(device.seal(&mut random, "chat.send", None, None).unwrap_err(), SealError::Exhausted);
}

#[test]
fn padding_hides_lengths_and_changes_nothing_else() {
    let mut random = counting(1);
    let (mut device, mut agent) = pair(&mut random);
    device.set_padding(192);
    let mut lengths = Vec::new();
    for text in [r#"{"a":1}"#, r#"{"a":12345}"#] {
        let sent = device.seal(&mut random, "chat.send", Some("i"), Some(&raw(text))).unwrap().payload;
        lengths.push(sent.get().len());
        let opened = agent.open(at(1.), "chat.send", Some("i"), Some(&sent)).unwrap();
        assert_eq!(opened.payload.get().trim_end(), text);
    }
    assert_eq!(lengths[0], lengths[1]);
}
