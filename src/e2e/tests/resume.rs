//! Agreeing on resume: the vectors that all implementations share, and ends that do not know it.

use super::{TOKEN, connect, counting, raw, secret};
use crate::*;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::VecDeque;

const VECTORS: &str = include_str!("../../../clients/vectors/resume.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value[name].as_array().unwrap();
    assert!(!list.is_empty(), "{name}");
    list
}

fn payload(value: &Value) -> Box<RawValue> {
    raw(&value.to_string())
}

/// An end of the vectors' pair, which draws these values.
fn end(vectors: &Value, make: fn(&Value, Option<PairingSecret>, Vec<String>) -> End, drawn: &[&Value]) -> End {
    let drawn = drawn.iter().map(|value| value.as_str().unwrap().to_owned()).collect();
    let secret = PairingSecret::from_bytes(bytes(text(vectors, "secret")).try_into().unwrap());
    make(&vectors["token"], Some(secret), drawn).with_resume()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn drawing(values: Vec<String>) -> impl Random + Send + 'static {
    let mut values: VecDeque<_> = values.iter().map(|hex| bytes(hex)).collect();
    move |out: &mut [u8]| out.copy_from_slice(&values.pop_front().unwrap())
}

fn phone(vectors: &Value) -> End {
    let drawn = [&vectors["phone_ephemeral_private"], &vectors["fillers"]["opening"]];
    end(vectors, |token, secret, drawn| End::phone(token.as_str().unwrap(), secret, drawing(drawn)), &drawn)
}

fn agent(vectors: &Value) -> End {
    let fillers = &vectors["fillers"];
    let drawn = [&fillers["announcement"], &vectors["agent_ephemeral_private"], &fillers["answer"]];
    end(vectors, |token, secret, drawn| End::agent(token.as_str().unwrap(), secret, drawing(drawn)), &drawn)
}

/// The payload of the one reply that a step has.
fn value_of(reply: Option<Reply>) -> Value {
    serde_json::from_str(reply.unwrap().payload.get()).unwrap()
}

#[test]
fn ends_agree_and_seal_as_the_vectors_have_it() {
    let vectors = vectors();
    let (mut phone, mut agent) = (phone(&vectors), agent(&vectors));
    let (id, exchange) = (text(&vectors, "opening_id"), &vectors["key_exchange"]);
    assert_eq!(value_of(agent.handle_online()), exchange["announcement"]);
    let step = phone.handle_key_exchange(None, Some(&payload(&exchange["announcement"])), id).unwrap();
    assert_eq!(value_of(step.reply), exchange["opening"]);
    let step = agent.handle_key_exchange(Some(id), Some(&payload(&exchange["opening"])), "").unwrap();
    assert_eq!(value_of(step.reply), exchange["answer"]);
    for case in list(&vectors, "refused_answers") {
        assert!(phone.handle_key_exchange(None, Some(&payload(&case["payload"])), "").is_err(), "{case}");
    }
    assert!(phone.handle_key_exchange(None, Some(&payload(&exchange["answer"])), "").unwrap().agreed);
    assert!(phone.resumes() && agent.resumes());
    for message in list(&vectors, "messages") {
        let (from, to) = if message["from"] == "phone" { (&mut phone, &mut agent) } else { (&mut agent, &mut phone) };
        let (kind, plaintext) = (text(message, "type"), text(message, "plaintext"));
        let sealed = from.seal(kind, Some(&raw(plaintext))).unwrap();
        assert_eq!(serde_json::from_str::<Value>(sealed.get()).unwrap(), message["payload"]);
        let opened = to.open(kind, Some(&sealed)).unwrap();
        assert_eq!((opened.payload.get(), opened.resume), (plaintext, true));
    }
}

#[test]
fn what_does_not_offer_it_is_opened_without_it() {
    let vectors = vectors();
    for case in list(&vectors, "plain_announcements") {
        let mut phone = phone(&vectors);
        let id = text(&vectors, "opening_id");
        let step = phone.handle_key_exchange(None, Some(&payload(&case["payload"])), id).unwrap();
        assert_eq!(value_of(step.reply), vectors["plain_opening"], "{case}");
    }
    for case in list(&vectors, "refused_openings") {
        let mut agent = agent(&vectors);
        agent.handle_online();
        let refused = agent.handle_key_exchange(Some("x"), Some(&payload(&case["payload"])), "").unwrap_err();
        assert_eq!(refused, ExchangeError::WrongSecret, "{case}");
    }
}

#[test]
fn with_an_end_that_does_not_know_it_all_is_as_before() {
    for (of_phone, of_agent) in [(false, true), (true, false), (false, false), (true, true)] {
        let with = |end: End, resume| if resume { end.with_resume() } else { end };
        let mut phone = with(End::phone(TOKEN, secret(7), counting(1)), of_phone);
        let mut agent = with(End::agent(TOKEN, secret(7), counting(2)), of_agent);
        connect(&mut phone, &mut agent);
        let resume = of_phone && of_agent;
        assert_eq!((phone.resumes(), agent.resumes()), (resume, resume));
        let sealed = phone.seal("chat.send", None).unwrap();
        assert_eq!(agent.open("chat.send", Some(&sealed)).unwrap().resume, resume);
    }
}
