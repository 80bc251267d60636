//! The session state machine: who is there, what may pass, what is used up.

use super::message::ErrorCode;
use super::policy::Policy;
use crate::proto::bucket::Bucket;
use crate::proto::envelope::Kind;
use crate::proto::quota::{Exceeded, Used};
use crate::proto::token::Role;
use std::rc::Rc;
use std::time::Duration;

/// What a token's two connections share. `C` names a connection to the layer that owns them.
#[derive(Debug)]
pub struct Session<C> {
    /// By `Role as usize`.
    connections: [Option<C>; 2],
    /// By `Role as usize`. They belong to the token, not to a connection: a reconnect does not refill them.
    messages: [Bucket; 2],
    streams: Bucket,
    /// By `Role as usize`: what the relay answers itself.
    answers: [Bucket; 2],
    used: Used,
    /// Bytes forwarded since [`Session::take_unreported`].
    unreported_bytes: u64,
    policy: Rc<Policy>,
}

/// What follows from an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined<C> {
    /// The role's connection until now: to be closed with 4001.
    pub replaced: Option<C>,
    /// The peer, which is to be told `status online` before anything of the newcomer.
    pub peer: Option<C>,
}

/// What follows from a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left<C> {
    /// The peer, which is to be told `status offline`.
    pub peer: Option<C>,
}

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<C> {
    /// Goes to the peer as it is; it has been counted.
    Forward(C),
    /// To be answered with `pong`.
    Pong,
    /// Says nothing: a sign of life.
    Ignore,
    /// Not now: to be handed in again after that long, before anything that came after it. Nothing was counted.
    Later(Duration),
    /// Not delivered; the sender is to be told.
    Refuse(Refusal),
}

/// Why a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code on the wire.
    pub code: ErrorCode,
    /// In plain words.
    pub message: &'static str,
    /// When the same message can pass.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, message, retry_after_ms: None }
    }
}

impl<C: Copy + PartialEq> Session<C> {
    /// A session that nobody has joined, with what its token used before.
    #[must_use]
    pub fn new(policy: Rc<Policy>, used: Used) -> Self {
        Self {
            connections: [None, None],
            messages: Default::default(),
            streams: Bucket::default(),
            answers: Default::default(),
            used,
            unreported_bytes: 0,
            policy,
        }
    }

    /// The connection of a role.
    #[must_use]
    pub fn connection(&self, role: Role) -> Option<C> {
        self.connections[role as usize]
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections == [None, None]
    }

    /// The limits in force.
    #[must_use]
    pub fn policy(&self) -> &Rc<Policy> {
        &self.policy
    }

    /// Puts other limits in force, from the next message on.
    pub fn set_policy(&mut self, policy: Rc<Policy>) {
        self.policy = policy;
    }

    /// What is used up, in the windows of `unix_ms`.
    #[must_use]
    pub fn used(&mut self, unix_ms: u64) -> Used {
        self.used.roll(unix_ms);
        self.used
    }

    /// Bytes forwarded since the last call.
    pub fn take_unreported(&mut self) -> u64 {
        std::mem::take(&mut self.unreported_bytes)
    }

    /// Gives back what [`Session::take_unreported`] took, when it could not be reported.
    pub fn put_back_unreported(&mut self, bytes: u64) {
        self.unreported_bytes += bytes;
    }

    /// `connection` has authenticated as `role`.
    pub fn join(&mut self, role: Role, connection: C) -> Joined<C> {
        let replaced = self.connections[role as usize].replace(connection);
        Joined { replaced, peer: self.connection(role.peer()) }
    }

    /// `connection` has ended. `None` when it was not the role's connection (any more): nobody is to be told.
    pub fn leave(&mut self, role: Role, connection: C) -> Option<Left<C>> {
        if self.connection(role) != Some(connection) {
            return None;
        }
        self.connections[role as usize] = None;
        Some(Left { peer: self.connection(role.peer()) })
    }

    /// `role` has made the relay answer something, or take a sign of life.
    ///
    /// # Errors
    /// It does so too often: how long it is not to be read.
    pub fn charge_answer(&mut self, now: Duration, role: Role) -> Result<(), Duration> {
        match self.policy.answer_rate() {
            Some(rate) => self.answers[role as usize].try_take(now, rate),
            None => Ok(()),
        }
    }

    /// Decides on a message of `role`; `now` is monotonic, `unix_ms` the wall clock.
    pub fn handle_message(
        &mut self,
        now: Duration,
        unix_ms: u64,
        role: Role,
        kind: Kind,
        message_bytes: u64,
    ) -> Verdict<C> {
        match kind {
            Kind::Ping => return Verdict::Pong,
            Kind::Pong => return Verdict::Ignore,
            Kind::Auth | Kind::AuthReserved | Kind::Status => {
                let text = match kind {
                    Kind::Auth => "this connection has authenticated already",
                    _ => "this type is reserved for the relay",
                };
                return Verdict::Refuse(Refusal::new(ErrorCode::InvalidMessage, text));
            }
            Kind::Stream | Kind::Done if role == Role::Phone => {
                let text = "a phone may not send chat.stream or chat.done";
                return Verdict::Refuse(Refusal::new(ErrorCode::InvalidMessage, text));
            }
            Kind::Stream | Kind::Done | Kind::Other => {}
        }
        let policy = Rc::clone(&self.policy);
        if kind == Kind::Stream {
            if let Some(rate) = policy.stream_rate()
                && let Err(wait) = self.streams.try_take(now, rate)
            {
                return Verdict::Later(wait);
            }
        } else if let Some(rate) = policy.message_rate(role)
            && let Err(wait) = self.messages[role as usize].try_take(now, rate)
        {
            return Verdict::Refuse(Refusal {
                code: ErrorCode::RateLimited,
                message: match role {
                    Role::Phone => "the phone's messages a minute are used up",
                    Role::Agent => "the agent's messages a minute are used up",
                },
                retry_after_ms: Some(millis_up(wait)),
            });
        }
        let Some(peer) = self.connection(role.peer()) else {
            let text = match role {
                Role::Phone => "the agent is not connected",
                Role::Agent => "the phone is not connected",
            };
            return Verdict::Refuse(Refusal::new(ErrorCode::PeerOffline, text));
        };
        let Policy { limits, .. } = &*policy;
        match self.used.try_charge(unix_ms, message_bytes, limits.daily_quota_bytes, limits.monthly_quota_bytes) {
            Ok(()) => {
                self.unreported_bytes += message_bytes;
                Verdict::Forward(peer)
            }
            Err(Exceeded::Daily { retry_after_ms }) => Verdict::Refuse(Refusal {
                code: ErrorCode::DailyQuotaExceeded,
                message: "the token's bytes of this UTC day are used up",
                retry_after_ms: Some(retry_after_ms),
            }),
            Err(Exceeded::Monthly { retry_after_ms }) => Verdict::Refuse(Refusal {
                code: ErrorCode::MonthlyQuotaExceeded,
                message: "the token's bytes of this UTC month are used up",
                retry_after_ms: Some(retry_after_ms),
            }),
        }
    }
}

fn millis_up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}
