//! Before a connection has authenticated: accepting, the PROXY protocol, TLS handshakes, HTTP, the first message and the
//! move to the shard that owns its token.

pub(super) mod accept;
mod answer;
mod auth;
pub mod handover;
pub(super) mod handshake;
pub(super) mod newcomer;
pub(super) mod newcomers;
mod proxy_protocol;
mod request;
