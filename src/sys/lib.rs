//! What the relay needs of the system and the standard library does not have: small files read and written safely, sockets to
//! listen on, client addresses, times of the calendar, cores and memory. It knows nothing of a relay.

pub mod file;
pub mod listen;
pub mod machine;
pub mod net;
pub mod time;
