//! Two ends of version 3, and what sits between them.

mod enrolling;
mod known;
mod mind;
mod model;
mod rules;
mod secrecy;
mod stored;

use super::*;
use crate::{PairingSecret, Random};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

const TOKEN: &str = "oc_pair_0123456789abcdef0123456789abcdef";

/// Randomness that repeats in each run, and never within one.
fn counting(seed: u8) -> impl Random {
    let mut next = u64::from(seed) << 32;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            next += 1;
            let mixed = next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
        }
    }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// So many seconds after a start that is long ago.
fn at(seconds: f64) -> Now {
    let since = Duration::from_secs_f64(seconds);
    Now { monotonic: since, unix: Duration::from_secs(1_770_000_000) + since }
}

fn exchange(payload: &RawValue) -> KeyExchange {
    KeyExchange::parse(payload).unwrap()
}

fn agent_key() -> Arc<StaticKey> {
    Arc::new(StaticKey::from_private([0xa; 32]))
}

fn k(byte: u8) -> PairingSecret {
    PairingSecret::from_bytes([byte; 32])
}

fn id_of(byte: u8) -> DeviceId {
    DeviceId::of_key(&[byte; 32])
}

/// A device that scanned the link with this `k`, and the agent that made it.
fn enrolling(secret: u8) -> (Enrolment, Enrolments) {
    let mut agent = Enrolments::new(TOKEN, agent_key());
    agent.open(k(secret), None);
    let link = (k(secret), AgentPrint::of(agent_key().public()));
    let key = StaticKey::from_private([0xd; 32]);
    (Enrolment::new(TOKEN, id_of(1), key, link, "Tablet", "web"), agent)
}

/// Enrols; both ends as they are before the agent has admitted the device.
fn enrol(random: &mut impl Random) -> (DeviceEnd, Joined, Code) {
    let (mut device, mut agent) = enrolling(7);
    let (id, first) = device.poll_first(at(0.), random, "one").unwrap().unwrap();
    let second = agent.handle_first(at(0.), random, id_of(1), Some(&id), &exchange(&first)).unwrap();
    let Enrolled { end, code } = device.handle_second(at(0.), &exchange(&second)).unwrap().unwrap();
    let joined = agent.handle_third(at(0.), id_of(1), &exchange(&end.poll_enrolment().unwrap())).unwrap();
    (end, joined, code)
}

/// Two ends that are connected, drained and have the enrolment's session.
fn pair(random: &mut impl Random) -> (DeviceEnd, AgentEnd) {
    let (mut device, joined, _) = enrol(random);
    let mut agent = joined.end;
    agent.admit();
    agent.handle_drained();
    device.handle_agent(true);
    device.handle_drained();
    let welcome = agent.seal(random, "device.welcome", None, None).unwrap();
    assert!(device.open(at(0.), "device.welcome", None, Some(&welcome.payload)).unwrap().confirmed);
    (device, agent)
}

/// Agrees a new session, as far as the answer has arrived.
fn agree(now: Now, random: &mut impl Random, device: &mut DeviceEnd, agent: &mut AgentEnd) {
    device.handle_complaint();
    let opening = device.poll_opening(now, random, "o").expect("it is time");
    let answer = agent.handle_opening(now, random, Some("o"), &exchange(&opening)).unwrap().expect("few openings");
    assert!(device.handle_answer(now, &exchange(&answer)).unwrap());
}

/// One message of the device's arrives.
fn say(now: Now, random: &mut impl Random, device: &mut DeviceEnd, agent: &mut AgentEnd) -> Result<Opened, OpenError> {
    let sent = device.seal(random, "chat.send", None, None).unwrap();
    agent.open(now, "chat.send", None, Some(&sent.payload))
}

/// The same for the agent.
fn answer(
    now: Now,
    random: &mut impl Random,
    device: &mut DeviceEnd,
    agent: &mut AgentEnd,
) -> Result<Opened, OpenError> {
    let sent = agent.seal(random, "chat.done", None, None).unwrap();
    device.open(now, "chat.done", None, Some(&sent.payload))
}
