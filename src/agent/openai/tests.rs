//! What servers send, byte for byte (`tests/interop/answers.json`), cut in two at each byte.

use super::reading::Answering;
use super::*;
use crate::http::Reading;
use coralmux_client::Trust;
use proptest::prelude::*;
use serde_json::Value;
use std::time::Duration;

#[derive(Default)]
struct Kept {
    text: String,
    thinks: bool,
}

impl Output for Kept {
    fn push(&mut self, text: &str) -> Result<(), BackendError> {
        self.text.push_str(text);
        Ok(())
    }

    fn amend(&mut self, text: String) -> Result<(), BackendError> {
        self.text = text;
        Ok(())
    }

    fn thinking(&mut self, _: &str) {
        self.thinks = true;
    }
}

fn read(pieces: &[&[u8]]) -> (Kept, Result<Outcome, BackendError>) {
    let (mut kept, mut reading) = (Kept::default(), Answering::default());
    for piece in pieces {
        if reading.is_over() {
            break;
        }
        if let Err(error) = reading.feed(piece, &mut kept) {
            return (kept, Err(error));
        }
    }
    let result = reading.end(&mut kept);
    (kept, result)
}

fn check(case: &Value, pieces: &[&[u8]]) {
    let (kept, result) = read(pieces);
    let name = format!("{}: {result:?}", case["name"]);
    assert_eq!((case["text"].as_str(), case["thinks"] == true), (Some(&*kept.text), kept.thinks), "{name}");
    match (case["error"].as_str(), case["finish"].as_str()) {
        (Some(words), _) => assert!(result.unwrap_err().to_string().contains(words), "{name}"),
        (_, Some(finish)) => {
            let Ok(Outcome::Partial(ending)) = result else { panic!("{name}") };
            assert_eq!(ending.finish, finish, "{name}");
            assert!(ending.notice.contains(case["notice"].as_str().unwrap()), "{name}");
        }
        (None, None) => assert_eq!(result.unwrap(), Outcome::Whole, "{name}"),
    }
}

#[test]
fn an_answer_is_the_same_wherever_its_bytes_are_cut() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../../../tests/interop/answers.json")).unwrap();
    // Other statuses are not read as answers.
    for case in cases.iter().filter(|case| case["status"].as_u64().is_some_and(|status| status < 300)) {
        let bytes = case["body"].as_str().unwrap().as_bytes();
        for cut in 0..=bytes.len() {
            check(case, &[&bytes[..cut], &bytes[cut..]]);
        }
        check(case, &bytes.chunks(1).collect::<Vec<_>>());
    }
}

#[test]
fn an_answer_that_is_cut_anywhere_is_never_called_whole() {
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"one \u{fc}\"}}]}\n\n\
                  data: {\"choices\":[{\"delta\":{\"content\":\" two\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let whole = "{\"choices\":[{\"message\":{\"content\":\"one \u{fc} two\"}}]}";
    for body in [stream, whole] {
        for cut in 0..body.len() {
            let (kept, result) = read(&[&body.as_bytes()[..cut]]);
            let is_whole = kept.text == "one \u{fc} two";
            assert_eq!(result.is_ok(), is_whole, "{cut}: {result:?} {}", kept.text);
        }
    }
}

fn backend(url: &str, api_key: Option<&str>) -> OpenAi {
    let server = http::Settings {
        url: url.to_owned(),
        api_key: api_key.map(str::to_owned),
        timeout: Duration::from_secs(1),
        trust: Trust::PublicRoots,
    };
    let settings = Settings { server, model: "m".to_owned(), system: None, is_stateful: false };
    OpenAi::new(settings).unwrap()
}

#[test]
fn the_address_gets_v1_only_where_it_has_no_path() {
    for (url, endpoint) in [
        ("http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
        ("http://localhost:11434/", "http://localhost:11434/v1/chat/completions"),
        ("https://ai.example.com/v1", "https://ai.example.com/v1/chat/completions"),
        ("https://ai.example.com/api/v3/", "https://ai.example.com/api/v3/chat/completions"),
    ] {
        assert_eq!(backend(url, None).endpoint, endpoint, "{url}");
    }
}

proptest! {
    #[test]
    fn pieces_of_all_that_servers_send_in_any_order_and_cut_are_read_alike(
        parts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
        size in 1..50_usize,
    ) {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../../tests/interop/answers.json")).unwrap();
        let mut bytes = Vec::new();
        for (case, from, to) in parts {
            let body = cases[case.index(cases.len())]["body"].as_str().unwrap().as_bytes();
            let (from, to) = (from.index(body.len() + 1), to.index(body.len() + 1));
            bytes.extend_from_slice(&body[from.min(to)..from.max(to)]);
        }
        let said = |(kept, result): (Kept, Result<Outcome, BackendError>)| {
            (kept.text, kept.thinks, result.map_err(|error| error.to_string()))
        };
        prop_assert_eq!(said(read(&[&bytes])), said(read(&bytes.chunks(size).collect::<Vec<_>>())));
    }
}
