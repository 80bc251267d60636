//! Session tickets: a session, sealed with a key that only this process has (RFC 5077, RFC 8446 section 4.6.1).
//!
//! A key makes tickets for `KEY_LIFETIME_SEC` and opens them for as long again; then it is gone, and with it the way to
//! the sessions.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::crypto::GetRandomFailed;
use rustls::server::ProducesTickets;
use rustls::ticketer::TicketRotator;
use std::sync::Arc;

/// How long a key makes tickets, in seconds. Nonces are random: at 40,000 handshakes a second there are fewer than 2^30.
const KEY_LIFETIME_SEC: u32 = 6 * 60 * 60;
const TAG_BYTES: usize = 16;

/// Makes and opens tickets, with keys that change by themselves.
///
/// # Errors
/// The system has no random source.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    Ok(Arc::new(TicketRotator::new(KEY_LIFETIME_SEC, || Ok(Box::new(TicketKey::new()?)))?))
}

/// Seals with AES-256-GCM: nonce, sealed session, tag.
#[derive(Debug)]
struct TicketKey(LessSafeKey);

impl TicketKey {
    fn new() -> Result<Self, GetRandomFailed> {
        let key = UnboundKey::new(&AES_256_GCM, &random::<32>().ok_or(GetRandomFailed)?);
        Ok(Self(LessSafeKey::new(key.map_err(|_| GetRandomFailed)?)))
    }
}

impl ProducesTickets for TicketKey {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * KEY_LIFETIME_SEC
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut ticket = Vec::with_capacity(NONCE_LEN + plain.len() + TAG_BYTES);
        let nonce = random::<NONCE_LEN>()?;
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), &mut ticket[NONCE_LEN..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let bytes = self.0.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(bytes);
        Some(plain)
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_opened_by_its_key_alone_and_only_as_it_was() {
        let (key, other) = (TicketKey::new().unwrap(), TicketKey::new().unwrap());
        for plain in [&b""[..], b"s", &[7; 300]] {
            let ticket = key.encrypt(plain).unwrap();
            assert_eq!(ticket.len(), NONCE_LEN + plain.len() + TAG_BYTES);
            assert_ne!(ticket, key.encrypt(plain).unwrap());
            assert_eq!(key.decrypt(&ticket).as_deref(), Some(plain));
            assert_eq!(other.decrypt(&ticket), None);
            for at in 0..ticket.len() {
                let mut bad = ticket.clone();
                bad[at] ^= 1;
                assert_eq!(key.decrypt(&bad), None, "byte {at}");
                assert_eq!(key.decrypt(&ticket[..at]), None, "cut at {at}");
            }
        }
        assert_eq!(key.decrypt(b""), None);
    }

    #[test]
    fn tickets_live_for_two_lives_of_a_key() {
        let ticketer = ticketer().unwrap();
        assert!(ticketer.enabled());
        let ticket = ticketer.encrypt(b"session").unwrap();
        assert_eq!(ticketer.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(TicketKey::new().unwrap().lifetime(), 43_200);
    }
}
