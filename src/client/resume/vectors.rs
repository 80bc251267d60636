//! The vectors that all implementations share: `clients/vectors/resume.json`, as PROTOCOL.md describes it.

use super::end::{End, Out, Sent};
use super::{Ack, Boot, Keep, Position, Record, Refusal, Refused};
use coralmux_proto::token::Role;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const VECTORS: &str = include_str!("../../../clients/vectors/resume.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value[name].as_array().unwrap_or_else(|| panic!("no {name} in {value}"));
    assert!(!list.is_empty(), "{name}");
    list
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn parsed(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}

/// The boot that a text stands for.
fn boot(text: &Value) -> Boot {
    Ack::read(&raw(&json!({"a": {"e": text, "n": 0}}))).unwrap().position.boot.unwrap()
}

fn position(value: &Value) -> Position {
    Ack::read(&raw(&json!({"a": value}))).unwrap().position
}

/// An object with this field, filled up to so many bytes of JSON.
fn filled(mut object: Value, size: &Value) -> Box<RawValue> {
    if let Some(size) = size.as_u64() {
        object["fill"] = json!("");
        let fill = usize::try_from(size).unwrap() - object.to_string().len();
        object["fill"] = json!("x".repeat(fill));
    }
    raw(&object)
}

#[test]
fn plaintexts_are_read_or_refused() {
    let vectors = vectors();
    for case in list(&vectors["records"], "read") {
        let plaintext = RawValue::from_string(text(case, "plaintext").to_owned()).unwrap();
        let record = Record::read(&plaintext).unwrap_or_else(|error| panic!("{case}: {error}"));
        let mut expected = case["record"].clone();
        if expected["f"] == expected["n"] {
            expected.as_object_mut().unwrap().remove("f");
        }
        assert_eq!(parsed(&record.write()), expected);
    }
    for case in list(&vectors["acks"], "read") {
        let plaintext = RawValue::from_string(text(case, "plaintext").to_owned()).unwrap();
        let ack = Ack::read(&plaintext).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!((&ack.position, ack.resend), (&position(&case["a"]), case["r"] == true), "{case}");
        assert_eq!(Ack::read(&ack.clone().write()).unwrap(), ack);
    }
    for (name, is_refused) in [
        ("records", (|plaintext| Record::read(plaintext).is_err()) as fn(&RawValue) -> bool),
        ("acks", |plaintext| Ack::read(plaintext).is_err()),
    ] {
        for case in list(&vectors[name], "refused") {
            // What is not JSON at all does not get as far.
            let plaintext = RawValue::from_string(text(case, "plaintext").to_owned());
            assert!(plaintext.is_err() || is_refused(&plaintext.unwrap()), "{name}: {case}");
        }
    }
}

/// Plays the steps of a case. `play` does what a step says, and gives what it led to.
fn play(case: &Value, role: Role, mut play: impl FnMut(&mut End, &Value, Instant) -> Value) {
    let start = Instant::now();
    let boots = case["boots"].as_array().map_or_else(|| vec![own()], |boots| boots.iter().map(boot).collect());
    let mut end = End::new(role, boots);
    for step in list(case, "steps") {
        let now = start + Duration::from_millis(step["at"].as_u64().unwrap());
        let seen = play(&mut end, step, now);
        for (name, seen) in seen.as_object().unwrap() {
            let expected = step.get(name).cloned().unwrap_or(json!([]));
            assert_eq!(*seen, expected, "{}: {name} of {step}", case["name"]);
        }
    }
}

/// The boot of an end that has one.
fn own() -> Boot {
    boot(&list(&vectors(), "sender")[0]["boots"][0])
}

/// An acknowledgement as the vectors write it.
fn ack_value(ack: &Ack) -> Value {
    parsed(&ack.clone().write())
}

#[test]
fn a_receiver_does_what_the_vectors_say() {
    for case in list(&vectors(), "receiver") {
        let mut is_first = true;
        play(case, Role::Agent, |end, step, now| {
            if std::mem::take(&mut is_first) {
                end.acks.set_ext(case["ext"] == true);
                end.acks.handle_agreement(now);
                end.hear_ack(now, &Ack { position: Position::NONE, resend: true });
            }
            let (mut taken, mut missed, mut confirm) = (Vec::new(), 0, Value::Null);
            let mut acks = Vec::new();
            match text(step, "do") {
                "record" => {
                    let mut fields = step["record"].clone();
                    let size = fields.as_object_mut().unwrap().remove("size").unwrap_or_default();
                    let payload = filled(json!({"n": fields["n"]}), &size);
                    fields["p"] = parsed(&payload);
                    let plaintext = raw(&fields);
                    let done = end.take(now, &Record::read(&plaintext).unwrap());
                    taken = done.messages.iter().map(|message| parsed(&message.payload)["n"].clone()).collect();
                    missed = done.missed;
                }
                "agreed" => end.agree(now),
                "pause" => end.leave(),
                "drains" => {
                    end.leave();
                    end.receiver.handle_connected(true);
                }
                "mail" => {
                    let (done, is_confirmed) = end.receiver.handle_page(step["left"] == 0);
                    taken = done.messages.iter().map(|message| parsed(&message.payload)["n"].clone()).collect();
                    missed = done.missed;
                    if is_confirmed && step["upto"] != 0 {
                        confirm = step["upto"].clone();
                    }
                }
                "carry" => {
                    acks.push(
                        json!({"a": parsed(&Ack { position: end.receiver.position(), resend: false }.write())["a"]}),
                    );
                    end.acks.handle_carried();
                }
                "time" => {}
                other => panic!("{other}"),
            }
            acks.extend(end.drain(now).iter().map(|out| match out {
                Out::Ack(ack) => ack_value(ack),
                Out::Record { .. } => panic!("{out:?}"),
            }));
            if step["do"] == "agreed" {
                end.hear_ack(now, &Ack { position: Position::NONE, resend: false });
            }
            assert_eq!(confirm, step["confirm"], "{}: {step}", case["name"]);
            json!({"taken": taken, "held": end.receiver.early(), "missed": missed, "acks": acks})
        });
    }
}

/// What leaves, as the vectors write it.
fn out_value(out: &Out) -> Option<Value> {
    let Out::Record { id, plaintext, keep } = out else { return None };
    let record = parsed(plaintext);
    let mut value = json!({"e": record["e"], "n": record["n"], "b": record["b"]});
    value["f"] = record.get("f").unwrap_or(&record["n"]).clone();
    match record["p"].get("answer") {
        Some(answer) => (value["is"], value["delta"]) = (answer.clone(), record["p"]["delta"].clone()),
        None => value["is"] = json!(id),
    }
    if let Some(keep) = keep {
        value["keep"] = json!(keep);
    }
    if let Some(sent_at) = record.get("t") {
        value["t"] = sent_at.clone();
    }
    Some(value)
}

fn stream_of(answer: &str) -> u64 {
    u64::from(answer.as_bytes()[0])
}

/// The steps that `sender` and `agreement` share. Gives the ids that were given up, and those whose owner is told.
fn act(end: &mut End, step: &Value, now: Instant, t0: u64) -> (Vec<String>, Vec<String>) {
    let (mut given_up, mut told) = (Vec::new(), Vec::new());
    let sent = Sent {
        keep: match (step["keep"].as_str(), step["fleeting"] == true) {
            (_, true) => Keep::Never,
            (Some("wake"), _) => Keep::Wake,
            _ => Keep::Quiet,
        },
        sent_at: t0 + step["at"].as_u64().unwrap(),
        ..Sent::QUIET
    };
    match text(step, "do") {
        "send" => given_up = end.send(now, text(step, "id"), filled(json!({"id": step["id"]}), &step["size"]), sent),
        "piece" => {
            let answer = text(step, "answer");
            end.piece(now, stream_of(answer), answer, text(step, "delta"));
        }
        "done" => {
            let ends = Some(stream_of(text(step, "answer")));
            given_up = end.send(now, text(step, "id"), raw(&json!({"id": step["id"]})), Sent { ends, ..sent });
        }
        "error" => {
            let error = Sent { kind: "chat.error", ..sent };
            given_up = end.send(now, text(step, "id"), raw(&json!({"id": step["id"]})), error);
        }
        "kept" => assert!(end.outgoing.sender.handle_kept(text(step, "id"))),
        "absent" => end.lack_peer(),
        "refused" => {
            let after = step["retry_after_ms"].as_u64().map(Duration::from_millis);
            let refusal = match text(step, "code") {
                "RATE_LIMITED" | "DAILY_QUOTA_EXCEEDED" => Refusal::Later(after),
                "PEER_OFFLINE" => Refusal::Offline,
                "MAILBOX_FULL" => Refusal::Full(after),
                code @ ("MESSAGE_TOO_LARGE" | "INVALID_MESSAGE") => {
                    Refusal::Never { too_large: code == "MESSAGE_TOO_LARGE" }
                }
                _ => Refusal::Other(after),
            };
            if let Refused::Void(held) = end.refuse(now, text(step, "id"), refusal) {
                told.push(held.id);
            }
        }
        "pause" | "lost" | "online" | "connected" => end.leave(),
        "agreed" => end.agree(now),
        "time" => {}
        other => panic!("{other}"),
    }
    (given_up, told)
}

#[test]
fn a_sender_does_what_the_vectors_say() {
    let t0 = vectors()["t0"].as_u64().unwrap();
    for case in list(&vectors(), "sender") {
        let role = if text(case, "role") == "agent" { Role::Agent } else { Role::Phone };
        let mut is_first = true;
        play(case, role, |end, step, now| {
            if std::mem::take(&mut is_first) {
                end.agree(now);
                end.hear_ack(now, &Ack { position: Position::NONE, resend: false });
                end.outgoing.sender.handle_mail(case["mail"].as_u64().map(|bytes| usize::try_from(bytes).unwrap()));
            }
            let (given_up, told) = if text(step, "do") == "ack" {
                let (_, lost) = end.hear_ack(now, &Ack { position: position(&step["a"]), resend: step["r"] == true });
                (Vec::new(), lost.into_iter().map(|held| held.id).collect())
            } else {
                act(end, step, now, t0)
            };
            let out: Vec<_> = end.drain(now).iter().filter_map(out_value).collect();
            json!({"out": out, "given_up": given_up, "told": told})
        });
    }
}

#[test]
fn ends_agree_as_the_vectors_say() {
    for case in list(&vectors(), "agreement") {
        let role = if text(case, "role") == "agent" { Role::Agent } else { Role::Phone };
        play(case, role, |end, step, now| {
            if text(step, "do") == "ack" {
                end.hear_ack(now, &Ack::read(&raw(&step["ack"])).unwrap());
            } else {
                act(end, step, now, 0);
            }
            let out = end.drain(now).into_iter().map(|out| match &out {
                Out::Ack(ack) => json!({"ack": ack_value(ack)}),
                Out::Record { .. } => json!({"record": out_value(&out)}),
            });
            json!({"out": out.collect::<Vec<_>>()})
        });
    }
}
