//! TLS of one client connection, over rustls.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use rustls::ClientConnection;
use std::io::{self, IoSlice, Read as _, Write};

/// A client's side of TLS; what it has to say waits in it until the socket takes it.
#[derive(Debug)]
pub(super) struct Secure {
    connection: ClientConnection,
}

impl Secure {
    pub(super) fn new(mut connection: ClientConnection) -> Self {
        connection.set_buffer_limit(None);
        Self { connection }
    }

    /// Whether something waits for the socket.
    pub(super) fn is_drained(&self) -> bool {
        !self.connection.wants_write()
    }

    /// Takes all of `bytes`, and sends what the socket takes now.
    pub(super) fn push(&mut self, socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
        self.connection.writer().write_all(bytes).map_err(|_| Errno::PIPE)?;
        self.flush(socket)?;
        Ok(bytes.len())
    }

    /// Sends what the socket takes now.
    pub(super) fn flush(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
        Ok(())
    }

    /// Opens what came from the socket and appends the plaintext to `plain`.
    pub(super) fn open(&mut self, socket: &OwnedFd, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(|error| format!("TLS: {error}"))?;
            let state = self.connection.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            let at = plain.len();
            plain.resize(at + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plain[at..]).map_err(|error| format!("TLS: {error}"))?;
        }
        self.flush(socket).map_err(|error| format!("send: {error}"))
    }
}

struct Socket<'a>(&'a OwnedFd);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    /// All records of a message in one call, as a plain message leaves.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg(self.0, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
