//! How often a link can be tried, and by whom.

use super::*;

fn first(device: &mut Enrolment, now: Now, random: &mut impl Random, id: &str) -> Option<(String, KeyExchange)> {
    device.poll_first(now, random, id).unwrap().map(|(id, payload)| (id, exchange(&payload)))
}

#[test]
fn both_ends_show_the_same_code_and_another_try_has_another_one() {
    let (_, joined, code) = enrol(&mut counting(1));
    assert_eq!(code, joined.code);
    assert_eq!(code.to_string().len(), 6);
    assert_ne!(code, enrol(&mut counting(2)).2);
}

#[test]
fn a_device_repeats_the_same_message_after_a_break_and_begins_anew_after_silence_three_times() {
    let mut random = counting(1);
    let (mut device, _) = enrolling(7);
    let (id, one) = first(&mut device, at(0.), &mut random, "a").unwrap();
    assert_eq!(id, "a");
    assert!(first(&mut device, at(9.9), &mut random, "b").is_none());
    device.handle_connected();
    assert_eq!(first(&mut device, at(9.9), &mut random, "b"), Some((id, one.clone())));
    let (id, two) = first(&mut device, at(19.9), &mut random, "c").unwrap();
    assert!(id == "c" && one != two && one.noise[..32] != two.noise[..32]);
    first(&mut device, at(29.9), &mut random, "d").unwrap();
    assert!(first(&mut device, at(39.8), &mut random, "e").is_none());
    for _ in 0..2 {
        assert_eq!(device.poll_first(at(39.9), &mut random, "e").unwrap_err(), EnrolError::Spent);
    }
}

#[test]
fn an_answer_to_an_older_message_is_none_and_a_forged_one_leaves_room_for_the_right_one() {
    let mut random = counting(1);
    let (mut device, mut agent) = enrolling(7);
    let (id, one) = first(&mut device, at(0.), &mut random, "a").unwrap();
    let old = exchange(&agent.handle_first(at(0.), &mut random, id_of(1), Some(&id), &one).unwrap());
    let (id, two) = first(&mut device, at(10.), &mut random, "b").unwrap();
    assert!(device.handle_second(at(10.), &old).unwrap().is_none());
    let forged = KeyExchange { re: Some(id.clone()), ..old };
    assert_eq!(device.handle_second(at(10.), &forged).unwrap_err(), EnrolError::WrongSecret);
    let right = exchange(&agent.handle_first(at(10.), &mut random, id_of(1), Some(&id), &two).unwrap());
    assert!(device.handle_second(at(10.), &right).unwrap().is_some());
    // It has shown what it committed to: no other answer is taken, and nothing is begun anew.
    assert_eq!(device.handle_second(at(10.), &right).unwrap_err(), EnrolError::Answered);
    device.handle_connected();
    assert!(first(&mut device, at(99.), &mut random, "c").is_none());
}

#[test]
fn an_agent_that_is_not_the_links_is_refused_even_with_its_secret() {
    let mut random = counting(1);
    let (mut device, mut right) = enrolling(7);
    let mut thief = Enrolments::new(TOKEN, Arc::new(StaticKey::from_private([0xb; 32])));
    thief.open(k(7), None);
    let (id, one) = first(&mut device, at(0.), &mut random, "a").unwrap();
    let answer = exchange(&thief.handle_first(at(0.), &mut random, id_of(1), Some(&id), &one).unwrap());
    assert_eq!(device.handle_second(at(0.), &answer).unwrap_err(), EnrolError::OtherAgent);
    let answer = exchange(&right.handle_first(at(0.), &mut random, id_of(1), Some(&id), &one).unwrap());
    assert_eq!(device.handle_second(at(0.), &answer).unwrap_err(), EnrolError::Answered);
    // Another try may meet the right one.
    device.handle_connected();
    assert!(first(&mut device, at(9.), &mut random, "b").is_none());
    let (id, two) = first(&mut device, at(10.), &mut random, "b").unwrap();
    let answer = exchange(&right.handle_first(at(10.), &mut random, id_of(1), Some(&id), &two).unwrap());
    assert!(device.handle_second(at(10.), &answer).unwrap().is_some());
}

#[test]
fn a_link_is_dead_with_its_ninth_first_message() {
    let mut random = counting(1);
    let (_, mut agent) = enrolling(7);
    let tries: Vec<_> = (0..9).map(|_| first(&mut enrolling(7).0, at(0.), &mut random, "a").unwrap().1).collect();
    let mut answers = Vec::new();
    for one in &tries[..8] {
        answers.push(agent.handle_first(at(0.), &mut random, id_of(1), Some("a"), one).unwrap());
    }
    // Repeated, each has the answer that it had, and does not count.
    for (one, answer) in tries.iter().zip(&answers) {
        let again = agent.handle_first(at(0.), &mut random, id_of(1), Some("a"), one).unwrap();
        assert_eq!(again.get(), answer.get());
    }
    // A restart forgets the handshakes, and not the count.
    let mut restarted = Enrolments::load(TOKEN, agent_key(), &agent.store()).unwrap();
    for agent in [&mut agent, &mut restarted] {
        assert_eq!(agent.invites(at(0.)), [Invite::of(&k(7))]);
        let ninth = agent.handle_first(at(0.), &mut random, id_of(1), None, &tries[8]);
        assert_eq!(ninth.unwrap_err(), EnrolError::Spent);
        assert!(agent.invites(at(0.)).is_empty());
        let first = agent.handle_first(at(0.), &mut random, id_of(1), None, &tries[0]);
        assert_eq!(first.unwrap_err(), EnrolError::WrongSecret);
    }
    assert!(!agent.store().contains("answered"));
}

#[test]
fn a_link_is_dead_when_a_device_has_come_and_at_its_time() {
    let mut random = counting(1);
    let (mut device, mut agent) = enrolling(7);
    agent.open(k(8), Some(at(600.).unix));
    assert_eq!(agent.invites(at(599.9)).len(), 2);
    let (id, one) = first(&mut device, at(0.), &mut random, "a").unwrap();
    let two = exchange(&agent.handle_first(at(0.), &mut random, id_of(1), Some(&id), &one).unwrap());
    let end = device.handle_second(at(0.), &two).unwrap().unwrap().end;
    let third = exchange(&end.poll_enrolment().unwrap());
    // Of another device it is not.
    assert_eq!(agent.handle_third(at(0.), id_of(2), &third).unwrap_err(), EnrolError::WrongSecret);
    let joined = agent.handle_third(at(0.), id_of(1), &third).unwrap();
    assert_eq!((joined.invite, joined.name.as_str()), (Invite::of(&k(7)), "Tablet"));
    assert!(joined.end.repeats_enrolment(&third) && !joined.end.repeats_enrolment(&one));
    assert_eq!(agent.invites(at(599.9)), [Invite::of(&k(8))]);
    for late in [&one, &third] {
        let again = match late.enrol {
            Some(1) => agent.handle_first(at(0.), &mut random, id_of(1), None, late).map(drop),
            _ => agent.handle_third(at(0.), id_of(1), late).map(drop),
        };
        assert_eq!(again.unwrap_err(), EnrolError::WrongSecret);
    }
    assert!(agent.invites(at(600.)).is_empty());
    let mut other = enrolling(8).0;
    let (id, one) = first(&mut other, at(599.), &mut random, "a").unwrap();
    agent.open(k(8), Some(at(600.).unix));
    let two = exchange(&agent.handle_first(at(599.), &mut random, id_of(1), Some(&id), &one).unwrap());
    let end = other.handle_second(at(599.), &two).unwrap().unwrap().end;
    let third = exchange(&end.poll_enrolment().unwrap());
    assert_eq!(agent.handle_third(at(600.), id_of(1), &third).unwrap_err(), EnrolError::WrongSecret);
}

#[test]
fn with_several_links_each_device_comes_by_its_own_and_the_oldest_gives_way() {
    let mut random = counting(1);
    let mut agent = Enrolments::new(TOKEN, agent_key());
    for secret in 0..6 {
        agent.open(k(secret), None);
    }
    assert_eq!(agent.invites(at(0.)).len(), OPEN_MAX);
    let mut devices: Vec<_> = (0..6).map(|secret| enrolling(secret).0).collect();
    let mut seconds = Vec::new();
    for device in &mut devices {
        let (id, one) = first(device, at(0.), &mut random, "a").unwrap();
        seconds.push(agent.handle_first(at(0.), &mut random, id_of(1), Some(&id), &one));
    }
    assert_eq!(seconds.remove(0).unwrap_err(), EnrolError::WrongSecret);
    for (secret, (device, second)) in devices[1..].iter_mut().zip(seconds).enumerate().rev() {
        let end = device.handle_second(at(0.), &exchange(&second.unwrap())).unwrap().unwrap().end;
        let joined = agent.handle_third(at(0.), id_of(1), &exchange(&end.poll_enrolment().unwrap())).unwrap();
        assert_eq!(joined.invite, Invite::of(&k(secret as u8 + 1)));
    }
    agent.open(k(1), None);
    agent.open(k(2), None);
    agent.forget(&Invite::of(&k(1)));
    assert_eq!(agent.invites(at(0.)), [Invite::of(&k(2))]);
    agent.handle_restored();
    assert!(agent.invites(at(0.)).is_empty());
}

#[test]
fn before_it_is_admitted_a_device_says_nothing_and_nothing_of_it_is_read() {
    let mut random = counting(1);
    let (mut device, joined, _) = enrol(&mut random);
    let mut agent = joined.end;
    device.handle_agent(true);
    device.handle_drained();
    device.handle_complaint();
    assert_eq!(device.seal(&mut random, "chat.send", None, None).unwrap_err(), SealError::NotAdmitted);
    assert!(device.poll_opening(at(1.), &mut random, "o").is_none());
    assert_eq!(agent.seal(&mut random, "chat.done", None, None).unwrap_err(), SealError::NotAdmitted);
    // A device that does not keep to it gains nothing.
    device.third = None;
    let opening = exchange(&device.poll_opening(at(1.), &mut random, "o").unwrap());
    assert!(agent.handle_opening(at(1.), &mut random, None, &opening).is_err());
    let eager = device.seal(&mut random, "chat.send", None, None).unwrap();
    let refused = agent.open(at(1.), "chat.send", None, Some(&eager.payload)).unwrap_err();
    assert_eq!(refused, OpenError::NotAdmitted);
    assert!(!agent.complains(at(1.), refused));
    agent.admit();
    assert_eq!(agent.open(at(1.), "chat.send", None, Some(&eager.payload)).unwrap().skipped, 0);
}

#[test]
fn a_name_is_what_a_terminal_shows_as_it_is() {
    let hostile = "A\u{1b}[2J\u{202e}b\u{2028}c\u{7f}\u{9b}d\u{200f}\u{2066}\n漢\u{1f40b}";
    assert_eq!(cleaned(hostile), "A[2Jbcd漢\u{1f40b}");
    assert_eq!(cleaned(&"ä".repeat(10_000)), "ä".repeat(64));
    let link = (k(7), AgentPrint::of(agent_key().public()));
    let key = StaticKey::from_private([0xd; 32]);
    let mut random = counting(1);
    let mut device = Enrolment::new(TOKEN, id_of(1), key, link, hostile, &"\u{1f40b}".repeat(65));
    let mut agent = enrolling(7).1;
    let (id, one) = first(&mut device, at(0.), &mut random, "a").unwrap();
    let two = exchange(&agent.handle_first(at(0.), &mut random, id_of(1), Some(&id), &one).unwrap());
    let end = device.handle_second(at(0.), &two).unwrap().unwrap().end;
    let joined = agent.handle_third(at(0.), id_of(1), &exchange(&end.poll_enrolment().unwrap())).unwrap();
    assert_eq!((joined.name, joined.platform), (cleaned(hostile), "\u{1f40b}".repeat(64)));
}

#[test]
fn only_key_exchanges_of_version_3_are_read_as_such() {
    let good = r#"{"e2e":3,"enrol":2,"noise":"AAAA","re":"x","new":1}"#;
    let read = KeyExchange { enrol: Some(2), noise: vec![0; 3], re: Some("x".into()) };
    assert_eq!(KeyExchange::parse(&raw(good)), Some(read));
    assert!(KeyExchange::parse(&raw(r#"{"e2e":3,"noise":"AAAA"}"#)).is_some());
    for bad in [
        r#"{"e2e":2,"noise":"AAAA"}"#,
        r#"{"noise":"AAAA"}"#,
        r#"{"e2e":"3","noise":"AAAA"}"#,
        r#"{"e2e":3}"#,
        r#"{"e2e":3,"noise":"A"}"#,
        r#"{"e2e":3,"noise":7}"#,
        r#"{"e2e":3,"noise":"AAAA","enrol":0}"#,
        r#"{"e2e":3,"noise":"AAAA","enrol":4}"#,
        r#"{"e2e":3,"noise":"AAAA","re":7}"#,
        r#"[3,1,"AAAA",null]"#,
        "null",
    ] {
        assert_eq!(KeyExchange::parse(&raw(bad)), None, "{bad}");
    }
}

#[test]
fn nothing_that_a_device_may_still_choose_after_the_second_message_moves_the_code() {
    let code = |name: &str| {
        let mut random = counting(5);
        let link = (k(7), AgentPrint::of(agent_key().public()));
        let key = StaticKey::from_private([0xd; 32]);
        let (mut device, mut agent) = (Enrolment::new(TOKEN, id_of(1), key, link, name, "web"), enrolling(7).1);
        let (id, one) = first(&mut device, at(0.), &mut random, "a").unwrap();
        let two = exchange(&agent.handle_first(at(0.), &mut random, id_of(1), Some(&id), &one).unwrap());
        let Enrolled { end, code } = device.handle_second(at(0.), &two).unwrap().unwrap();
        let third = exchange(&end.poll_enrolment().unwrap());
        assert_eq!(agent.handle_third(at(0.), id_of(1), &third).unwrap().code, code);
        (code, third)
    };
    let (one, other) = (code("Tablet"), code("Another name"));
    assert_ne!(one.1, other.1);
    assert_eq!(one.0, other.0);
}
