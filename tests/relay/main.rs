//! Tests over the whole library: one binary, a module for each behaviour.

mod harness;
mod order;
mod store_crash;
mod store_full;
