//! After a connection has authenticated: frames become messages, sessions decide on them, and they leave as frames.

mod assembly;
mod frames;
pub(super) mod inbox;
pub(super) mod mail;
mod membership;
pub(super) mod message;
mod orders;
mod paused;
pub(super) mod sessions;
pub(super) mod turns;
