//! Tokens that several relays share through NATS: the buckets, their documents, and the thread that talks to NATS.
//!
//! NATS orders writes and hands them to everybody; each relay has all tokens in its own store too, and goes on with those
//! while NATS is away. No frame and no token's text ever goes there. Without `--cluster` there is neither a thread nor a
//! socket.

mod bucket;
mod document;
mod probe;
mod refusal;
mod session;
mod state;
mod thread;
mod url;

pub use probe::probe;
pub use refusal::{Refusal, StartError};
pub use state::State;
pub use url::{NatsUrl, NatsUrlError};

use crate::proto::token::TokenHash;
use crate::store::{Membership, SharedToken};
use crossbeam_channel::{RecvTimeoutError, bounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// How long NATS has for an answer. Control is blocked meanwhile.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// What control waits for beyond that, for a thread that is busy.
const REPLY_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long NATS is not asked again that has not answered in time, so that control is blocked a part of the time at most.
const PAUSE: Duration = Duration::from_secs(5);
/// Calls of control that the thread has not taken yet: it makes one at a time.
const CALLS_MAX: usize = 16;

/// How NATS is reached by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that servers are checked against; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub pair: Option<(PathBuf, PathBuf)>,
}

/// Where the cluster is, and how it is reached.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The NATS servers, at least one.
    pub servers: Vec<NatsUrl>,
    /// What the buckets are named after.
    pub name: String,
    /// Copies of each bucket, where they are made.
    pub replicas: u8,
    /// The file with credentials.
    pub creds: Option<PathBuf>,
    /// TLS.
    pub tls: Tls,
}

/// How a relay is part of a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub reach: Reach,
    /// The cluster that the store is part of, if it is.
    pub member_of: Option<Membership>,
    /// What the cluster is to be called where there is none yet.
    pub new: Membership,
}

/// What NATS has of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The token.
    pub hash: TokenHash,
    /// The place of this write in the order of all of them.
    pub revision: u64,
    /// What it is now; `None`: revoked.
    pub token: Option<SharedToken>,
}

/// What the thread says to control, in the order of the writes.
#[derive(Debug)]
pub enum Event {
    /// All that there is follows, and then what is written.
    Begun,
    /// Tokens as they are now.
    Changes(Vec<Change>),
    /// All that there was at the beginning has been said.
    Read,
    /// All that there was when this question was asked has been said.
    Current(u64),
}

/// Puts an event into control's queue; gives it back where that is full.
pub type Sink = Box<dyn Fn(Event) -> Result<(), Event> + Send + Sync>;

/// A write, which is carried out only where the token's last write is the one that is named.
#[derive(Debug)]
pub struct Put {
    /// The token.
    pub hash: TokenHash,
    /// The revision of its last write; 0: there is none.
    pub after: u64,
    /// What it becomes; `None`: revoked.
    pub token: Option<SharedToken>,
    /// It has no serial yet.
    pub is_new: bool,
}

/// Why a write was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// The token's last write is another one.
    Conflict,
    /// NATS is away, or has not answered in time: the write may have been carried out all the same.
    Away,
}

/// A call of control.
enum Call {
    Put(Vec<Put>, crossbeam_channel::Sender<Vec<Result<u64, PutError>>>),
    Read(TokenHash, crossbeam_channel::Sender<Result<Option<Change>, PutError>>),
    BeginAgain,
}

/// The way to the thread.
pub struct Cluster {
    membership: Membership,
    calls: mpsc::Sender<Call>,
    questions: watch::Sender<u64>,
    state: Arc<State>,
    sink: Mutex<Option<oneshot::Sender<Sink>>>,
}

/// What the first look at NATS has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was no cluster of that name: this relay has begun one.
    Made(Membership),
    /// There is one.
    There(Membership),
    /// NATS cannot be reached, but the store has all tokens of the cluster that it is part of.
    Away(Membership, String),
}

impl Cluster {
    /// Starts the thread and looks for the cluster. Nothing is read before [`Cluster::follow`].
    ///
    /// # Errors
    /// [`StartError`]: NATS cannot be reached and the store is part of no cluster yet, or it cannot be used.
    pub fn start(options: Options) -> Result<(Arc<Self>, Found), StartError> {
        let (calls, called) = mpsc::channel(CALLS_MAX);
        let (questions, asked) = watch::channel(0);
        let (sink, followed) = oneshot::channel();
        let state = Arc::new(State::default());
        let found = thread::start(
            options,
            thread::Inputs { calls: called, questions: asked, sink: followed },
            Arc::clone(&state),
        )?;
        let (Found::Made(membership) | Found::There(membership) | Found::Away(membership, _)) = &found;
        let sink = Mutex::new(Some(sink));
        Ok((Arc::new(Self { membership: membership.clone(), calls, questions, state, sink }), found))
    }

    /// From now on control is told what is in NATS, and what is written there.
    pub fn follow(&self, sink: Sink) {
        let to = self.sink.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        // It is said once, by whoever starts the threads; the thread lives as long as the relay.
        let _ = to.map(|to| to.send(sink));
    }

    /// Has all that is in NATS said again, after a pause: something of it could not be taken in.
    pub fn begin_again(&self) {
        // Full, it has as much to do as would have been lost.
        let _ = self.calls.try_send(Call::BeginAgain);
    }

    /// Asks to be told when all that is in NATS now has been said ([`Event::Current`]); an earlier question is forgotten.
    pub fn ask_whether_current(&self, question: u64) {
        self.questions.send_replace(question);
    }

    /// The cluster.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Carries out one write; the revision that it has got. Blocks until NATS has answered.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn put(&self, put: Put) -> Result<u64, PutError> {
        self.put_all(vec![put]).pop().unwrap_or(Err(PutError::Away))
    }

    /// Carries out writes of different tokens, each by itself. Blocks until NATS has answered.
    #[must_use]
    pub fn put_all(&self, puts: Vec<Put>) -> Vec<Result<u64, PutError>> {
        let count = puts.len();
        self.call(|reply| Call::Put(puts, reply)).unwrap_or_else(|| vec![Err(PutError::Away); count])
    }

    /// What NATS has of a token; `None`: it never had it. Blocks until NATS has answered.
    ///
    /// # Errors
    /// [`PutError::Away`].
    pub fn read(&self, hash: TokenHash) -> Result<Option<Change>, PutError> {
        self.call(|reply| Call::Read(hash, reply)).unwrap_or(Err(PutError::Away))
    }

    fn call<T: PartialEq>(&self, call: impl FnOnce(crossbeam_channel::Sender<T>) -> Call) -> Option<T> {
        if !self.state.is_there() {
            return None;
        }
        let (reply, replies) = bounded(1);
        self.calls.try_send(call(reply)).ok()?;
        let answer = replies.recv_timeout(CALL_TIMEOUT + REPLY_TIMEOUT);
        if answer == Err(RecvTimeoutError::Timeout) {
            self.state.pause(PAUSE);
        }
        answer.ok()
    }
}
