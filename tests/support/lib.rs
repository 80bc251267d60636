//! What tests, benches and the load generator have in common.
//!
//! It depends on no crate of the project: a client that is to find the relay's mistakes must not share its code.

pub mod frames;
pub mod launch;
