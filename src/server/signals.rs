//! Signals: the first one that ends asks for a drain, the second for an end at once; SIGHUP and SIGUSR2
//! have the configuration and the certificates read again.

use super::exit;
use super::supervise::Order;
use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

/// Listens from now on, and makes orders of what comes.
pub(super) fn listen(orders: Sender<Order>) -> io::Result<()> {
    let second = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset and sets it, and the second one finds it set.
        flag::register_conditional_shutdown(signal, i32::from(exit::FAILURE), Arc::clone(&second))?;
        flag::register(signal, Arc::clone(&second))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let order = match signal {
                SIGHUP | SIGUSR2 => Order::Reload,
                SIGINT => Order::Drain { by: "SIGINT" },
                _ => Order::Drain { by: "SIGTERM" },
            };
            // Full, it holds the same orders already.
            let _ = orders.try_send(order);
        }
    })?;
    Ok(())
}
