//! The phone in the browser: the files of `src/phone` as `build.rs` makes them small, embedded in the program, and the
//! headers they are served with.
//!
//! What it must never do: let a page of the relay load or contact anything but the relay itself, or run a script that
//! is not one of these files. The policy below says so to the browser.

use super::response::{Reply, Response};
use crate::proto::token::hex;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// A file as it is served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asset {
    /// The path it is served at.
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
    /// Its header lines, each with its CRLF. The tag is the beginning of the body's SHA-256.
    headers: String,
    /// The tag with its quotes.
    etag: String,
}

/// What the page may do. `'self'` covers the WebSocket, too, in every browser that has X25519. No text may become HTML or
/// script: the one policy that may be made names the service worker.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data: blob:; manifest-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'none'; require-trusted-types-for 'script'; trusted-types service-worker";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const PNG: &str = "image/png";
const SVG: &str = "image/svg+xml";
const MANIFEST: &str = "application/manifest+json";

macro_rules! files {
    ($($path:literal $content_type:ident $file:literal)*) => {
        [$(($path, $content_type, include_bytes!(concat!(env!("OUT_DIR"), "/phone/", $file)).as_slice())),*]
    };
}

/// Hashed once, when the first of them is asked for.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    files! {
        "/" HTML "index.html"
        "/sw.js" SCRIPT "sw.js"
        "/phone/style.css" CSS "style.css"
        "/phone/manifest.webmanifest" MANIFEST "manifest.webmanifest"
        "/phone/icon.svg" SVG "icon.svg"
        "/phone/icon-180.png" PNG "icon-180.png"
        "/phone/icon-192.png" PNG "icon-192.png"
        "/phone/icon-512.png" PNG "icon-512.png"
        "/phone/app.js" SCRIPT "app.js"
        "/phone/licences.txt" TEXT "licences.txt"
        "/phone/markdown-it.js" SCRIPT "markdown-it.js"
        "/phone/qr.js" SCRIPT "qr.js"
    }
    .map(|(path, content_type, body)| Asset::new(path, content_type, body))
    .into()
});

/// The file that is served at `path`, if there is one.
pub(super) fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    fn new(path: &'static str, content_type: &'static str, body: &'static [u8]) -> Self {
        let digest = Sha256::digest(body);
        let etag = format!("\"{}\"", hex(&digest[..8]));
        // A browser asks each time whether a file has changed: a new version of the relay is then a new page at once,
        // and never half of one.
        let headers = format!(
            "ETag: {etag}\r\nCache-Control: no-cache\r\nContent-Security-Policy: {POLICY}\r\n\
             Referrer-Policy: no-referrer\r\n\
             Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Permissions-Policy: camera=(self), microphone=(), geolocation=()\r\n"
        );
        Self { path, content_type, body, headers, etag }
    }

    /// The response: the file, or 304 where the client has it already.
    pub(super) fn response(&self, if_none_match: Option<&[u8]>, keep_alive: bool, head_only: bool) -> Reply {
        let known = if_none_match.is_some_and(|tags| names(tags, self.etag.as_bytes()));
        let status = if known { 304 } else { 200 };
        let response = Response::new(status, self.body, keep_alive, head_only);
        Response { content_type: self.content_type, headers: &self.headers, cached: true, ..response }.reply(self.body)
    }
}

/// Whether an `If-None-Match` list has this tag; compared weakly (RFC 9110 section 13.1.2).
fn names(tags: &[u8], etag: &[u8]) -> bool {
    super::head::list(tags).any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(Reply { head, body }: Reply) -> String {
        String::from_utf8_lossy(&[&head, body].concat()).into_owned()
    }

    #[test]
    fn a_page_forbids_the_browser_everything_but_the_relay() {
        let text = shown(asset("/").unwrap().response(None, true, false));
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"), "{text}");
        for line in [
            "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ",
            "X-Content-Type-Options: nosniff\r\n",
            "Referrer-Policy: no-referrer\r\n",
            "Cache-Control: no-cache\r\n",
            "; require-trusted-types-for 'script'; trusted-types service-worker\r\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("no-store"), "the page may be kept for when the network is away");
    }

    #[test]
    fn who_has_a_file_already_is_told_so_and_gets_no_body() {
        let asset = asset("/phone/app.js").unwrap();
        let etag = asset.etag.clone();
        for tags in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            let text = shown(asset.response(Some(tags.as_bytes()), true, false));
            assert!(text.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{tags}: {text}");
            assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length"), "{tags}: {text}");
            assert!(text.contains(&format!("ETag: {etag}\r\n")), "{tags}: {text}");
        }
        for tags in ["\"x\"", "", "W/"] {
            let text = shown(asset.response(Some(tags.as_bytes()), true, false));
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{tags}: {text}");
        }
    }

    #[test]
    fn every_file_that_a_file_names_is_served() {
        let mut named = 0;
        for asset in ASSETS.iter().filter(|asset| asset.content_type != PNG) {
            let text = str::from_utf8(asset.body).unwrap();
            for quoted in text.split(['"', '\'', '`']) {
                assert!(!quoted.starts_with("/phone/"), "{} names {quoted}: not behind a path prefix", asset.path);
                let path = match quoted.strip_prefix("./") {
                    Some(file) => format!("/phone/{file}"),
                    None if asset.content_type == MANIFEST => format!("/phone/{quoted}"),
                    None => format!("/{quoted}"),
                };
                let is_file = path.starts_with("/phone/") && path.contains('.') && !path.contains(char::is_whitespace);
                if is_file && asset.content_type != TEXT && !path.contains("..") || path == "/sw.js" {
                    assert!(super::asset(&path).is_some(), "{} names {path}", asset.path);
                    named += 1;
                }
            }
            assert!(!text.contains("https://") || !text.contains("src=\"https"), "{} loads from elsewhere", asset.path);
        }
        assert!(named > 8, "{named}");
    }

    #[test]
    fn every_file_that_is_built_is_served() {
        let folder = concat!(env!("OUT_DIR"), "/phone");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        for file in files.map(|name| name.into_string().unwrap()).filter(|name| name != "index.html") {
            let served = asset(&format!("/phone/{file}")).or_else(|| asset(&format!("/{file}")));
            assert!(served.is_some(), "{file}");
        }
    }
}
