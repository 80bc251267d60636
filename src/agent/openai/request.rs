//! What an AI server is asked: the conversation in the form of OpenAI's chat API.

use crate::history::Turn;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The messages of a conversation. Many models take only roles that alternate: what one side said in several turns,
/// because a question was never answered, becomes one.
pub(super) fn messages(system: Option<&str>, turns: &[Turn]) -> Vec<Value> {
    let mut messages: Vec<Value> = system.iter().map(|text| json!({"role": "system", "content": text})).collect();
    messages.extend(turns.chunk_by(|one, next| one.speaker == next.speaker).map(message));
    messages
}

/// Turns of one side, of which there is at least one.
fn message(turns: &[Turn]) -> Value {
    let role = turns[0].speaker.name();
    let texts: Vec<_> = turns.iter().map(text).filter(|text| !text.is_empty()).collect();
    let text = texts.join("\n\n");
    let images = turns.iter().flat_map(|turn| &turn.images).map(|image| {
        let url = format!("data:{};base64,{}", image.mime, image.data);
        json!({"type": "image_url", "image_url": {"url": url}})
    });
    let images: Vec<Value> = images.collect();
    if images.is_empty() {
        return json!({"role": role, "content": text});
    }
    let text = (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
    json!({"role": role, "content": text.into_iter().chain(images).collect::<Vec<_>>()})
}

/// Of images that are forgotten a word stays.
fn text(turn: &Turn) -> Cow<'_, str> {
    let is_forgotten = turn.images.is_empty() && turn.image_count != 0;
    if turn.text.is_empty() && is_forgotten { Cow::Borrowed("(an image)") } else { turn.text_with_age() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Image;
    use crate::history::Speaker;

    fn turn(speaker: Speaker, text: &str) -> Turn {
        Turn::new(speaker, text.to_owned(), Vec::new(), 0)
    }

    #[test]
    fn images_are_data_urls_and_forgotten_ones_leave_a_word() {
        let image = Image { mime: "image/png".to_owned(), data: "AAAA".to_owned() };
        let mut turn = Turn::new(Speaker::User, "what is it?".to_owned(), vec![image], 0);
        assert_eq!(
            messages(None, &[turn.clone()]),
            [json!({"role": "user", "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]})]
        );
        turn.images.clear();
        turn.text.clear();
        assert_eq!(messages(None, &[turn]), [json!({"role": "user", "content": "(an image)"})]);
    }

    #[test]
    fn roles_alternate() {
        let image = Image { mime: "image/png".to_owned(), data: "AAAA".to_owned() };
        let with_image = Turn::new(Speaker::User, String::new(), vec![image], 0);
        let turns = [
            turn(Speaker::User, "one"),
            with_image,
            turn(Speaker::User, "two"),
            turn(Speaker::Assistant, "three"),
            turn(Speaker::Assistant, "four"),
            turn(Speaker::User, "five"),
        ];
        let messages = messages(Some("be brief"), &turns);
        let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!(messages[1]["content"][0], json!({"type": "text", "text": "one\n\ntwo"}));
        assert_eq!(
            (messages[1]["content"].as_array().unwrap().len(), &messages[2]["content"]),
            (2, &json!("three\n\nfour"))
        );
    }
}
