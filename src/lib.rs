//! CoralMux Relay: a NAT-transparent WebSocket relay for AI agents.
//!
//! docs/ARCHITECTURE.md says what each folder holds, and which may import which.

// They panic when nobody reads any more; see `console`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod demo;
pub mod directory;
pub mod notifier;
pub mod preflight;
pub mod server;
pub mod shard;
pub mod shelf;
pub mod store;
pub mod telemetry;
pub mod tls;

// The crates beside this one, by the names of their folders.
use coralmux_agent as agent;
use coralmux_api as api;
use coralmux_client as client;
use coralmux_console as console;
use coralmux_http as http;
use coralmux_proto as proto;
use coralmux_proxy as proxy;
use coralmux_push as push;
use coralmux_ring as ring;
use coralmux_session as session;
use coralmux_sys as sys;
