//! A client's stream, plain or with TLS over it.

use crate::ring::simulated::{Client, Heard};
use crate::tls::certificate::{Certificate, provider};
use crate::tls::certificates::Certificates;
use crate::tls::settings::server_config;
use crate::tls::status::Source;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

/// What a client seals at once.
const SEALED_AT_ONCE: usize = 16 << 10;

/// How relays and clients speak TLS. The lengths of all records follow from what is in them, so that a seed runs the same way
/// again: keys whose signatures are always as long, and no resumption, which would depend on what other seeds did.
static SETTINGS: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let chain = rcgen::CertificateParams::new(["relay".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let certificate = Certificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.key.cert[0].clone()).unwrap();
    let certificates = Arc::new(Certificates::default());
    let place = certificates.add("relay".to_owned(), Source::Files);
    certificates.put(1, place, certificate);
    let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.resumption = Resumption::disabled();
    (server_config(certificates).unwrap(), Arc::new(client))
});

/// The settings of a relay that speaks TLS.
pub(super) fn relay_tls() -> Arc<ServerConfig> {
    Arc::clone(&SETTINGS.0)
}

/// See the module.
pub(super) struct Stream {
    wire: Client,
    tls: Option<Tls>,
    has_shut: bool,
}

struct Tls {
    connection: ClientConnection,
    /// Records that the wire had no room for.
    out: Vec<u8>,
}

impl Stream {
    pub(super) fn new(wire: Client, is_tls: bool) -> Self {
        let tls = is_tls.then(|| {
            let name = ServerName::try_from("relay").unwrap();
            let mut connection = ClientConnection::new(Arc::clone(&SETTINGS.1), name).unwrap();
            connection.set_buffer_limit(None);
            Tls { connection, out: Vec::new() }
        });
        Self { wire, tls, has_shut: false }
    }

    /// As [`Client::send`].
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        self.flush();
        match &mut self.tls {
            None => self.wire.send(bytes),
            Some(tls) if tls.out.is_empty() => {
                let count = tls.connection.writer().write(&bytes[..bytes.len().min(SEALED_AT_ONCE)]).unwrap();
                self.flush();
                count
            }
            Some(_) => 0,
        }
    }

    /// As [`Client::receive`]; records that do not open are as good as a reset.
    pub(super) fn receive(&mut self, bytes_max: usize) -> Heard {
        self.flush();
        let heard = self.wire.receive(bytes_max);
        let (Some(tls), Heard::Bytes(bytes)) = (&mut self.tls, &heard) else { return heard };
        let (mut rest, mut plain, mut has_ended) = (&bytes[..], Vec::new(), false);
        while !rest.is_empty() && !has_ended {
            if tls.connection.read_tls(&mut rest).is_err() {
                return Heard::Reset;
            }
            let Ok(state) = tls.connection.process_new_packets() else { return Heard::Reset };
            has_ended = state.peer_has_closed();
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.connection.reader().read_exact(&mut plain[start..]).unwrap();
        }
        self.flush();
        match (plain.is_empty(), has_ended) {
            (false, _) => Heard::Bytes(plain),
            (true, true) => Heard::End,
            (true, false) => Heard::Nothing,
        }
    }

    /// As [`Client::shut_writing`], with what TLS says before it.
    pub(super) fn shut_writing(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.connection.send_close_notify();
        }
        self.flush();
        self.has_shut = true;
        self.wire.shut_writing();
    }

    /// As [`Client::reset`].
    pub(super) fn reset(&self) {
        self.wire.reset();
    }

    fn flush(&mut self) {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.has_shut) else { return };
        while tls.connection.wants_write() {
            tls.connection.write_tls(&mut tls.out).unwrap();
        }
        let sent = self.wire.send(&tls.out);
        tls.out.drain(..sent);
    }
}
