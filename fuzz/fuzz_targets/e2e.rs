//! The ends of the encryption against a relay that says anything: nothing panics, what both ends agreed stays usable,
//! and only what the peer sealed is taken as its own.
#![no_main]

use coralmux_e2e::{End, Link, PairingSecret, Protection};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let Some((&how, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(link) = Link::parse(text) {
        let again = Link::parse(&link.for_apps()).unwrap();
        assert_eq!((again.token, again.relay), (link.token, link.relay));
        assert_eq!(again.secret.map(|secret| *secret.as_bytes()), link.secret.map(|secret| *secret.as_bytes()));
    }
    let Ok(payload) = RawValue::from_string(text.to_owned()) else { return };
    let secret = (how & 1 == 1).then(|| PairingSecret::from_bytes([7; 32]));
    let verified = secret.is_some();
    let mut phone = End::phone("t", secret.clone(), source(1));
    let mut agent = End::agent("t", secret, source(2));
    if how & 2 == 2 {
        agree(&mut phone, &mut agent);
    }
    for (end, agreed) in [(&mut phone, how & 2 == 2), (&mut agent, how & 2 == 2)] {
        for kind in ["chat.send", "chat.error"] {
            if let Ok(opened) = end.open(kind, Some(&payload)) {
                // Nobody knows the keys, so what is taken came in clear.
                assert_eq!(opened.protection, Protection::Clear);
                assert_eq!(opened.payload.get(), payload.get());
                assert!(!verified || kind == "chat.error");
            }
        }
        let step = end.handle_key_exchange(Some("x"), Some(&payload), "y");
        if verified {
            assert!(!step.is_ok_and(|step| step.agreed));
            assert!(end.seal("chat.send", Some(&payload)).is_err() || agreed);
        }
    }
    // It has broken nothing: the next agreement works as if nothing had been said.
    agree(&mut phone, &mut agent);
    let sealed = phone.seal("chat.send", Some(&payload)).unwrap();
    let opened = agent.open("chat.send", Some(&sealed)).unwrap();
    assert_eq!(opened.payload.get(), payload.get());
});

fn agree(phone: &mut End, agent: &mut End) {
    let announcement = agent.handle_online().unwrap().payload;
    phone.handle_online();
    let reply = phone.handle_key_exchange(Some("a"), Some(&announcement), "p").unwrap().reply.unwrap();
    let answer = agent.handle_key_exchange(Some("p"), Some(&reply.payload), "b").unwrap().reply;
    if let Some(answer) = answer {
        assert!(phone.handle_key_exchange(Some("b"), Some(&answer.payload), "c").unwrap().agreed);
    }
}

/// Never the same twice within a run, and always the same from run to run.
fn source(seed: u64) -> impl FnMut(&mut [u8]) + Send + 'static {
    let mut next = seed << 32;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            next += 1;
            *byte = (next.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8;
        }
    }
}
