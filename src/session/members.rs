//! Who is in a session.

use crate::proto::token::Role;
use crate::shelf::MailState;
use smallvec::SmallVec;
use std::time::Duration;

/// One connection of a session.
#[derive(Clone, Copy, Debug)]
pub struct Member<C> {
    /// Names the connection to the layer that owns it.
    pub connection: C,
    /// What it may send, and whom its messages are for.
    pub role: Role,
    /// Whether it was given the extension: its acknowledgements have limits of their own.
    pub ext: bool,
    /// What is known of the mailbox when it joins.
    pub(super) mail: MailState,
    /// Whether it is a device: what is for a phone is not for it, but what names it.
    is_device: bool,
    /// Another one has its place, or it was a device and is none any more: it is on its way out, and nothing is for it.
    is_replaced: bool,
    /// It is neither of the two: `!is_device && !is_replaced`, for it is looked at for each message.
    is_plain: bool,
    /// What its layer calls it in the log.
    pub serial: u64,
    /// When it joined.
    pub since: Duration,
    /// Messages forwarded from it.
    pub messages: u64,
    /// Their payload.
    pub bytes: u64,
}

impl<C> Member<C> {
    /// One without the extension that joins at `since`.
    #[must_use]
    pub fn new(connection: C, role: Role, serial: u64, since: Duration) -> Self {
        Self {
            connection,
            role,
            ext: false,
            mail: MailState::Off,
            is_device: false,
            is_replaced: false,
            is_plain: true,
            serial,
            since,
            messages: 0,
            bytes: 0,
        }
    }

    /// The same with the extension, or without.
    #[must_use]
    pub fn with_ext(self, ext: bool) -> Self {
        Self { ext, ..self }
    }

    /// The same, with what is known of the mailbox.
    #[must_use]
    pub fn with_mail(self, mail: MailState) -> Self {
        Self { mail, ..self }
    }
}

/// Who of a token is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody.
    Empty,
    /// One role waits for the other.
    Waiting,
    /// Both roles.
    Paired,
}

/// The members of a session, in the order in which they joined. There may be any number of a role; a phone and an agent are
/// what nearly all sessions have, and are kept without an allocation.
#[derive(Debug)]
pub(super) struct Members<C> {
    all: SmallVec<[Member<C>; 2]>,
}

impl<C> Member<C> {
    /// Whether it is a device, admitted or not.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// It joins as a device.
    pub(super) fn set_device(&mut self) {
        (self.is_device, self.is_plain) = (true, false);
    }

    /// Whether it is on its way out.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// It is on its way out.
    pub(super) fn set_replaced(&mut self) {
        (self.is_replaced, self.is_plain) = (true, false);
    }

    /// Whether messages for `role` that name no device are for it.
    pub(super) fn takes(&self, role: Role) -> bool {
        self.role == role && self.is_plain
    }

    /// Whether it is of `role`, a device or not, and has not been replaced.
    pub(super) fn is_of(&self, role: Role) -> bool {
        self.role == role && !self.is_replaced
    }
}

impl<C> Default for Members<C> {
    fn default() -> Self {
        Self { all: SmallVec::new() }
    }
}

impl<C: Copy + PartialEq> Members<C> {
    pub(super) fn insert(&mut self, member: Member<C>) {
        self.all.push(member);
    }

    pub(super) fn remove(&mut self, connection: C) -> Option<Member<C>> {
        let member = self.all.remove(self.find(connection)?);
        self.all.shrink_to_fit();
        Some(member)
    }

    fn find(&self, connection: C) -> Option<usize> {
        self.all.iter().position(|member| member.connection == connection)
    }

    pub(super) fn get(&self, connection: C) -> Option<&Member<C>> {
        self.all.get(self.find(connection)?)
    }

    /// All of them, those that have been replaced among them.
    pub(super) fn as_mut_slice(&mut self) -> &mut [Member<C>] {
        &mut self.all
    }

    /// As [`Members::get`].
    pub(super) fn get_mut(&mut self, connection: C) -> Option<&mut Member<C>> {
        let place = self.find(connection)?;
        self.all.get_mut(place)
    }

    /// Those of a role that have not been replaced, devices among them.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = &Member<C>> {
        self.all.iter().filter(move |member| member.is_of(role))
    }

    /// Those that messages for a role are for which name no device.
    pub(super) fn plain(&self, role: Role) -> impl Iterator<Item = &Member<C>> {
        self.all.iter().filter(move |member| member.takes(role))
    }

    /// As [`Members::plain`].
    pub(super) fn plain_mut(&mut self, role: Role) -> impl Iterator<Item = &mut Member<C>> {
        self.all.iter_mut().filter(move |member| member.takes(role))
    }

    /// Those that have not been replaced.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member<C>> {
        self.all.iter().filter(|member| !member.is_replaced)
    }

    pub(super) fn presence(&self) -> Presence {
        // Who is replaced has a successor. A device that is sent away has none, and is there until it leaves.
        let is_there = |member: &Member<C>| !member.is_replaced || member.is_device;
        let has = |role| self.all.iter().any(|member| member.role == role && is_there(member));
        match (has(Role::Phone), has(Role::Agent)) {
            (false, false) => Presence::Empty,
            (true, true) => Presence::Paired,
            _ => Presence::Waiting,
        }
    }
}
