//! How handshakes end.

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well, with all there is to it.
    Full,
    /// Well: a session went on.
    Resumed,
    /// Well: it was a challenge of a certificate authority.
    Challenge,
    /// It was HTTP without TLS.
    PlainHttp,
    /// It was a PROXY protocol header, from somebody who is not named for it.
    ProxyHeader,
    /// It was no TLS.
    NotTls,
    /// The client sent an alert.
    Client,
    /// The client offers or does what is not to be served.
    Refused,
    /// It took too long.
    TimedOut,
    /// The connection ended before.
    Gone,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Full,
        Self::Resumed,
        Self::Challenge,
        Self::PlainHttp,
        Self::ProxyHeader,
        Self::NotTls,
        Self::Client,
        Self::Refused,
        Self::TimedOut,
        Self::Gone,
    ];

    /// Its name in metrics and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Challenge => "challenge",
            Self::PlainHttp => "plain_http",
            Self::ProxyHeader => "proxy_header",
            Self::NotTls => "not_tls",
            Self::Client => "client_alert",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Gone => "gone",
        }
    }
}
