//! A client of the relay, for phones and agents: it connects, authenticates, encrypts, and comes back by itself.
//!
//! One thread of its own does all of it. The owner takes [`Event`]s from [`Events`] and sends through [`Client`], from
//! as many threads as it likes. Where both ends resume (encryption of version 2, and a peer that knows how), a message is
//! held until the peer has it, over any number of lost connections, and arrives once (PROTOCOL.md, Resume). Elsewhere it
//! waits while the connection is away, up to [`Options::hold`], and what was on its way when a connection died is lost.
//!
//! It knows `proto` and `e2e` and nothing of the relay's inside, and compiles wherever Rust has sockets. It must never
//! send in clear what is to be encrypted, and never come back after 4001, 4002 or `auth.fail`.
//!
//! ```no_run
//! use coralmux_client::{Client, Event, Options, Role};
//!
//! let options = Options::new("wss://relay.example.com".parse()?, "oc_pair_...", Role::Agent);
//! let (client, events) = Client::start(options)?;
//! for event in events {
//!     match event {
//!         Event::Message(message) if message.kind == "chat.send" => {
//!             let mut answer = client.stream(Default::default());
//!             answer.push("You said: ")?;
//!             answer.push(message.payload["text"].as_str().unwrap_or_default())?;
//!             answer.finish(Default::default())?;
//!         }
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backoff;
mod connect;
mod connection;
mod envelope;
mod event;
pub mod lenient;
mod options;
mod outgoing;
mod refusal;
mod register;
mod resume;
mod secure;
mod session;
mod shared;
mod stream;
mod tls;
mod tunnel;
mod url;
mod worker;

pub use backoff::Backoff;
pub use coralmux_e2e::{Link, PairingSecret};
pub use coralmux_proto::limits::MESSAGE_BYTES_MAX;
pub use coralmux_proto::token::Role;
pub use envelope::{new_id, random, unix_ms};
pub use event::{Event, Message, PeerError, Reason};
pub use options::{Encryption, Options, Trust};
pub use register::{RegisterError, http_agent, proxy_of, register, retry_after};
pub use stream::{ANSWER_BYTES_MAX, Stream};
pub use tls::TlsError;
pub use url::{RelayUrl, UrlError, is_of_own_network};

use connect::Way;
use coralmux_e2e::{ENVELOPE_BYTES, TAG_BYTES};
use mio::{Poll, Token, Waker};
use outgoing::{Entry, Outgoing};
use resume::{Boot, RECORD_BYTES};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use shared::{Full, Shared};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tunnel::Tunnel;

/// Why a client cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The system gives no thread or no poller.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The environment names a proxy of a kind that is not supported.
    #[error("{0}")]
    Proxy(String),
}

/// Why a message is not sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// Larger than the relay takes.
    #[error("{bytes} bytes are more than the {max} that can be sent")]
    TooLarge {
        /// Its size; encrypted, where it would be.
        bytes: usize,
        /// What can be.
        max: usize,
    },
    /// Too much waits to be sent, and has done so for [`Options::hold`].
    #[error("too much waits to be sent")]
    QueueFull,
    /// The client has ended, or is closing.
    #[error("the client has ended")]
    Ended,
    /// The payload cannot be written as JSON.
    #[error("the payload cannot be written as JSON: {0}")]
    Payload(#[from] serde_json::Error),
}

impl From<Full> for SendError {
    fn from(full: Full) -> Self {
        match full {
            Full::Ended => Self::Ended,
            Full::NoRoom => Self::QueueFull,
        }
    }
}

/// The sending side. Clones are the same client.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    hold: Duration,
    /// What encryption adds to a payload before base64 does.
    overhead: Option<usize>,
}

impl Client {
    /// Starts the client's thread, which connects at once; through a proxy where the environment names one for the relay
    /// (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`), never to this machine itself.
    ///
    /// # Errors
    /// The CA file cannot be read, or the system gives no thread. That the relay is away is no error: it is told as
    /// an event, and tried again.
    pub fn start(options: Options) -> Result<(Self, Events), StartError> {
        let tls = if options.relay.is_secure() { Some(tls::config(&options.trust)?) } else { None };
        let proxy = Tunnel::from_env(&options.relay).map_err(StartError::Proxy)?;
        let way = Way { tls, proxy };
        let poll = Poll::new()?;
        let outgoing = Outgoing::new(options.role, Boot::draw());
        let shared = Arc::new(Shared::new(Waker::new(poll.registry(), Token(0))?, outgoing));
        let client = Self {
            shared: Arc::clone(&shared),
            hold: options.hold,
            overhead: match options.encryption {
                Encryption::Off => None,
                Encryption::Version1 => Some(TAG_BYTES),
                Encryption::Version2(_) => Some(TAG_BYTES + RECORD_BYTES),
            },
        };
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("coralmux-client".to_owned())
            .spawn(move || worker::run(&options, &way, poll, &of_thread))?;
        Ok((client, Events { shared }))
    }

    /// Sends a message to the peer, once there is a connection, a peer, and, where wanted, keys. Gives its id, which
    /// errors about it repeat. Waits while too much is waiting to be sent.
    ///
    /// # Errors
    /// It was not queued, and will not be sent.
    pub fn send(&self, kind: &str, payload: &impl Serialize) -> Result<String, SendError> {
        let id = envelope::new_id();
        self.send_raw(&id, kind, to_raw_value(payload)?, None)?;
        Ok(id)
    }

    /// `ends`: the payload has the whole text of this stream.
    fn send_raw(&self, id: &str, kind: &str, payload: Box<RawValue>, ends: Option<u64>) -> Result<(), SendError> {
        let plain = payload.get().len() + kind.len();
        let sealed = self.overhead.map(|overhead| (plain + overhead).div_ceil(3) * 4);
        let bytes = sealed.unwrap_or(plain) + ENVELOPE_BYTES;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge { bytes, max: MESSAGE_BYTES_MAX });
        }
        let entry = Entry::message(Instant::now(), id.to_owned(), kind, payload);
        Ok(self.shared.push(entry, ends, self.deadline())?)
    }

    /// Begins an answer that is sent while it is made. `fields` stand beside the text in each of its messages:
    /// `chat_id`, for example.
    #[must_use]
    pub fn stream(&self, fields: Map<String, Value>) -> Stream {
        Stream::new(self.clone(), fields)
    }

    /// Ends the client: what waits is sent if that can be done within `within`, then the connection is closed. Does
    /// not wait for it; [`Event::Closed`] says when it is done.
    pub fn close(&self, within: Duration) {
        self.shared.close(Instant::now() + within);
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.hold
    }
}

/// The receiving side: an iterator over what happens, which ends after the last event. While nobody takes events, the
/// client stops reading, and the relay gives the connection up after a while. Dropping it ends the client.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
}

impl Events {
    /// The next event, if one comes within that time. `Err`: none will come any more.
    ///
    /// # Errors
    /// [`Ended`]
    pub fn next_within(&self, within: Duration) -> Result<Option<Event>, Ended> {
        match self.shared.next_event(Some(within)) {
            (None, true) => Err(Ended),
            (event, _) => Ok(event),
        }
    }
}

/// The client has ended: its last event was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the client has ended")]
pub struct Ended;

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.shared.next_event(None).0
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.close(Instant::now());
    }
}
