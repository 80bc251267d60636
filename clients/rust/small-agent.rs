//! A small agent: it answers each message with an echo. Put your model where `answer` is.
//!
//!     cargo run -p coralmux-client --example small-agent -- wss://relay.example.com
//!
//! It registers itself with the relay and prints the link that pairs a phone. Encrypted end to end.

use coralmux_client::{
    Client, Encryption, Event, Link, Options, PairingSecret, RelayUrl, Role, SendError, Stream, Trust, register,
};

/// Writes the answer while it is made.
fn answer(question: &str, mut stream: Stream) -> Result<(), SendError> {
    for word in format!("You said: {question}").split_inclusive(' ') {
        stream.push(word)?;
    }
    stream.finish(Default::default()).map(|_| ())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let relay: RelayUrl = std::env::args().nth(1).ok_or("usage: small-agent RELAY")?.parse()?;
    let token = register(&relay, &Trust::PublicRoots)?;
    let secret = PairingSecret::generate(&mut |bytes: &mut [u8]| getrandom::fill(bytes).expect("there is randomness"));
    let link = Link { token: token.clone(), relay: relay.to_string(), secret: Some(secret.clone()), agent: None };
    println!("Pair a phone: {}", link.for_browsers().unwrap_or(link.for_apps()));
    let mut options = Options::new(relay, token, Role::Agent);
    options.encryption = Encryption::Version2(secret);
    let (client, events) = Client::start(options)?; // it connects, and comes back by itself
    for event in events {
        match event {
            Event::Message(message) if message.kind == "chat.send" => {
                answer(message.payload["text"].as_str().unwrap_or_default(), client.stream(Default::default()))?;
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
