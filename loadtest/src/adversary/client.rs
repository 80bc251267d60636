//! One connection of the adversary's. It never blocks, and it throws away what it reads.

use super::frames::text;
use super::{Attacker, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long one waits for a socket at a time before it looks whether all is over.
pub(super) const TURN: Duration = Duration::from_millis(20);
/// How long each step may take until a connection is authenticated.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a client that reads nothing, in bytes: what it does not take waits at the relay and not in its own kernel.
const NARROW_BYTES: usize = 4 << 10;
const READ_BYTES: usize = 64 << 10;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A connection.
pub(super) struct Client {
    stream: Box<dyn Stream>,
    /// The same socket.
    socket: TcpStream,
    /// Whether it reads whenever there is something to read.
    pub(super) reads: bool,
}

impl Client {
    /// Connects, and no more. Over TLS the handshake begins with the first byte sent.
    pub(super) fn connected(attacker: &Attacker<'_>) -> io::Result<Self> {
        let socket = Self::socket(attacker)?;
        let own = socket.try_clone()?;
        let stream = match &attacker.victim.wrap {
            None => Box::new(socket),
            Some(wrap) => wrap(socket)?,
        };
        Ok(Self { stream, socket: own, reads: true })
    }

    /// Connects, whatever is spoken there.
    pub(super) fn socket(attacker: &Attacker<'_>) -> io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&attacker.victim.address, STEP_TIMEOUT)?;
        attacker.tally.connections.fetch_add(1, Relaxed);
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        // Closing resets: sockets in TIME_WAIT would take all ports of the address.
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        Ok(socket)
    }

    /// The same over a socket that is connected.
    pub(super) fn plain(socket: TcpStream) -> io::Result<Self> {
        Ok(Self { socket: socket.try_clone()?, stream: Box::new(socket), reads: true })
    }

    /// Connects and upgrades; whoever expects no answer does not wait for one.
    pub(super) fn upgraded(attacker: &Attacker<'_>) -> io::Result<Self> {
        let mut client = Self::connected(attacker)?;
        client.send_all(attacker, UPGRADE.as_bytes())?;
        client.wait_for(attacker, b"\r\n\r\n")?;
        Ok(client)
    }

    /// Connects, upgrades and authenticates.
    pub(super) fn authed(attacker: &Attacker<'_>, role: &str) -> io::Result<Self> {
        let mut client = Self::upgraded(attacker)?;
        client.send_all(attacker, &auth(attacker.token, role))?;
        client.wait_for(attacker, b"auth.ok")?;
        Ok(client)
    }

    /// The same, all in one, without waiting for an answer.
    pub(super) fn hastily_authed(attacker: &Attacker<'_>, role: &str) -> io::Result<Self> {
        let mut client = Self::connected(attacker)?;
        let bytes = [UPGRADE.as_bytes(), &auth(attacker.token, role)].concat();
        client.send_all(attacker, &bytes)?;
        Ok(client)
    }

    /// Reads no more from now on, and takes little into its kernel.
    pub(super) fn stop_reading(&mut self) -> io::Result<()> {
        self.reads = false;
        Ok(set_socket_recv_buffer_size(&self.socket, NARROW_BYTES)?)
    }

    /// Sends what the socket takes now: how many bytes.
    pub(super) fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        none_yet(self.stream.write(bytes))
    }

    /// Reads what is there, up to some: how many bytes. An error at the end of the stream.
    pub(super) fn receive_some(&mut self) -> io::Result<usize> {
        self.receive_at_most(&mut [0; READ_BYTES])
    }

    /// Reads at most so many bytes.
    pub(super) fn receive_at_most(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            result => none_yet(result),
        }
    }

    /// Sends all of it, which takes a moment at most.
    pub(super) fn send_all(&mut self, attacker: &Attacker<'_>, mut bytes: &[u8]) -> io::Result<()> {
        let begun = Instant::now();
        while !bytes.is_empty() {
            let count = self.send_some(bytes)?;
            attacker.tally.sent_bytes.fetch_add(count as u64, Relaxed);
            bytes = &bytes[count..];
            if count == 0 {
                self.wait_step(attacker, begun, PollFlags::IN | PollFlags::OUT)?;
            }
        }
        Ok(())
    }

    /// Reads until `wanted` has come, and perhaps more than that.
    pub(super) fn wait_for(&mut self, attacker: &Attacker<'_>, wanted: &[u8]) -> io::Result<()> {
        let (begun, mut seen, mut buffer) = (Instant::now(), Vec::new(), [0; 4096]);
        while !seen.windows(wanted.len()).any(|bytes| bytes == wanted) {
            let count = self.receive_at_most(&mut buffer)?;
            seen.extend_from_slice(&buffer[..count]);
            if count == 0 {
                self.wait_step(attacker, begun, PollFlags::IN)?;
            }
        }
        Ok(())
    }

    fn wait_step(&self, attacker: &Attacker<'_>, begun: Instant, flags: PollFlags) -> io::Result<()> {
        if attacker.is_over() || begun.elapsed() > STEP_TIMEOUT {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut waited = [PollFd::new(&self.socket, flags)];
        let _ = poll(&mut waited, Some(&timespec(TURN)));
        Ok(())
    }
}

/// The first message.
fn auth(token: &str, role: &str) -> Vec<u8> {
    text(&format!(r#"{{"v":1,"type":"auth","id":"a","payload":{{"token":"{token}","role":"{role}"}}}}"#))
}

/// Waits until one that reads has something to read, or the one that sends can.
pub(super) fn wait(clients: &[Client], sends: Option<usize>, time: Duration) {
    let mut waited: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(at, client)| {
            let reads = if client.reads { PollFlags::IN } else { PollFlags::empty() };
            let writes = if sends == Some(at) { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(&client.socket, reads | writes)
        })
        .collect();
    let _ = poll(&mut waited, Some(&timespec(time)));
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

fn none_yet(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}
