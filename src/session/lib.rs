//! What a token's connections share. No I/O, no clock, no randomness: bytes and `now` go in, effects come out.

mod devices;
mod effect;
mod heard;
mod mail;
mod members;
pub mod message;
mod order;
pub mod policy;
mod rates;
mod shelf;
mod state;

pub use effect::{Asked, Change, Effect, Farewell, NotAdmitted, Ordered, Refusal};
pub use heard::Heard;
pub use mail::{Handed, Posted, read_keep};
pub use members::{Member, Presence};
pub use order::Order;
pub use shelf::{Confirmed, Found, KEEP_RETRY, MailState, PAGE_TIMEOUT, PageEnd, Party, Pile, Trays};
pub use state::{Joined, Session};

use coralmux_proto as proto;

#[cfg(test)]
mod ack_tests;
#[cfg(test)]
mod devices_tests;
#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod shelf_tests;
#[cfg(test)]
mod tests;
