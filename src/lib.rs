//! CoralMux Relay: a NAT-transparent WebSocket relay for AI agents.
//!
//! The modules form layers, and imports point one way, down this list:
//!
//! 1. [`server`]: composition: preflight, threads, signals, drain.
//! 2. [`shard`], [`control`], [`http`]: the pinned threads that own connections, the thread that owns the store, and
//!    the HTTP that both speak.
//! 3. [`session`]: what a token's two connections share, as a state machine without I/O.
//! 4. [`ring`], [`store`], [`telemetry`], [`config`]: the kernel, the disk, the log, the flags.
//! 5. [`proto`]: the wire: frames, envelopes, tokens, limits. Pure.
//!
//! [`proto`] and [`session`] compile without the `server` feature, on any system.

pub mod proto;
pub mod session;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod ring;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
