//! The memory that the epoll driver receives into.
//!
//! Streams share one large buffer in a turn. By the next one its slices are gone, for what was received has been sent, or
//! was copied because it could not be: so the same memory is used again while it is in the cache. Single receives have
//! small buffers of their own, as in the ring.

use crate::buffers::{Cut, GLANCE_BYTES, Pool, Slice};
use crate::chunk::OwnedBuf;
use crate::completion::Buffers;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;

/// A stream is not received into less than this while there is another buffer.
const ROOM_MIN: usize = 64 << 10;

/// What a receive came to.
pub(super) struct Came<T> {
    /// What was received; 0 bytes at the end of the stream.
    pub(super) what: T,
    /// There may be more.
    pub(super) is_full: bool,
}

/// See the module.
pub(super) struct Incoming {
    streams: Rc<Pool>,
    /// The buffer of streams that is lent to this turn.
    current: Option<u16>,
    glances: Rc<Pool>,
}

impl Incoming {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { streams: Pool::map(Cut::INCREMENTAL)?, current: None, glances: Pool::map(Cut::GLANCES)? })
    }

    /// Before the receives of a turn.
    pub(super) fn begin_turn(&mut self) {
        if let Some(id) = self.current.take() {
            self.streams.give_back(id);
        }
    }

    /// Receives as much as there is; `None`: all buffers are in use.
    ///
    /// # Errors
    /// As `recv`.
    #[inline]
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> Option<Result<Came<Option<Slice>>, Errno>> {
        let (id, start, room) = self.stream_room()?;
        Some(receive_into(socket.as_fd(), start, room).map(|count| Came {
            // SAFETY: so many bytes have just been written there.
            what: (count > 0).then(|| unsafe { Pool::take(&self.streams, id, count as u32, true) }),
            is_full: count == room,
        }))
    }

    /// As [`Incoming::receive`], at most [`GLANCE_BYTES`].
    pub(super) fn receive_once(&mut self, socket: &impl AsFd) -> Option<Result<Came<Option<Slice>>, Errno>> {
        let id = self.glances.lend()?;
        let (start, room) = self.glances.room(id);
        Some(match receive_into(socket.as_fd(), start, room) {
            Ok(count) if count > 0 => {
                // SAFETY: so many bytes have just been written there.
                let slice = unsafe { Pool::take(&self.glances, id, count as u32, false) };
                Ok(Came { what: Some(slice), is_full: count == GLANCE_BYTES as usize })
            }
            other => {
                self.glances.give_back(id);
                other.map(|_| Came { what: None, is_full: false })
            }
        })
    }

    #[inline]
    fn stream_room(&mut self) -> Option<(u16, NonNull<u8>, usize)> {
        if let Some(id) = self.current {
            let (start, room) = self.streams.room(id);
            if room >= ROOM_MIN {
                return Some((id, start, room));
            }
        }
        let id = self.streams.lend()?;
        if let Some(full) = self.current.replace(id) {
            self.streams.give_back(full);
        }
        let (start, room) = self.streams.room(id);
        Some((id, start, room))
    }

    /// The buffers of streams, and those of single receives.
    pub(super) fn buffers(&self) -> [Buffers; 2] {
        [Buffers::of(&self.streams, u16::from(self.current.is_some())), Buffers::of(&self.glances, 0)]
    }
}

#[inline]
fn receive_into(socket: BorrowedFd<'_>, start: NonNull<u8>, room: usize) -> Result<usize, Errno> {
    // SAFETY: the room of a buffer that is lent lies inside a mapping, whose bytes are never uninitialised, and no slice
    // reaches into it.
    let room = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), room) };
    retry_on_intr(|| recv(socket, &mut *room, RecvFlags::DONTWAIT).map(|(_, count)| count))
}

/// Receives into `buf` behind the bytes it has, at most `bytes_max`.
///
/// # Errors
/// As `recv`.
pub(super) fn fill(socket: &impl AsFd, buf: &mut OwnedBuf, bytes_max: usize) -> Result<Came<usize>, Errno> {
    let (start, room) = buf.spare();
    let room = room.min(bytes_max);
    // SAFETY: it is memory of the buf, which is borrowed mutably.
    let spare = unsafe { std::slice::from_raw_parts_mut(start.cast::<MaybeUninit<u8>>(), room) };
    let count = retry_on_intr(|| recv(socket, &mut *spare, RecvFlags::DONTWAIT).map(|(_, count)| count))?;
    // SAFETY: so many bytes have just been written there.
    unsafe { buf.extend_filled(count) };
    Ok(Came { what: count, is_full: count == room })
}
