//! SHA-256 for the key schedule of TLS 1.3 and the transcript of a handshake (RFC 8446, sections 4.4.1 and 7.1).
//!
//! A handshake derives some twenty secrets of 32 bytes. The provider's way to one allocates several contexts and computes
//! the two blocks of the HMAC key each time; here a key's state is kept, and a clone of it goes on (docs/PERFORMANCE.md has what
//! that gave). The hash itself is that of RustCrypto, which uses the processor's own instructions where it has them.

use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::hash::{Context, Hash, HashAlgorithm, Output};
use rustls::crypto::hmac::{Hmac as RustlsHmac, Key, Tag};
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};
use sha2::{Digest, Sha256};

/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;

/// A suite of TLS 1.3 with SHA-256, with its hash and key schedule exchanged for those of this module; any other as it is.
#[must_use]
pub fn with_light_schedule(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(suite13) = suite else { return suite };
    if suite13.common.hash_provider.algorithm() != HashAlgorithm::SHA256 {
        return suite;
    }
    // Made once for each suite of the settings, which live as long as the program.
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon { hash_provider: &Transcript, ..suite13.common },
        hkdf_provider: &HkdfUsingHmac(&Keyed),
        aead_alg: suite13.aead_alg,
        quic: None,
    })))
}

struct Transcript;

impl Hash for Transcript {
    fn start(&self) -> Box<dyn Context> {
        Box::new(Running(Sha256::new()))
    }

    fn hash(&self, data: &[u8]) -> Output {
        Output::new(&Sha256::digest(data))
    }

    fn output_len(&self) -> usize {
        HASH_BYTES
    }

    fn algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }
}

#[derive(Clone)]
struct Running(Sha256);

impl Context for Running {
    fn fork_finish(&self) -> Output {
        Output::new(&self.0.clone().finalize())
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(self.clone())
    }

    fn finish(self: Box<Self>) -> Output {
        Output::new(&self.0.finalize())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

struct Keyed;

impl RustlsHmac for Keyed {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        // HMAC takes a key of any length (RFC 2104 section 2): there is no other error.
        Box::new(KeyState(Hmac::new_from_slice(key).expect("a key of any length")))
    }

    fn hash_output_len(&self) -> usize {
        HASH_BYTES
    }
}

struct KeyState(Hmac<Sha256>);

impl Key for KeyState {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut mac = self.0.clone();
        mac.update(first);
        for piece in middle {
            mac.update(piece);
        }
        mac.update(last);
        Tag::new(&mac.finalize().into_bytes())
    }

    fn tag_len(&self) -> usize {
        HASH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::provider;
    use super::*;
    use rustls::crypto::tls13::{Hkdf, OkmBlock};

    /// The provider's suites of TLS 1.3 with SHA-256, and ours of them.
    fn both() -> Vec<(&'static Tls13CipherSuite, &'static Tls13CipherSuite)> {
        let tls13 = |suite: SupportedCipherSuite| match suite {
            SupportedCipherSuite::Tls13(suite) => Some(suite),
            _ => None,
        };
        let suites = provider().cipher_suites.clone();
        let pairs = suites.into_iter().filter_map(|suite| Some((tls13(suite)?, tls13(with_light_schedule(suite))?)));
        pairs.filter(|(theirs, _)| theirs.common.hash_provider.algorithm() == HashAlgorithm::SHA256).collect()
    }

    #[test]
    fn secrets_are_those_of_the_provider() {
        let pairs = both();
        assert_eq!(pairs.len(), 2);
        for (theirs, ours) in pairs {
            let derive = |hkdf: &dyn Hkdf| {
                let mut all = Vec::new();
                let secret = OkmBlock::new(&[7; HASH_BYTES]);
                for salt in [None, Some(&[1u8; HASH_BYTES][..])] {
                    for expander in [
                        hkdf.extract_from_zero_ikm(salt),
                        hkdf.extract_from_secret(salt, b"shared"),
                        hkdf.expander_for_okm(&secret),
                    ] {
                        for bytes in [0, 1, 12, 32, 33, 100] {
                            let mut out = vec![0; bytes];
                            expander.expand_slice(&[b"tls13 ", b"", b"label"], &mut out).unwrap();
                            all.extend(out);
                        }
                        all.extend_from_slice(expander.expand_block(&[b"block"]).as_ref());
                    }
                }
                all.extend_from_slice(hkdf.hmac_sign(&secret, b"finished").as_ref());
                all
            };
            assert_eq!(derive(ours.hkdf_provider), derive(theirs.hkdf_provider));
        }
    }

    #[test]
    fn a_transcript_goes_on_after_it_was_read() {
        for (theirs, ours) in both() {
            let run = |hash: &dyn Hash| {
                let mut context = hash.start();
                context.update(b"hello");
                let early = context.fork_finish();
                let mut fork = context.fork();
                context.update(&[3; 200]);
                fork.update(b"else");
                [early, context.finish(), fork.finish(), hash.hash(b"once")].map(|output| output.as_ref().to_vec())
            };
            assert_eq!(run(ours.common.hash_provider), run(theirs.common.hash_provider));
        }
    }
}
