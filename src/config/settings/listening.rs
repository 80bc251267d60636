//! Where the relay listens, who may connect, and TLS.

use super::DefaultValue::{Described, Is};
use super::Reload::{Now, Restart, RestartTls};
use super::Takes::{One, Secret, Several};
use super::{Group, Setting, add, keep, put};
use crate::config::{tls, value};

pub(super) static LISTENING: Group = Group {
    heading: "Listening",
    settings: &[
        Setting {
            name: "addr",
            unit: "HOST:PORT",
            takes: Several,
            help: "Where to listen, such as `:8080`, with TLS as `tls://:443`; repeatable",
            doc: Some(
                "where to listen; `:8080` is every interface, IPv4 and IPv6; `tls://` in front: with TLS; \
                 repeatable; with certificates the default is `tls://:443`",
            ),
            default: Described(":8080"),
            reload: Restart(|old, new| keep(&old.listen, &mut new.listen)),
            set: |to, text| {
                to.config.listen.extend(tls::listen_addr(text)?);
                Ok(())
            },
        },
        Setting {
            name: "echo-addr",
            unit: "HOST:PORT",
            takes: One,
            help: "Where to answer each WebSocket message with itself, for tests of a network",
            doc: Some("where to answer each WebSocket message with itself; for tests of a network, not for the public"),
            default: Described("off"),
            reload: Restart(|old, new| keep(&old.echo_addrs, &mut new.echo_addrs)),
            set: |to, text| put(&mut to.config.echo_addrs, value::listen(text)),
        },
        Setting {
            name: "trusted-proxy",
            unit: "IP[/BITS]",
            takes: Several,
            help: "Proxy whose X-Forwarded-For counts; repeatable",
            doc: Some("proxy whose `X-Forwarded-For` counts; repeatable"),
            default: Described("none"),
            reload: Now(|old, new| old.trusted_proxies != new.trusted_proxies),
            set: |to, text| add(&mut to.config.trusted_proxies, value::network(text)),
        },
        Setting {
            name: "proxy-protocol",
            unit: "IP[/BITS]",
            takes: Several,
            help: "Proxy that begins each connection with a PROXY protocol header; repeatable",
            doc: None,
            default: Described("none"),
            reload: Now(|old, new| old.proxies != new.proxies),
            set: |to, text| add(&mut to.config.proxies, value::network(text)),
        },
        Setting {
            name: "allow-origin",
            unit: "ORIGIN",
            takes: Several,
            help: "Browser origin to admit: https://app.example.com, null or *; repeatable",
            doc: Some(
                "browser origin to admit, such as `https://app.example.com`; `null`: pages without an origin, such as \
                 local files; `*`: any; repeatable",
            ),
            default: Described("any"),
            reload: Now(|old, new| old.origins != new.origins),
            set: |to, text| add(&mut to.origins, value::origin(text)),
        },
        Setting {
            name: "own-name",
            unit: "NAME",
            takes: Several,
            help: "Further name that the relay is reached by; repeatable",
            doc: Some(
                "further name that the relay, or its metrics, are reached by, beside those of `--domain` and the \
                 machine's own; see [Browsers](operations/security.md#browsers); repeatable",
            ),
            default: Described("those of --domain"),
            reload: Now(|old, new| old.own_names != new.own_names),
            set: |to, text| add(&mut to.config.own_names, tls::domain(text)),
        },
        Setting {
            name: "phone",
            unit: "on|off",
            takes: One,
            help: "Whether the phone in the browser is served at /",
            doc: Some("whether the phone in the browser is served at `/`"),
            default: Is("on"),
            reload: Now(|old, new| old.phone != new.phone),
            set: |to, text| put(&mut to.config.phone, value::switch(text)),
        },
    ],
};

pub(super) static TLS: Group = Group {
    heading: "TLS",
    settings: &[
        Setting {
            name: "domain",
            unit: "NAME",
            takes: Several,
            help: "Domain to get a certificate for, and to renew it; repeatable",
            doc: None,
            default: Described("none"),
            reload: RestartTls,
            set: |to, text| add(&mut to.tls.domains, tls::domain(text)),
        },
        Setting {
            name: "tls-cert",
            unit: "FILE",
            takes: Several,
            help: "Certificate chain of your own, PEM; repeatable, chosen by name",
            doc: None,
            default: Described("none"),
            reload: RestartTls,
            set: |to, text| add(&mut to.tls.certs, value::path(text)),
        },
        Setting {
            name: "tls-key",
            unit: "FILE",
            takes: Several,
            help: "Its private key, PEM; repeatable, in the order of --tls-cert",
            doc: Some("its private key, PEM; repeatable, in the order of `--tls-cert`"),
            default: Described("none"),
            reload: RestartTls,
            set: |to, text| add(&mut to.tls.keys, value::path(text)),
        },
        Setting {
            name: "http-addr",
            unit: "HOST:PORT",
            takes: One,
            help: "Where HTTP is redirected to https and answers the CA; or off",
            doc: Some("where HTTP is redirected to https and answers the CA; `off`: nowhere"),
            default: Described(":80 with --domain"),
            reload: RestartTls,
            set: |to, text| put(&mut to.tls.http_addrs, tls::http_addr(text).map(Some)),
        },
        Setting {
            name: "acme-directory",
            unit: "URL",
            takes: One,
            help: "ACME directory that gives out the certificates",
            doc: None,
            default: Described("that of Let's Encrypt"),
            reload: RestartTls,
            set: |to, text| put(&mut to.tls.directory, tls::directory(text).map(Some)),
        },
        Setting {
            name: "acme-ca",
            unit: "FILE",
            takes: One,
            help: "Certificates that the directory's own TLS is checked against, PEM",
            doc: None,
            default: Described("the system's"),
            reload: RestartTls,
            set: |to, text| put(&mut to.tls.ca, value::path(text).map(Some)),
        },
        Setting {
            name: "acme-email",
            unit: "EMAIL",
            takes: One,
            help: "Address that the CA may write to",
            doc: None,
            default: Described("none"),
            reload: RestartTls,
            set: |to, text| put(&mut to.tls.email, tls::email(text).map(Some)),
        },
        Setting {
            name: "acme-eab-kid",
            unit: "ID",
            takes: One,
            help: "Key identifier for external account binding, where the CA asks for it",
            doc: None,
            default: Described("none"),
            reload: RestartTls,
            set: |to, text| put(&mut to.tls.binding_kid, tls::binding_kid(text).map(Some)),
        },
        Setting {
            name: "acme-eab-key",
            unit: "KEY",
            takes: Secret(tls::NO_BINDING_KEY),
            help: "Its key in base64url; better in the environment or the file",
            doc: None,
            default: Described("none"),
            reload: RestartTls,
            set: |to, text| put(&mut to.tls.binding_key, tls::binding_key(text).map(Some)),
        },
        Setting {
            name: "acme-dir",
            unit: "DIRECTORY",
            takes: One,
            help: "Where the account's key and the certificates are kept",
            doc: Some("where the account's key and the certificates are kept, such as `relay.db.acme`"),
            default: Described("beside the store, .acme"),
            reload: RestartTls,
            set: |to, text| put(&mut to.tls.dir, value::path(text).map(Some)),
        },
    ],
};
