//! The agents behind one pairing (PROTOCOL.md, Several agents): the person chooses on the phone which one answers.

use super::backend::Backend;
use serde_json::{Value, json};
use std::sync::Arc;

/// Agents of a pairing.
pub(super) const AGENTS_MAX: usize = 16;
/// The id of the one that answers where none is named.
pub(super) const FIRST: &str = "default";
/// Said where there is none of the name.
pub(super) const UNKNOWN: &str = "there is no such agent here: ask for the list again";
/// The longest id, in bytes.
const ID_MAX: usize = 64;

/// One of them.
#[derive(Clone)]
pub struct Agent {
    /// What messages call it.
    id: String,
    /// For people.
    name: String,
    pub(super) backend: Arc<dyn Backend>,
    /// Turns of a conversation that the backend is told.
    pub(super) context_turns: usize,
}

/// All of them. Clones are the same.
#[derive(Clone)]
pub struct Agents(Arc<[Agent]>);

impl Agents {
    /// This one alone. `context_turns`: how much of a conversation it is told.
    #[must_use]
    pub fn one(name: String, backend: Arc<dyn Backend>, context_turns: usize) -> Self {
        Self(Arc::new([Agent { id: FIRST.to_owned(), name, backend, context_turns }]))
    }

    /// And one more.
    #[must_use]
    pub(super) fn and(&self, id: String, name: String, backend: Arc<dyn Backend>, context_turns: usize) -> Self {
        Self(self.0.iter().cloned().chain([Agent { id, name, backend, context_turns }]).collect())
    }

    /// The one that answers if nothing else is said.
    pub(super) fn first(&self) -> &Agent {
        &self.0[0]
    }

    /// The one of this id, or the first, and what its conversation of this name is called among those of all agents.
    /// `None`: there is none of the id.
    pub(super) fn find(&self, id: Option<&str>, chat: Option<&str>) -> Option<(&Agent, String)> {
        let at = id.map_or(Some(0), |id| self.0.iter().position(|agent| agent.id == id))?;
        let (agent, chat) = (&self.0[at], chat.unwrap_or_default());
        // An id has at least one character, and no NUL: nobody else's place begins as these do.
        let place = match at {
            0 if !chat.contains('\0') => chat.to_owned(),
            0 => format!("\0{chat}"),
            _ => format!("{}\0{chat}", agent.id),
        };
        Some((agent, place))
    }

    /// The pairing's public name is this.
    pub(super) fn handle_paired(&self, pairing: &str) {
        self.first().backend.handle_paired(pairing);
        for agent in &self.0[1..] {
            agent.backend.handle_paired(&format!("{pairing}:{}", agent.id));
        }
    }

    /// The process ends.
    pub(super) fn end(&self) {
        self.0.iter().for_each(|agent| agent.backend.end());
    }

    /// As `agent.list.result` has them.
    pub(super) fn to_json(&self) -> Value {
        let described = |agent: &Agent| {
            json!({
                "id": agent.id, "name": agent.name, "backend": agent.backend.kind(), "model": agent.backend.model(),
                "status": "online",
            })
        };
        self.0.iter().map(described).collect()
    }
}

impl Agent {
    /// Its name, for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Whether an agent can have this id.
pub(super) fn is_id(text: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    (1..=ID_MAX).contains(&text.len()) && text.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Echo;

    #[test]
    fn no_two_agents_share_a_conversation() {
        let one = Agents::one("One".to_owned(), Arc::new(Echo), 1);
        let agents = one.and("b".to_owned(), "Two".to_owned(), Arc::new(Echo), 1);
        let place = |id, chat| agents.find(id, chat).map(|(_, place)| place);
        let places = [
            place(None, None),
            place(None, Some("b\0")),
            place(None, Some("\0b\0")),
            place(None, Some("b")),
            place(Some("b"), None),
            place(Some("b"), Some("b")),
            place(Some("b"), Some("\0")),
        ];
        for (at, one) in places.iter().enumerate() {
            assert!(one.is_some() && places.iter().skip(at + 1).all(|other| other != one), "{one:?}");
        }
        assert_eq!(place(None, None), Some(String::new()), "the history of one agent stays where it is");
        assert_eq!((place(Some(FIRST), Some("x")), place(None, Some(""))), (place(None, Some("x")), place(None, None)));
        assert_eq!(place(Some("c"), None), None);
    }

    #[test]
    fn an_id_is_a_short_word() {
        for (text, is) in [("a", true), ("A-b_9", true), ("", false), ("a b", false), ("\u{e4}", false)] {
            assert_eq!(is_id(text), is, "{text:?}");
        }
        assert!(is_id(&"x".repeat(ID_MAX)) && !is_id(&"x".repeat(ID_MAX + 1)));
    }
}
