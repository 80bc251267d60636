//! How the relay speaks TLS: versions, protocols, tickets.

use super::certificate::provider;
use super::certificates::{ACME_TLS, Certificates};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig};
use std::sync::Arc;

/// What is spoken over TLS. Nothing else is offered: WebSockets here are those of RFC 6455, over HTTP/1.1.
pub const HTTP: &[u8] = b"http/1.1";

/// The settings of all TLS connections, made once and shared by the shards: TLS 1.3 and 1.2 with aws-lc-rs (and with it
/// the hybrid key exchange X25519MLKEM768), resumption by the provider's tickets alone, whose keys change every six hours
/// and whose state no server keeps, and no early data, which could be replayed.
///
/// ALPN is [`HTTP`], and [`ACME_TLS`] for challenges. **A connection that agreed on [`ACME_TLS`] has to be closed as soon
/// as its handshake is over** (RFC 8737 section 3): nothing may be read from it. A client without ALPN is served; one
/// that offers only others is refused with `no_application_protocol`.
///
/// # Errors
/// The system has no random source, or the provider lacks a protocol version: neither is known to happen.
pub fn server_config(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(light_first(&provider())))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.ignore_client_order = true;
    config.alpn_protocols = vec![HTTP.to_vec(), ACME_TLS.to_vec()];
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One is enough for a client that comes back, and each is sent and encrypted with each handshake.
    config.send_tls13_tickets = 1;
    // Behind the handshake the shard opens and seals records itself, in the memory that they are in.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// AES-128 first. The key exchange is no stronger than it, and its SHA-256 has instructions of its own on processors where
/// the SHA-384 that comes with AES-256 has none, which is a tenth of a handshake.
fn light_first(provider: &CryptoProvider) -> CryptoProvider {
    let mut provider = provider.clone();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::certificate_for;
    use super::super::status::Source;
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection};

    /// A relay's settings with a certificate for `a.example`, and a client's that trusts it.
    fn both(
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (Arc<Certificates>, Arc<ServerConfig>, ClientConfig) {
        let certificate = certificate_for(&["a.example"]);
        let mut roots = RootCertStore::empty();
        roots.add(certificate.key.cert[0].clone()).unwrap();
        let certificates = Arc::new(Certificates::default());
        let place = certificates.add("a.example".to_owned(), Source::Files);
        certificates.put(1, place, certificate);
        let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        (Arc::clone(&certificates), server_config(certificates).unwrap(), client)
    }

    /// Shakes hands over memory; the error is what the client says.
    fn shake(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from("a.example").unwrap())?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        for _ in 0..8 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
            }
            let refused = server.process_new_packets().is_err();
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
            }
            client.process_new_packets()?;
            assert!(!refused, "the server refused without an alert");
        }
        Ok((client, server))
    }

    #[test]
    fn both_versions_agree_on_http_and_resume_with_a_ticket() {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let (_, server, mut client) = both(&[version]);
            client.alpn_protocols = vec![HTTP.to_vec()];
            let client = Arc::new(client);
            let (first, _) = shake(&server, &client).unwrap();
            assert_eq!((first.protocol_version(), first.alpn_protocol()), (Some(version.version), Some(HTTP)));
            assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
            let (second, _) = shake(&server, &client).unwrap();
            assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        }
    }

    #[test]
    fn tickets_live_for_two_lives_of_a_key_and_are_opened_by_their_ticketer_alone() {
        let [(_, ours, _), (_, other, _)] = [both(rustls::ALL_VERSIONS), both(rustls::ALL_VERSIONS)];
        assert_eq!((ours.ticketer.enabled(), ours.ticketer.lifetime()), (true, 12 * 60 * 60));
        let ticket = ours.ticketer.encrypt(b"session").unwrap();
        assert_eq!(ours.ticketer.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        other.ticketer.encrypt(b"session").unwrap();
        assert_eq!(other.ticketer.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 1;
            assert_eq!(ours.ticketer.decrypt(&bad), None, "byte {at}");
            assert_eq!(ours.ticketer.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn the_key_exchange_is_the_hybrid_one_where_the_client_has_it() {
        let (_, server, client) = both(rustls::ALL_VERSIONS);
        let (client, _) = shake(&server, &Arc::new(client)).unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn other_protocols_are_refused_and_no_certificate_is_an_alert() {
        let (certificates, server, mut client) = both(rustls::ALL_VERSIONS);
        let alert = |client: &ClientConfig, server: &Arc<ServerConfig>| match shake(server, &Arc::new(client.clone())) {
            Err(rustls::Error::AlertReceived(alert)) => alert,
            other => panic!("{:?}", other.map(|_| ())),
        };
        client.alpn_protocols = vec![b"h2".to_vec()];
        assert_eq!(alert(&client, &server), rustls::AlertDescription::NoApplicationProtocol);
        // A validator that comes when no challenge is in progress.
        client.alpn_protocols = vec![ACME_TLS.to_vec()];
        assert_eq!(alert(&client, &server), rustls::AlertDescription::AccessDenied);
        let challenge = certificates.challenge("a.example", Arc::clone(&certificate_for(&["a.example"]).key));
        assert!(matches!(shake(&server, &Arc::new(client.clone())), Err(rustls::Error::InvalidCertificate(_))));
        drop(challenge);
        client.alpn_protocols = vec![];
        assert!(shake(&server, &Arc::new(client.clone())).is_ok());
        let nothing = server_config(Arc::new(Certificates::default())).unwrap();
        assert_eq!(alert(&client, &nothing), rustls::AlertDescription::AccessDenied);
    }
}
