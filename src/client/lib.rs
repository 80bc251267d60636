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
mod devices;
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
pub use coralmux_e2e::v3::{AgentPrint, DeviceId, NAME_CHARS_MAX, StaticKey, cleaned};
pub use coralmux_e2e::{Link, PairingSecret};
pub use coralmux_proto::limits::MESSAGE_BYTES_MAX;
pub use coralmux_proto::token::Role;
pub use devices::{
    AgentKeys, BookError, DEVICES_MAX, Device, DeviceError, Devices, Folder, INVITE_LIFE, Info, Joined, Lane, NoLink,
    Store, To, first_link, make_folder, replace,
};
pub use envelope::{new_id, random, unix_ms};
pub use event::{Event, Message, PeerError, Reason, Speaker};
pub use options::{Encryption, Options, Trust};
pub use register::{RegisterError, http_agent, proxy_of, register, retry_after};
pub use resume::Keep;
pub use stream::{ANSWER_BYTES_MAX, Stream};
pub use tls::TlsError;
pub use url::{RelayUrl, UrlError, is_of_own_network};

use connect::Way;
use coralmux_e2e::{ENVELOPE_BYTES, TAG_BYTES};
use devices::Command;
use mio::{Poll, Token, Waker};
use outgoing::{Entry, Outgoing};
use resume::{Boot, RECORD_BYTES};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use session::{Fleet, Session};
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
    /// What is kept of an agent's devices cannot be used.
    #[error(transparent)]
    Devices(#[from] BookError),
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
        Self::start_with(options, |options, _| Ok(Session::new(options)))
    }

    /// Starts an agent that has devices, where its relay knows them: each phone, tablet or browser has keys of its own.
    /// The encryption is version 2, whose secret is that of the link of the first start; phones that know no devices use
    /// it.
    ///
    /// # Errors
    /// As [`start`](Self::start); and what is kept of the devices cannot be used.
    pub fn start_with_devices(options: Options, devices: &Devices) -> Result<(Self, Events), StartError> {
        Self::start_with(options, |options, shared| {
            Ok(Session::of_agent(Fleet::open(options, devices, shared)?, shared))
        })
    }

    /// Starts a phone that is a device of its agent, or becomes one. Encryption and token of the options are not used.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_as_device(options: Options, device: Device) -> Result<(Self, Events), StartError> {
        let options = Options { token: device.token().to_owned(), encryption: Encryption::Device, ..options };
        Self::start_with(options, |_, _| Ok(Session::of_device(device)))
    }

    fn start_with(
        options: Options,
        session: impl FnOnce(&Options, &Shared) -> Result<Session, StartError>,
    ) -> Result<(Self, Events), StartError> {
        let tls = if options.relay.is_secure() { Some(tls::config(&options.trust)?) } else { None };
        let proxy = Tunnel::from_env(&options.relay).map_err(StartError::Proxy)?;
        let way = Way { tls, proxy };
        let poll = Poll::new()?;
        let outgoing = Outgoing::new(options.role, Boot::draw());
        let shared = Arc::new(Shared::new(Waker::new(poll.registry(), Token(0))?, outgoing));
        let session = session(&options, &shared)?;
        let client = Self {
            shared: Arc::clone(&shared),
            hold: options.hold,
            overhead: match options.encryption {
                Encryption::Off => None,
                Encryption::Version1 => Some(TAG_BYTES),
                Encryption::Version2(_) | Encryption::Device => Some(TAG_BYTES + RECORD_BYTES),
            },
        };
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("coralmux-client".to_owned())
            .spawn(move || worker::run(&options, &way, poll, &of_thread, session))?;
        Ok((client, Events { shared }))
    }

    /// Sends a message to the peer, once there is a connection, a peer, and, where wanted, keys. Gives its id, which
    /// errors about it repeat. Waits while too much is waiting to be sent.
    ///
    /// # Errors
    /// It was not queued, and will not be sent.
    pub fn send(&self, kind: &str, payload: &impl Serialize) -> Result<String, SendError> {
        self.send_to(To::All, kind, payload)
    }

    /// The same, of an agent with devices, for some of them. Each gets it when it comes; an absent one makes nobody wait.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_to(&self, to: To, kind: &str, payload: &impl Serialize) -> Result<String, SendError> {
        let is_fleeting = kind == "chat.tool_status";
        self.send_kept(to, kind, payload, if is_fleeting { Keep::Never } else { Keep::Quiet })
    }

    /// The same, with a word about how the relay keeps it for whoever of them is away, if it keeps messages and both ends
    /// have keys that last.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_kept(&self, to: To, kind: &str, payload: &impl Serialize, keep: Keep) -> Result<String, SendError> {
        let id = envelope::new_id();
        self.send_raw((to, keep), &id, kind, to_raw_value(payload)?, None)?;
        Ok(id)
    }

    /// `ends`: the payload has the whole text of this stream.
    fn send_raw(
        &self,
        (to, keep): (To, Keep),
        id: &str,
        kind: &str,
        payload: Box<RawValue>,
        ends: Option<u64>,
    ) -> Result<(), SendError> {
        let plain = payload.get().len() + kind.len();
        let sealed = self.overhead.map(|overhead| (plain + overhead).div_ceil(3) * 4);
        let bytes = sealed.unwrap_or(plain) + ENVELOPE_BYTES;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge { bytes, max: MESSAGE_BYTES_MAX });
        }
        let entry = Entry::message(Instant::now(), id.to_owned(), kind, payload, envelope::unix_ms()).with_keep(keep);
        Ok(self.shared.push(to, &entry, ends, self.deadline())?)
    }

    /// Begins an answer that is sent while it is made. `fields` stand beside the text in each of its messages:
    /// `chat_id`, for example.
    #[must_use]
    pub fn stream(&self, fields: Map<String, Value>) -> Stream {
        self.stream_to(To::All, fields)
    }

    /// The same, of an agent with devices, for some of them.
    #[must_use]
    pub fn stream_to(&self, to: To, fields: Map<String, Value>) -> Stream {
        Stream::new(self.clone(), to, fields)
    }

    /// An agent's devices, those that wait to be admitted (they have a code) among them.
    #[must_use]
    pub fn devices(&self) -> Vec<Info> {
        self.shared.infos()
    }

    /// Makes one that has joined a device; [`Event::Admitted`] says when the relay lets it in.
    ///
    /// # Errors
    /// The client has ended, or too much is asked of it at once.
    pub fn admit(&self, device: DeviceId) -> Result<(), SendError> {
        Ok(self.shared.command(Command::Admit(device))?)
    }

    /// Tells a device that it is one, when it [wants](Event::WantsWelcome) to hear it: `device.welcome`.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn welcome(&self, device: DeviceId, payload: &impl Serialize) -> Result<(), SendError> {
        Ok(self.shared.command(Command::Welcome(device, to_raw_value(payload)?))?)
    }

    /// Forgets a device, and refuses one that has joined. `invited`: and what it has invited, and what that has invited.
    /// [`Event::Left`] names each. The relay is told, as soon as it can be.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn revoke(&self, device: DeviceId, invited: bool) -> Result<(), SendError> {
        Ok(self.shared.command(Command::Revoke { device, invited })?)
    }

    /// Lets in no phones any more that know no devices.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn close_plain(&self) -> Result<(), SendError> {
        Ok(self.shared.command(Command::ClosePlain)?)
    }

    /// Names a device. The caller has [cleaned] the name.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn rename(&self, device: DeviceId, name: String) -> Result<(), SendError> {
        Ok(self.shared.command(Command::Rename(device, name))?)
    }

    /// Makes a device the one that may revoke all others.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn set_owner(&self, device: DeviceId) -> Result<(), SendError> {
        Ok(self.shared.command(Command::Owner(device))?)
    }

    /// Asks for a link for one more device, on behalf of a device or, `None`, of the agent itself. What comes of it is
    /// told with `tag`: [`Event::Invited`] or [`Event::NotInvited`].
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn invite(&self, by: Lane, tag: String) -> Result<(), SendError> {
        Ok(self.shared.command(Command::Invite { by, tag })?)
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
