//! What a token's two connections share. No I/O, no clock: bytes and `now` go in, decisions come out.

#[cfg(feature = "server")]
pub mod directory;
