//! What the process's exit code means. Scripts and service managers rely on these: they do not change.

/// It ran, was asked to stop, and stopped in order.
pub const OK: u8 = 0;
/// Something failed that has no code of its own.
pub const FAILURE: u8 = 1;
/// A flag, an environment variable or the configuration file is wrong. Also what clap exits with.
pub const CONFIG: u8 = 2;
/// The machine lacks something that the relay needs: see [`crate::preflight`].
pub const PREFLIGHT: u8 = 3;
/// The store cannot be opened or read.
pub const STORE: u8 = 4;
/// The address to listen on is taken.
pub const ADDRESS_IN_USE: u8 = 5;
