//! Whole requests with a body in chunks.

use super::*;

/// A request with its body in chunks of up to `size` bytes.
fn in_chunks(line: &str, fields: &str, body: &str, size: usize) -> String {
    let head = request(line, &format!("{fields}Transfer-Encoding: Chunked\r\n"), "");
    let chunk = |data: &[u8]| format!("{:x};a=b\r\n{}\r\n", data.len(), String::from_utf8_lossy(data));
    let chunks: String = body.as_bytes().chunks(size).map(chunk).collect();
    format!("{head}{chunks}0\r\nX-Trailer: c\r\n\r\n")
}

#[test]
fn a_body_in_chunks_is_read_like_one_with_a_length() {
    let id = TokenId(0x00ff_00ff_00ff_00ff);
    let change = ApiCall::Update(id, TokenChange { label: Some(None), ..TokenChange::default() });
    let new = ApiCall::Create(NewToken { label: Some("a".into()), ..NewToken::default() });
    for size in [1, 7, 100] {
        for (line, body, call) in [
            ("POST /api/v1/pair", r#"{"label":"a"}"#, &new),
            ("POST /api/v1/pair", "", &ApiCall::Create(NewToken::default())),
            ("POST /api/v1/register", "ignored", &ApiCall::Register { address: PEER.parse().unwrap() }),
            ("PATCH /api/v1/tokens/00ff00ff00ff00ff", r#"{"label":null}"#, &change),
        ] {
            let whole = in_chunks(line, KEY, body, size);
            assert_eq!(&action(&policy(), &whole), &Action::Call(Box::new(call.clone())), "{whole}");
            for split in 0..whole.len() {
                assert!(needs_more(&parse(&policy(), &whole.as_bytes()[..split])), "{split}: {whole}");
            }
            let Ok(Parsed::Request { consumed, .. }) = parse(&policy(), (whole.clone() + "GET /").as_bytes()) else {
                panic!("{whole}");
            };
            assert_eq!(consumed, whole.len());
        }
    }
    assert!(response(&policy(), &in_chunks("POST /api/v1/pair", KEY, "[]", 1)).starts_with("HTTP/1.1 400 "));
}

#[test]
fn the_largest_request_in_chunks_passes() {
    let with = |padding: &str, trailer: &str| {
        let fields = format!("{KEY}A: {padding}\r\nTransfer-Encoding: chunked\r\n");
        let head = request("POST /api/v1/pair", &fields, "");
        format!("{head}{BODY_BYTES_MAX:x}\r\n{}\r\n0\r\nA: {trailer}\r\n\r\n", " ".repeat(BODY_BYTES_MAX))
    };
    let head = with("", "").len() - BODY_BYTES_MAX - "1000\r\n\r\n0\r\nA: \r\n\r\n".len();
    let framing = "1000\r\n\r\n0\r\nA: \r\n\r\n".len();
    let (padding, trailer) = ("b".repeat(HEAD_BYTES_MAX - head), "c".repeat(FRAMING_BYTES_MAX - framing));
    let whole = with(&padding, &trailer);
    assert_eq!(whole.len(), REQUEST_BYTES_MAX);
    assert_eq!(action(&policy(), &whole), Action::Call(Box::new(ApiCall::Create(NewToken::default()))));
    assert!(needs_more(&parse(&policy(), &whole.as_bytes()[..REQUEST_BYTES_MAX - 1])));
    assert!(response(&policy(), &with(&padding, &(trailer + "c"))).starts_with("HTTP/1.1 413 "));
}
