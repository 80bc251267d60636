//! TLS: handshakes, and records under the keys that they agree on.
//!
//! Nothing here reads a socket of a client: the shards do. A private key must never reach a log line, an error text or a
//! file that others may read.

pub mod fault;
pub mod handshake;
pub mod record;
pub mod traffic;

use self::handshake::Handshake;
use self::traffic::Traffic;

/// TLS on one connection.
pub enum Tls {
    /// The handshake is under way.
    Handshake(Box<Handshake>),
    /// Behind it.
    Traffic(Box<Traffic>),
}

#[cfg(test)]
mod tests;
