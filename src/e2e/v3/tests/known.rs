//! The vectors that all implementations share.

use super::super::chain::{Chain, Label};
use super::super::keys::{PublicBytes, Sid, commitment, hmac256};
use super::super::wire::enclose;
use super::*;
use crate::Link;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use zeroize::Zeroizing;

const VECTORS: &str = include_str!("../../../../clients/vectors/e2e_v3.json");

#[derive(Deserialize)]
struct Vectors {
    token: String,
    k: String,
    invite: String,
    invite_sha256: String,
    agent_static_private: String,
    agent_static_public: String,
    a: String,
    links: Links,
    device_key: String,
    device_id: String,
    device_static_private: String,
    device_static_public: String,
    enrolment: EnrolmentOf,
    codes: Vec<CodeOf>,
    session: SessionOf,
    messages: Vec<Message>,
    arrivals: Vec<Step>,
    refused_message_1: Vec<Refused>,
    refused_message_2: Vec<Refused>,
    refused_message_3: Vec<Refused>,
    refused_second_message_2: Vec<Refused>,
    refused_opening: Vec<Refused>,
    refused_answer: Vec<Refused>,
}

#[derive(Deserialize)]
struct Links {
    for_apps: String,
    for_browsers: String,
}

#[derive(Deserialize)]
struct EnrolmentOf {
    device_ephemeral_private: String,
    agent_ephemeral_private: String,
    r: String,
    commitment: String,
    ids: Vec<String>,
    key_exchange: Vec<Box<RawValue>>,
    h2: String,
    code: String,
    psk: String,
    sid: String,
    chain_device: String,
    chain_agent: String,
}

#[derive(Deserialize)]
struct CodeOf {
    h2: String,
    device_static_public: String,
    r: String,
    code: String,
}

#[derive(Deserialize)]
struct SessionOf {
    device_ephemeral_private: String,
    agent_ephemeral_private: String,
    opening_id: String,
    key_exchange: Vec<Box<RawValue>>,
    sid: String,
    chain_device: String,
    chain_agent: String,
}

#[derive(Deserialize)]
struct Message {
    from: String,
    i: u64,
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    plaintext: String,
    ck: String,
    mk: String,
    nonce_key: String,
    random: String,
    payload: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Step {
    Connected { sends_with: String },
    Drained { sends_with: String },
    Opening { at_ms: u64, sends_with: String, ephemeral: String, noise: String, answer: String },
    Arrival(Arrival),
}

#[derive(Deserialize)]
struct Arrival {
    at_ms: u64,
    sends_with: String,
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    payload: Option<Value>,
    opens: Option<String>,
    #[serde(default)]
    skipped: u64,
    #[serde(default)]
    confirms: bool,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    sign: bool,
}

#[derive(Deserialize)]
struct Refused {
    why: String,
    noise: String,
}

impl Refused {
    fn message(&self, enrol: Option<u8>, re: Option<&str>) -> KeyExchange {
        KeyExchange { enrol, noise: STANDARD.decode(&self.noise).unwrap(), re: re.map(str::to_owned) }
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(VECTORS).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn key(hex: &str) -> [u8; 32] {
    bytes(hex).try_into().unwrap()
}

fn sid(hex: &str) -> Sid {
    bytes(hex).try_into().unwrap()
}

/// A source of randomness that gives out these values (hex), in this order, and no more.
fn drawn<'a>(values: impl IntoIterator<Item = &'a str>) -> impl Random {
    let mut values: VecDeque<_> = values.into_iter().map(bytes).collect();
    move |out: &mut [u8]| out.copy_from_slice(&values.pop_front().unwrap())
}

fn same(left: &RawValue, right: &RawValue) {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap();
    assert_eq!(value(left), value(right));
}

impl Vectors {
    fn agent_key(&self) -> Arc<StaticKey> {
        Arc::new(StaticKey::from_private(key(&self.agent_static_private)))
    }

    fn device(&self) -> DeviceId {
        DeviceId::parse(&self.device_id).unwrap()
    }

    /// A device that has sent the first message of the vectors.
    fn enrolling(&self) -> Enrolment {
        let link = (PairingSecret::from_bytes(key(&self.k)), AgentPrint::parse(&self.a).unwrap());
        let own = StaticKey::from_private(key(&self.device_static_private));
        let mut device = Enrolment::new(&self.token, self.device(), own, link, "Tablet", "web");
        let mut random = drawn([self.enrolment.device_ephemeral_private.as_str(), self.enrolment.r.as_str()]);
        let (id, first) = device.poll_first(at(0.), &mut random, &self.enrolment.ids[0]).unwrap().unwrap();
        assert_eq!(id, self.enrolment.ids[0]);
        same(&first, &self.enrolment.key_exchange[0]);
        device
    }

    fn inviting(&self) -> Enrolments {
        let mut agent = Enrolments::new(&self.token, self.agent_key());
        agent.open(PairingSecret::from_bytes(key(&self.k)), None);
        agent
    }

    /// An agent that has answered the first message.
    fn answering(&self) -> Enrolments {
        let mut agent = self.inviting();
        let mut random = drawn([self.enrolment.agent_ephemeral_private.as_str()]);
        let (id, first) = (Some(self.enrolment.ids[0].as_str()), exchange(&self.enrolment.key_exchange[0]));
        let second = agent.handle_first(at(0.), &mut random, self.device(), id, &first).unwrap();
        same(&second, &self.enrolment.key_exchange[1]);
        agent
    }

    /// Both ends after the enrolment.
    fn enrolled(&self) -> (Enrolled, Joined) {
        let (mut device, mut agent) = (self.enrolling(), self.answering());
        let enrolled = device.handle_second(at(0.), &exchange(&self.enrolment.key_exchange[1])).unwrap().unwrap();
        same(&enrolled.end.poll_enrolment().unwrap(), &self.enrolment.key_exchange[2]);
        let joined = agent.handle_third(at(0.), self.device(), &exchange(&self.enrolment.key_exchange[2])).unwrap();
        (enrolled, joined)
    }

    /// The ends of [`enrolled`](Self::enrolled) after the device's opening, and before the answer has arrived.
    fn opened(&self) -> (DeviceEnd, AgentEnd) {
        let (Enrolled { end: mut device, .. }, Joined { end: mut agent, .. }) = self.enrolled();
        agent.admit();
        let welcome = agent.seal(&mut counting(1), "device.welcome", None, None).unwrap();
        assert!(device.open(at(0.), "device.welcome", None, Some(&welcome.payload)).unwrap().confirmed);
        device.handle_agent(true);
        device.handle_drained();
        device.handle_complaint();
        let mut random = drawn([self.session.device_ephemeral_private.as_str()]);
        let opening = device.poll_opening(at(0.), &mut random, &self.session.opening_id).unwrap();
        same(&opening, &self.session.key_exchange[0]);
        (device, agent)
    }
}

#[test]
fn what_follows_from_link_and_keys() {
    let v = vectors();
    let invite = Invite::of(&PairingSecret::from_bytes(key(&v.k)));
    assert_eq!((invite.expose(), STANDARD.encode(invite.hash())), (v.invite.clone(), v.invite_sha256.clone()));
    assert_eq!(*v.agent_key().public(), key(&v.agent_static_public));
    assert_eq!(AgentPrint::of(v.agent_key().public()).to_string(), v.a);
    assert_eq!(DeviceId::of_key(&key(&v.device_key)).as_str(), v.device_id);
    for link in [&v.links.for_apps, &v.links.for_browsers] {
        let read = Link::parse(link).unwrap();
        assert!([Some(read.for_apps()), read.for_browsers()].contains(&Some(link.clone())));
        assert_eq!((read.agent, *read.secret.unwrap().as_bytes()), (AgentPrint::parse(&v.a), key(&v.k)));
    }
    for damaged in ["", &v.a[1..], &format!("{}A", v.a), &format!("{}=", v.a), &v.a.replace(|_| true, "+")] {
        assert_eq!(AgentPrint::parse(damaged), None);
    }
    let device: PublicBytes = *StaticKey::from_private(key(&v.device_static_private)).public();
    assert_eq!(device, key(&v.device_static_public));
    assert_eq!(commitment(&device, &key(&v.enrolment.r)).to_vec(), bytes(&v.enrolment.commitment));
    for CodeOf { h2, device_static_public, r, code } in &v.codes {
        assert_eq!(Code::of(&key(h2), &key(device_static_public), &key(r)).to_string(), *code);
    }
    assert!(v.codes.iter().any(|code| code.code.starts_with("000")));
}

#[test]
fn an_enrolment_is_that_of_the_vectors() {
    let v = vectors();
    let (Enrolled { end: device, code }, joined) = v.enrolled();
    assert_eq!((code.to_string(), joined.code.to_string()), (v.enrolment.code.clone(), v.enrolment.code.clone()));
    assert_eq!((joined.name.as_str(), joined.platform.as_str()), ("Tablet", "web"));
    assert_eq!(joined.invite.expose(), v.invite);
    let agent = joined.end;
    assert_eq!((*device.psk, *agent.psk), (key(&v.enrolment.psk), key(&v.enrolment.psk)));
    let (of_device, of_agent) = (key(&v.enrolment.chain_device), key(&v.enrolment.chain_agent));
    assert_eq!(
        (*device.sessions.sending.stored().key(), *agent.sessions.sending.stored().key()),
        (of_device, of_agent)
    );
    let received = |sessions: &super::super::sessions::Sessions| *sessions.receiving[0].chain.key();
    assert_eq!((received(&device.sessions), received(&agent.sessions)), (of_agent, of_device));
    assert_eq!((agent.sends_with(), device.sessions.sending.sid), (sid(&v.enrolment.sid), sid(&v.enrolment.sid)));
    assert_eq!((device.agent, agent.public), (key(&v.agent_static_public), key(&v.device_static_public)));
    assert_eq!(v.enrolment.h2, v.codes[0].h2);
}

#[test]
fn a_session_is_that_of_the_vectors() {
    let v = vectors();
    let (mut device, mut agent) = v.opened();
    let mut random = drawn([v.session.agent_ephemeral_private.as_str()]);
    let (id, opening) = (Some(v.session.opening_id.as_str()), exchange(&v.session.key_exchange[0]));
    let answer = agent.handle_opening(at(0.), &mut random, id, &opening).unwrap().unwrap();
    same(&answer, &v.session.key_exchange[1]);
    assert!(device.handle_answer(at(0.), &exchange(&answer)).unwrap());
    say(at(0.), &mut counting(2), &mut device, &mut agent).unwrap();
    assert_eq!((agent.sends_with(), device.sessions.sending.sid), (sid(&v.session.sid), sid(&v.session.sid)));
    assert_eq!(*agent.sessions.sending.stored().key(), key(&v.session.chain_agent));
    assert_eq!(*device.sessions.receiving[0].chain.key(), key(&v.session.chain_agent));
}

#[test]
fn messages_are_sealed_and_opened_as_the_vectors_have_them() {
    let v = vectors();
    for message in &v.messages {
        let first = if message.from == "device" { &v.session.chain_device } else { &v.session.chain_agent };
        let mut chain = Chain::new(Zeroizing::new(key(first)), 0);
        chain.wind(message.i);
        assert_eq!(*chain.key(), key(&message.ck));
        assert_eq!(*hmac256(chain.key(), &[&[1]]), key(&message.mk));
        assert_eq!(*hmac256(chain.key(), &[&[3]]), key(&message.nonce_key));
        let id = message.id.as_deref().unwrap_or_default();
        let label = Label { device: v.device(), sid: sid(&v.session.sid), kind: &message.kind, id };
        let (nonce, sealed) = chain.clone().seal(label, &key(&message.random), message.plaintext.as_bytes());
        let payload = enclose(label.sid, message.i, &nonce, &sealed);
        same(&payload, &message.payload);
        assert_eq!(chain.open(label, &nonce, sealed).unwrap(), message.plaintext.as_bytes());
    }
    assert_eq!(v.messages.len(), 8);
}

fn reason(error: OpenError) -> &'static str {
    match error {
        OpenError::InClear => "in clear",
        OpenError::Malformed => "malformed",
        OpenError::UnknownSession => "unknown session",
        OpenError::Repeated { .. } => "repeated",
        OpenError::TooFar => "too far",
        OpenError::TooSoon => "too soon",
        OpenError::Forged => "forged",
        OpenError::NotJson => "not JSON",
        OpenError::NotAdmitted => "not admitted",
    }
}

#[test]
fn what_arrives_is_taken_and_refused_as_the_vectors_have_it() {
    let v = vectors();
    let mut agent = v.enrolled().1.end;
    agent.admit();
    let now = |ms: u64| at(ms as f64 / 1000.);
    let mut draining = true;
    for step in v.arrivals {
        let sends_with = match step {
            Step::Connected { sends_with } => {
                agent.handle_connected();
                draining = true;
                sends_with
            }
            Step::Drained { sends_with } => {
                agent.handle_drained();
                draining = false;
                sends_with
            }
            Step::Opening { at_ms, sends_with, ephemeral, noise, answer } => {
                let opening = KeyExchange { enrol: None, noise: STANDARD.decode(noise).unwrap(), re: None };
                let mut random = drawn([ephemeral.as_str()]);
                let given = agent.handle_opening(now(at_ms), &mut random, Some("x"), &opening).unwrap().unwrap();
                assert_eq!(exchange(&given).noise, STANDARD.decode(answer).unwrap());
                sends_with
            }
            Step::Arrival(a) => {
                let payload = a.payload.map(|payload| raw(&payload.to_string()));
                let opened = agent.open(now(a.at_ms), &a.kind, a.id.as_deref(), payload.as_deref());
                match (opened, a.opens) {
                    (Ok(opened), Some(text)) => {
                        let got = (opened.payload.get(), opened.skipped, opened.confirmed);
                        assert_eq!(got, (text.as_str(), a.skipped, a.confirms));
                    }
                    (Err(error), None) => {
                        assert_eq!((reason(error), error.is_sign(draining)), (a.reason.as_str(), a.sign), "{}", a.why);
                    }
                    (opened, _) => panic!("{}: {opened:?}", a.why),
                }
                a.sends_with
            }
        };
        assert_eq!(agent.sends_with(), sid(&sends_with));
    }
}

#[test]
fn other_messages_of_an_enrolment_are_refused_and_the_right_one_is_taken_after_them() {
    let v = vectors();
    for refused in &v.refused_message_1 {
        let mut agent = v.inviting();
        let error = agent.handle_first(at(0.), &mut counting(1), v.device(), None, &refused.message(Some(1), None));
        let error = error.expect_err(&refused.why);
        assert!(matches!(error, EnrolError::WrongSecret | EnrolError::Malformed), "{}: {error}", refused.why);
    }
    let re = Some(v.enrolment.ids[0].as_str());
    for refused in &v.refused_message_2 {
        let mut device = v.enrolling();
        let error = device.handle_second(at(0.), &refused.message(Some(2), re)).expect_err(&refused.why);
        let right = device.handle_second(at(0.), &exchange(&v.enrolment.key_exchange[1]));
        // What the owner of `k` made is taken for this first message's one answer.
        let authentic = refused.why.contains("static key");
        assert_eq!(error == EnrolError::OtherAgent, authentic, "{}", refused.why);
        assert_eq!(right.is_err(), authentic, "{}", refused.why);
    }
    let mut device = v.enrolling();
    device.handle_second(at(0.), &exchange(&v.enrolment.key_exchange[1])).unwrap().unwrap();
    for refused in &v.refused_second_message_2 {
        let error = device.handle_second(at(0.), &refused.message(Some(2), re)).unwrap_err();
        assert_eq!(error, EnrolError::Answered, "{}", refused.why);
    }
    for refused in &v.refused_message_3 {
        let mut agent = v.answering();
        let error = agent.handle_third(at(0.), v.device(), &refused.message(Some(3), None)).expect_err(&refused.why);
        let right = agent.handle_third(at(0.), v.device(), &exchange(&v.enrolment.key_exchange[2]));
        let forged = error == EnrolError::WrongSecret || refused.why.contains("long") || refused.why.contains("short");
        assert_eq!(right.is_ok(), forged || refused.noise.is_empty() || refused.why == "no tag", "{}", refused.why);
    }
}

#[test]
fn other_messages_of_a_session_are_refused_and_the_right_one_is_taken_after_them() {
    let v = vectors();
    let (mut device, mut agent) = v.opened();
    for refused in &v.refused_opening {
        let error = agent.handle_opening(at(0.), &mut counting(1), None, &refused.message(None, None));
        assert!(error.is_err(), "{}", refused.why);
    }
    for refused in &v.refused_answer {
        let answer = refused.message(None, Some(&v.session.opening_id));
        assert!(device.handle_answer(at(0.), &answer).is_err(), "{}", refused.why);
    }
    let mut random = drawn([v.session.agent_ephemeral_private.as_str()]);
    let opening = exchange(&v.session.key_exchange[0]);
    agent.handle_opening(at(0.), &mut random, None, &opening).unwrap().unwrap();
    let answer = exchange(&v.session.key_exchange[1]);
    assert!(!device.handle_answer(at(0.), &KeyExchange { re: Some("older".into()), ..answer.clone() }).unwrap());
    assert!(device.handle_answer(at(0.), &answer).unwrap());
}
