//! TLS: which certificate a client is shown, and where certificates come from.
//!
//! Nothing here reads a socket of a client: the shards do, with the settings that [`settings::server_config`] makes. A
//! private key must never reach a log line, an error text or a file that others may read.

pub mod certificate;
pub mod certificates;
pub mod files;
pub mod settings;
pub mod status;
