//! The phone in the browser: the files of `src/phone` as `build.rs` makes them small, embedded in the program, and the
//! headers they are served with.
//!
//! What it must never do: let a page of the relay load or contact anything but the relay itself, or run a script that
//! is not one of these files. The policy below says so to the browser.

use super::response::{Reply, Response};
use crate::proto::token::hex;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// A file as `build/served.rs` makes it; a form that there is not is empty.
struct File {
    /// The path it is served at.
    path: &'static str,
    /// Its name has a hash of its content: what is served there is always the same.
    lasting: bool,
    plain: &'static [u8],
    brotli: &'static [u8],
    gzip: &'static [u8],
}

static FILES: &[File] = &include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// A file as it is served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asset {
    path: &'static str,
    content_type: &'static str,
    /// The smallest first, and as it is last.
    forms: Vec<Form>,
}

#[derive(Debug, PartialEq, Eq)]
struct Form {
    coding: Coding,
    body: &'static [u8],
    /// Its header lines, each with its CRLF. The tag is the beginning of the body's SHA-256.
    headers: String,
    /// The tag with its quotes.
    etag: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Brotli,
    Gzip,
    Identity,
}

impl Coding {
    /// Its name (RFC 9110 section 8.4.1).
    fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }

    /// Whether a client takes it that sends this `Accept-Encoding` (RFC 9110 section 12.5.3).
    fn is_taken(self, accept_encoding: &[u8]) -> bool {
        super::head::list(accept_encoding).any(|element| {
            let mut parts = element.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            let is_this = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(self.name().as_bytes()));
            let mut weights = parts.filter_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
            is_this && !weights.any(|weight| weight.iter().all(|b| b"0.".contains(b)))
        })
    }
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

/// Hashed once, when the first of them is asked for.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| FILES.iter().map(Asset::new).collect());

/// The file that is served at `path`, if there is one.
pub(super) fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    fn new(file: &File) -> Self {
        let forms = [(Coding::Brotli, file.brotli), (Coding::Gzip, file.gzip), (Coding::Identity, file.plain)];
        let is_there = |form: &(Coding, &[u8])| form.0 == Coding::Identity || !form.1.is_empty();
        let varies = is_there(&forms[0]);
        let forms =
            forms.into_iter().filter(is_there).map(|(coding, body)| Form::new(coding, body, file.lasting, varies));
        Self { path: file.path, content_type: content_type(file.path), forms: forms.collect() }
    }

    /// The response: the file in the smallest form that the client takes, or 304 where it has that already.
    pub(super) fn response(
        &self,
        if_none_match: Option<&[u8]>,
        accept_encoding: Option<&[u8]>,
        keep_alive: bool,
        head_only: bool,
    ) -> Reply {
        let accept_encoding = accept_encoding.unwrap_or_default();
        let taken = |form: &&Form| form.coding == Coding::Identity || form.coding.is_taken(accept_encoding);
        // `new` has put in the file as it is, which everybody takes.
        let form = self.forms.iter().find(taken).expect("each file is there as it is");
        let known = if_none_match.is_some_and(|tags| names(tags, form.etag.as_bytes()));
        let status = if known { 304 } else { 200 };
        let response = Response::new(status, form.body, keep_alive, head_only);
        Response { content_type: self.content_type, headers: &form.headers, cached: true, ..response }.reply(form.body)
    }
}

impl Form {
    fn new(coding: Coding, body: &'static [u8], lasting: bool, varies: bool) -> Self {
        let etag = format!("\"{}\"", hex(&Sha256::digest(body)[..8]));
        // A browser asks each time whether the page itself has changed: a new version of the relay is then a new page at
        // once, and never half of one.
        let kept = if lasting { "public, max-age=31536000, immutable" } else { "no-cache" };
        let coding_line = match coding {
            Coding::Identity => String::new(),
            coding => format!("Content-Encoding: {}\r\n", coding.name()),
        };
        let vary = if varies { "Vary: Accept-Encoding\r\n" } else { "" };
        let headers = format!(
            "ETag: {etag}\r\nCache-Control: {kept}\r\n{coding_line}{vary}Content-Security-Policy: {POLICY}\r\n\
             Referrer-Policy: no-referrer\r\n\
             Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Permissions-Policy: camera=(self), microphone=(), geolocation=()\r\n"
        );
        Self { coding, body, headers, etag }
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "css" => CSS,
        "js" => SCRIPT,
        "png" => PNG,
        "svg" => SVG,
        "txt" => TEXT,
        "webmanifest" => MANIFEST,
        _ => HTML,
    }
}

/// Whether an `If-None-Match` list has this tag; compared weakly (RFC 9110 section 13.1.2).
fn names(tags: &[u8], etag: &[u8]) -> bool {
    super::head::list(tags).any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is served as a name with a hash, by what comes before it.
    fn hashed(start: &str) -> &'static Asset {
        ASSETS.iter().find(|asset| asset.path.starts_with(start)).unwrap()
    }

    fn plain(asset: &Asset) -> &'static [u8] {
        asset.forms.last().unwrap().body
    }

    fn shown(Reply { head, body }: Reply) -> String {
        String::from_utf8_lossy(&[&head, body].concat()).into_owned()
    }

    #[test]
    fn a_page_forbids_the_browser_everything_but_the_relay() {
        let text = shown(asset("/").unwrap().response(None, None, true, false));
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
        let asset = hashed("/phone/app.");
        let etag = asset.forms.last().unwrap().etag.clone();
        for tags in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            let text = shown(asset.response(Some(tags.as_bytes()), None, true, false));
            assert!(text.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{tags}: {text}");
            assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length"), "{tags}: {text}");
            assert!(text.contains(&format!("ETag: {etag}\r\n")), "{tags}: {text}");
        }
        for tags in ["\"x\"", "", "W/"] {
            let text = shown(asset.response(Some(tags.as_bytes()), None, true, false));
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{tags}: {text}");
        }
    }

    #[test]
    fn every_file_that_a_file_names_is_served() {
        let mut named = 0;
        for asset in ASSETS.iter().filter(|asset| asset.content_type != PNG) {
            let text = str::from_utf8(plain(asset)).unwrap();
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
    fn what_never_changes_is_kept_for_good_and_the_page_is_asked_for() {
        let names = |asset: &Asset, other: &Asset| {
            let name = other.path.rsplit_once('/').unwrap().1;
            str::from_utf8(plain(asset)).unwrap().contains(name)
        };
        let [style, parser, first, later] = ["style", "markdown-it", "app", "later"].map(|stem| {
            let asset = hashed(&format!("/phone/{stem}."));
            let text = shown(asset.response(None, None, true, true));
            assert!(text.contains("Cache-Control: public, max-age=31536000, immutable\r\n"), "{text}");
            asset
        });
        for asset in [style, parser] {
            let hash = hex(&Sha256::digest(plain(asset))[..4]);
            assert_eq!(asset.path.split('.').nth(1), Some(hash.as_str()), "{}", asset.path);
        }
        assert_eq!(first.path.split('.').nth(1), later.path.split('.').nth(1), "two files of one version");
        assert!(names(first, later) && names(later, first) && names(first, parser));
        for asset in [style, parser, first] {
            assert!(names(super::asset("/").unwrap(), asset), "{}", asset.path);
        }
        for path in
            ["/", "/sw.js", "/phone/qr.js", "/phone/manifest.webmanifest", "/phone/icon.svg", "/phone/icon-192.png"]
        {
            let text = shown(asset(path).unwrap().response(None, None, true, true));
            assert!(text.contains("Cache-Control: no-cache\r\n"), "{path}: {text}");
        }
    }

    #[test]
    fn the_smallest_form_that_is_taken_is_sent() {
        let sent = |path: &str, accepted: &str| {
            let reply = asset(path).unwrap().response(None, Some(accepted.as_bytes()), true, false);
            let head = String::from_utf8(reply.head).unwrap();
            let coding =
                head.split("Content-Encoding: ").nth(1).map(|rest| rest.split("\r\n").next().unwrap().to_owned());
            assert!(head.contains(&format!("Content-Length: {}\r\n", reply.body.len())), "{head}");
            assert_eq!(head.contains("Vary: Accept-Encoding\r\n"), !path.ends_with("png"), "{head}");
            (coding, reply.body.len())
        };
        let (none, whole) = sent("/", "");
        let (gzip, smaller) = sent("/", "gzip, deflate");
        let (brotli, smallest) = sent("/", "gzip, deflate, br, zstd");
        assert_eq!((none, gzip.as_deref(), brotli.as_deref()), (None, Some("gzip"), Some("br")));
        assert!(smallest < smaller && smaller < whole / 2, "{smallest} {smaller} {whole}");
        for (accepted, coding) in [
            ("BR;q=1.0", Some("br")),
            ("br;q=0, gzip;q=0.1", Some("gzip")),
            ("br; q=0.000,gzip ; q=0", None),
            ("identity, *;q=0", None),
            (";;q=,", None),
        ] {
            assert_eq!(sent("/", accepted).0.as_deref(), coding, "{accepted}");
        }
        assert_eq!(sent("/phone/icon-192.png", "br, gzip").0, None);
    }
}
