//! One end of a pair, for tests in other languages: messages to send come as lines of JSON on standard input, what
//! happens is told in the same way on standard output. It ends with its standard input.
//!
//!     end phone|agent LINK [answers]
//!     end device LINK FOLDER
//!
//! A device enrols with the link and keeps its keys in the folder; where it has some, it goes on with them. With `answers`, its `chat.stream` and `chat.done` make an answer, whose pieces grow while they wait.

use coralmux_client::{Client, Device, Encryption, Event, Folder, Link, Options, Role, SendError, Speaker, Stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
struct Outgoing {
    #[serde(rename = "type")]
    kind: String,
    payload: Box<RawValue>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(role), Some(link)) = (std::env::args().nth(1), std::env::args().nth(2)) else {
        return Err("usage: end phone|agent LINK [answers], or end device LINK FOLDER".into());
    };
    let third = std::env::args().nth(3).unwrap_or_default();
    let answers = third == "answers";
    let link = Link::parse(&link)?;
    let is_device = role == "device";
    let role = if is_device { Role::Phone } else { Role::parse(&role).ok_or("the role is phone, agent or device")? };
    let options = Options {
        encryption: link.secret.clone().map_or(Encryption::Version1, Encryption::Version2),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        ..Options::new(link.relay.parse()?, link.token.clone(), role)
    };
    let (client, events) = if is_device {
        let store = Arc::new(Folder::new(third));
        let device = match Device::load(store.clone())? {
            Some(device) => device,
            None => Device::enrol(&link, "Rust", "test", store)?,
        };
        Client::start_as_device(options, device)?
    } else {
        Client::start(options)?
    };
    std::thread::spawn(move || {
        let mut stream = None;
        for line in stdin().lock().lines().map_while(Result::ok) {
            let sent = serde_json::from_str::<Outgoing>(&line).map(|it| match it.kind.as_str() {
                "chat.stream" | "chat.done" if answers => answer(&client, &mut stream, &it),
                kind => client.send(kind, &it.payload).map(|_| ()),
            });
            if !matches!(sent, Ok(Ok(()))) {
                eprintln!("not sent: {line}: {sent:?}");
            }
        }
        client.close(Duration::ZERO);
    });
    for event in events {
        if let Some(told) = told(&event) {
            writeln!(stdout(), "{told}")?;
        }
    }
    Ok(())
}

/// A piece of the answer, or its end.
fn answer(client: &Client, stream: &mut Option<Stream>, it: &Outgoing) -> Result<(), SendError> {
    let payload: Value = serde_json::from_str(it.payload.get())?;
    let mut open = stream.take().unwrap_or_else(|| client.stream(Default::default()));
    if it.kind == "chat.stream" {
        open.push(payload["delta"].as_str().unwrap_or_default())?;
        *stream = Some(open);
        return Ok(());
    }
    open.amend(payload["full_text"].as_str().unwrap_or_default().to_owned())?;
    open.finish(Default::default()).map(|_| ())
}

fn told(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Connected { paired, .. } => json!({"event": "connected", "paired": paired}),
        Event::PeerOnline => json!({"event": "online"}),
        Event::PeerOffline => json!({"event": "offline"}),
        Event::Secure { version, fingerprint } => {
            json!({"event": "secure", "version": version, "fingerprint": fingerprint})
        }
        Event::Message(it) => {
            json!({"event": "message", "type": it.kind, "payload": it.payload, "missed": it.missed})
        }
        Event::Error(it) => {
            json!({"event": "error", "code": it.code, "message": it.message, "authenticated": it.by == Speaker::Peer})
        }
        Event::Delivered { id } => json!({"event": "delivered", "id": id}),
        Event::NotSent { id } => json!({"event": "not sent", "id": id}),
        Event::Missed { count } => json!({"event": "missed", "count": count}),
        Event::PeerRestarted => json!({"event": "restarted"}),
        Event::ResumeLost => json!({"event": "resume lost"}),
        Event::Code { code } => json!({"event": "code", "code": code}),
        Event::NotEnrolled { why } => json!({"event": "not enrolled", "message": why}),
        Event::Disconnected { reason, .. } => json!({"event": "lost", "message": reason.to_string()}),
        other => json!({"event": "other", "message": format!("{other:?}")}),
    })
}
