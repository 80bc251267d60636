//! Tests over the whole library: one binary, a module for each behaviour.

mod agent;
mod architecture;
mod client;
mod drain;
mod gone;
mod harness;
mod hostile;
mod large;
mod limits;
mod memory;
mod order;
mod process;
mod slow;
mod store_crash;
mod store_full;
