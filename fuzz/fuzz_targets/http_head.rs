//! Any bytes as the beginning of an HTTP connection: no panic, bounded, and a request ends where it ends.
#![no_main]

use coralmux_http::{Parsed, Peer, REQUEST_BYTES_MAX, RequestPolicy, RequestPolicyOptions, switching};
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const NOW_UNIX_SEC: u64 = 1_000_000;

static POLICY: LazyLock<RequestPolicy> = LazyLock::new(|| {
    RequestPolicy::new(RequestPolicyOptions {
        admin_key: "k",
        trusted_proxies: "10.0.0.0/8".parse().into_iter().collect(),
        allowed_origins: Some(vec!["https://a.example".to_owned()]),
        names: Vec::new(),
        transport_security: false,
        registration: true,
        phone: true,
        any_path: false,
    })
});

fuzz_target!(|bytes: &[u8]| {
    let parse = |bytes: &[u8]| POLICY.parse(NOW_UNIX_SEC, bytes, Peer { address: PEER, tls: false });
    match parse(bytes) {
        Ok(Parsed::NeedMore { .. }) => assert!(bytes.len() < REQUEST_BYTES_MAX),
        Ok(whole) => {
            let Parsed::Request { action, consumed, .. } = &whole else { unreachable!() };
            assert!((1..=bytes.len()).contains(consumed) && *consumed <= REQUEST_BYTES_MAX);
            assert_eq!(parse(&bytes[..*consumed]).as_ref(), Ok(&whole));
            assert!(matches!(parse(&bytes[..consumed - 1]), Ok(Parsed::NeedMore { .. })));
            if let coralmux_http::Action::Upgrade { accept } = action {
                assert!(switching(accept).is_ascii());
            }
        }
        Err(refusal) => assert!(refusal.response.starts_with(b"HTTP/1.1 ")),
    }
});
