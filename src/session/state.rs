//! The session state machine: who is there, what may pass, what is used up.

use crate::effect::{Effect, Farewell, Refusal};
use crate::members::{Member, Members, Presence};
use crate::message::{ErrorCode, RelayMessage};
use crate::policy::{ACK_BYTES_MAX, Policy};
use crate::proto::bucket::Bucket;
use crate::proto::envelope::Kind;
use crate::proto::quota::{Exceeded, Used};
use crate::proto::token::{ByRole, Role};
use std::rc::Rc;
use std::time::Duration;

/// What a token's connections share. `C` names a connection to the layer that owns them: one of its sockets, or anything
/// else that takes messages.
#[derive(Debug)]
pub struct Session<C> {
    members: Members<C>,
    /// They belong to the token, not to a connection: a reconnect does not refill them.
    messages: ByRole<Bucket>,
    streams: Bucket,
    acks: ByRole<Bucket>,
    /// What the relay answers itself.
    answers: ByRole<Bucket>,
    used: Used,
    /// Bytes forwarded since [`Session::take_unreported`].
    unreported_bytes: u64,
    policy: Rc<Policy>,
}

impl<C: Copy + PartialEq> Session<C> {
    /// A session that nobody has joined, with what its token used before.
    #[must_use]
    pub fn new(policy: Rc<Policy>, used: Used) -> Self {
        Self {
            members: Members::default(),
            messages: Default::default(),
            streams: Bucket::default(),
            acks: Default::default(),
            answers: Default::default(),
            used,
            unreported_bytes: 0,
            policy,
        }
    }

    /// Who is there.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.members.presence()
    }

    /// A connection that has joined and has not left, whether it has been replaced or not.
    #[must_use]
    pub fn member(&self, connection: C) -> Option<&Member<C>> {
        self.members.get(connection)
    }

    /// The connections of a role.
    pub fn connections(&self, role: Role) -> impl Iterator<Item = C> {
        self.members.of(role).map(|member| member.connection)
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

    /// A connection has authenticated, at `unix_ms`. It replaces the connection that has its role.
    #[must_use = "they are to be carried out"]
    pub fn join(&mut self, member: Member<C>, unix_ms: u64) -> Vec<Effect<C>> {
        let Member { connection, role, ext, .. } = member;
        let mut effects = Vec::with_capacity(3);
        for replaced in self.members.of_mut(role) {
            replaced.replaced = true;
            effects.push(Effect::Close(replaced.connection, Farewell::Replaced));
        }
        self.members.insert(member);
        let daily_quota_bytes = self.policy.limits.daily_quota_bytes;
        let daily_used_bytes = self.used(unix_ms).day_bytes;
        let paired = self.presence() == Presence::Paired;
        // The peer learns of the newcomer before anything of the newcomer can reach it, and its own next key exchange
        // cannot overtake the newcomer's auth.ok, which is queued here and now (wire contract, Order).
        let auth_ok = RelayMessage::AuthOk { paired, daily_quota_bytes, daily_used_bytes, ext };
        effects.push(Effect::Tell(connection, auth_ok));
        effects.extend(self.tell_peers(role, true));
        effects
    }

    /// A connection has ended. Nobody is told of one that has been replaced, or has not joined.
    #[must_use = "they are to be carried out"]
    pub fn leave(&mut self, connection: C) -> Vec<Effect<C>> {
        match self.members.remove(connection) {
            Some(Member { role, replaced: false, .. }) if self.members.of(role).next().is_none() => {
                self.tell_peers(role, false).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The token admits no more.
    #[must_use = "they are to be carried out"]
    pub fn revoke(&self) -> Vec<Effect<C>> {
        self.members.iter().map(|member| Effect::Close(member.connection, Farewell::Revoked)).collect()
    }

    fn tell_peers(&self, role: Role, online: bool) -> impl Iterator<Item = Effect<C>> {
        let peers = self.members.of(role.peer());
        peers.map(move |peer| Effect::Tell(peer.connection, RelayMessage::Status { online }))
    }

    /// `role` has made the relay answer something, or take a sign of life.
    ///
    /// # Errors
    /// It does so too often: how long it is not to be read.
    pub fn charge_answer(&mut self, now: Duration, role: Role) -> Result<(), Duration> {
        match self.policy.answer_rate() {
            Some(rate) => self.answers[role].try_take(now, rate),
            None => Ok(()),
        }
    }

    /// Decides on a message of a member; `now` is monotonic, `unix_ms` the wall clock.
    #[must_use = "it is to be carried out"]
    pub fn handle_message(
        &mut self,
        now: Duration,
        unix_ms: u64,
        from: C,
        kind: Kind,
        message_bytes: u64,
    ) -> Effect<C> {
        let members = self.members.as_mut_slice();
        let Some(place) = members.iter().position(|member| member.connection == from) else { return Effect::Nothing };
        let Member { role, ext, .. } = members[place];
        match kind {
            Kind::Ping => return Effect::Tell(from, RelayMessage::Pong),
            Kind::Pong => return Effect::Nothing,
            Kind::Auth | Kind::AuthReserved | Kind::Status => {
                let text = match kind {
                    Kind::Auth => "this connection has authenticated already",
                    _ => "this type is reserved for the relay",
                };
                return Effect::Refuse(Refusal::new(ErrorCode::InvalidMessage, text));
            }
            Kind::Stream | Kind::Done if role == Role::Phone => {
                let text = "a phone may not send chat.stream or chat.done";
                return Effect::Refuse(Refusal::new(ErrorCode::InvalidMessage, text));
            }
            Kind::Stream | Kind::Done | Kind::Ack | Kind::Other => {}
        }
        let policy = Rc::clone(&self.policy);
        // What is slowed down where others are refused.
        let slowed = match kind {
            Kind::Stream => Some((&mut self.streams, policy.stream_rate())),
            Kind::Ack if ext && message_bytes <= ACK_BYTES_MAX => Some((&mut self.acks[role], policy.ack_rate())),
            _ => None,
        };
        if let Some((bucket, rate)) = slowed {
            if let Some(rate) = rate
                && let Err(wait) = bucket.try_take(now, rate)
            {
                return Effect::Later(wait);
            }
        } else if let Some(rate) = policy.message_rate(role)
            && let Err(wait) = self.messages[role].try_take(now, rate)
        {
            return Effect::Refuse(Refusal {
                code: ErrorCode::RateLimited,
                message: match role {
                    Role::Phone => "the phone's messages a minute are used up",
                    Role::Agent => "the agent's messages a minute are used up",
                },
                retry_after_ms: Some(millis_up(wait)),
            });
        }
        let to = members.iter().find(|member| member.takes(role.peer()));
        let Some(to) = to.map(|member| member.connection) else {
            let text = match role {
                Role::Phone => "the agent is not connected",
                Role::Agent => "the phone is not connected",
            };
            return Effect::Refuse(Refusal::new(ErrorCode::PeerOffline, text));
        };
        let Policy { limits, .. } = &*policy;
        match self.used.try_charge(unix_ms, message_bytes, limits.daily_quota_bytes, limits.monthly_quota_bytes) {
            Ok(()) => {
                self.unreported_bytes += message_bytes;
                let member = &mut members[place];
                member.messages += 1;
                member.bytes += message_bytes;
                Effect::Forward(to)
            }
            Err(Exceeded::Daily { retry_after_ms }) => Effect::Refuse(Refusal {
                code: ErrorCode::DailyQuotaExceeded,
                message: "the token's bytes of this UTC day are used up",
                retry_after_ms: Some(retry_after_ms),
            }),
            Err(Exceeded::Monthly { retry_after_ms }) => Effect::Refuse(Refusal {
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
