//! config.

pub mod network;
