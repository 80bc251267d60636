//! An encrypted connection after its handshake: bytes in, plaintext and what is to be answered out. Pure.
//!
//! It keeps two keys, what is needed to renew them, and of a record that has come in part what has come. rustls' own
//! connection would keep about twice that, and a plaintext buffer in each direction.

use super::fault::Fault;
use super::record::{HEADER_BYTES, Half, Kind, OVERHEAD_BYTES_MAX, Out, PLAINTEXT_BYTES_MAX, record_bytes};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};
use std::ops::Range;

/// Key updates that a peer may ask for without sending anything (the bound that rustls and BoringSSL have).
const IDLE_UPDATES_MAX: u8 = 32;
/// Warnings that a peer may send, the same way.
const WARNINGS_MAX: u8 = 4;

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const KEY_UPDATE: u8 = 24;
/// A `KeyUpdate` (RFC 8446 section 4.6.3) that asks for none in return.
const KEY_UPDATE_MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

/// What the next record came to; `used` bytes were it.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// There is no whole record.
    NeedMore,
    /// Data, which now lies at `plain`.
    Data {
        /// Where.
        plain: Range<usize>,
        /// All of the record.
        used: usize,
    },
    /// Dealt with; `reply` is to be sent, and may be empty.
    Handled {
        /// Sealed already.
        reply: Vec<u8>,
        /// All of the record.
        used: usize,
    },
    /// The peer will send nothing any more (`close_notify`).
    Closed,
}

/// An encrypted connection.
pub struct Traffic {
    opener: Half,
    sealer: Half,
    kernel: KernelConnection<ServerConnectionData>,
    /// A record of which a part has come; no capacity while there is none.
    partial: Vec<u8>,
    /// Records that may be sealed under one key.
    pub(super) records_max: u64,
    updates_left: u8,
    warnings_left: u8,
    /// Our `close_notify` or a fatal alert has been sealed: nothing comes behind it.
    over: bool,
}

impl Traffic {
    /// Takes over from a handshake that is done and whose records have all been sent.
    ///
    /// # Errors
    /// [`Fault::Internal`]: it is not done.
    pub fn new(connection: UnbufferedServerConnection) -> Result<Self, Fault> {
        let taken = connection.dangerous_into_kernel_connection();
        let (ExtractedSecrets { tx, rx }, kernel) = taken.map_err(|_| Fault::Internal)?;
        let records_max = match kernel.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        let tls13 = kernel.protocol_version() == ProtocolVersion::TLSv1_3;
        Ok(Self {
            opener: Half::new(tls13, rx.0, &rx.1)?,
            sealer: Half::new(tls13, tx.0, &tx.1)?,
            kernel,
            partial: Vec::new(),
            records_max,
            updates_left: IDLE_UPDATES_MAX,
            warnings_left: WARNINGS_MAX,
            over: false,
        })
    }

    /// Whether this is TLS 1.3.
    #[must_use]
    pub fn is_tls13(&self) -> bool {
        self.sealer.is_tls13()
    }

    /// Opens the record that `bytes` begin with, in place, if it is whole.
    ///
    /// # Errors
    /// [`Fault`]; the connection is over then.
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Opened, Fault> {
        let Some(used) = record_bytes(bytes)?.filter(|&used| used <= bytes.len()) else { return Ok(Opened::NeedMore) };
        let (kind, plain) = self.opener.open(&mut bytes[..used])?;
        match kind {
            Kind::DATA => {
                self.updates_left = IDLE_UPDATES_MAX;
                Ok(Opened::Data { plain, used })
            }
            Kind::ALERT => match self.handle_alert(&bytes[plain])? {
                true => Ok(Opened::Closed),
                false => Ok(Opened::Handled { reply: Vec::new(), used }),
            },
            Kind::HANDSHAKE if self.opener.is_tls13() => {
                let reply = self.handle_key_update(&bytes[plain])?;
                Ok(Opened::Handled { reply, used })
            }
            other => Err(Fault::Unexpected(other.0)),
        }
    }

    /// Keeps the beginning of a record, or adds to the one that is kept, and returns how many bytes that took: up to
    /// the end of that record.
    ///
    /// # Errors
    /// [`Fault::Overflow`].
    pub fn keep(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut used = HEADER_BYTES.saturating_sub(self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..used]);
        if let Some(record_bytes) = record_bytes(&self.partial)? {
            let more = (record_bytes - self.partial.len()).min(bytes.len() - used);
            self.partial.reserve_exact(record_bytes - self.partial.len());
            self.partial.extend_from_slice(&bytes[used..used + more]);
            used += more;
        }
        Ok(used)
    }

    /// Whether a part of a record is kept.
    #[must_use]
    pub fn keeps(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The record that was kept in part, once it is whole.
    #[must_use]
    pub fn take_kept(&mut self) -> Option<Vec<u8>> {
        let whole = matches!(record_bytes(&self.partial), Ok(Some(bytes)) if bytes == self.partial.len());
        whole.then(|| std::mem::take(&mut self.partial))
    }

    /// What [`Traffic::seal`] adds to `bytes` bytes at the most.
    #[must_use]
    pub fn sealed_bytes_max(bytes: usize) -> usize {
        // One record more for a key update, one for the edge between pieces.
        bytes + (bytes / PLAINTEXT_BYTES_MAX + 3) * OVERHEAD_BYTES_MAX
    }

    /// Seals at most `bytes_max` bytes of `pieces` as data and appends the records to `out`; how many bytes of `pieces`
    /// they carry.
    ///
    /// # Errors
    /// [`Fault::Exhausted`] or [`Fault::Internal`].
    pub fn seal(&mut self, pieces: &[&[u8]], bytes_max: usize, out: &mut impl Out) -> Result<usize, Fault> {
        if let &[piece] = pieces {
            let piece = &piece[..piece.len().min(bytes_max)];
            for part in piece.chunks(PLAINTEXT_BYTES_MAX) {
                self.seal_record(&[part], out)?;
            }
            return Ok(piece.len());
        }
        let mut sealed = 0;
        let (mut gathered, mut gathered_bytes) = (Vec::with_capacity(pieces.len()), 0);
        for &piece in pieces {
            let mut piece = &piece[..piece.len().min(bytes_max - sealed - gathered_bytes)];
            while !piece.is_empty() {
                let room = PLAINTEXT_BYTES_MAX - gathered_bytes;
                let (part, rest) = piece.split_at(piece.len().min(room));
                gathered.push(part);
                gathered_bytes += part.len();
                piece = rest;
                if gathered_bytes == PLAINTEXT_BYTES_MAX {
                    self.seal_record(&gathered, out)?;
                    sealed += gathered_bytes;
                    (gathered_bytes, _) = (0, gathered.clear());
                }
            }
        }
        if gathered_bytes > 0 {
            self.seal_record(&gathered, out)?;
            sealed += gathered_bytes;
        }
        Ok(sealed)
    }

    fn seal_record(&mut self, pieces: &[&[u8]], out: &mut impl Out) -> Result<(), Fault> {
        self.mind_key(out)?;
        self.sealer.seal(Kind::DATA, pieces, out)
    }

    /// Renews our key where it has been used as often as is safe.
    fn mind_key(&mut self, out: &mut impl Out) -> Result<(), Fault> {
        if self.over {
            return Err(Fault::Internal);
        }
        if self.sealer.count() < self.records_max {
            return Ok(());
        }
        match self.sealer.is_tls13() {
            true => self.update_key(out),
            false => Err(Fault::Exhausted),
        }
    }

    fn update_key(&mut self, out: &mut impl Out) -> Result<(), Fault> {
        self.sealer.seal(Kind::HANDSHAKE, &[&KEY_UPDATE_MESSAGE], out)?;
        let (count, secrets) = self.kernel.update_tx_secret().map_err(|_| Fault::Internal)?;
        self.sealer = Half::new(true, count, &secrets)?;
        Ok(())
    }

    /// `true`: the peer will send nothing any more.
    fn handle_alert(&mut self, alert: &[u8]) -> Result<bool, Fault> {
        let &[level, alert] = alert else { return Err(Fault::Unreadable) };
        let ignored = alert == USER_CANCELED || (level == WARNING && !self.opener.is_tls13());
        match alert {
            CLOSE_NOTIFY => Ok(true),
            _ if ignored && self.warnings_left > 0 => {
                self.warnings_left -= 1;
                Ok(false)
            }
            alert => Err(Fault::Alerted(alert)),
        }
    }

    /// The only message that a client may send after the handshake. It fills its record, for the next one comes under
    /// the new key (RFC 8446 section 5.1).
    fn handle_key_update(&mut self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let wants_ours = match message {
            [KEY_UPDATE, 0, 0, 1, wants_ours @ (0 | 1)] => *wants_ours == 1,
            [KEY_UPDATE, ..] => return Err(Fault::Unreadable),
            _ => return Err(Fault::Unexpected(Kind::HANDSHAKE.0)),
        };
        self.updates_left = self.updates_left.checked_sub(1).ok_or(Fault::Unexpected(Kind::HANDSHAKE.0))?;
        let (count, secrets) = self.kernel.update_rx_secret().map_err(|_| Fault::Internal)?;
        self.opener = Half::new(true, count, &secrets)?;
        let mut reply = Vec::new();
        if wants_ours && !self.over {
            self.update_key(&mut reply)?;
        }
        Ok(reply)
    }

    /// The last record that we send, once: `close_notify`, or the alert that tells of a fault. Empty where it has been
    /// sent or there is nothing to tell.
    #[must_use]
    pub fn farewell(&mut self, fault: Option<Fault>) -> Vec<u8> {
        let mut out = Vec::new();
        let alert = match fault {
            None => Some([WARNING, CLOSE_NOTIFY]),
            Some(Fault::Unexpected(kind)) if kind == Kind::HANDSHAKE.0 && !self.opener.is_tls13() => {
                Some([WARNING, NO_RENEGOTIATION])
            }
            Some(fault) => fault.alert().map(|alert| [FATAL, alert]),
        };
        if let Some(alert) = alert.filter(|_| !self.over) {
            // Fails only for what is too long.
            let _ = self.sealer.seal(Kind::ALERT, &[&alert], &mut out);
        }
        self.over = true;
        out
    }
}
