//! The wire: frames, envelopes, tokens, limits. Pure: bytes and `now` go in, values come out; no I/O, no clock, no
//! randomness, no runtime.

pub mod bucket;
pub mod device;
pub mod envelope;
pub mod frame;
pub mod json;
pub mod limits;
pub mod owner;
pub mod payload;
pub mod percent;
pub mod quota;
mod scan;
pub mod token;
