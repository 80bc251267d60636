//! A question to the person, as backends ask it, and what comes of it; and its form in plain text, for phones that show no
//! buttons (PROTOCOL.md, Questions to the person).

use super::activity::cut;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// The longest texts, in characters, and the most options.
pub(super) const TEXT_MAX: usize = 4000;
const LABEL_MAX: usize = 100;
const ID_MAX: usize = 128;
const OPTIONS_MAX: usize = 12;
/// What the kinds of options are called.
const KINDS: [&str; 4] = ["allow_once", "allow_always", "reject_once", "reject_always"];

/// One of the answers that a question has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its name, for the backend.
    pub id: String,
    /// What the button says.
    pub label: String,
    /// `allow_once`, `allow_always`, `reject_once`, `reject_always`, or nothing.
    pub kind: String,
}

/// A question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What is asked.
    pub text: String,
    /// What can be chosen.
    pub options: Vec<Choice>,
    /// The person may answer in other words.
    pub free: bool,
    /// The option that is taken when nobody answers.
    pub default: Option<String>,
    /// Which call it is about, where it is about one.
    pub call: String,
}

/// What comes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This option.
    Chosen(String),
    /// These words.
    Said(String),
    /// Nothing: nobody answered, and there is no default; or it is not asked any more.
    Nothing,
}

/// Called once with what comes of a question, on any thread. Must not wait.
pub type Decided = Box<dyn FnOnce(Decision) + Send>;

impl Ask {
    /// The question within its bounds. `None`: nobody could answer it.
    pub(super) fn bounded(mut self) -> Option<Self> {
        self.text = cut(&self.text, TEXT_MAX).to_owned();
        self.call = cut(&self.call, ID_MAX).to_owned();
        self.options.truncate(OPTIONS_MAX);
        let mut known = Vec::new();
        self.options.retain(|option| {
            let is_new = !known.contains(&option.id);
            known.push(option.id.clone());
            is_new && !option.id.is_empty() && option.id.chars().count() <= ID_MAX
        });
        for option in &mut self.options {
            let label = if option.label.trim().is_empty() { &option.id } else { option.label.trim() };
            option.label = cut(label, LABEL_MAX).to_owned();
            if !KINDS.contains(&option.kind.as_str()) {
                option.kind.clear();
            }
        }
        let is_known = |id: &String| self.options.iter().any(|option| option.id == *id);
        self.default = self.default.filter(is_known);
        (!self.text.trim().is_empty() && (self.free || !self.options.is_empty())).then_some(self)
    }

    /// As fields of `chat.ask`, without those that say which question it is.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let options: Vec<Value> = self
            .options
            .iter()
            .map(|Choice { id, label, kind }| match kind.as_str() {
                "" => json!({"id": id, "label": label}),
                kind => json!({"id": id, "label": label, "kind": kind}),
            })
            .collect();
        let mut fields =
            Map::from_iter([("text".to_owned(), json!(self.text)), ("options".to_owned(), json!(options))]);
        if self.free {
            fields.insert("free".to_owned(), json!(true));
        }
        if let Some(default) = &self.default {
            fields.insert("default".to_owned(), json!(default));
        }
        if !self.call.is_empty() {
            fields.insert("call_id".to_owned(), json!(self.call));
        }
        fields
    }

    /// What a `chat.answer` decides.
    ///
    /// # Errors
    /// It fits none of the options, in words.
    pub(super) fn read(&self, payload: &Value) -> Result<Decision, &'static str> {
        match (&payload["option"], &payload["text"]) {
            (Value::String(id), _) if self.options.iter().any(|option| option.id == *id) => {
                Ok(Decision::Chosen(id.clone()))
            }
            (Value::String(_), _) => Err("the question has no such option"),
            (_, Value::String(text)) if self.free => Ok(Decision::Said(cut(text, TEXT_MAX).to_owned())),
            (_, Value::String(_)) => Err("the question takes only one of its options"),
            _ => Err("the answer has neither option nor text"),
        }
    }

    /// The question in plain text. `within`: how long it waits.
    pub(super) fn plain(&self, within: Duration) -> String {
        let mut text = self.text.clone();
        for (index, option) in self.options.iter().enumerate() {
            // Writing to a String does not fail.
            let _ = write!(text, "{}{}. {}", if index == 0 { "\n\n" } else { "\n" }, index + 1, option.label);
        }
        let default = self.options.iter().find(|option| Some(&option.id) == self.default.as_ref());
        let then = default.map_or("it goes on without", |option| option.label.as_str());
        let _ = write!(text, "\n\nWithout an answer within {}: {then}.", duration(within));
        text
    }

    /// What a text of the person decides. `None`: it is not clear.
    pub(super) fn read_plain(&self, text: &str) -> Option<Decision> {
        let said = text.trim().trim_end_matches('.').trim().to_lowercase();
        let number = said.parse::<usize>().ok().and_then(|number| self.options.get(number.checked_sub(1)?));
        let named = || self.options.iter().find(|o| [&o.label, &o.id].iter().any(|name| name.to_lowercase() == said));
        let of_kind = |kind| self.options.iter().find(|option| option.kind == kind);
        let meant = || match said.as_str() {
            "yes" | "y" | "ok" => of_kind("allow_once"),
            "no" | "n" => of_kind("reject_once"),
            _ => None,
        };
        let chosen = number.or_else(named).or_else(meant).map(|option| Decision::Chosen(option.id.clone()));
        chosen
            .or_else(|| (self.free && !said.is_empty()).then(|| Decision::Said(cut(text.trim(), TEXT_MAX).to_owned())))
    }
}

/// In words, rounded up.
fn duration(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000).max(1);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7200 => format!("{} minutes", seconds.div_ceil(60)),
        _ => format!("{} hours", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        let choice =
            |id: &str, label: &str, kind: &str| Choice { id: id.into(), label: label.into(), kind: kind.into() };
        Ask {
            text: "May I?".to_owned(),
            options: vec![
                choice("o-1", "Allow once", "allow_once"),
                choice("o-2", "Always allow", "allow_always"),
                choice("o-3", "Reject", "reject_once"),
            ],
            default: Some("o-3".to_owned()),
            ..Ask::default()
        }
    }

    #[test]
    fn a_text_chooses_an_option_or_is_not_clear() {
        let chosen = |text: &str| match ask().read_plain(text) {
            Some(Decision::Chosen(id)) => id,
            other => format!("{other:?}"),
        };
        for (text, option) in [
            ("1", "o-1"),
            (" 2. ", "o-2"),
            ("REJECT", "o-3"),
            ("o-2", "o-2"),
            ("always allow.", "o-2"),
            ("Yes", "o-1"),
            ("n", "o-3"),
            ("0", "None"),
            ("4", "None"),
            ("maybe", "None"),
            ("", "None"),
        ] {
            assert_eq!(chosen(text), option, "{text}");
        }
        let free = Ask { free: true, ..ask() };
        assert_eq!(free.read_plain(" Maybe. "), Some(Decision::Said("Maybe.".to_owned())));
        assert_eq!(free.read_plain(" "), None);
    }

    #[test]
    fn a_question_in_plain_text_has_its_options_and_what_happens_without_an_answer() {
        let text = ask().plain(Duration::from_secs(3600));
        assert_eq!(
            text,
            "May I?\n\n1. Allow once\n2. Always allow\n3. Reject\n\nWithout an answer within 60 minutes: Reject."
        );
    }

    #[test]
    fn what_a_program_asks_is_brought_within_bounds() {
        let odd = Choice { id: "o-4".into(), label: " ".into(), kind: "sudo".into() };
        let mut many = ask();
        many.options.extend([odd.clone(), odd, Choice { id: String::new(), label: "x".into(), kind: String::new() }]);
        many.text = "x".repeat(TEXT_MAX + 1);
        many.default = Some("o-9".to_owned());
        let bounded = many.bounded().unwrap();
        assert_eq!((bounded.options.len(), bounded.text.len(), &bounded.default), (4, TEXT_MAX, &None));
        assert_eq!((bounded.options[3].label.as_str(), bounded.options[3].kind.as_str()), ("o-4", ""));
        assert!(Ask { options: Vec::new(), ..ask() }.bounded().is_none());
        assert!(Ask { text: " ".to_owned(), ..ask() }.bounded().is_none());
    }

    #[test]
    fn an_answer_that_fits_decides_and_another_is_refused() {
        assert_eq!(ask().read(&json!({"option": "o-1"})), Ok(Decision::Chosen("o-1".to_owned())));
        for payload in [json!({}), json!({"option": "x"}), json!({"text": "x"}), json!({"option": 1}), json!(null)] {
            assert!(ask().read(&payload).is_err(), "{payload}");
        }
        let free = Ask { free: true, ..ask() };
        assert_eq!(free.read(&json!({"text": "x"})), Ok(Decision::Said("x".to_owned())));
    }
}
