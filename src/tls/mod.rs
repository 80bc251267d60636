//! TLS: which certificate a client is shown, where certificates come from, handshakes, and records under the keys that
//! they agree on.
//!
//! Nothing here reads a socket of a client: the shards do, with the settings that [`settings::server_config`] makes. A
//! private key must never reach a log line, an error text or a file that others may read.

pub mod acme;
pub mod certificate;
pub mod certificates;
pub mod fault;
pub mod files;
pub mod handshake;
pub mod outcome;
pub mod record;
pub mod settings;
pub mod status;
pub mod traffic;

use self::handshake::Handshake;
use self::traffic::Traffic;

/// TLS on one connection.
pub enum Tls {
    /// The handshake is in progress.
    Handshake(Box<Handshake>),
    /// Behind it.
    Traffic(Box<Traffic>),
}

#[cfg(test)]
mod tests;
