//! A question as phones send it (`chat.send`): read as loosely as can be, and refused in words that are true.

use super::agents::is_id;
use super::answer::Shows;
use super::backend::Image;
use super::chats::Asked;
use coralmux_client::Message;
use serde_json::Value;
use std::num::NonZeroU64;

/// Images of one question.
const IMAGES_MAX: usize = 16;

/// The question, as far as it can be read, and why it cannot be answered.
pub(super) fn read(message: Message) -> (Asked, Option<&'static str>) {
    let sent_at_ms = message.sent_at.map(NonZeroU64::get);
    let mut asked = Asked { id: message.id, from: message.from, sent_at_ms, ..Asked::default() };
    let fault = fill(&mut asked, message.payload).err();
    (asked, fault)
}

fn fill(asked: &mut Asked, mut payload: Value) -> Result<(), &'static str> {
    let fields = payload.as_object_mut().ok_or("the question is not a JSON object")?;
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    asked.chat = match take("chat_id") {
        Value::Null => None,
        Value::String(chat) => Some(chat),
        _ => return Err("the question's chat_id is not a string"),
    };
    asked.agent = match take("agent") {
        Value::Null => None,
        Value::String(agent) if is_id(&agent) => Some(agent),
        _ => return Err("the question's agent is none"),
    };
    asked.text = match take("text") {
        Value::Null => String::new(),
        Value::String(text) => text,
        _ => return Err("the question's text is not a string"),
    };
    asked.images = match take("images") {
        Value::Null => Vec::new(),
        Value::Array(images) if images.len() > IMAGES_MAX => return Err("the question has too many images"),
        Value::Array(images) => images.into_iter().map(image).collect::<Option<_>>().ok_or(NO_IMAGE)?,
        _ => return Err("the question's images are not a list"),
    };
    asked.shows = Shows { questions: take("asks") == 1, files: take("files") == 1 };
    if asked.text.is_empty() && asked.images.is_empty() {
        return Err("the question has neither text nor images");
    }
    Ok(())
}

const NO_IMAGE: &str = "an image of the question is not image data in base64";

/// `None`: it could not be part of a data URL without becoming anything else.
fn image(mut picture: Value) -> Option<Image> {
    let fields = picture.as_object_mut()?;
    let mime = match fields.remove("mime").unwrap_or_default() {
        Value::String(mime) if !mime.is_empty() => mime,
        Value::String(_) | Value::Null => "image/jpeg".to_owned(),
        _ => return None,
    };
    let Some(Value::String(data)) = fields.remove("data") else { return None };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let kind = mime.strip_prefix("image/").unwrap_or_default();
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
    let is_sound = !kind.is_empty() && kind.len() <= 64 && kind.bytes().all(is_name) && data.bytes().all(is_base64);
    is_sound.then_some(Image { mime, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fault(payload: Value) -> Option<&'static str> {
        read(Message {
            kind: "chat.send".to_owned(),
            id: "a".to_owned(),
            payload,
            missed: 0,
            sent_at: None,
            from: None,
        })
        .1
    }

    #[test]
    fn what_can_be_read_is_a_question() {
        for payload in [
            json!({"text": "hi"}),
            json!({"text": "hi", "images": null, "chat_id": null, "more": [1]}),
            json!({"text": "", "images": [{"data": "AAAA"}]}),
            json!({"images": [{"mime": null, "data": "AAAA", "name": 7}], "text": null}),
        ] {
            assert_eq!(fault(payload.clone()), None, "{payload}");
        }
    }

    #[test]
    fn what_cannot_is_refused_for_what_is_wrong_with_it() {
        for (payload, words) in [
            (json!([]), "object"),
            (json!({}), "neither text nor images"),
            (json!({"text": 7}), "text is not a string"),
            (json!({"text": "hi", "chat_id": 7}), "chat_id"),
            (json!({"text": "hi", "agent": "a b"}), "agent is none"),
            (json!({"text": "hi", "images": {}}), "not a list"),
            (json!({"text": "hi", "images": [7]}), "not image data"),
            (json!({"text": "hi", "images": [{"data": "%"}]}), "not image data"),
            (json!({"text": "hi", "images": [{"data": "AAAA", "mime": "text/html"}]}), "not image data"),
            (json!({"text": "hi", "images": vec![json!({"data": "AAAA"}); 17]}), "too many"),
        ] {
            assert!(fault(payload.clone()).unwrap().contains(words), "{payload}");
        }
    }
}
