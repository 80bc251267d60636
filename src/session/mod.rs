//! What a token's two connections share. No I/O, no clock, no randomness: bytes and `now` go in, decisions come out.

pub mod directory;
pub mod message;
pub mod policy;
mod state;

pub use state::{Joined, Left, Refusal, Session, Verdict};

#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod tests;
