//! What a token's connections share. No I/O, no clock, no randomness: bytes and `now` go in, effects come out.

mod effect;
mod members;
pub mod message;
pub mod policy;
mod state;

pub use effect::{Effect, Farewell, Refusal};
pub use members::{Member, Presence};
pub use state::Session;

use coralmux_proto as proto;

#[cfg(test)]
mod ack_tests;
#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod tests;
