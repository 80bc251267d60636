//! Requests on the metrics listener: what an operator's tools look at, and nothing that changes anything.

use super::Refusal;
use super::head::Head;
use super::own::is_own_host;
use super::response::Problem;
use super::route::split_target;
use crate::api::ErrorCode;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// `GET /metrics`.
    Metrics,
    /// `GET /health`.
    Health,
    /// `GET /livez`.
    Live,
    /// `GET /readyz`.
    Ready,
}

/// Reads a request at the beginning of `bytes`: what it looks at, and whether it wants the head of the answer alone.
/// `None`: it is incomplete. The connection is closed after the answer. `names` are the relay's own, in lower case: under
/// another one a page of somebody else's site may be asking.
///
/// # Errors
/// [`Refusal`] for everything else.
pub fn watch(bytes: &[u8], names: &[String]) -> Result<Option<(Watched, bool)>, Refusal> {
    let Some(head) = Head::read(bytes)? else { return Ok(None) };
    head.body()?;
    if !head.host.is_none_or(|host| is_own_host(host, names)) {
        let text =
            "Host is not a name of this relay: ask by its address, by localhost, or by a name that --own-name has";
        return Err(Problem::new(ErrorCode::Misdirected, text).into());
    }
    if !matches!(head.method, "GET" | "HEAD") {
        let text = "there is only something to look at here";
        return Err(Problem::new(ErrorCode::MethodNotAllowed, text).with_header("Allow: GET, HEAD\r\n").into());
    }
    let watched = match split_target(head.target)?.0 {
        "/metrics" => Watched::Metrics,
        "/health" => Watched::Health,
        "/livez" => Watched::Live,
        "/readyz" => Watched::Ready,
        _ => {
            let text = "here are /metrics, /health, /livez and /readyz";
            return Err(Problem::new(ErrorCode::NotFound, text).into());
        }
    };
    Ok(Some((watched, head.method == "HEAD")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> String {
        match watch(request.as_bytes(), &["relay.example".to_owned()]) {
            Ok(watched) => format!("{watched:?}"),
            Err(refusal) => String::from_utf8_lossy(&refusal.response[9..12]).into_owned(),
        }
    }

    #[test]
    fn there_is_something_to_look_at_and_nothing_to_change() {
        let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(status(&request("GET /metrics?a=b")), "Some((Metrics, false))");
        assert_eq!(status(&request("HEAD /readyz")), "Some((Ready, true))");
        assert_eq!(status(&request("GET /api/v1/tokens")), "404");
        assert_eq!(status(&request("POST /metrics")), "405");
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost:"), "None");
        assert_eq!(status("nonsense\r\n\r\n"), "400");
    }

    #[test]
    fn a_page_whose_name_leads_here_is_told_nothing() {
        for (host, answer) in [
            ("evil.example", "421"),
            ("evil.example:9464", "421"),
            ("", "421"),
            ("127.0.0.1:9464", "Some((Metrics, false))"),
            ("[::1]:9464", "Some((Metrics, false))"),
            ("localhost:9464", "Some((Metrics, false))"),
            ("relay.example", "Some((Metrics, false))"),
        ] {
            assert_eq!(status(&format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n")), answer, "{host}");
        }
        assert_eq!(status("GET /metrics HTTP/1.0\r\n\r\n"), "Some((Metrics, false))", "no browser");
    }
}
