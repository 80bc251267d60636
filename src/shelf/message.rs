//! What shards and the shelf say to each other.

use crate::api::{ApiAnswer, Caller};
use crate::proto::token::TokenKey;
use crate::session::{Asked, Party, Pile};

/// From a shard to the shelf.
#[derive(Debug)]
pub enum Request {
    /// A message is to be kept; answered by [`Report::Kept`].
    Keep(Keep),
    /// A page is to be read; answered by [`Report::Page`].
    Read(Read),
    /// A receiver has stored its messages up to a number: they are to be deleted, and so many that have expired are not to be
    /// told again.
    Delete {
        /// The token.
        key: TokenKey,
        /// The receiver.
        of: Party,
        /// The number.
        upto: u64,
        /// How many have expired.
        lost: u64,
    },
    /// All that is for a party, or that it has sent, is to be thrown away; answered by [`Report::Forgotten`].
    Forget {
        /// The token.
        key: TokenKey,
        /// The party; `None`: all of the token.
        of: Option<Party>,
    },
    /// An operator asks; answered by [`Report::Answer`].
    Call {
        /// Who waits for the answer.
        from: Caller,
        /// Of which token; `None`: of all.
        key: Option<TokenKey>,
        /// What is asked.
        call: Call,
    },
    /// End: write what is queued, close the file, return.
    Stop,
}

/// What an operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What waits for whom.
    Show,
    /// That what waits for a receiver, or for all of the token, is thrown away.
    Empty(Option<Party>),
}

/// A message that is to be kept.
#[derive(Debug)]
pub struct Keep {
    /// The token.
    pub key: TokenKey,
    /// For whom it is.
    pub to: Party,
    /// From whom it is.
    pub from: Party,
    /// Its receiver is to be woken.
    pub wake: bool,
    /// How long it may wait, in seconds.
    pub age_max_sec: u64,
    /// Who is told that it is kept.
    pub asked: Asked,
    /// The message, as it came.
    pub message: Vec<u8>,
}

/// A page that is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The token.
    pub key: TokenKey,
    /// The receiver.
    pub of: Party,
    /// Behind which number.
    pub after: u64,
    /// What the shard calls the page.
    pub page: u64,
}

/// What has become of a message that was to be kept.
#[derive(Debug)]
pub struct Kept {
    /// The token.
    pub key: TokenKey,
    /// For whom it is.
    pub to: Party,
    /// From whom it is.
    pub from: Party,
    /// Its receiver is to be woken.
    pub wake: bool,
    /// Its length.
    pub bytes: u64,
    /// Who is to be told.
    pub asked: Asked,
    /// Its number, now that it is on the disk; `None`: it is not.
    pub number: Option<u64>,
}

/// A page, read.
#[derive(Debug)]
pub struct Page {
    /// The token.
    pub key: TokenKey,
    /// The receiver.
    pub of: Party,
    /// What the shard calls it.
    pub page: u64,
    /// What was read; `None`: the file cannot be read.
    pub read: Option<PageRead>,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PageRead {
    /// The messages as whole WebSocket frames, one behind the other.
    pub frames: Vec<u8>,
    /// How many.
    pub messages: u64,
    /// The number of the last one; that which was asked for where there is none.
    pub upto: u64,
    /// Messages behind it.
    pub left: u64,
}

/// What is in the file for a receiver from a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The token.
    pub key: TokenKey,
    /// For whom it is.
    pub to: Party,
    /// From whom it is.
    pub from: Party,
    /// How much.
    pub pile: Pile,
    /// The number of the newest.
    pub newest: u64,
    /// The longest.
    pub longest: u64,
}

/// From the shelf to a shard.
#[derive(Debug)]
pub enum Report {
    /// To the owner: what has become of [`Request::Keep`].
    Kept(Box<Kept>),
    /// To the owner: the answer to [`Request::Read`].
    Page(Box<Page>),
    /// To the owner: so much of what waited for a receiver has been deleted.
    Removed {
        /// The token.
        key: TokenKey,
        /// For whom it was.
        to: Party,
        /// From whom it was.
        from: Party,
        /// How much.
        pile: Pile,
    },
    /// To the owner: so many messages for a receiver have expired.
    Lost {
        /// The token.
        key: TokenKey,
        /// The receiver.
        of: Party,
        /// How many.
        count: u64,
    },
    /// To the owner: what was to be thrown away is gone.
    Forgotten {
        /// The token.
        key: TokenKey,
        /// The party.
        of: Party,
    },
    /// To the caller's shard: the answer to [`Request::Call`].
    Answer {
        /// The waiting connection.
        serial: u64,
        /// The answer.
        answer: ApiAnswer,
    },
    /// To all: the file has been opened anew, and what is in it follows.
    Opened {
        /// It is another file: what was in the one before is lost.
        is_other: bool,
    },
    /// To the owner: this is in it.
    Found(Found),
    /// To all: that is all that is in it, or all that can be known of it.
    Loaded,
}

/// How the shelf reaches the shards.
pub trait Shards: Send {
    /// The shard that owns a token.
    fn owner(&self, key: TokenKey) -> u16;
    /// How many there are.
    fn count(&self) -> u16;
    /// Puts a report into a shard's queue, waiting while it is full; `false` when the shard has ended.
    fn post(&self, shard: u16, report: Report) -> bool;
}
