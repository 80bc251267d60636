//! Whatever is between two ends: random payloads, changed, cut, doubled, dropped and mixed up at random.

use super::{TOKEN, counting, pair, raw, secret};
use crate::*;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

/// JSON objects of a few levels.
fn json() -> impl Strategy<Value = Box<RawValue>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(3, 32, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(".*", inner, 0..8).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::hash_map("[a-z]{1,8}", tree, 0..6)
        .prop_map(|map| raw(&Value::Object(map.into_iter().collect()).to_string()))
}

/// What the relay may do with the next message in transit.
#[derive(Clone, Debug)]
enum Deed {
    Deliver,
    Drop,
    /// Once more, one that was in transit before.
    Replay(prop::sample::Index),
    /// The one after it first.
    Swap,
    /// Another type.
    Retype,
    /// One character of the ciphertext or the nonce.
    Alter(prop::sample::Index, char),
    /// So many characters of the ciphertext's end.
    Cut(u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Deliver),
        1 => Just(Deed::Drop),
        1 => any::<prop::sample::Index>().prop_map(Deed::Replay),
        1 => Just(Deed::Swap),
        1 => Just(Deed::Retype),
        1 => (any::<prop::sample::Index>(), prop::char::range('A', 'Z')).prop_map(|(at, c)| Deed::Alter(at, c)),
        1 => (1u8..60).prop_map(Deed::Cut),
    ]
}

/// A sealed payload with one of its fields changed.
fn changed(sealed: &RawValue, field: &str, change: impl FnOnce(String) -> String) -> Box<RawValue> {
    let mut value: Value = serde_json::from_str(sealed.get()).unwrap();
    value[field] = change(value[field].as_str().unwrap().to_owned()).into();
    raw(&value.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_opens_to_the_same_bytes(payload in json(), kind in "[a-z.]{1,20}", verified: bool) {
        let (mut phone, mut agent) = pair(verified.then(|| secret(7)).flatten());
        let sealed = phone.seal(&kind, Some(&payload)).unwrap();
        let opened = agent.open(&kind, Some(&sealed)).unwrap();
        prop_assert_eq!(opened.payload.get(), payload.get());
    }

    /// Each message that version 2 takes is one that was sent, of its type, at most once and in order; what is dropped
    /// is counted when a later one comes.
    #[test]
    fn whatever_the_relay_does_only_what_was_sent_is_taken_once_and_in_order(deeds in prop::collection::vec(deed(), 1..40)) {
        let (mut phone, mut agent) = pair(secret(7));
        let message = |number: usize| raw(&format!("{{\"n\":{number}}}"));
        let sealed: Vec<_> = (0..=deeds.len()).map(|n| phone.seal("chat.send", Some(&message(n))).unwrap()).collect();
        let mut lowest = 0; // what may still be taken
        let mut missed = 0;
        for (number, deed) in deeds.iter().enumerate() {
            let mut arrivals = vec![];
            match deed {
                Deed::Drop => {}
                Deed::Deliver => arrivals.push((number, "chat.send", sealed[number].clone(), true)),
                Deed::Replay(which) => {
                    let old = which.index(number + 1);
                    arrivals.push((old, "chat.send", sealed[old].clone(), true));
                }
                Deed::Swap => {
                    arrivals.push((number + 1, "chat.send", sealed[number + 1].clone(), true));
                    arrivals.push((number, "chat.send", sealed[number].clone(), true));
                }
                Deed::Retype => arrivals.push((number, "chat.stream", sealed[number].clone(), false)),
                Deed::Alter(at, character) => {
                    let other = changed(&sealed[number], "ciphertext", |text| {
                        let at = at.index(text.trim_end_matches('=').len() - 1);
                        format!("{}{character}{}", &text[..at], &text[at + 1..])
                    });
                    let same = other.get() == changed(&sealed[number], "ciphertext", |text| text).get();
                    arrivals.push((number, "chat.send", other, same));
                }
                Deed::Cut(count) => {
                    let cut = |text: String| text[..text.len().saturating_sub(usize::from(*count))].to_owned();
                    arrivals.push((number, "chat.send", changed(&sealed[number], "ciphertext", cut), false));
                }
            }
            for (counter, kind, payload, genuine) in arrivals {
                let opened = agent.open(kind, Some(&payload));
                if genuine && counter >= lowest {
                    let (opened, sent) = (opened.unwrap(), message(counter));
                    prop_assert_eq!(opened.payload.get(), sent.get());
                    prop_assert_eq!(opened.missed, (counter - lowest) as u64);
                    missed += opened.missed;
                    lowest = counter + 1;
                } else {
                    prop_assert!(opened.is_err());
                }
            }
        }
        prop_assert_eq!(agent.missed(), missed);
    }

    /// Any `key_exchange` at all: no panic, and no keys for one who has not the secret.
    #[test]
    fn no_key_exchange_of_a_stranger_agrees_anything(
        pubkey in ".{0,60}",
        e2e in prop_oneof![Just("2"), Just("1"), Just("null"), Just("\"2\"")],
        noise in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        re in "[a-z0-9]{0,4}",
    ) {
        use base64::Engine;
        let noise = noise.map_or("null".to_owned(), |bytes| {
            format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(bytes))
        });
        let pubkey = Value::from(pubkey);
        let payload = raw(&format!(r#"{{"pubkey":{pubkey},"e2e":{e2e},"noise":{noise},"re":"{re}"}}"#));
        for mut end in [End::phone(TOKEN, secret(7), counting(1)), End::agent(TOKEN, secret(7), counting(2))] {
            let step = end.handle_key_exchange(Some("x"), Some(&payload), "r0");
            prop_assert!(!step.is_ok_and(|step| step.agreed));
            prop_assert_eq!(end.seal("chat.send", None).unwrap_err(), SealError::Waiting);
        }
    }
}
