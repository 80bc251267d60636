//! Two ends that talk to each other, and what sits between them.

mod known;
mod random;
mod resume;

use super::*;
use serde_json::value::RawValue;

const TOKEN: &str = "oc_pair_0123456789abcdef0123456789abcdef";

/// Randomness that repeats in each run, and never within one.
fn counting(seed: u8) -> impl Random + Send + 'static {
    let mut next = 0u64;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            next += 1;
            let mixed = (next ^ (u64::from(seed) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
        }
    }
}

fn secret(byte: u8) -> Option<PairingSecret> {
    Some(PairingSecret::from_bytes([byte; 32]))
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// Carries key exchanges until nobody has anything to say.
fn connect(phone: &mut End, agent: &mut End) {
    let announcement = agent.handle_online().unwrap();
    assert!(phone.handle_online().is_none());
    let step = phone.handle_key_exchange(Some("a1"), Some(&announcement.payload), "p1").unwrap();
    let reply = step.reply.unwrap();
    let step = agent.handle_key_exchange(Some("p1"), Some(&reply.payload), "a2").unwrap();
    assert!(step.agreed);
    if let Some(reply) = step.reply {
        assert!(phone.handle_key_exchange(Some("a2"), Some(&reply.payload), "p2").unwrap().agreed);
    }
}

fn pair(key: Option<PairingSecret>) -> (End, End) {
    let mut ends = (End::phone(TOKEN, key.clone(), counting(1)), End::agent(TOKEN, key, counting(2)));
    connect(&mut ends.0, &mut ends.1);
    ends
}

#[test]
fn both_directions_of_both_versions_read_what_was_written() {
    for (key, protection) in [(None, Protection::Unverified), (secret(7), Protection::Verified)] {
        let (mut phone, mut agent) = pair(key);
        assert_eq!((phone.protection(), agent.protection()), (protection, protection));
        for text in ["{}", r#"{"text":"hällo"}"#, r#"{"text":"again"}"#] {
            let sealed = phone.seal("chat.send", Some(&raw(text))).unwrap();
            assert!(sealed.get().starts_with(r#"{"enc":true,"ciphertext":""#) && !sealed.get().contains("again"));
            let opened = agent.open("chat.send", Some(&sealed)).unwrap();
            assert_eq!((opened.payload.get(), opened.protection, opened.missed), (text, protection, 0));
            let sealed = agent.seal("chat.stream", Some(&raw(text))).unwrap();
            assert_eq!(phone.open("chat.stream", Some(&sealed)).unwrap().payload.get(), text);
        }
        assert_eq!(agent.open("ping", Some(&phone.seal("ping", None).unwrap())).unwrap().payload.get(), "{}");
    }
}

/// The payload of the one reply that a step must have.
fn reply(step: Result<Step, ExchangeError>) -> Box<RawValue> {
    step.unwrap().reply.unwrap().payload
}

#[test]
fn only_the_same_secret_and_token_open_a_session() {
    let others = [(secret(8), TOKEN), (secret(7), "oc_pair_ffffffffffffffffffffffffffffffff")];
    for (key, token) in others {
        let (mut phone, mut agent) = pair(secret(7));
        let mut stranger = End::phone(token, key, counting(3));
        let announcement = agent.handle_online().unwrap().payload;
        let opening = reply(stranger.handle_key_exchange(None, Some(&announcement), "x"));
        let refused = agent.handle_key_exchange(Some("x"), Some(&opening), "").unwrap_err();
        assert_eq!(refused, ExchangeError::WrongSecret);
        let complaint = agent.complaint(refused).unwrap();
        let text = r#"{"code":"DECRYPTION_FAILED","message":"the pairing secret does not match: pair again"}"#;
        assert_eq!((complaint.kind, complaint.payload.get()), ("chat.error", text));
        // What was agreed before is untouched, and the stranger says nothing.
        assert_eq!(stranger.seal("chat.send", None).unwrap_err(), SealError::Waiting);
        let sealed = phone.seal("chat.send", None).unwrap();
        agent.open("chat.send", Some(&sealed)).unwrap();
    }
}

#[test]
fn with_a_secret_neither_end_steps_down() {
    let (mut phone, mut agent) = (End::phone(TOKEN, secret(7), counting(1)), End::agent(TOKEN, secret(7), counting(2)));
    let (mut old_phone, mut old_agent) = (End::phone(TOKEN, None, counting(3)), End::agent(TOKEN, None, counting(4)));
    let offer = old_agent.handle_online().unwrap().payload;
    assert_eq!(phone.handle_key_exchange(None, Some(&offer), "x").unwrap_err(), ExchangeError::Downgrade);
    assert_eq!(phone.seal("chat.send", None).unwrap_err(), SealError::Waiting);
    assert!(!phone.allow_clear());
    assert!(phone.complaint("anything").is_none());
    let of_phone = reply(old_phone.handle_key_exchange(None, Some(&offer), "x"));
    assert_eq!(agent.handle_key_exchange(None, Some(&of_phone), "").unwrap_err(), ExchangeError::NotVerified);
    let announcement = agent.handle_online().unwrap().payload;
    let opening = reply(phone.handle_key_exchange(None, Some(&announcement), "x"));
    assert_eq!(old_agent.handle_key_exchange(None, Some(&opening), "").unwrap_err(), ExchangeError::Unexpected);
    assert_eq!(
        old_phone.handle_key_exchange(None, Some(&announcement), "x").unwrap_err(),
        ExchangeError::SecretMissing
    );
    // In clear, before the handshake and after it.
    for _ in 0..2 {
        for end in [&mut phone, &mut agent] {
            assert_eq!(end.open("chat.send", Some(&raw(r#"{"text":"hi"}"#))).unwrap_err(), OpenError::InClear);
            assert_eq!(end.open("chat.send", None).unwrap_err(), OpenError::InClear);
            let relays = end.open("chat.error", Some(&raw(r#"{"code":"PEER_OFFLINE"}"#))).unwrap();
            assert_eq!(relays.protection, Protection::Clear);
        }
        connect(&mut phone, &mut agent);
    }
}

#[test]
fn a_message_that_was_tampered_with_is_refused_and_moves_nothing() {
    for key in [None, secret(7)] {
        let verified = key.is_some();
        let (mut phone, mut agent) = pair(key);
        let sealed = phone.seal("chat.send", Some(&raw(r#"{"text":"hello"}"#))).unwrap();
        let text = sealed.get();
        let at = text.find("ciphertext").unwrap() + 13;
        let altered = |position: usize| {
            let other = if &text[position..=position] == "A" { "B" } else { "A" };
            raw(&format!("{}{other}{}", &text[..position], &text[position + 1..]))
        };
        for position in [at, at + 3, at + 30] {
            assert_eq!(agent.open("chat.send", Some(&altered(position))).unwrap_err(), OpenError::Forged);
        }
        for cut in [4, 24, 44] {
            let ends = text.find("\",\"nonce").unwrap();
            let truncated = raw(&format!("{}{}", &text[..ends - cut], &text[ends..]));
            assert_eq!(agent.open("chat.send", Some(&truncated)).unwrap_err(), OpenError::Forged, "{truncated}");
        }
        // Back to its sender.
        let reflected = phone.open("chat.send", Some(&sealed));
        assert_eq!(reflected.is_err(), verified);
        if verified {
            assert_eq!(agent.open("chat.stream", Some(&sealed)).unwrap_err(), OpenError::Forged);
        }
        assert_eq!(agent.open("chat.send", Some(&sealed)).unwrap().payload.get(), r#"{"text":"hello"}"#);
    }
}

#[test]
fn replayed_and_reordered_messages_are_refused_and_gaps_are_counted() {
    let (mut phone, mut agent) = pair(secret(7));
    let sealed: Vec<_> = (0..6).map(|_| phone.seal("chat.send", None).unwrap()).collect();
    let mut missed = |index: usize| agent.open("chat.send", Some(&sealed[index])).map(|opened| opened.missed);
    assert_eq!(missed(0), Ok(0));
    assert_eq!(missed(0), Err(OpenError::Replayed { counter: 0, expected: 1 }));
    assert_eq!(missed(3), Ok(2));
    assert_eq!(missed(1), Err(OpenError::Replayed { counter: 1, expected: 4 }));
    assert_eq!(missed(5), Ok(1));
    assert_eq!(agent.missed(), 3);
}

#[test]
fn malformed_payloads_are_refused() {
    let (mut phone, mut agent) = pair(secret(7));
    let nonce = "AAAAAAAAAAAAAAAA";
    let malformed = [
        r#"{"enc":true}"#.to_owned(),
        format!(r#"{{"enc":true,"ciphertext":null,"nonce":"{nonce}"}}"#),
        format!(r#"{{"enc":true,"ciphertext":"!","nonce":"{nonce}"}}"#),
        r#"{"enc":true,"ciphertext":"AAAA","nonce":"AAAA"}"#.to_owned(),
        r#"{"enc":true,"ciphertext":"AAAA","nonce":[0]}"#.to_owned(),
    ];
    for text in malformed {
        assert_eq!(agent.open("chat.send", Some(&raw(&text))).unwrap_err(), OpenError::Malformed, "{text}");
    }
    for nonce in ["AQAAAAAAAAAAAAAA", "AAAAAAAAAAEAAAAA", "AAAAAP//////////"] {
        let text = format!(r#"{{"enc":true,"ciphertext":"AAAA","nonce":"{nonce}"}}"#);
        assert_eq!(agent.open("chat.send", Some(&raw(&text))).unwrap_err(), OpenError::Nonce, "{text}");
    }
    for text in ["null", "[]", "{}", r#"{"enc":"true"}"#, r#"{"enc":false}"#, "7"] {
        assert_eq!(agent.open("chat.send", Some(&raw(text))).unwrap_err(), OpenError::InClear, "{text}");
    }
    let long = "A".repeat(200);
    for text in ["null", "[]", r#"{"pubkey":7}"#, r#"{"pubkey":"AAAA","e2e":2,"noise":"!"}"#] {
        assert_eq!(
            agent.handle_key_exchange(None, Some(&raw(text)), "").unwrap_err(),
            ExchangeError::Malformed,
            "{text}"
        );
    }
    for noise in ["", "AAAA", &long] {
        let text = format!(r#"{{"e2e":2,"noise":"{noise}"}}"#);
        assert_eq!(agent.handle_key_exchange(None, Some(&raw(&text)), "").unwrap_err(), ExchangeError::Malformed);
    }
    assert_eq!(phone.handle_key_exchange(None, None, "").unwrap_err(), ExchangeError::Malformed);
    let escaped = phone.seal("chat.send", None).unwrap().get().replace('/', "\\/").replace("enc\"", "\\u0065nc\"");
    assert_eq!(agent.open("chat.send", Some(&raw(&escaped))).unwrap().payload.get(), "{}");
}

#[test]
fn an_old_answer_is_passed_over_and_a_false_one_does_not_spoil_the_opening() {
    let (mut phone, mut agent) = (End::phone(TOKEN, secret(7), counting(1)), End::agent(TOKEN, secret(7), counting(2)));
    let announcement = agent.handle_online().unwrap().payload;
    let first = reply(phone.handle_key_exchange(None, Some(&announcement), "p1"));
    let second = reply(phone.handle_key_exchange(None, Some(&announcement), "p2"));
    let to_first = reply(agent.handle_key_exchange(Some("p1"), Some(&first), ""));
    let to_second = reply(agent.handle_key_exchange(Some("p2"), Some(&second), ""));
    assert!(!phone.handle_key_exchange(None, Some(&to_first), "").unwrap().agreed);
    let forged = raw(&to_first.get().replace("p1", "p2"));
    assert_eq!(phone.handle_key_exchange(None, Some(&forged), "").unwrap_err(), ExchangeError::WrongSecret);
    assert!(phone.handle_key_exchange(None, Some(&to_second), "").unwrap().agreed);
    let sealed = phone.seal("chat.send", None).unwrap();
    agent.open("chat.send", Some(&sealed)).unwrap();
    assert!(!phone.handle_key_exchange(None, Some(&to_second), "").unwrap().agreed);
}

#[test]
fn old_keys_are_read_until_the_answer_and_new_ones_are_waited_for() {
    let (mut phone, mut agent) = pair(secret(7));
    let announcement = agent.handle_online().unwrap().payload;
    phone.handle_online();
    assert_eq!(phone.seal("chat.send", None).unwrap_err(), SealError::Waiting);
    let opening = reply(phone.handle_key_exchange(None, Some(&announcement), "p1"));
    let still = agent.seal("chat.stream", None).unwrap();
    phone.open("chat.stream", Some(&still)).unwrap();
    assert_eq!(phone.protection(), Protection::Waiting);
    // The opening is refused by the relay: it is said again.
    drop(opening);
    let opening = phone.retry("p2").unwrap().payload;
    let answer = reply(agent.handle_key_exchange(Some("p2"), Some(&opening), ""));
    let newer = agent.seal("chat.stream", None).unwrap();
    assert_eq!(phone.open("chat.stream", Some(&newer)).unwrap_err(), OpenError::Forged);
    phone.handle_key_exchange(None, Some(&answer), "").unwrap();
    phone.open("chat.stream", Some(&newer)).unwrap();
}

#[test]
fn a_repeated_opening_is_passed_over() {
    let (mut phone, mut agent) = (End::phone(TOKEN, secret(7), counting(1)), End::agent(TOKEN, secret(7), counting(2)));
    let announcement = agent.handle_online().unwrap().payload;
    let openings: Vec<_> =
        (0..=end::OPENINGS_MAX).map(|_| reply(phone.handle_key_exchange(None, Some(&announcement), "p"))).collect();
    let mut answer = None;
    for opening in &openings {
        answer = agent.handle_key_exchange(Some("p"), Some(opening), "").unwrap().reply;
    }
    assert!(phone.handle_key_exchange(None, Some(&answer.unwrap().payload), "").unwrap().agreed);
    // All but the first are remembered, and a tag that does not fit makes no other of one.
    let longer = raw(&openings[1].get().replace("\"}", "AAAA\"}"));
    for opening in openings[1..].iter().chain([&longer]) {
        let step = agent.handle_key_exchange(Some("q"), Some(opening), "").unwrap();
        assert!(step.reply.is_none() && !step.agreed);
    }
    let sealed = phone.seal("chat.send", None).unwrap();
    agent.open("chat.send", Some(&sealed)).unwrap();
    assert!(agent.handle_key_exchange(Some("q"), Some(&openings[0]), "").unwrap().agreed, "it was forgotten");
}

#[test]
fn a_phone_that_doubts_its_keys_opens_anew() {
    let (mut phone, mut agent) = (End::phone(TOKEN, secret(7), counting(1)), End::agent(TOKEN, secret(7), counting(2)));
    assert!(!phone.doubt(), "it has none");
    let announcement = agent.handle_online().unwrap().payload;
    let opening = reply(phone.handle_key_exchange(None, Some(&announcement), "p1"));
    let answer = reply(agent.handle_key_exchange(Some("p1"), Some(&opening), ""));
    phone.handle_key_exchange(None, Some(&answer), "").unwrap();
    // The agent runs anew, without memory, and somebody repeats the opening to it.
    let mut agent = End::agent(TOKEN, secret(7), counting(3));
    assert!(agent.handle_key_exchange(Some("p1"), Some(&opening), "").unwrap().agreed);
    let sealed = phone.seal("chat.send", None).unwrap();
    assert!(agent.open("chat.send", Some(&sealed)).unwrap_err().may_be_of_other_keys());
    let sealed = agent.seal("chat.stream", None).unwrap();
    assert!(phone.open("chat.stream", Some(&sealed)).unwrap_err().may_be_of_other_keys());
    assert!(!agent.doubt(), "that is the phone's part");
    assert!(phone.doubt());
    assert_eq!(phone.seal("chat.send", None).unwrap_err(), SealError::Waiting);
    assert!(!phone.doubt(), "once is enough");
    let opening = phone.retry("p2").unwrap().payload;
    let answer = reply(agent.handle_key_exchange(Some("p2"), Some(&opening), ""));
    assert!(phone.handle_key_exchange(None, Some(&answer), "").unwrap().agreed);
    let sealed = phone.seal("chat.send", None).unwrap();
    agent.open("chat.send", Some(&sealed)).unwrap();
    assert!(!pair(None).0.doubt(), "version 1 has no remedy");
}

#[test]
fn a_key_ends_after_its_bound() {
    let (mut phone, mut agent) = pair(secret(7));
    phone.skip_to(MESSAGES_MAX - 1);
    agent.skip_to(MESSAGES_MAX - 1);
    let last = phone.seal("chat.send", None).unwrap();
    agent.open("chat.send", Some(&last)).unwrap();
    assert_eq!(phone.seal("chat.send", None).unwrap_err(), SealError::Exhausted);
    let opening = phone.retry("p9").unwrap().payload;
    let answer = reply(agent.handle_key_exchange(Some("p9"), Some(&opening), ""));
    phone.handle_key_exchange(None, Some(&answer), "").unwrap();
    phone.seal("chat.send", None).unwrap();
}

#[test]
fn lengths_tell_no_words_apart_and_every_receiver_reads_what_is_padded() {
    for key in [None, secret(7)] {
        let (phone, mut agent) = pair(key);
        let (mut phone, mut lengths) = (phone.with_padding(192), std::collections::BTreeSet::new());
        for text in ["{}", r#"{"delta":"yes"}"#, r#"{"delta":"nonetheless"}"#, &format!("\"{}\"", "\u{fc}".repeat(95))]
        {
            let sealed = phone.seal("chat.stream", Some(&raw(text))).unwrap();
            lengths.insert(sealed.get().len());
            assert_eq!(agent.open("chat.stream", Some(&sealed)).unwrap().payload.get(), text);
        }
        assert_eq!(lengths.len(), 1, "{lengths:?}");
        // Nothing becomes too long by it.
        let fits = raw(&format!("\"{}\"", "a".repeat(PAYLOAD_BYTES_MAX - 2)));
        let sealed = phone.seal("file.put", Some(&fits)).unwrap();
        assert_eq!(agent.open("file.put", Some(&sealed)).unwrap().payload.get(), fits.get());
        let long = raw(&format!("\"{}\"", "a".repeat(PAYLOAD_BYTES_MAX - 1)));
        let refused = SealError::TooLong { bytes: PAYLOAD_BYTES_MAX + 1 };
        assert_eq!(phone.seal("file.put", Some(&long)).unwrap_err(), refused);
    }
}

#[test]
fn what_is_too_long_is_refused_before_a_nonce_is_used() {
    for key in [None, secret(7)] {
        let (mut phone, mut agent) = pair(key);
        let fits = raw(&format!("\"{}\"", "a".repeat(PAYLOAD_BYTES_MAX - 2)));
        let long = raw(&format!("\"{}\"", "a".repeat(PAYLOAD_BYTES_MAX - 1)));
        let refused = SealError::TooLong { bytes: PAYLOAD_BYTES_MAX + 1 };
        assert_eq!(phone.seal("file.put", Some(&long)).unwrap_err(), refused);
        let sealed = phone.seal("file.put", Some(&fits)).unwrap();
        let left = (5 << 20) - sealed.get().len(); // for the rest of the envelope
        assert!((900..1024).contains(&left), "{left}");
        assert_eq!(agent.open("file.put", Some(&sealed)).unwrap().missed, 0);
    }
}

#[test]
fn without_a_secret_an_agent_answers_as_the_phone_spoke() {
    let mut agent = End::agent(TOKEN, None, counting(1));
    agent.handle_online().unwrap();
    assert_eq!(agent.seal("chat.stream", None).unwrap_err(), SealError::Waiting);
    agent.open("chat.error", Some(&raw(r#"{"code":"PEER_OFFLINE"}"#))).unwrap();
    assert_eq!(agent.protection(), Protection::Waiting);
    let opened = agent.open("chat.send", Some(&raw(r#"{"text":"hi"}"#))).unwrap();
    assert_eq!((opened.payload.get(), opened.protection), (r#"{"text":"hi"}"#, Protection::Clear));
    assert_eq!(agent.protection(), Protection::Clear);
    assert_eq!(agent.seal("chat.stream", Some(&raw("[1]"))).unwrap().get(), "[1]");
    // A phone that encrypts comes instead: nothing meant for it leaves in clear.
    let announcement = agent.handle_online().unwrap().payload;
    assert_eq!(agent.seal("chat.stream", None).unwrap_err(), SealError::Waiting);
    let mut phone = End::phone(TOKEN, None, counting(2));
    let of_phone = reply(phone.handle_key_exchange(None, Some(&announcement), ""));
    assert_eq!(agent.open("chat.send", Some(&phone.seal("chat.send", None).unwrap())).unwrap_err(), OpenError::NoKey);
    assert!(agent.handle_key_exchange(None, Some(&of_phone), "").unwrap().agreed);
    assert_eq!(agent.fingerprint(), phone.fingerprint());
    // With a key it takes nothing in clear any more: that is not the phone's.
    for text in [r#"{"text":"hi"}"#, r#"{"enc":false,"ciphertext":"","nonce":""}"#, "null"] {
        assert_eq!(agent.open("chat.send", Some(&raw(text))).unwrap_err(), OpenError::NotEncrypted, "{text}");
    }
    assert_eq!(agent.open("chat.send", None).unwrap_err(), OpenError::NotEncrypted);
    let relays = agent.open("chat.error", Some(&raw(r#"{"code":"PEER_OFFLINE"}"#)));
    assert_eq!((relays.unwrap().protection, agent.protection()), (Protection::Clear, Protection::Unverified));
}

#[test]
fn without_a_secret_a_phone_speaks_in_clear_only_when_told_and_never_after_keys() {
    let mut phone = End::phone(TOKEN, None, counting(1));
    phone.handle_online();
    assert_eq!(phone.seal("chat.send", None).unwrap_err(), SealError::Waiting);
    assert!(phone.allow_clear());
    assert_eq!(phone.seal("chat.send", None).unwrap().get(), "{}");
    let mut agent = End::agent(TOKEN, None, counting(2));
    connect(&mut phone, &mut agent);
    phone.handle_online();
    assert!(!phone.allow_clear());
    assert_eq!(phone.protection(), Protection::Waiting);
}

#[test]
fn fingerprints_are_equal_at_both_ends_and_differ_where_somebody_is_in_the_middle() {
    let (mut phone, mut agent) = pair(None);
    assert_eq!(phone.fingerprint(), agent.fingerprint());
    let (mut to_phone, mut to_agent) = (End::agent(TOKEN, None, counting(3)), End::phone(TOKEN, None, counting(4)));
    connect(&mut phone, &mut to_phone);
    connect(&mut to_agent, &mut agent);
    assert_ne!(phone.fingerprint().unwrap().to_string(), agent.fingerprint().unwrap().to_string());
    assert!(pair(secret(7)).0.fingerprint().is_none());
}

#[test]
fn nothing_secret_prints() {
    let (phone, agent) = pair(secret(7));
    assert_eq!(format!("{phone:?}"), "End(phone, with secret: true, Verified)");
    assert_eq!(format!("{agent:?}"), "End(agent, with secret: true, Verified)");
    let pair = v1::KeyPair::from_private([7; 32]);
    assert_eq!(format!("{pair:?} {:?}", pair.agree(&[9; 32]).unwrap()), "KeyPair(***) Key(***)");
}
