//! From an address to an open WebSocket: name, TCP, TLS, upgrade, all by one deadline.

use super::event::Reason;
use super::options::Options;
use super::refusal::advice;
use super::register::retry_after;
use super::shared::Shared;
use super::tls;
use super::tunnel::Tunnel;
use super::url::RelayUrl;
use coralmux_proto::limits::MESSAGE_BYTES_MAX;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, WebSocket};

/// The socket's events.
pub(super) const SOCKET: Token = Token(1);
/// What one address is given to accept, of several.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The bytes' way: in clear or by TLS. Never blocks.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Why there is no connection, and how long the relay wants to be left alone.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: Reason,
    pub(super) asked: Option<Duration>,
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Self { reason, asked: None }
    }
}

/// How the relay is reached.
#[derive(Debug)]
pub(super) struct Way {
    /// By TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Through a proxy.
    pub(super) proxy: Option<Tunnel>,
}

/// Connects by `deadline`. The socket is registered as [`SOCKET`].
pub(super) fn connect(
    options: &Options,
    way: &Way,
    poll: &mut Poll,
    shared: &Shared,
    deadline: Instant,
) -> Result<WebSocket<Stream>, Failed> {
    let relay = &options.relay;
    let socket = match &way.proxy {
        Some(proxy) => proxy.dial(relay, deadline)?,
        None => dial(relay.host(), relay.port(), deadline)?,
    };
    let mut socket = TcpStream::from_std(socket);
    let broken = |error: io::Error| Reason::Broken(error.to_string());
    poll.registry().register(&mut socket, SOCKET, Interest::READABLE | Interest::WRITABLE).map_err(broken)?;
    let stream = match &way.tls {
        None => Stream::Plain(socket),
        Some(config) => {
            let name = tls::server_name(relay.host())?;
            let connection = ClientConnection::new(Arc::clone(config), name).map_err(|e| Reason::Tls(e.to_string()))?;
            Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
        }
    };
    upgrade(relay, stream, poll, shared, deadline)
}

/// An open TCP connection that does not block.
pub(super) fn dial(host: &str, port: u16, deadline: Instant) -> Result<std::net::TcpStream, Reason> {
    let failed = |error: io::Error| Reason::Connect { host: format!("{host} port {port}"), text: error.to_string() };
    let named = |text: String| Reason::Name { host: host.to_owned(), text };
    // The one thing that cannot be given a deadline; systems give up after some seconds.
    let addresses: Vec<SocketAddr> =
        (host, port).to_socket_addrs().map_err(|error| named(error.to_string()))?.collect();
    let mut last = named("it has no address".to_owned());
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now()).min(ADDRESS_TIMEOUT);
        if left.is_zero() {
            return Err(Reason::TimedOut);
        }
        match std::net::TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed)?;
                stream.set_nonblocking(true).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

fn upgrade(
    relay: &RelayUrl,
    stream: Stream,
    poll: &mut Poll,
    shared: &Shared,
    deadline: Instant,
) -> Result<WebSocket<Stream>, Failed> {
    let request = relay.to_string().into_client_request().map_err(|_| Reason::Protocol("its address has no path"))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .write_buffer_size(0);
    let mut events = mio::Events::with_capacity(4);
    let mut attempt = tungstenite::client::client_with_config(request, stream, Some(config));
    loop {
        match attempt {
            Ok((socket, _)) => return Ok(socket),
            Err(HandshakeError::Failure(error)) => return Err(failure(relay, error)),
            Err(HandshakeError::Interrupted(handshake)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || shared.close_by().is_some() {
                    return Err(Reason::TimedOut.into());
                }
                // An interrupted wait only looks again.
                let _ = poll.poll(&mut events, Some(left));
                attempt = handshake.handshake();
            }
        }
    }
}

fn failure(relay: &RelayUrl, error: Error) -> Failed {
    match error {
        Error::Http(answer) => {
            let (status, headers) = (answer.status(), answer.headers());
            let asked = retry_after(headers).map(|asked| asked.min(RETRY_AFTER_MAX));
            let (url, advice) = (relay.to_string(), advice(status, headers));
            Failed { reason: Reason::Http { status: status.as_u16(), url, advice }, asked }
        }
        error => lost(error).into(),
    }
}

/// The reason for an error of an open or opening WebSocket.
pub(super) fn lost(error: Error) -> Reason {
    match error {
        Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Reason::Tls(error.to_string())
        }
        Error::Capacity(_) => Reason::Protocol("it sent a message that is larger than 5 MiB"),
        error => Reason::Broken(error.to_string()),
    }
}
