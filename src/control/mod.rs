//! The control thread: it alone owns the store, and answers what shards ask of it.

pub mod message;
