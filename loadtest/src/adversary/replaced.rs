//! A client that comes again and again with the same token.

use super::Attacker;
use super::client::Client;
use std::collections::VecDeque;
use std::io;

/// Replaced connections that are kept open.
const KEPT: usize = 400;

/// Each new connection replaces the one before of its role, which says nothing to its end.
pub(super) fn again(attacker: &Attacker<'_>) -> io::Result<()> {
    let mut kept = VecDeque::new();
    for role in ["phone", "agent"].into_iter().cycle() {
        if attacker.is_over() {
            break;
        }
        kept.push_back(Client::hastily_authed(attacker, role)?);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
    Ok(())
}
