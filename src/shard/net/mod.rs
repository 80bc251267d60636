//! What moves the bytes of connections: their table, what each receives and what is queued toward it, and TLS.

pub(super) mod connection;
pub(super) mod connections;
pub(super) mod listening;
pub(super) mod outbox;
mod receive;
pub(super) mod send;
pub(super) mod tls;
