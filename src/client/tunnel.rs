//! The way through an HTTP proxy (RFC 9110, section 9.3.6: CONNECT), where the environment names one for the relay.

use super::connect::dial;
use super::event::Reason;
use super::url::RelayUrl;
use coralmux_proxy::proxy_for;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use ureq::http::{HeaderValue, Uri};

/// The longest head of a proxy's answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The longest text of a proxy that is repeated.
const WORDS_MAX: usize = 100;

/// A proxy on the way to the relay.
#[derive(Clone)]
pub(super) struct Tunnel {
    host: String,
    port: u16,
    variable: &'static str,
    login: Option<HeaderValue>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({})", self.authority())
    }
}

impl Tunnel {
    /// The environment's proxy for this relay; none where it is on this machine.
    ///
    /// # Errors
    /// There is one of a kind that is not supported, or what is set names none; the text says which.
    pub(super) fn from_env(relay: &RelayUrl) -> Result<Option<Self>, String> {
        let url: Uri = relay.http().parse().map_err(|_| format!("{relay} is not an address"))?;
        let Some(named) = proxy_for(&url)? else { return Ok(None) };
        let named = named.plain()?;
        let uri = named.proxy.uri();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(80);
        Ok(Some(Self { host, port, variable: named.variable, login: named.proxy.basic_auth().cloned() }))
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// A TCP connection that the proxy leads to the relay, and that does not block.
    pub(super) fn dial(&self, relay: &RelayUrl, deadline: Instant) -> Result<TcpStream, Reason> {
        let (shown, port) = (relay.host(), relay.port());
        let host = if shown.contains(':') { format!("[{shown}]:{port}") } else { format!("{shown}:{port}") };
        let proxy = || format!("http://{} of {}", self.authority(), self.variable);
        let refused = |text: String| Reason::Proxy { proxy: proxy(), host: host.clone(), text };
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => refused(Reason::TimedOut.to_string()),
            _ => refused(error.to_string()),
        };
        // Whoever reads "no connection to 10.1.2.3" would look for a relay there.
        let stream = dial(&self.host, self.port, deadline).map_err(|reason| refused(reason.to_string()))?;
        stream.set_nonblocking(false).map_err(broken)?;
        self.ask(&stream, &host, deadline).map_err(broken)?;
        let status = read_status(&stream, deadline).map_err(broken)?;
        let code = status.split(' ').nth(1).unwrap_or_default();
        if !(code.len() == 3 && code.starts_with('2')) {
            return Err(refused(format!("it answered {}", status.chars().take(WORDS_MAX).collect::<String>())));
        }
        stream.set_read_timeout(None).map_err(broken)?;
        stream.set_write_timeout(None).map_err(broken)?;
        stream.set_nonblocking(true).map_err(broken)?;
        Ok(stream)
    }

    fn ask(&self, mut stream: &TcpStream, host: &str, deadline: Instant) -> io::Result<()> {
        let mut head = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        if let Some(login) = &self.login {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(login.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(&head)
    }
}

/// Reads an answer's head and no byte of what follows it; gives its first line.
fn read_status(mut stream: &TcpStream, deadline: Instant) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut byte) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            Ok(_) if head.len() >= HEAD_BYTES_MAX => return Err(io::Error::other("its answer is too long")),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim().to_owned())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
