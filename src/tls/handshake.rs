//! A handshake: bytes in, bytes out, until there is [`Traffic`] or none will be. Pure but for the randomness and the
//! time that rustls draws itself.
//!
//! rustls is given one record at a time, so that what a client sends right behind its handshake is opened by
//! [`Traffic`], where it lies, and not by rustls.

use super::certificates::ACME_TLS;
use super::fault::Fault;
use super::record::{Kind, record_bytes};
use super::traffic::Traffic;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};
use std::sync::Arc;

/// Bytes of a handshake that are kept at the most; a long `ClientHello` has two KiB.
const KEPT_BYTES_MAX: usize = 32 << 10;

/// What a PROXY protocol header begins with, in version 1 and 2.
const PROXY_HEADERS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// Why a handshake came to nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// It is HTTP without TLS.
    #[error("plain HTTP on the TLS port")]
    PlainHttp,
    /// It is a PROXY protocol header, of somebody from whom none is taken.
    #[error("a PROXY protocol header from an address that --proxy-protocol does not name")]
    ProxyHeader,
    /// It is no TLS at all.
    #[error("no TLS")]
    NotTls,
    /// The client sent an alert: it does not like the certificate, for one.
    #[error("the client refused: {0}")]
    Client(rustls::Error),
    /// What the client offers or does is not to be served.
    #[error("{0}")]
    Refused(rustls::Error),
}

/// What a step of a handshake came to.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// More bytes are needed.
    NeedMore,
    /// There is more to do with the bytes that are here.
    More,
    /// It is done: [`Handshake::finish`].
    Done,
    /// It came to nothing.
    Failed(Failure),
}

/// How a handshake completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Full handshake.
    Full,
    /// A session was resumed with a ticket.
    Resumed,
    /// It was a challenge of a certificate authority: the connection has to be closed.
    Challenge,
}

/// A handshake in progress.
pub struct Handshake {
    connection: UnbufferedServerConnection,
    /// What has come and rustls has not taken.
    kept: Vec<u8>,
    /// Of those bytes, what it has been shown: whole records.
    shown: usize,
    /// It has taken a record: what follows is less work.
    begun: bool,
}

impl Handshake {
    /// A handshake of which nothing has come.
    ///
    /// # Errors
    /// [`Fault::Internal`], for settings that no connection can be made with.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Fault> {
        let connection = UnbufferedServerConnection::new(config).map_err(|_| Fault::Internal)?;
        Ok(Self { connection, kept: Vec::new(), shown: 0, begun: false })
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// They are no TLS, or more than a handshake takes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if !self.begun && self.kept.is_empty() {
            if PROXY_HEADERS.iter().any(|header| bytes.starts_with(header)) {
                return Err(Failure::ProxyHeader);
            }
            match bytes.first() {
                // A method of HTTP. No record begins with a letter.
                Some(first) if first.is_ascii_uppercase() => return Err(Failure::PlainHttp),
                Some(&first) if Kind(first) != Kind::HANDSHAKE => return Err(Failure::NotTls),
                _ => {}
            }
        }
        if self.kept.len() + bytes.len() > KEPT_BYTES_MAX {
            return Err(Failure::NotTls);
        }
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether there is something for [`Handshake::step`].
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.next_record() > self.shown
    }

    /// Whether the costly part is over.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Where the record ends that rustls is shown next, or `shown` where it is not whole.
    fn next_record(&self) -> usize {
        let unseen = &self.kept[self.shown..];
        match record_bytes(unseen) {
            Ok(Some(bytes)) if bytes <= unseen.len() => self.shown + bytes,
            Ok(_) => self.shown,
            // rustls says what is wrong with it.
            Err(_) => self.kept.len(),
        }
    }

    /// Goes on by one record; what is to be sent is appended to `out`.
    #[must_use]
    pub fn step(&mut self, out: &mut Vec<u8>) -> Progress {
        self.shown = self.next_record();
        self.begun = true;
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.kept[..self.shown]);
            let goes_on = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, out);
                    true
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(_) => false,
                Err(error) => {
                    self.kept = Vec::new();
                    self.shown = 0;
                    self.take_alert(out);
                    return Progress::Failed(match error {
                        rustls::Error::AlertReceived(_) => Failure::Client(error),
                        rustls::Error::InvalidMessage(_) => Failure::NotTls,
                        error => Failure::Refused(error),
                    });
                }
            };
            self.kept.drain(..discard);
            self.shown -= discard;
            if !goes_on {
                break;
            }
        }
        match (self.connection.is_handshaking(), self.is_ready()) {
            (false, _) => Progress::Done,
            (true, true) => Progress::More,
            (true, false) => Progress::NeedMore,
        }
    }

    /// The alert with which rustls ends a handshake, if there is one. What it has to send it gives before it looks at
    /// any bytes; shown none otherwise, after an error, it would panic where it remembers messages among them.
    fn take_alert(&mut self, out: &mut Vec<u8>) {
        if !self.connection.wants_write() {
            return;
        }
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(&mut []).state {
            encode(&mut data, out);
        }
    }

    /// Once it is done: the encrypted connection, how it came about, and what the client has sent behind the handshake.
    ///
    /// # Errors
    /// [`Fault::Internal`]: it is not done.
    pub fn finish(self) -> Result<(Traffic, Done, Vec<u8>), Fault> {
        let done = match (self.connection.alpn_protocol(), self.connection.handshake_kind()) {
            (Some(ACME_TLS), _) => Done::Challenge,
            (_, Some(HandshakeKind::Resumed)) => Done::Resumed,
            _ => Done::Full,
        };
        Ok((Traffic::new(self.connection)?, done, self.kept))
    }
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    // The error of no room says how much is needed, and leaves the record where it is.
    let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) else { return };
    let at = out.len();
    out.resize(at + size.required_size, 0);
    let written = data.encode(&mut out[at..]).unwrap_or(0);
    out.truncate(at + written);
}
