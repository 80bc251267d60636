//! CoralMux Relay: a NAT-transparent WebSocket relay for AI agents.
//!
//! The modules form layers, and imports point one way, down this list:
//!
//! 1. `demo` (features `server` and `agent`): a relay, an agent and a pairing link by one command; [`cli`]: the other
//!    subcommands beside the relay itself; [`server`]: composition: preflight, threads, signals, drain.
//! 2. [`shard`], [`control`], [`http`], [`api`]: the pinned threads that own connections, the thread that owns the store, the
//!    HTTP that clients speak, and the calls and answers that all three know.
//! 3. [`session`]: what a token's two connections share, as a state machine without I/O.
//! 4. [`ring`], [`tls`], [`store`], [`telemetry`], [`config`]: the kernel, certificates, the disk, the log, the flags.
//! 5. [`sys`]: files, client addresses, the calendar, cores and memory.
//! 6. `e2e` (feature `e2e`): end-to-end encryption, for the ends; the relay has no use for it. Pure.
//! 7. [`proto`]: the wire: frames, envelopes, tokens, limits. Pure. [`proxy`]: which proxy the environment names. `console`
//!    (features `server` and `agent`): what a command prints.
//!
//! Beside them stand the ends, which know nothing of the relay's inside: `client` (feature `client`) knows `e2e`,
//! `proto` and `proxy`, and `agent` (feature `agent`) knows `client` and `console`.
//!
//! [`proto`], [`proxy`], [`session`], `e2e`, `client` and `agent` compile without the `server` feature, on any system.

// They panic when nobody reads any more; see `console`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod proto;
#[cfg(any(feature = "server", feature = "client"))]
pub mod proxy;
pub mod session;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "e2e")]
pub mod e2e;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(any(feature = "server", feature = "agent"))]
pub mod console;
#[cfg(feature = "server")]
pub mod control;
#[cfg(all(feature = "server", feature = "agent"))]
pub mod demo;
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
pub mod sys;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod tls;
