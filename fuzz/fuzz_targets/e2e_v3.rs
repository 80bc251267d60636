//! The ends of version 3 against a relay that says anything: nothing panics, nothing of it opens or agrees anything, and
//! what both ends had stays usable. Stored states that were damaged are refused, or what they load is stored the same.
#![no_main]

use coralmux_e2e::PairingSecret;
use coralmux_e2e::v3::{AgentEnd, AgentPrint, DeviceEnd, DeviceId, Enrolment, Enrolments, KeyExchange, Now, StaticKey};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const TOKEN: &str = "t";
const NOW: Now = Now { monotonic: Duration::from_secs(1), unix: Duration::from_secs(1_770_000_000) };

/// What both ends stored after an enrolment.
static STORED: LazyLock<(String, String)> = LazyLock::new(|| {
    let mut random = source(1);
    let (mut enrolment, mut enrolments) = enrolling();
    let device = DeviceId::of_key(&[1; 32]);
    let (id, first) = enrolment.poll_first(NOW, &mut random, "a").unwrap().unwrap();
    let first = KeyExchange::parse(&first).unwrap();
    let second = enrolments.handle_first(NOW, &mut random, device, Some(&id), &first).unwrap();
    let mut end = enrolment.handle_second(NOW, &KeyExchange::parse(&second).unwrap()).unwrap().unwrap().end;
    let third = KeyExchange::parse(&end.poll_enrolment().unwrap()).unwrap();
    let mut agent = enrolments.handle_third(NOW, device, &third).unwrap().end;
    agent.admit();
    let welcome = agent.seal(&mut random, "device.welcome", None, None).unwrap().payload;
    end.open(NOW, "device.welcome", None, Some(&welcome)).unwrap();
    (end.store().to_string(), agent.store().to_string())
});

fuzz_target!(|input: &[u8]| {
    let Some((&how, bytes)) = input.split_first() else { return };
    let mut random = source(2);
    let (device_text, agent_text) = &*STORED;
    let mut device = DeviceEnd::load(device_text).unwrap();
    let mut agent = AgentEnd::load(TOKEN, key(), agent_text).unwrap();
    device.handle_agent(true);
    device.handle_drained();
    agent.handle_drained();
    device.handle_complaint();
    let opening = device.poll_opening(NOW, &mut random, "o").unwrap();

    let text = match how & 3 {
        0 => String::from_utf8_lossy(bytes).into_owned(),
        1 => framed(agent.seal(&mut random, "chat.done", None, None).unwrap().payload.get(), bytes),
        2 => framed(device.seal(&mut random, "chat.send", None, None).unwrap().payload.get(), bytes),
        _ => {
            loads(device_text, bytes);
            return;
        }
    };
    let Ok(payload) = RawValue::from_string(text) else { return };
    for kind in ["chat.send", "chat.error", "a\0b"] {
        assert!(device.open(NOW, kind, None, Some(&payload)).is_err());
        assert!(agent.open(NOW, kind, None, Some(&payload)).is_err());
    }
    if let Some(mut message) = KeyExchange::parse(&payload) {
        message.re = Some("o".into());
        assert_ne!(device.handle_answer(NOW, &message), Ok(true));
        assert!(agent.handle_opening(NOW, &mut random, None, &message).is_err());
        let (mut enrolment, mut enrolments) = enrolling();
        enrolment.poll_first(NOW, &mut random, "o").unwrap();
        assert!(enrolment.handle_second(NOW, &message).is_err());
        let id = DeviceId::of_key(&[1; 32]);
        assert!(enrolments.handle_first(NOW, &mut random, id, None, &message).is_err());
        assert!(enrolments.handle_third(NOW, id, &message).is_err());
    }

    // It has broken nothing: both go on, and agree new keys.
    for _ in 0..2 {
        let sealed = agent.seal(&mut random, "chat.done", Some("x"), Some(&payload)).unwrap().payload;
        assert_eq!(device.open(NOW, "chat.done", Some("x"), Some(&sealed)).unwrap().payload.get(), payload.get());
        let sealed = device.seal(&mut random, "chat.send", Some("x"), Some(&payload)).unwrap().payload;
        assert_eq!(agent.open(NOW, "chat.send", Some("x"), Some(&sealed)).unwrap().payload.get(), payload.get());
        let opening = KeyExchange::parse(&opening).unwrap();
        let answer = agent.handle_opening(NOW, &mut random, Some("o"), &opening).unwrap().unwrap();
        device.handle_answer(NOW, &KeyExchange::parse(&answer).unwrap()).unwrap();
    }
});

/// A sealed payload of the right session, with number, nonce and ciphertext from the input.
fn framed(genuine: &str, bytes: &[u8]) -> String {
    let (number, rest) = bytes.split_at(bytes.len().min(2));
    let number = number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (place, _) = genuine.split_once("\"i\":").unwrap();
    let hex: String = rest.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).map(char::from).collect();
    let ciphertext = &hex[..hex.len() / 4 * 4];
    format!("{place}\"i\":{number},\"ciphertext\":\"{ciphertext}\",\"nonce\":\"AAAAAAAAAAAAAAAA\"}}")
}

/// A stored state with a part of it overwritten.
fn loads(stored: &str, bytes: &[u8]) {
    let Some((&at, rest)) = bytes.split_first() else { return };
    let mut text = stored.as_bytes().to_vec();
    let at = usize::from(at) * 4 % text.len();
    let end = text.len().min(at + rest.len());
    text[at..end].copy_from_slice(&rest[..end - at]);
    let Ok(text) = String::from_utf8(text) else { return };
    if let Ok(loaded) = DeviceEnd::load(&text) {
        let again = loaded.store();
        assert_eq!(*DeviceEnd::load(&again).unwrap().store(), *again);
    }
}

fn key() -> Arc<StaticKey> {
    Arc::new(StaticKey::from_private([2; 32]))
}

fn enrolling() -> (Enrolment, Enrolments) {
    let k = PairingSecret::from_bytes([7; 32]);
    let mut agent = Enrolments::new(TOKEN, key());
    agent.open(k.clone(), None);
    let link = (k, AgentPrint::of(key().public()));
    let own = StaticKey::from_private([3; 32]);
    (Enrolment::new(TOKEN, DeviceId::of_key(&[1; 32]), own, link, "Tablet", "web"), agent)
}

/// Never the same twice within a run, and always the same from run to run.
fn source(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut next = seed << 32;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            next += 1;
            *byte = (next.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8;
        }
    }
}
