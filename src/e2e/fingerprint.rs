//! The number by which two people find out whether somebody sits between their ends.

use pbkdf2::pbkdf2_hmac;
use sha2::Sha256;
use std::fmt;

const SALT: &[u8] = b"coralmux-fingerprint-v1";
const ITERATIONS: u32 = 10_000;

/// The fingerprint of a pair of version 1: both ends show the same one, unless each has agreed its keys with somebody
/// in the middle. Shown as four groups of five digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u32; 4]);

impl Fingerprint {
    /// The fingerprint of two public keys, in either order. Takes 10,000 rounds of HMAC, some milliseconds: it makes
    /// the search for a key pair that looks like another one as much dearer.
    #[must_use]
    pub fn of(one: &[u8; 32], other: &[u8; 32]) -> Self {
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        let mut hash = [0; 16];
        pbkdf2_hmac::<Sha256>(&[*low, *high].concat(), SALT, ITERATIONS, &mut hash);
        let (groups, _) = hash.as_chunks::<4>();
        let mut numbers = [0; 4];
        for (number, group) in numbers.iter_mut().zip(groups) {
            *number = u32::from_be_bytes(*group) % 100_000;
        }
        Self(numbers)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a:05} {b:05} {c:05} {d:05}")
    }
}
