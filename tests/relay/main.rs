//! Tests over the whole library: one binary, a module for each behaviour.

mod harness;
mod large;
mod order;
mod store_crash;
mod store_full;
