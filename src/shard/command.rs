//! What comes into a shard's queue from other threads. Never a frame.

use super::Settings;
use super::bounds::COMMANDS_MAX;
use super::door::handover::HandOver;
use crate::control::message::{Notice, Shards};
use crate::proto::owner::owner;
use crate::proto::token::TokenKey;
use crate::ring::Waker;
use crate::shelf::message::{self as mail, Report};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What a shard is told to do.
pub enum Command<S = OwnedFd> {
    /// From control.
    Notice(Notice),
    /// From the mailbox.
    Mail(Report),
    /// A connection whose token this shard owns.
    HandOver(Box<HandOver<S>>),
    /// Another shard has a newcomer of this address, or of any, and nobody that could give way.
    MakeRoom(Option<IpAddr>),
    /// Start accepting on these sockets.
    Listen(Vec<Listener<S>>),
    /// Other settings hold from now on; the memory budget stays as it is.
    Settings(Box<Settings>),
    /// Accept no more, send all connections away, end when they have gone or when the time is up.
    Drain(DrainPlan),
}

/// How connections are sent away.
#[derive(Clone, Copy, Debug)]
pub struct DrainPlan {
    /// Over this time, each at a moment of its own.
    pub window: Duration,
    /// By then it is over.
    pub deadline: Duration,
    /// Random: what the moments are drawn from.
    pub seed: u64,
}

/// A listening socket of one shard.
pub struct Listener<S = OwnedFd> {
    /// The socket. All shards have one for each address: sockets of their own that share the port, or descriptors of
    /// the same socket where `inherited`.
    pub socket: S,
    /// It came from the service manager, which keeps it when this process ends: who comes then waits in its backlog.
    pub inherited: bool,
    /// Whether messages that come in on it are echoed.
    pub echo: bool,
    /// Whether TLS is spoken on it.
    pub tls: bool,
}

/// The channel of a queue, before anyone can be woken by it.
#[must_use]
pub fn channel<S>() -> (Sender<Command<S>>, Receiver<Command<S>>) {
    bounded(COMMANDS_MAX)
}

/// All shards' queues, by shard.
pub struct Queues<S = OwnedFd> {
    boxes: Vec<(Sender<Command<S>>, Waker)>,
}

impl<S> Clone for Queues<S> {
    fn clone(&self) -> Self {
        Self { boxes: self.boxes.clone() }
    }
}

impl<S> Queues<S> {
    /// Of all shards, in order.
    #[must_use]
    pub fn new(boxes: Vec<(Sender<Command<S>>, Waker)>) -> Self {
        Self { boxes }
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.boxes.len() as u16
    }

    /// Puts a command in, or gives it back when the queue is full or its shard has ended: a shard must not wait.
    ///
    /// # Errors
    /// The command that could not be put in.
    pub fn try_post(&self, shard: u16, command: Command<S>) -> Result<(), Command<S>> {
        let Some((sender, waker)) = self.boxes.get(usize::from(shard)) else { return Err(command) };
        match sender.try_send(command) {
            Ok(()) => {
                waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => Err(command),
        }
    }

    /// Puts a command in, waiting while the queue is full; `false` when its shard has ended. Not for shards.
    #[must_use]
    pub fn post(&self, shard: u16, command: Command<S>) -> bool {
        let Some((sender, waker)) = self.boxes.get(usize::from(shard)) else { return false };
        let sent = sender.send(command).is_ok();
        waker.wake();
        sent
    }
}

impl mail::Shards for Queues {
    fn owner(&self, key: TokenKey) -> u16 {
        owner(key, self.shards())
    }

    fn count(&self) -> u16 {
        self.shards()
    }

    fn post(&self, shard: u16, report: Report) -> bool {
        Self::post(self, shard, Command::Mail(report))
    }
}

impl Shards for Queues {
    fn owner(&self, key: TokenKey) -> u16 {
        owner(key, self.shards())
    }

    fn post(&self, shard: u16, notice: Notice) -> bool {
        Self::post(self, shard, Command::Notice(notice))
    }
}
