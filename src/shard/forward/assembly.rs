//! Messages that do not come whole: each is put together in the connection's [`Inbox`], in memory of its own, and handed on
//! when it is whole.

use super::inbox::{FrameLeft, Inbox, Partial, Skipped};
use super::message::Step;
use crate::proto::envelope::{self, Scanner};
use crate::proto::frame::{self, Header, Opcode};
use crate::ring::chunk::OwnedBuf;
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::{DIRECT_BYTES_MIN, EMPTY_FRAMES_MAX, GLANCE_BYTES, MESSAGE_TIMEOUT, SMALL_BYTES_MAX};
use crate::shard::close::CloseReason;
use crate::shard::net::connection::Phase;

/// Room in front of a payload for the header it leaves with.
pub(super) const HEADROOM: usize = frame::header_bytes(u64::MAX);

impl<N: Net> Shard<N> {
    /// Begins a data frame, of whose payload `in_hand` bytes have come, in the inbox. Where there is no memory for it, it
    /// waits there.
    pub(super) fn begin_frame(&mut self, conn: Conn, header: Header, in_hand: usize) {
        let limit = self.message_bytes_max(conn);
        let phase = self.net[conn].phase();
        let continues = header.opcode == Opcode::Continuation;
        let under_way = self.net[conn].inbox.as_ref().and_then(|inbox| inbox.partial.as_ref());
        if continues != under_way.is_some() {
            return self.close(conn, CloseReason::Fragments);
        }
        let skipped = under_way.and_then(|partial| partial.skipped);
        let announced_bytes =
            under_way.map_or(0, |partial| partial.announced_bytes).saturating_add(header.payload_bytes);
        if announced_bytes > limit && phase == Phase::Auth {
            return self.refuse_auth(conn, "the first message is larger than an auth message can be");
        }
        if announced_bytes > limit && phase == Phase::Echo {
            return self.close(conn, CloseReason::TooLarge);
        }
        if skipped.is_some() || announced_bytes > limit {
            return self.begin_skipped(conn, header, skipped.unwrap_or(Skipped::TooLarge));
        }
        let has_memory = match continues {
            true => self.extend_message(conn, header, announced_bytes, limit, in_hand),
            false => self.begin_message(conn, header, limit, in_hand),
        };
        if !has_memory {
            return self.wait_for_memory(conn, header);
        }
        let Some(partial) = &mut self.inbox(conn).partial else { return };
        if continues && let Some(buf) = &mut partial.buf {
            buf.make_room(header.payload_bytes as usize);
        }
        self.enter_frame(conn, header);
    }

    /// Begins a data frame whose message is skipped.
    pub(in crate::shard) fn begin_skipped(&mut self, conn: Conn, header: Header, why: Skipped) {
        if header.opcode != Opcode::Continuation {
            let buf = OwnedBuf::from(Vec::new());
            self.put_partial(conn, header, buf);
        }
        if let Some(partial) = &mut self.inbox(conn).partial {
            partial.skip(why);
        }
        // Until it has caught up, what comes behind the message is received as the message itself is.
        self.net[conn].pace();
        self.enter_frame(conn, header);
    }

    /// The payload of `header` belongs to the message under way.
    fn enter_frame(&mut self, conn: Conn, header: Header) {
        let inbox = self.inbox(conn);
        inbox.pending = None;
        let Some(partial) = &mut inbox.partial else { return };
        partial.announced_bytes = partial.announced_bytes.saturating_add(header.payload_bytes);
        partial.frame = Some(FrameLeft::from(header));
        partial.empty_frames += u16::from(header.payload_bytes == 0);
        if partial.empty_frames > EMPTY_FRAMES_MAX {
            return self.close(conn, CloseReason::EmptyFrames);
        }
        self.after_piece(conn);
    }

    /// Begins a message in the inbox. `false`: memory for it has to wait.
    fn begin_message(&mut self, conn: Conn, header: Header, limit: u64, in_hand: usize) -> bool {
        // How long a message in fragments will be is not known: it gets more as it grows.
        let reserved_bytes = match header.fin {
            true => header.payload_bytes,
            false => header.payload_bytes.max(SMALL_BYTES_MAX as u64).min(limit),
        } as usize;
        let frame_bytes = header.payload_bytes;
        let Some(reservation) = self.reserve(conn, reserved_bytes, header.fin, frame_bytes, in_hand) else {
            return false;
        };
        // What is received straight into the allocation gets its room when its turn comes: until then it would only be
        // so much more memory to go through.
        let direct = !self.net.has_tls(conn) && header.payload_bytes >= DIRECT_BYTES_MIN + u64::from(GLANCE_BYTES);
        let capacity = if direct { 0 } else { header.payload_bytes as usize };
        self.put_partial(conn, header, OwnedBuf::with_headroom(HEADROOM, capacity, reservation));
        true
    }

    fn put_partial(&mut self, conn: Conn, header: Header, buf: OwnedBuf) {
        let (since, due) = (self.pulse.tick(), self.pulse.tick_after(MESSAGE_TIMEOUT));
        self.inbox(conn).partial = Some(Partial {
            opcode: header.opcode,
            buf: Some(buf),
            frame: None,
            announced_bytes: 0,
            scanner: Scanner::new(),
            invalid: None,
            skipped: None,
            told: false,
            empty_frames: 0,
            direct: false,
            since,
            due,
        });
        self.watch(conn, due);
    }

    /// Sees to it that a message in fragments has memory for `announced_bytes`, and at least twice what it had.
    /// `false`: it has to wait for that.
    fn extend_message(&mut self, conn: Conn, header: Header, announced_bytes: u64, limit: u64, in_hand: usize) -> bool {
        let partial = self.net[conn].inbox.as_ref().and_then(|inbox| inbox.partial.as_ref());
        let reserved = partial.and_then(|partial| partial.buf.as_ref()).map_or(0, OwnedBuf::reserved_bytes);
        if announced_bytes <= reserved as u64 {
            return true;
        }
        let wanted = announced_bytes.max(reserved as u64 * 2).min(limit) as usize;
        let frame_bytes = header.payload_bytes;
        let Some(more) = self.reserve(conn, wanted - reserved, false, frame_bytes, in_hand) else { return false };
        if let Some(buf) = self.inbox(conn).partial.as_mut().and_then(|partial| partial.buf.as_mut()) {
            buf.reserve_more(more);
        }
        true
    }

    /// After a piece of a message: hands it on when it is whole.
    pub(super) fn after_piece(&mut self, conn: Conn) {
        let Some(inbox) = &mut self.net[conn].inbox else { return };
        let Some(partial) = &mut inbox.partial else { return };
        if partial.skipped.is_some() {
            if let Some((why, reference, device)) = partial.poll_refusal() {
                self.refuse_skipped(conn, why, reference.as_deref(), device);
            }
            let Some(partial) = &mut self.inbox(conn).partial else { return };
            if !partial.is_whole() {
                partial.end_fragment();
                return;
            }
            self.inbox(conn).partial = None;
        } else if partial.is_whole() {
            let Some(partial) = inbox.partial.take() else { return };
            let Partial { buf: Some(buf), opcode, scanner, invalid, direct, .. } = partial else { return };
            self.net[conn].set_bulk(direct);
            self.hand_on(conn, buf, opcode, |message| match invalid {
                Some(invalid) => Err(invalid),
                None => scanner.finish(message),
            });
        } else {
            partial.end_fragment();
            return;
        }
        self.tidy_inbox(conn);
    }

    /// Takes `count` bytes in that were received straight into the message under way.
    pub(in crate::shard) fn handle_direct_bytes(&mut self, conn: Conn, buf: OwnedBuf, count: usize) {
        let connection = &mut self.net[conn];
        connection.last_heard = self.pulse.tick();
        let checked = connection.phase() != Phase::Echo;
        if let Some(partial) = connection.inbox.as_mut().and_then(|inbox| inbox.partial.as_mut()) {
            partial.take_filled(buf, count, checked);
            self.after_piece(conn);
        }
    }

    /// Nothing was received into the allocation of the message under way.
    pub(in crate::shard) fn put_back(&mut self, conn: Conn, buf: OwnedBuf) {
        let connection = &mut self.net[conn];
        connection.last_heard = self.pulse.tick();
        if let Some(partial) = connection.inbox.as_mut().and_then(|inbox| inbox.partial.as_mut()) {
            partial.buf = Some(buf);
        }
    }

    /// Hands a whole message on that stands in an allocation of its own.
    pub(super) fn hand_on(
        &mut self,
        conn: Conn,
        buf: OwnedBuf,
        opcode: Opcode,
        peek: impl for<'a> FnOnce(&'a [u8]) -> Result<envelope::Envelope<'a>, envelope::Invalid>,
    ) {
        match self.handle_message(conn, opcode, buf.as_slice(), peek) {
            Step::Forward(opcode, to) => {
                let behind = self.net.push_message(conn, to, buf, opcode);
                self.count_queued(conn, behind);
            }
            Step::Wait(wait) => {
                self.inbox(conn).ready = Some((buf, opcode));
                self.slow_down(conn, wait);
            }
            Step::Order => self.carry_out(conn),
            Step::Close(reason) => self.close(conn, reason),
            Step::Done | Step::Stop => {}
        }
    }

    pub(in crate::shard) fn inbox(&mut self, conn: Conn) -> &mut Inbox {
        self.net[conn].inbox.get_or_insert_default()
    }

    /// Lets an empty inbox go: an idle connection has none.
    pub(super) fn tidy_inbox(&mut self, conn: Conn) {
        let inbox = &mut self.net[conn].inbox;
        if inbox.as_ref().is_some_and(|inbox| inbox.is_empty()) {
            *inbox = None;
        }
    }
}
